"""Ultralytics' metrics of rotated boxes: mAP by probabilistic IoU, and whether a data set has labels to score on.

Matching (`match_predictions` of its validators), overlap (`batch_probiou`) and average precision (`ap_per_class`) are
Ultralytics' own, fed with boxes in pixels of the image, classes matched by name. It is not COCO's AP: the overlap is
that of Gaussians, not of the rectangles, and squares of all angles count as equal.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from yolokd.backend.api import OBBValidator, ap_per_class, batch_probiou, xyxyxyxy2xywhr
from yolokd.backend.dataset import Dataset
from yolokd.data.check import DataReport
from yolokd.errors import DataError
from yolokd.evaluation.further import OverlapMetric
from yolokd.evaluation.instances import has_instances
from yolokd.evaluation.task import Truth

METRIC = "mAP by probabilistic IoU of rotated boxes, as Ultralytics computes it; not COCO's AP"
THRESHOLDS = torch.linspace(0.5, 0.95, 10)


@dataclass(frozen=True)
class RotatedScore:
    """Ultralytics' metrics of rotated boxes, in [0, 1], −1 where the data has no such object."""

    map50_95: float
    map50: float
    map75: float
    per_class: dict[str, float] = field(default_factory=dict)  # `map50_95`
    metric: str = METRIC


def require_corners(data: Dataset, split: str, report: DataReport) -> None:
    """Raise `DataError` unless all objects of a split are labeled by four corners."""
    found = report.splits[split]
    if has_instances(data.yaml_path, split):
        raise DataError(f"The COCO annotations of '{data.yaml_path}' hold no rotated boxes to score OBB models on.")
    if others := found.objects.total() - found.corners:
        raise DataError(
            f"OBB models are scored on labels of four corners, and {others} of the {found.objects.total()} {split} "
            f"objects of '{data.yaml_path}' have others."
        )


def rotated_overlap(
    found: Sequence[Mapping[str, Any]], objects: Sequence[Mapping[str, Any]], crowds: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """Return Ultralytics' probabilistic IoU of each detection's box with each object's, (D, G).

    Args:
        found: D detections with their `rbox`.
        objects: G objects with their `corners`.
        crowds: Which of the objects are crowds, (G,); YOLO labels have none.
    """
    overlap: NDArray[np.float64] = batch_probiou(*_boxes(found, objects)).T.numpy().astype(np.float64)
    return overlap


ROTATED = OverlapMetric("rotated box", rotated_overlap, most=300)


def score_rotated(truth: Truth, detections: Sequence[Mapping[str, Any]], names: Mapping[int, str]) -> RotatedScore:
    """Return the metrics of rotated boxes.

    Args:
        truth: Ground truth whose annotations have `corners`, eight pixels.
        detections: Of each `image_id`, `category_id`, `rbox` (x, y of the middle, width, height in pixels, angle in
            radians) and `score`.
        names: Class index → name of the classes that count.
    """
    labels, found = _by_image(truth["annotations"]), _by_image(detections)
    correct = [np.zeros((0, len(THRESHOLDS)), bool)]
    for image in truth["images"]:
        own = sorted(found[image["id"]], key=lambda one: -one["score"])
        found[image["id"]] = own
        correct.append(_correct(labels[image["id"]], own))
    shown = [one for image in truth["images"] for one in found[image["id"]]]
    aps, classes = ap_per_class(
        np.concatenate(correct),
        np.array([one["score"] for one in shown]),
        np.array([one["category_id"] for one in shown]),
        np.array([one["category_id"] for one in truth["annotations"]]),
    )[5:7]
    if not len(classes):
        return RotatedScore(-1.0, -1.0, -1.0, dict.fromkeys(names.values(), -1.0))
    of_class = {int(index): float(ap) for index, ap in zip(classes, aps.mean(1), strict=True)}
    per_class = {name: of_class.get(index, -1.0) for index, name in names.items()}
    return RotatedScore(float(aps.mean()), float(aps[:, 0].mean()), float(aps[:, 5].mean()), per_class)


def _by_image(entries: Sequence[Mapping[str, Any]]) -> dict[int, list[Mapping[str, Any]]]:
    found: dict[int, list[Mapping[str, Any]]] = defaultdict(list)
    for entry in entries:
        found[entry["image_id"]].append(entry)
    return found


def _correct(labels: Sequence[Mapping[str, Any]], found: Sequence[Mapping[str, Any]]) -> np.ndarray[Any, Any]:
    """Whether each detection of an image, by falling score, finds an object at each threshold, (N, 10) bool."""
    if not labels or not found:
        return np.zeros((len(found), len(THRESHOLDS)), bool)
    overlap = batch_probiou(*_boxes(found, labels))
    matcher: Any = SimpleNamespace(iouv=THRESHOLDS)
    matches: Tensor = OBBValidator.match_predictions(matcher, _classes(found), _classes(labels), overlap)
    return matches.numpy()


def _boxes(found: Sequence[Mapping[str, Any]], labels: Sequence[Mapping[str, Any]]) -> tuple[Tensor, Tensor]:
    """Rotated boxes of labels, (G, 5), and of detections, (D, 5)."""
    goal = torch.from_numpy(xyxyxyxy2xywhr(np.array([one["corners"] for one in labels], np.float32)))
    return goal, torch.tensor([one["rbox"] for one in found], dtype=goal.dtype)


def _classes(entries: Sequence[Mapping[str, Any]]) -> Tensor:
    return torch.tensor([entry["category_id"] for entry in entries])
