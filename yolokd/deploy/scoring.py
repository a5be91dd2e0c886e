"""Checkpoint and export scored on the data set of a request, by the path of `yolokd eval`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from yolokd.backend import runtimes
from yolokd.deploy.change import Change
from yolokd.deploy.report import Side
from yolokd.deploy.request import Request
from yolokd.evaluation.bootstrap import interval_of_change
from yolokd.recipe.classes import ITEM

if TYPE_CHECKING:
    from yolokd.evaluation.models import Examined


def score(request: Request, path: Path, size: int) -> Examined | None:
    """Score the checkpoint or its export on the data set, if there is one, on square images.

    Args:
        request: What is asked for.
        path: Checkpoint or export.
        size: Side of the input in pixels.

    Raises:
        DataError: A data set that cannot be scored on.
        RunError: Ultralytics' validation failed.
    """
    if request.data is None:
        return None
    from yolokd.evaluation.detections import KINDS
    from yolokd.evaluation.models import examine

    identity = request.identity
    joined = bool(identity.single_cls) and identity.names == {0: ITEM}
    (found,) = examine(
        [path],
        request.data,
        imgsz=size,
        device=runtimes.device_of(request.format),
        square=True,
        nms_free=request.nms_free,
        single_cls=joined,
        only=identity.classes if joined else None,
        tasks=tuple(KINDS),
        progress=lambda name, share: request.say(f"scoring {name}, {share:.0%}"),
    )
    return found


def side_of(path: Path, size: int, found: Examined | None, latency: float | None) -> Side:
    """Return a side of a report.

    Args:
        path: Checkpoint or export.
        size: In bytes.
        found: From `score`; None without a data set.
        latency: Of a forward pass in milliseconds; None: not measured.
    """
    if found is None or found.score.rotated is not None:  # rotated boxes have no AP of upright ones
        return Side(str(path), size, latency)
    score = found.score
    return Side(str(path), size, latency, score.AP, score.AP50, score.per_class)


def further_changes(before: Examined | None, after: Examined | None) -> tuple[Change, ...]:
    """Return the scores by the metric beside the AP of boxes before and after; nothing where it was not measured."""
    if before is None or after is None or before.further is None or after.further is None:
        return ()
    one, other = before.further, after.further
    interval = interval_of_change(one.matches(before.truth), other.matches(before.truth))
    return (Change(one.metric.named("AP"), one.AP, other.AP, interval if one.AP > 0 else None),)
