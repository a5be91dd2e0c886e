"""Differences between runs on validation images that are drawn anew, from the matches that each run's scoring kept."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from yolokd.comparison.statistics import Difference, ImageDraws, paired_difference, seed_quantile
from yolokd.evaluation.bootstrap import draw_images, weighted_ap
from yolokd.evaluation.matches import Floats, Matches

METRICS = ("AP", "AP50")


@dataclass(frozen=True, eq=False)
class DrawnScores:
    """Scores of one network on R draws of the images; alike for all networks that were scored on the same images."""

    matches: Matches
    scores: Mapping[str, Floats]  # metric → (R,), in [0, 1], −1 without objects


def draw_scores(matches: Mapping[int, Matches], metrics: Sequence[str] = METRICS) -> dict[int, DrawnScores]:
    """Score the runs of an arm on the draws; takes about half a second for 40,000 detections.

    Args:
        matches: Seed → matches. Runs on fewer than two images are left out.
        metrics: Names of the AP at all thresholds and of that at 0.5.
    """
    found, weights = {}, None
    for seed, own in matches.items():
        if own.images < 2:
            continue
        if weights is None or weights.shape[1] != own.images:
            weights = draw_images(own.images)
        ap = weighted_ap(own, weights)  # (R, 10)
        found[seed] = DrawnScores(own, dict(zip(metrics, (ap.mean(axis=1), ap[:, 0]), strict=True)))
    return found


def differences(
    arm: Mapping[str, Mapping[int, float]],
    baseline: Mapping[str, Mapping[int, float]],
    drawn_arm: Mapping[int, DrawnScores],
    drawn_baseline: Mapping[int, DrawnScores],
    *,
    metrics: Sequence[str] = METRICS,
    quantile: Callable[[int], float] = seed_quantile,
) -> dict[str, Difference]:
    """Return the paired difference of each metric, without those that have no common seed.

    The intervals for new images are left out unless all common seeds have draws, of the same objects.

    Args:
        arm: Metric → seed → score.
        baseline: Likewise.
        drawn_arm: Seed → scores on the draws, for the seeds whose matches are known.
        drawn_baseline: Likewise.
        metrics: Whose differences to return.
        quantile: As for `paired_difference`.
    """
    found = {}
    for metric in metrics:
        seeds = sorted(arm[metric].keys() & baseline[metric].keys())
        pairs = [(drawn_arm[s], drawn_baseline[s]) for s in seeds if s in drawn_arm and s in drawn_baseline]
        draws = None
        if pairs and len(pairs) == len(seeds) and _are_alike(pairs):
            each = [one.scores[metric] - other.scores[metric] for one, other in pairs]
            draws = ImageDraws(pairs[0][0].matches.images, np.stack(each))
        difference = paired_difference(arm[metric], baseline[metric], draws, quantile=quantile)
        if difference is not None:
            found[metric] = difference
    return found


def _are_alike(pairs: list[tuple[DrawnScores, DrawnScores]]) -> bool:
    """Whether all networks were matched to the same objects, which the draws are to be of."""
    first = pairs[0][0].matches
    return all(first.same_objects(drawn.matches) for pair in pairs for drawn in pair)
