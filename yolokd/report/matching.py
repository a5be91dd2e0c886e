"""Which detections are right: matched to objects of their class at an IoU of at least 0.5, the surest first.

This is COCO's matching at its first threshold: in the order of falling scores, each detection takes the free object of
its class and image that it overlaps most. A prefix of that order is matched in the same way whatever follows it, so
one pass serves every score threshold. What lies in a crowd of its class and matches no object is neither right nor
false. Source of the rules: Lin et al., "Microsoft COCO", ECCV 2014, and pycocotools.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

IOU = 0.5
USUAL_THRESHOLD = 0.25  # where no threshold is better than another

Floats = NDArray[np.float64]
Box = Mapping[str, Any]  # image_id, category_id, bbox (x, y, width, height in pixels); score, of a detection


@dataclass(frozen=True)
class LossAccumulator:
    """Objects and detections of one image."""

    objects: int
    right: int
    false: int

    @property
    def missed(self) -> int:
        """Objects that no detection was matched to."""
        return self.objects - self.right

    @property
    def f1(self) -> float:
        """2 · right / (objects + detections), in [0, 1]; 1 where there is nothing to find and nothing was found."""
        both = self.objects + self.right + self.false
        return 2 * self.right / both if both else 1.0


def match(objects: Sequence[Box], detections: Sequence[Box]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Return which detections are right, shape (number of detections,), and which objects are found."""
    right, found = np.zeros(len(detections), bool), np.zeros(len(objects), bool)
    places = _by_kind(objects)
    for kind, claims in _by_kind(detections).items():
        rows = sorted(claims, key=lambda row: -detections[row]["score"])  # stable
        columns = places.get(kind, [])
        overlap = iou(_boxes([detections[row] for row in rows]), _boxes([objects[column] for column in columns]))
        free = np.ones(len(columns), bool)
        for row in np.flatnonzero((overlap >= IOU).any(1)):
            column = int(np.where(free, overlap[row], -1.0).argmax())
            if free[column] and overlap[row, column] >= IOU:
                free[column], right[rows[row]], found[columns[column]] = False, True, True
    return right, found


def in_crowds(crowds: Sequence[Box], detections: Sequence[Box]) -> NDArray[np.bool_]:
    """Return which detections have at least half of their area in one crowd of their class, (number of detections,)."""
    inside = np.zeros(len(detections), bool)
    places = _by_kind(crowds)
    for kind, rows in _by_kind(detections).items():
        if kind in places:
            boxes = _boxes([detections[row] for row in rows])
            common = intersection(boxes, _boxes([crowds[column] for column in places[kind]]))
            inside[rows] = (common >= IOU * boxes[:, None, 2:].prod(-1)).any(1)
    return inside


def best_threshold(right: NDArray[np.bool_], scores: Floats, objects: int) -> float:
    """Return the score from which on detections count, so that F1 over all images is largest; the highest of equals.

    Args:
        right: From `match`, for all detections of a data set, (N,).
        scores: Of the same detections, (N,).
        objects: Number of objects in the data set.
    """
    order = np.argsort(-scores, kind="stable")
    ranked = scores[order]
    last = np.flatnonzero(np.append(ranked[1:] != ranked[:-1], True)) if len(ranked) else np.zeros(0, int)
    hits = right[order].cumsum()[last]
    if not hits.any():
        return USUAL_THRESHOLD
    f1 = 2 * hits / (last + 1 + objects)
    return float(ranked[last[f1.argmax()]])


def iou(boxes: Floats, others: Floats) -> Floats:
    """Return intersection over union of boxes (N, 4) and (M, 4), x, y, width and height, as (N, M)."""
    common = intersection(boxes, others)
    union = boxes[:, None, 2:].prod(-1) + others[None, :, 2:].prod(-1) - common
    overlap: Floats = np.divide(common, union, out=np.zeros_like(common), where=union > 0)
    return overlap


def intersection(boxes: Floats, others: Floats) -> Floats:
    """Return the area that boxes (N, 4) and (M, 4), x, y, width and height, have in common, (N, M)."""
    low = np.maximum(boxes[:, None, :2], others[None, :, :2])
    high = np.minimum(boxes[:, None, :2] + boxes[:, None, 2:], others[None, :, :2] + others[None, :, 2:])
    common: Floats = (high - low).clip(min=0).prod(-1)
    return common


def _by_kind(things: Sequence[Box]) -> dict[tuple[Any, Any], list[int]]:
    """Places of things by image and class."""
    places: dict[tuple[Any, Any], list[int]] = defaultdict(list)
    for place, thing in enumerate(things):
        places[thing["image_id"], thing["category_id"]].append(place)
    return places


def _boxes(things: Sequence[Box]) -> Floats:
    return np.array([thing["bbox"] for thing in things], dtype=np.float64).reshape(-1, 4)
