"""What the detections of one network are worth: metrics of boxes and of what comes beside them, or of rotated boxes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from yolokd.evaluation.coco import AP_METRICS, score
from yolokd.evaluation.further import Further, FurtherFound, Result, score_further
from yolokd.evaluation.rotated_scores import ROTATED, score_rotated
from yolokd.evaluation.task import Truth

Exact = Sequence[tuple[str, int, list[float], float]]  # image, class of the data, box in its pixels, score


@dataclass(frozen=True)
class Measured:
    """Metrics of one network, and what they come from.

    Attributes:
        metrics: Fields of `yolokd.evaluation.models.ModelScore`.
        of_classes: Class → its first metric.
        detections: What was scored, as COCO lists results.
        precision50: Class → precision over recall at IoU 0.5.
        further: The score by the metric beside that of boxes, where the task has one.
    """

    metrics: Mapping[str, Any]
    of_classes: Mapping[str, float]
    detections: list[Result]
    precision50: dict[str, list[float]]
    further: FurtherFound | None = None


def measure_boxes(
    truth: Truth,
    names: Mapping[int, str],
    exact: Exact,
    places: Mapping[str, int],
    further: Further | None,
    values: Sequence[Any] | None,
) -> Measured:
    """Return COCO's metrics of boxes, and those by a further metric beside them.

    Args:
        truth: Ground truth.
        names: Class index → name of the classes that count.
        exact: The detections that count; boxes x, y, width, height.
        places: Image → its id.
        further: Of the data, if the task has one.
        values: What its overlap is of, of each detection; None where the network is not scored by it.
    """
    detections = [
        {"image_id": places[file], "category_id": index, "bbox": [round(x, 3) for x in box], "score": round(p, 5)}
        for file, index, box, p in exact
    ]
    scores = score(truth, detections)
    per_class = {names[index]: ap for index, ap in scores.per_class.items()}
    metrics: dict[str, Any] = {metric: scores.summary[metric] for metric in AP_METRICS}
    metrics["per_class"], found = per_class, None
    if further is not None and values is not None:
        metrics[f"{further.word}s"], found = score_further(further, truth, detections, values, names)
    curves = {names[index]: curve for index, curve in scores.precision50.items()}
    return Measured(metrics, per_class, detections, curves, found)


def measure_rotated(truth: Truth, names: Mapping[int, str], exact: Exact, places: Mapping[str, int]) -> Measured:
    """Return Ultralytics' metrics of rotated boxes, also as the further one; COCO's are −1.

    Args:
        truth: Ground truth whose annotations have `corners`.
        names: Class index → name of the classes that count.
        exact: The detections that count; boxes x, y of the middle, width, height, angle.
        places: Image → its id.
    """
    detections = [
        {"image_id": places[file], "category_id": index, "rbox": box, "score": p} for file, index, box, p in exact
    ]
    rotated = score_rotated(truth, detections, names)
    metrics = {**dict.fromkeys(AP_METRICS, -1.0), "per_class": {}, "rotated": rotated}
    further = FurtherFound(ROTATED, rotated.map50_95, rotated.map50, detections)
    return Measured(metrics, rotated.per_class, detections, {}, further)
