"""What a scoring is asked for, networks and protocol, and whether that can be done."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from yolokd.backend import networks
from yolokd.backend.networks import Identity
from yolokd.backend.opening import short_names
from yolokd.errors import DataError, UserError
from yolokd.evaluation.detections import KINDS
from yolokd.evaluation.kitti import METRICS
from yolokd.evaluation.task import Task

PROTOCOLS = ("coco", "kitti")


@dataclass(frozen=True)
class Model:
    """A network to score."""

    path: Path
    name: str
    identity: Identity
    imgsz: int | None  # longer side in pixels; None: as it was trained


def identify(paths: Sequence[Path], imgsz: int | Sequence[int | None] | None, tasks: Collection[str]) -> list[Model]:
    """Return the networks with the size that each is scored at; `WeightsError` if one is of none of the tasks."""
    sizes = [imgsz] * len(paths) if imgsz is None or isinstance(imgsz, int) else imgsz
    known = zip(paths, short_names(paths), (networks.identify(path, tasks) for path in paths), sizes, strict=True)
    return [Model(*model) for model in known]


def check_protocol(protocol: str, metric: str | None) -> None:
    """Refuse a protocol or a metric that there is not; `UserError` says which there are."""
    if protocol not in PROTOCOLS:
        raise UserError(f"There is no protocol '{protocol}'; known: {', '.join(PROTOCOLS)}.")
    if metric is not None and protocol != "kitti":
        raise UserError(f"The metric {metric} belongs to the protocol kitti, not to {protocol}.")
    if metric is not None and metric not in METRICS:
        raise UserError(f"KITTI has no metric '{metric}'; known: {', '.join(METRICS)}.")


def check_task(task: Task, models: Sequence[Model], *, channels: int, kitti: bool) -> None:
    """Refuse networks that the data or the protocol do not fit.

    Args:
        task: The classes that are scored.
        models: The networks.
        channels: Of the data's images.
        kitti: Whether KITTI's protocol is asked for.

    Raises:
        DataError: One of them does not fit; the message names it.
    """
    for model in models:
        own = model.identity.channels
        if own != channels:
            raise DataError(
                f"'{model.name}' takes images of {own} channel{'s' * (own > 1)}, the data have "
                f"{channels} (the key channels of the data YAML). Score it on data like those that it was trained on."
            )
    further = {model.name: KINDS[model.identity.task].further for model in models}
    if kitti and (more := [(name, metric.word) for name, metric in further.items() if metric is not None]):
        name, word = more[0]
        raise DataError(
            f"KITTI's protocol scores boxes, and '{name}' gives {word}s as well. Score it with --protocol coco."
        )
    _check_rotated(task, models, kitti=kitti)
    if task.joined and kitti:
        raise DataError(
            f"{task.source} has one class for all objects (train.single_cls), and KITTI's protocol scores classes "
            f"apart. Score it with --protocol coco."
        )


def _check_rotated(task: Task, models: Sequence[Model], *, kitti: bool) -> None:
    """Refuse to score rotated boxes in a way that is not made for them, or beside scores that mean something else."""
    rotated = [model for model in models if KINDS[model.identity.task].rotated]
    if not rotated:
        return
    name = rotated[0].name
    if kitti:
        raise DataError(f"KITTI's protocol scores upright boxes, and those of '{name}' are rotated.")
    if others := [model.name for model in models if model not in rotated]:
        raise DataError(
            f"'{name}' gives rotated boxes, which are scored by probabilistic IoU, and '{others[0]}' gives upright "
            f"ones, which have COCO's AP. The two do not compare: score them apart."
        )
    if task.joined and any(len(model.identity.names) > 1 for model in rotated):
        raise DataError(f"{task.source} has one class for all objects, and rotated boxes of classes are not joined.")
