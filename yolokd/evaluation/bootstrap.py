"""How sure a difference in AP between two networks is, given how few images it was measured on.

The images are drawn anew with replacement, the same for both networks, and AP is computed on each draw as COCO does it;
the interval holds the middle 95 % of the differences (Efron and Tibshirani, "An Introduction to the Bootstrap", 1993,
section 13.3). Detections are matched to objects once, since within an image nothing changes: by COCO's rules for all
sizes of objects, at most 100 detections of an image and class, crowds included.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Truth = Mapping[str, Iterable[Mapping[str, Any]]]
Detections = Iterable[Mapping[str, Any]]
Floats = NDArray[np.float64]

RESAMPLES = 500
LEAST_RESAMPLES = 200
MATCHED = 10_000_000  # detections that are counted at most in all resamples, so long as these are enough
CONFIDENCE = 0.95
THRESHOLDS = np.linspace(0.5, 0.95, 10)  # of IoU
RECALLS = np.linspace(0, 1, 101)
MOST = 100  # detections of an image and class


def ap_interval(
    truth: Truth, before: Detections, after: Detections, *, resamples: int | None = None, seed: int = 0
) -> tuple[float, float]:
    """Return the 95 % interval of the AP (IoU 0.50:0.95) of `after` less that of `before`; [−1, 1] for one image.

    Args:
        truth: COCO's ground truth, valid for `yolokd.evaluation.coco.score`.
        before: Detections of one network, COCO's results.
        after: Detections of the other.
        resamples: How often the images are drawn; None is 500, or down to 200 where there are very many detections.
        seed: Of the draws.
    """
    pair = Matches(truth, before), Matches(truth, after)
    images = pair[0].images
    if images < 2:
        return -1.0, 1.0
    rng = np.random.default_rng(seed)
    count = resamples or int(np.clip(MATCHED // max(pair[0].size, 1), LEAST_RESAMPLES, RESAMPLES))
    differences = []
    for _ in range(count):
        weights = np.bincount(rng.integers(images, size=images), minlength=images).astype(np.float64)
        first, second = (matches.ap(weights) for matches in pair)
        differences.append(second - first)
    low, high = np.quantile(differences, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return float(low), float(high)


@dataclass(frozen=True)
class _Class:
    """Detections of one class, the best first, and its objects."""

    right: NDArray[np.bool_]  # (10, D): matched to an object at this IoU
    wrong: NDArray[np.bool_]  # (10, D): matched to nothing; neither: in a crowd
    image: NDArray[np.int64]  # (D,)
    objects: NDArray[np.int64]  # (G,): their images


class Matches:
    """One network's detections, matched to the objects of each image."""

    def __init__(self, truth: Truth, detections: Detections) -> None:
        places = {number: place for place, number in enumerate(sorted(entry["id"] for entry in truth["images"]))}
        self.images = len(places)
        objects = _grouped(truth["annotations"], places)
        found = _grouped(detections, places)
        self.classes = [
            _match_class(objects.get(entry["id"], {}), found.get(entry["id"], {})) for entry in truth["categories"]
        ]
        self.size = sum(len(one.image) for one in self.classes)

    def ap(self, weights: Floats) -> float:
        """Return the AP where each image counts as often as `weights` says, (n,); −1 without objects."""
        known = [one for one in self.classes if weights[one.objects].sum() > 0]
        return float(np.mean([_average_precision(one, weights) for one in known])) if known else -1.0


def _average_precision(one: _Class, weights: Floats) -> float:
    """Mean over IoUs and recalls of one class."""
    weight = weights[one.image]
    right, wrong = (np.cumsum(flags * weight, axis=1) for flags in (one.right, one.wrong))  # (10, D)
    recall = right / weights[one.objects].sum()
    precision = right / np.maximum(right + wrong, np.spacing(1))
    precision = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    padded = np.pad(precision, ((0, 0), (0, 1)))  # recalls that are not reached have precision 0
    return float(np.mean([row[np.searchsorted(reached, RECALLS)] for row, reached in zip(padded, recall, strict=True)]))


Grouped = dict[int, dict[int, list[Mapping[str, Any]]]]


def _grouped(records: Iterable[Mapping[str, Any]], places: Mapping[Any, int]) -> Grouped:
    """Records by class, then by the place of their image."""
    found: Grouped = {}
    for record in records:
        found.setdefault(record["category_id"], {}).setdefault(places[record["image_id"]], []).append(record)
    return found


def _match_class(
    objects: Mapping[int, list[Mapping[str, Any]]], found: Mapping[int, list[Mapping[str, Any]]]
) -> _Class:
    scores, image, right, wrong = [np.zeros(0)], [np.zeros(0, np.int64)], [], []
    empty = np.zeros((len(THRESHOLDS), 0), np.bool_)
    for place in sorted(found):
        best = sorted(found[place], key=lambda record: -record["score"])[:MOST]
        matched, crowd = _match_image(best, objects.get(place, []))
        scores.append(np.array([record["score"] for record in best], np.float64))
        image.append(np.full(len(best), place))
        right.append(matched)
        wrong.append(~matched & ~crowd)
    order = np.argsort(-np.concatenate(scores), kind="stable")
    real = [place for place, own in objects.items() for record in own if not record.get("iscrowd")]
    return _Class(
        np.hstack([empty, *right])[:, order],
        np.hstack([empty, *wrong])[:, order],
        np.concatenate(image)[order],
        np.array(real, np.int64),
    )


def _match_image(
    found: list[Mapping[str, Any]], objects: list[Mapping[str, Any]]
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Return which detections, the best first, find an object and which lie in a crowd instead, (10, D) each."""
    matched = np.zeros((len(THRESHOLDS), len(found)), np.bool_)
    crowd = matched.copy()
    if not objects:
        return matched, crowd
    crowds = np.array([bool(record.get("iscrowd")) for record in objects])
    overlap = _overlap(found, objects, crowds)
    free = np.repeat(~crowds[None], len(THRESHOLDS), axis=0)  # (10, G)
    rows = np.arange(len(THRESHOLDS))
    for place, own in enumerate(overlap):
        near = own >= THRESHOLDS[:, None]
        choice = np.where(near & free, own, -1.0)[:, ::-1]
        best = choice.shape[1] - 1 - choice.argmax(axis=1)  # of equal ones the last, as COCO takes it
        hit = choice.max(axis=1) >= 0
        matched[:, place] = hit
        crowd[:, place] = ~hit & (near & crowds).any(axis=1)
        free[rows[hit], best[hit]] = False
    return matched, crowd


def _overlap(found: list[Mapping[str, Any]], objects: list[Mapping[str, Any]], crowds: NDArray[np.bool_]) -> Floats:
    """IoU of each detection with each object, (D, G); with a crowd the share of the detection that lies in it."""
    ours, theirs = (np.array([record["bbox"] for record in records], np.float64) for records in (found, objects))
    low = np.maximum(ours[:, None, :2], theirs[None, :, :2])
    high = np.minimum(ours[:, None, :2] + ours[:, None, 2:], theirs[None, :, :2] + theirs[None, :, 2:])
    common = np.clip(high - low, 0, None).prod(axis=2)
    own, other = ours[:, None, 2:].prod(axis=2), theirs[None, :, 2:].prod(axis=2)
    whole = np.where(crowds[None], own, own + other - common)
    overlap: Floats = common / np.maximum(whole, np.spacing(1))
    return overlap
