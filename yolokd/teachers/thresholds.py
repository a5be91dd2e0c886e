"""From which score on a teacher's box counts as an object: per class the score of the largest F1 on labeled images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torchvision.ops import box_convert, box_iou

from yolokd.loaders.answers import AnswerTable

DEFAULT = 0.3  # of a class with fewer than `FEW` objects
FEW = 10
MATCH = 0.5  # IoU from which on a box has found an object


def best_thresholds(
    table: AnswerTable, labels: Sequence[Mapping[str, Any]], classes: int, *, default: float = DEFAULT
) -> list[float]:
    """Return for each class the score from which on the teacher's boxes have the largest F1.

    Boxes are matched to objects of their class from the strongest on, each to the free object that it overlaps most.

    Args:
        table: The teacher's answers for these images at least.
        labels: Of each image `im_file`, `cls` (N, 1) and `bboxes` (N, 4) in shares of the sides, xywh.
        classes: Number of the data's classes.
        default: For classes of which the images hold fewer than `FEW` objects, or whose boxes find none.
    """
    hits: list[list[tuple[float, bool]]] = [[] for _ in range(classes)]
    objects = np.zeros(classes, int)
    for label in labels:
        boxes, probabilities = table.of_file(label["im_file"])
        scores, chosen = probabilities.amax(1), probabilities.argmax(1)
        truth = torch.from_numpy(np.asarray(label["bboxes"], np.float32)).view(-1, 4)
        kinds = np.asarray(label["cls"], int).reshape(-1)
        objects += np.bincount(kinds, minlength=classes)[:classes]
        overlap = box_iou(
            box_convert(torch.from_numpy(boxes).view(-1, 4), "cxcywh", "xyxy"), box_convert(truth, "cxcywh", "xyxy")
        ).numpy()
        free = np.ones(len(truth), bool)
        for place in scores.argsort(descending=True, stable=True).tolist():
            kind = int(chosen[place])
            fitting = np.where(free & (kinds == kind), overlap[place], 0.0)
            found = bool(len(fitting)) and fitting.max() >= MATCH
            if found:
                free[fitting.argmax()] = False
            hits[kind].append((float(scores[place]), found))
    return [_best(of_class, int(count), default) for of_class, count in zip(hits, objects, strict=True)]


def _best(hits: Sequence[tuple[float, bool]], objects: int, default: float) -> float:
    if objects < FEW or not any(found for _, found in hits):
        return default
    scores, found = zip(*sorted(hits, reverse=True), strict=True)
    right = np.cumsum(found)
    f1 = 2 * right / (np.arange(1, len(right) + 1) + objects)
    last = np.flatnonzero(f1 == f1.max())[-1]
    return float(np.clip(scores[last], 0.01, 0.99))
