"""AP on images that are drawn anew: how far a score would move on other images of the same kind.

The images are drawn with replacement, as many as there are, and AP is computed on each draw as COCO does it (Efron and
Tibshirani, "An Introduction to the Bootstrap", 1993, chapter 6; the interval of an export holds the middle 95 % of the
differences, section 13.3). Detections stay matched as they are (`yolokd.evaluation.matches`), so a draw is a weight for
each image, and all draws are computed at once: precision changes only where an object is found, which takes one sum of
weights per such place, and the recalls that a place is the first to reach are counted instead of searched for.

Two networks are drawn alike if their images are: the draws depend on the number of images and the seed alone.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from yolokd.evaluation.matches import (
    THRESHOLDS,
    ClassMatches,
    Detections,
    Floats,
    Matches,
    Truth,
    match,
)

RESAMPLES, LEAST_RESAMPLES = 1000, 200
DRAWN = 2_000_000  # images that are drawn at most in all resamples, so long as `LEAST_RESAMPLES` are enough
CONFIDENCE = 0.95
RECALLS = np.linspace(0, 1, 101)
BLOCK = 1_000_000  # weights of detections in memory at a time

Weights = NDArray[np.float32]


def ap_interval(
    truth: Truth,
    before: Detections,
    after: Detections,
    *,
    resamples: int | None = None,
    seed: int = 0,
) -> tuple[float, float]:
    """Return the 95 % interval of the AP (IoU 0.50:0.95) of `after` less that of `before`; [−1, 1] for one image.

    Args:
        truth: COCO's ground truth, valid for `yolokd.evaluation.coco.score`.
        before: Detections of one network, COCO's results.
        after: Detections of the other.
        resamples: How often the images are drawn; None: see `draw_images`.
        seed: Of the draws.
    """
    return interval_of_change(match(truth, before), match(truth, after), resamples=resamples, seed=seed)


def interval_of_change(
    before: Matches, after: Matches, *, resamples: int | None = None, seed: int = 0
) -> tuple[float, float]:
    """Return the same of detections that were matched already, by whatever overlap.

    Args:
        before: Matches of one network.
        after: Matches of the other, on the same images.
        resamples: How often the images are drawn; None: see `draw_images`.
        seed: Of the draws.
    """
    if before.images < 2:
        return -1.0, 1.0
    weights = draw_images(before.images, resamples=resamples, seed=seed)
    first, second = (weighted_ap(matches, weights).mean(axis=1) for matches in (before, after))
    low, high = np.quantile(second - first, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return float(low), float(high)


def draw_images(images: int, *, resamples: int | None = None, seed: int = 0) -> Weights:
    """Return how often each of n images is in each of R draws, (R, n); each draw has n images.

    Args:
        images: How many there are; at least 1.
        resamples: R; None is 1000, or down to 200 where there are very many images.
        seed: Of the draws.
    """
    count = resamples or int(np.clip(DRAWN // images, LEAST_RESAMPLES, RESAMPLES))
    drawn = np.random.default_rng(seed).multinomial(images, np.full(images, 1 / images), size=count)
    return drawn.astype(np.float32)


def weighted_ap(matches: Matches, weights: Weights) -> Floats:
    """Return the AP at each IoU threshold where images count as often as their weights say, (R, 10).

    Classes without an object in a draw are left out of its mean, as COCO does; −1 without any object.

    Args:
        matches: Of one network.
        weights: (R, n) whole numbers from 0, one row per draw.
    """
    total = np.zeros((len(weights), len(THRESHOLDS)))
    known = np.zeros((len(weights), 1))
    for one in matches.classes:
        objects = weights.T[one.objects].sum(axis=0, dtype=np.float64)  # (R,)
        step = max(BLOCK // max(len(one.image), 1), 1)
        for start in range(0, len(weights), step):
            part = slice(start, start + step)
            has = objects[part] > 0
            ap = _class_ap(one, np.ascontiguousarray(weights[part].T), np.where(has, objects[part], 1.0))
            total[part] += np.where(has[:, None], ap, 0.0)
            known[part] += has[:, None]
    return np.where(known > 0, total / np.maximum(known, 1), -1.0)


def _class_ap(one: ClassMatches, weights: Weights, objects: Floats) -> Floats:
    """AP of one class at each threshold.

    Args:
        one: Its matches.
        weights: (n, R).
        objects: (R,), how many objects there are, above 0.
    """
    ap = np.zeros((weights.shape[1], len(THRESHOLDS)))
    places = np.flatnonzero(one.found)  # (M,): detections that find something at one of the thresholds
    if not len(places):
        return ap
    starts = np.concatenate([[0], places[:-1] + 1])
    weight = weights[one.image]  # (D, R)
    seen = np.cumsum(np.add.reduceat(weight, starts, axis=0), axis=0)  # (M, R): detections down to each place
    for number in range(len(THRESHOLDS)):
        finds = np.flatnonzero(one.found[places] >> number & 1)
        if not len(finds):
            continue
        counted = seen[finds]
        if (crowd := one.ignored >> number & 1).any():
            counted -= np.cumsum(np.add.reduceat(weight * crowd[:, None], starts, axis=0), axis=0)[finds]
        right = np.cumsum(weight[places[finds]], axis=0)
        precision = right / np.maximum(counted, np.float32(0.5))
        precision = np.maximum.accumulate(precision[::-1], axis=0)[::-1]
        reached = _recalls_up_to(np.minimum(right / objects, 1.0))
        ap[:, number] = (precision * np.diff(reached, axis=0, prepend=0)).sum(axis=0) / len(RECALLS)
    return ap


def _recalls_up_to(recall: Floats) -> NDArray[np.int64]:
    """How many of `RECALLS` are at most so large, by the comparison that COCO makes."""
    nearest = np.rint(recall * (len(RECALLS) - 1)).astype(np.int64)
    return nearest + (RECALLS[nearest] <= recall)
