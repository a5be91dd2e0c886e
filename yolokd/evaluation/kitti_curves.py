"""Matching and precision curves of KITTI's 2D benchmark; what is counted, see `yolokd.evaluation.kitti`.

The state of a box under every difficulty and score threshold is one integer, one bit each, so that the matching of
the development kit runs once instead of 3 × 41 times.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from yolokd.errors import DataError

CLASSES = {"Car": 0.7, "Pedestrian": 0.5, "Cyclist": 0.5}  # least overlap, exclusive
NEIGHBORS = {"Car": "van", "Pedestrian": "person_sitting"}  # ignored rather than counted as missed or false
DIFFICULTIES = ("easy", "moderate", "hard")
MIN_HEIGHT = (40, 25, 25)  # pixels; an object must exceed it, a detection must reach it
MAX_OCCLUSION = (0, 1, 2)
MAX_TRUNCATION = (0.15, 0.3, 0.5)
SAMPLES = 41  # recall 0, 1/40, ..., 1

ALL = (1 << 3 * SAMPLES) - 1
# From one bit per difficulty to SAMPLES bits per difficulty.
SPREAD = [sum(((1 << SAMPLES) - 1) << SAMPLES * level for level in range(3) if bits >> level & 1) for bits in range(8)]

Array = NDArray[Any]


@dataclass(frozen=True)
class Box:
    """One line of a KITTI file. `xyxy` is left, top, right, bottom in pixels; `score` is None for ground truth."""

    type: str
    xyxy: tuple[float, float, float, float]
    truncation: float = 0.0
    occlusion: int = 0
    score: float | None = None


class ImageEntry:
    """One image as arrays: what does not depend on class, difficulty or threshold.

    Raises:
        DataError: A detection without a finite score.
    """

    def __init__(self, truth: Sequence[Box], found: Sequence[Box], number: int) -> None:
        for box in found:
            if box.score is None or not math.isfinite(box.score):
                raise DataError(f"Image {number}: a detection of type '{box.type}' has the score {box.score}.")
        self.truth = [box for box in truth if box.type.lower() != "dontcare"]
        self.truth_types = [box.type.lower() for box in self.truth]
        self.found_types = [box.type.lower() for box in found]
        self.scores = [float(box.score or 0.0) for box in found]
        boxes = _coordinates(found)
        self.heights = np.abs(boxes[:, 3] - boxes[:, 1]).tolist()
        self.overlaps = _overlap(_coordinates(self.truth), boxes, union=True)  # (truth, found)
        stuff = _overlap(_coordinates([b for b in truth if b.type.lower() == "dontcare"]), boxes, union=False)
        self.stuff = stuff.max(0, initial=0.0).tolist()  # largest share of each detection in one DontCare box


def _coordinates(boxes: Sequence[Box]) -> Array:
    return np.array([box.xyxy for box in boxes], dtype=np.float64).reshape(-1, 4)


def _overlap(a: Array, b: Array, *, union: bool) -> Array:
    """Intersection of each pair over its union or over the area of `b`, (len(a), len(b)); 0 for empty boxes."""
    low, high = np.maximum(a[:, None, :2], b[None, :, :2]), np.minimum(a[:, None, 2:], b[None, :, 2:])
    size = np.clip(high - low, 0, None)
    inter = size[..., 0] * size[..., 1]
    area_a, area_b = (np.prod(boxes[:, 2:] - boxes[:, :2], axis=1) for boxes in (a, b))
    whole = area_a[:, None] + area_b[None, :] - inter if union else np.broadcast_to(area_b, inter.shape)
    shares: Array = np.divide(inter, whole, out=np.zeros_like(inter), where=inter > 0)
    return shares


def counts(box: Box, level: int) -> bool:
    """Whether an object is part of a difficulty: tall, visible and complete enough."""
    height = box.xyxy[3] - box.xyxy[1]
    return (
        height > MIN_HEIGHT[level] and box.occlusion <= MAX_OCCLUSION[level] and box.truncation <= MAX_TRUNCATION[level]
    )


@dataclass
class _Class:
    """One image under one class. Masks hold one bit per difficulty."""

    objects: list[tuple[int, list[tuple[int, float]]]]  # mask of difficulties that count it; (detection, overlap) pairs
    normal: list[int]  # mask per detection: of the class and tall enough
    small: list[int]  # mask per detection: too low, whatever its class


def _select(image: ImageEntry, name: str) -> _Class:
    own, limit = name.lower(), CLASSES[name]
    objects = []
    for row, (box, kind) in enumerate(zip(image.truth, image.truth_types, strict=True)):
        if kind not in (own, NEIGHBORS.get(name)):
            continue
        counted = sum(counts(box, level) << level for level in range(3)) if kind == own else 0
        near = np.flatnonzero(image.overlaps[row] > limit).tolist()
        objects.append((counted, [(j, float(image.overlaps[row, j])) for j in near]))
    small = [sum((h < MIN_HEIGHT[level]) << level for level in range(3)) for h in image.heights]
    normal = [7 & ~s if kind == own else 0 for kind, s in zip(image.found_types, small, strict=True)]
    return _Class(objects, normal, small)


def _true_scores(image: ImageEntry, view: _Class) -> list[list[float]]:
    """First pass: the scores of the true positives of each difficulty, each object taking its best-scored detection."""
    scores: list[list[float]] = [[], [], []]
    taken = [0] * len(view.normal)
    for counted, near in view.objects:
        free = 7
        for j, _ in sorted(near, key=lambda pair: -image.scores[pair[0]]):  # stable: the first wins ties
            hit = free & (view.normal[j] | view.small[j]) & ~taken[j]
            taken[j] |= hit
            free &= ~hit
            if true := hit & counted & view.normal[j]:
                for level in range(3):
                    if true >> level & 1:
                        scores[level].append(image.scores[j])
    return scores


def thresholds(scores: Sequence[float], objects: int) -> list[float]:
    """Return the scores, falling, at which recall comes nearest to 0, 1/40, ..., 1; at most 41.

    Args:
        scores: Scores of the true positives, in any order.
        objects: Number of objects that count.
    """
    chosen: list[float] = []
    recall = 0.0
    ordered = sorted(scores, reverse=True)
    for n, score in enumerate(ordered, start=1):
        last = n == len(ordered)
        here, after = n / objects, (n + 1) / objects
        if not last and after - recall < recall - here:
            continue
        chosen.append(score)
        recall += 1.0 / (SAMPLES - 1.0)
    return chosen[:SAMPLES]


def precision_curves(images: Sequence[ImageEntry], name: str) -> Array:
    """Precision at the 41 recall samples, each the maximum from there to the right, (3 difficulties, 41)."""
    views = [_select(image, name) for image in images]
    scores: list[list[float]] = [[], [], []]
    for image, view in zip(images, views, strict=True):
        for level, found in enumerate(_true_scores(image, view)):
            scores[level] += found
    objects = [sum(counted >> level & 1 for view in views for counted, _ in view.objects) for level in range(3)]
    limits = [[-t for t in thresholds(found, n)] for found, n in zip(scores, objects, strict=True)]
    hits: list[int] = []
    false: list[int] = []
    for image, view in zip(images, views, strict=True):
        _match(image, view, limits, CLASSES[name], hits, false)
    true_positives, false_positives = _accumulator(hits), _accumulator(false)
    total = true_positives + false_positives
    precision = np.divide(true_positives, total, out=np.zeros_like(total), where=total > 0)
    return np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]


def _match(
    image: ImageEntry, view: _Class, limits: list[list[float]], overlap: float, hits: list[int], false: list[int]
) -> None:
    """Second pass, for all thresholds at once: append masks of true and of false positives, SAMPLES bits a difficulty.

    An object takes the detection of its class that overlaps it most, the first on ties; failing that, the first one
    that is too small. Only detections of its class make a true or a false positive.
    """
    alive = [_alive(score, limits) for score in image.scores]
    normal = [SPREAD[bits] & live for bits, live in zip(view.normal, alive, strict=True)]
    small = [SPREAD[bits] & live for bits, live in zip(view.small, alive, strict=True)]
    taken = [0] * len(alive)
    for counted, near in view.objects:
        free = ALL
        for j, _ in sorted(near, key=lambda pair: -pair[1]):
            hit = free & normal[j] & ~taken[j]
            taken[j] |= hit
            free &= ~hit
            hits.append(hit & SPREAD[counted])
        for j, _ in near:
            hit = free & small[j] & ~taken[j]
            taken[j] |= hit
            free &= ~hit
    false += [live & ~used for live, used, stuff in zip(normal, taken, image.stuff, strict=True) if stuff <= overlap]


def _alive(score: float, limits: list[list[float]]) -> int:
    """The thresholds that a score reaches; `limits` are falling, with their sign turned, so rising."""
    mask = 0
    for level, values in enumerate(limits):
        first = bisect_left(values, -score)
        mask |= ((1 << len(values)) - (1 << first)) << SAMPLES * level
    return mask


def _accumulator(masks: list[int]) -> Array:
    """Count how often each bit is set, (3, SAMPLES) floats."""
    size = -(-3 * SAMPLES // 8)
    packed = np.frombuffer(b"".join(mask.to_bytes(size, "little") for mask in masks), dtype=np.uint8)
    bits = np.unpackbits(packed.reshape(-1, size), axis=1, count=3 * SAMPLES, bitorder="little")
    counted: Array = bits.sum(0, dtype=np.float64).reshape(3, SAMPLES)
    return counted
