"""KITTI's 2D detection benchmark: average precision per class and difficulty, as the official development kit counts.

Source: the algorithm of `evaluate_object.cpp` in the KITTI object development kit (Geiger et al., "Are we ready for
Autonomous Driving?", CVPR 2012), and Simonelli et al., "Disentangling Monocular 3D Object Detection", ICCV 2019, for
R40. Its oddities are part of it: strict IoU, heights without +1, objects of exactly 40 or 25 pixels ignored, small
detections of any class that swallow an object, first-come matching in file order, and with fewer than 41 objects a
precision curve that stays partly zero, so that even perfect detections score below 100 (see `count_objects`).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from yolokd.data.kitti_labels import BadLineError, parse_line
from yolokd.errors import DataError, ShapeError
from yolokd.evaluation.kitti_curves import CLASSES, DIFFICULTIES, SAMPLES, Box, ImageEntry, counts, precision_curves
from yolokd.inputs import read_text

__all__ = ["Box", "attainable", "count_objects", "evaluate", "evaluate_folders", "read_boxes"]

R40, R11 = "R40", "R11"
METRICS = {R40: slice(1, SAMPLES), R11: slice(0, SAMPLES, 4)}

Result = dict[str, dict[str, float]]


def evaluate(
    ground_truth: Sequence[Sequence[Box]], detections: Sequence[Sequence[Box]], *, metric: str = "R40"
) -> Result:
    """Score detections on any number of images.

    Args:
        ground_truth: One sequence of boxes per image, in file order; types as in KITTI's labels, DontCare included.
        detections: One sequence of boxes per image, each with a score; truncation and occlusion are not looked at.
        metric: "R40" (recall 1/40 to 1) or "R11" (recall 0, 0.1, ..., 1).

    Returns:
        Class → difficulty → average precision in [0, 100]. With fewer than 41 objects that count, even perfect
        detections score below 100, as in the development kit; 0 where there is no such object.

    Raises:
        ShapeError: The two lists differ in length.
        DataError: A detection without a finite score.
        ValueError: Unknown metric.

    Example:
        >>> truth = [[Box("Car", (0, 0, 100, 50))] for _ in range(50)]
        >>> found = [[Box("Car", (0, 0, 100, 50), score=0.9)] for _ in range(50)]
        >>> evaluate(truth, found)["Car"]
        {'easy': 100.0, 'moderate': 100.0, 'hard': 100.0}
    """
    if metric not in METRICS:
        raise ValueError(f"metric must be one of {', '.join(map(repr, METRICS))}, got {metric!r}")
    if len(ground_truth) != len(detections):
        raise ShapeError(
            f"ground_truth and detections must hold one list per image each, got {len(ground_truth)} and "
            f"{len(detections)}"
        )
    images = [
        ImageEntry(truth, found, n) for n, (truth, found) in enumerate(zip(ground_truth, detections, strict=True))
    ]
    return {
        name: {
            difficulty: 100 * float(curve[METRICS[metric]].mean())
            for difficulty, curve in zip(DIFFICULTIES, precision_curves(images, name), strict=True)
        }
        for name in CLASSES
    }


def count_objects(ground_truth: Sequence[Sequence[Box]]) -> dict[str, dict[str, int]]:
    """Return class → difficulty → objects that count; below 41, a perfect detector scores less than 100."""
    totals = {name: dict.fromkeys(DIFFICULTIES, 0) for name in CLASSES}
    for name, levels in totals.items():
        for box in (box for image in ground_truth for box in image):
            for level, difficulty in enumerate(DIFFICULTIES):
                levels[difficulty] += box.type.lower() == name.lower() and counts(box, level)
    return totals


def attainable(objects: int, *, metric: str = "R40") -> float:
    """Return the average precision in [0, 100] that perfect detections of so many objects reach; 100 from 41 on.

    Each object fills one of the 41 samples of the precision curve, from recall 0 on; the others stay zero.
    """
    filled = [float(sample < objects) for sample in range(SAMPLES)][METRICS[metric]]
    return 100 * sum(filled) / len(filled)


def evaluate_folders(
    label_dir: str | Path, result_dir: str | Path, *, metric: str = "R40", ids: Sequence[str] | None = None
) -> Result:
    """Score a folder of KITTI result files against a folder of KITTI label files.

    Args:
        label_dir: Each `*.txt` in it is an image.
        result_dir: Files of the same names whose 16th column is the score; a missing one means no detections.
        metric: "R40" or "R11".
        ids: Names without suffix; only these images count.

    Raises:
        DataError: A folder or label file is missing, there is no label file, or a line is malformed.
        ValueError: Unknown metric.

    Example:
        >>> from pathlib import Path
        >>> from tempfile import TemporaryDirectory
        >>> line = "Car 0.00 0 -1.57 0.00 0.00 100.00 50.00 1.5 1.6 3.9 1.0 1.5 13.2 1.6"
        >>> with TemporaryDirectory() as folder:
        ...     for name, text in (("labels", line), ("results", line + " 0.9")):
        ...         (Path(folder) / name).mkdir()
        ...         for image in range(50):
        ...             _ = (Path(folder) / name / f"{image:06}.txt").write_text(text)
        ...     scores = evaluate_folders(Path(folder) / "labels", Path(folder) / "results")
        >>> scores["Car"]["easy"]
        100.0
    """
    labels, results = Path(label_dir), Path(result_dir)
    for folder in (labels, results):
        if not folder.is_dir():
            raise DataError(f"There is no folder '{folder}'.")
    names = sorted(p.stem for p in labels.glob("*.txt")) if ids is None else list(ids)
    if not names:
        raise DataError(f"There are no label files (*.txt) in '{labels}'.")
    truth = [read_boxes(labels / f"{name}.txt") for name in names]
    files = [results / f"{name}.txt" for name in names]
    return evaluate(truth, [read_boxes(f, scored=True) if f.is_file() else [] for f in files], metric=metric)


def read_boxes(path: Path, *, scored: bool = False) -> list[Box]:
    """Read a KITTI label file (15 columns) or, with `scored`, a result file (16).

    Raises:
        DataError: The file is missing or a line is malformed; the message names file and line.
    """
    try:
        lines = read_text(path).splitlines()
    except (OSError, ValueError) as error:
        raise DataError(f"The KITTI file '{path}' cannot be read: {error}.") from error
    boxes = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            found = parse_line(line, scored=scored)
        except BadLineError as bad:
            raise DataError(f"{path}:{number}: {bad.args[0]}, got {bad.args[1]}.") from None
        boxes.append(Box(found.type, found.xyxy_px, found.truncation, found.occlusion, found.score))
    return boxes
