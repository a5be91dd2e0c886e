from __future__ import annotations

import math

import numpy as np
import pytest

from tests.helpers.detector_world import World
from tests.helpers.matching import matches_of
from yolokd.comparison.resampling import differences, draw_scores
from yolokd.comparison.statistics import ImageDraws, paired_difference
from yolokd.evaluation.bootstrap import draw_images, weighted_ap
from yolokd.evaluation.matches import Floats, Matches

SCORES = {"AP": {0: 0.3, 1: 0.4}, "AP50": {0: 0.5, 1: 0.6}}
PLAIN = {"AP": {0: 0.2, 1: 0.31}, "AP50": {0: 0.3, 1: 0.41}}


def shares(seed: int) -> list[float]:
    found: list[float] = np.random.default_rng(seed).uniform(0.2, 0.8, 40).round(1).tolist()
    return found


def test_draw_scores__of_the_same_draws_for_all() -> None:
    own = {seed: matches_of(shares(seed)) for seed in (3, 5)}
    found = draw_scores(own)
    assert list(found) == [3, 5]
    ap = weighted_ap(own[5], draw_images(40))
    assert np.array_equal(found[5].scores["AP"], ap.mean(axis=1))
    assert np.array_equal(found[5].scores["AP50"], ap[:, 0])
    assert draw_scores({0: matches_of([0.5])}) == {}  # one image


def test_differences__both_metrics_have_both_intervals() -> None:
    arm, plain = (draw_scores({seed: matches_of(shares(n)) for seed in (0, 1)}) for n in (0, 10))
    found = differences(SCORES, PLAIN, arm, plain)
    assert list(found) == ["AP", "AP50"]
    for metric, difference in found.items():
        drawn = np.stack([arm[seed].scores[metric] - plain[seed].scores[metric] for seed in (0, 1)])
        assert difference == paired_difference(SCORES[metric], PLAIN[metric], ImageDraws(40, drawn))
        assert difference.images_and_seeds is not None
        assert difference.low is not None
        assert difference.images_and_seeds.low < difference.low


def test_differences__without_matches_of_every_seed_the_second_interval_is_missing() -> None:
    arm, plain = (draw_scores({seed: matches_of(0.5) for seed in (0, 1)}) for _ in range(2))
    assert differences(SCORES, PLAIN, arm, plain)["AP"].images_and_seeds is not None
    for own, other in (({0: arm[0]}, plain), (arm, {1: plain[1]}), ({}, {})):
        found = differences(SCORES, PLAIN, own, other)["AP"]
        assert (found.images, found.images_and_seeds) == (None, None)
        assert found.seeds == differences(SCORES, PLAIN, arm, plain)["AP"].seeds
    assert differences(SCORES, {"AP": {7: 0.1}, "AP50": {7: 0.1}}, arm, plain) == {}


def test_differences__runs_on_different_objects_have_no_draws_in_common() -> None:
    arm, plain = draw_scores({0: matches_of(0.5), 1: matches_of(0.5)}), draw_scores({0: matches_of(0.4)})
    for other in (matches_of(0.5, images=41), matches_of(0.5, objects=11)):
        mixed = plain | draw_scores({1: other})
        assert differences(SCORES, PLAIN, arm, mixed)["AP"].images is None


def drawn_differences(pair: tuple[list[Matches], list[Matches]], seed: int) -> tuple[Floats, ImageDraws]:
    """Differences in AP by seed, and on 100 draws of the images."""
    images = pair[0][0].images
    weights = np.concatenate([np.ones((1, images), np.float32), draw_images(images, resamples=100, seed=seed)])
    arm, baseline = (np.stack([weighted_ap(one, weights).mean(axis=1) for one in side]) for side in pair)
    return (arm - baseline)[:, 0], ImageDraws(images, (arm - baseline)[:, 1:])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("world", "pairs"),
    [(World(), 3), (World(seed=0.3), 3), (World(seed=0.02, mood=0.1), 3)],
    ids=["all sources", "seeds differ most", "images differ most"],
)
def test_differences__the_interval_covers_the_difference_of_new_images_and_seeds(world: World, pairs: int) -> None:
    """Detectors with scores of their own on sets of 100 images: the AP of very many is within the interval."""
    truth, rng, trials = world.true_difference(), np.random.default_rng(1), 200
    covered = covered_by_seeds = 0
    for trial in range(trials):
        own, draws = drawn_differences(world.score(rng, 100, pairs), trial)
        found = paired_difference(dict(enumerate(own)), dict.fromkeys(range(pairs), 0.0), draws)
        assert found is not None
        assert found.seeds is not None
        assert found.images_and_seeds is not None
        covered += found.images_and_seeds.low <= truth <= found.images_and_seeds.high
        covered_by_seeds += found.seeds.low <= truth <= found.seeds.high
    three_errors = 3 * math.sqrt(0.95 * 0.05 / trials)  # binomial; 0.046
    assert covered / trials > 0.95 - three_errors
    if world.seed < 0.1:
        assert covered_by_seeds / trials < 0.95 - three_errors
