"""KITTI's evaluation of a model on a data set that `yolokd data kitti` prepared, by the benchmark's own labels.

Detections count as the KITTI type that their class was made of. A class that joins a scored type with others counts as
the scored one; its detections of the others are false positives unless KITTI ignores them (Van for Car,
Person_sitting for Pedestrian).
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from yolokd.data.kitti import LABELS, MARKER
from yolokd.errors import DataError
from yolokd.evaluation.kitti import attainable, count_objects, evaluate, read_boxes
from yolokd.evaluation.kitti_curves import CLASSES, NEIGHBORS, SAMPLES, Box
from yolokd.inputs import read_json

Detection = tuple[str, int, Sequence[float], float]  # image, class of the data, x y width height in pixels, score
Levels = dict[str, dict[str, float]]


@dataclass(frozen=True)
class KittiScore:
    """KITTI's numbers of one model: class → difficulty → value, of the classes that the data set has."""

    metric: str  # R40 or R11
    ap_percent: Levels  # in [0, 100]
    objects: dict[str, dict[str, int]]  # how many count
    notes: tuple[str, ...]  # on the data set, the same for every model


@dataclass(frozen=True)
class KittiTruth:
    """The original labels of some images, and what the classes of the data stand for."""

    images: tuple[str, ...]
    boxes: tuple[tuple[Box, ...], ...]  # one entry per image
    types: Mapping[int, str]  # class index of the data → KITTI's type
    notes: tuple[str, ...]


def read_truth(images: Sequence[Path], names: Mapping[int, str]) -> KittiTruth:
    """Find the original labels of images.

    Args:
        images: Absolute paths below the `images` folder of a prepared set.
        names: Class index → name of the data set.

    Raises:
        DataError: The set was not prepared by `yolokd data kitti`, a label file is gone or malformed, or no class
            stands for one of the types that KITTI scores.
    """
    root, classes = _marker(images)
    types, notes = {}, []
    for index, name in names.items():
        parts = [word for word, target in classes.items() if target == name]
        scored = [word for word in parts if word in CLASSES]
        types[index] = scored[0] if len(scored) == 1 else "Misc"
        if len(scored) > 1:
            notes.append(f"{' and '.join(scored)} are one class here, '{name}', and cannot be scored apart")
        elif others := [word for word in parts if scored and word.lower() not in _alike(scored[0])]:
            notes.append(f"'{name}' is scored as {scored[0]}; its {', '.join(others)} count as false positives")
    if not set(types.values()) & set(CLASSES):
        raise DataError(
            f"KITTI scores {', '.join(CLASSES)}; none of the classes {', '.join(names.values())} stands for one of "
            f"them alone (see '{root / MARKER}')."
        )
    boxes = tuple(tuple(read_boxes(root / LABELS / f"{image.stem}.txt")) for image in images)
    return KittiTruth(tuple(map(str, images)), boxes, types, tuple(notes))


def score(truth: KittiTruth, detections: Iterable[Detection], *, metric: str = "R40") -> KittiScore:
    """Score one model.

    Args:
        truth: From `read_truth`.
        detections: Of any of its images, in any order; those of one image in the order that decides ties.
        metric: "R40" or "R11".
    """
    found: dict[str, list[Box]] = {image: [] for image in truth.images}
    for image, index, (x, y, width, height), confidence in detections:
        found[image].append(Box(truth.types[index], (x, y, x + width, y + height), score=confidence))
    known = [name for name in CLASSES if name in truth.types.values()]
    aps = evaluate(truth.boxes, list(found.values()), metric=metric)
    objects = count_objects(truth.boxes)
    counts = {name: objects[name] for name in known}
    return KittiScore(metric, {name: aps[name] for name in known}, counts, (*truth.notes, *_few(counts, metric)))


def _few(objects: Mapping[str, Mapping[str, int]], metric: str) -> tuple[str, ...]:
    """The oddity of KITTI's curve, where it strikes."""
    few = [
        f"{name} {difficulty} ({count} object{'s' * (count != 1)}: at most {attainable(count, metric=metric):.1f})"
        for name, levels in objects.items()
        for difficulty, count in levels.items()
        if count < SAMPLES
    ]
    if not few:
        return ()
    return (
        f"with fewer than {SAMPLES} objects KITTI's precision curve stays partly zero, so that even perfect detections "
        f"score below 100: {', '.join(few)}",
    )


def _marker(images: Sequence[Path]) -> tuple[Path, dict[str, str]]:
    """The folder of the prepared set and what became which class."""
    roots = {str(image).rpartition(f"{os.sep}images{os.sep}")[0] for image in images}
    root = Path(roots.pop())
    try:
        classes = read_json(root / MARKER)["classes"]
    except (OSError, ValueError, KeyError, TypeError):
        classes = None
    if roots or not isinstance(classes, dict):
        raise DataError(
            "The protocol kitti needs KITTI's own labels (truncation, occlusion, DontCare), which only a set prepared "
            f"by 'yolokd data kitti SRC OUT' has; the images in '{images[0].parent}' belong to none. Prepare one "
            "and give OUT/data.yaml as --data."
        )
    return root, classes


def _alike(scored: str) -> set[str]:
    """A scored type and the one that KITTI ignores beside it."""
    return {scored.lower(), NEIGHBORS.get(scored, "")}
