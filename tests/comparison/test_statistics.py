from __future__ import annotations

import importlib.util
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from yolokd.comparison.statistics import (
    Difference,
    ImageDraws,
    Interval,
    gap_closed,
    image_variances,
    paired_difference,
    spread,
    t_probability,
    t_quantile,
)

# Two-sided 95 % points as printed in statistical tables.
PUBLISHED = {
    1: 12.7062, 2: 4.3027, 3: 3.1824, 4: 2.7764, 5: 2.5706, 6: 2.4469, 7: 2.3646, 8: 2.3060, 9: 2.2622, 10: 2.2281,
    11: 2.2010, 12: 2.1788, 15: 2.1314, 20: 2.0860, 29: 2.0452, 30: 2.0423, 60: 2.0003, 120: 1.9799,
}  # fmt: skip


@pytest.mark.parametrize(("freedom", "published"), PUBLISHED.items())
def test_t_quantile__published_table(freedom: int, published: float) -> None:
    assert t_quantile(freedom) == pytest.approx(published, abs=5e-5)


@pytest.mark.parametrize(("freedom", "published"), [(1, 63.657), (4, 4.6041), (9, 3.2498), (30, 2.7500)])
def test_t_quantile__published_table_at_99_percent(freedom: int, published: float) -> None:
    assert t_quantile(freedom, 0.99) == pytest.approx(published, abs=5e-4)


@pytest.mark.skipif(importlib.util.find_spec("scipy") is None, reason="scipy is not installed")
@pytest.mark.parametrize("freedom", [1, 2, 3, 10, 77, 1000])
def test_t_quantile__equals_scipy(freedom: int) -> None:
    t = importlib.import_module("scipy.stats").t
    assert t_quantile(freedom) == pytest.approx(t.ppf(0.975, freedom), rel=1e-12)


def test_t_quantile__many_degrees_approach_the_normal_distribution() -> None:
    assert t_quantile(100_000) == pytest.approx(1.959964, abs=1e-4)


@pytest.mark.parametrize(("freedom", "confidence"), [(0, 0.95), (-1, 0.95), (3, 0.0), (3, 1.0)])
def test_t_quantile__impossible_arguments(freedom: int, confidence: float) -> None:
    with pytest.raises(ValueError, match=r"freedom must be|confidence must lie"):
        t_quantile(freedom, confidence)


@pytest.mark.parametrize("freedom", [1, 2, 3, 4, 5, 8, 13])
@pytest.mark.parametrize("t", [0.0, 0.3, 1.0, 2.5, 9.0])
def test_t_probability__is_the_integral_of_the_density(freedom: int, t: float) -> None:
    x, step = np.linspace(0, t, 20_001, retstep=True)
    scale = math.gamma((freedom + 1) / 2) / math.gamma(freedom / 2) / math.sqrt(freedom * math.pi)
    density = scale * (1 + x**2 / freedom) ** (-(freedom + 1) / 2)
    simpson = step / 3 * (density[0] + 4 * density[1:-1:2].sum() + 2 * density[2:-1:2].sum() + density[-1])
    assert t_probability(t, freedom) == pytest.approx(2 * simpson, abs=1e-10)


def test_spread__hand_computed() -> None:
    found = spread([1.0, 2.0, 4.0])
    assert found.mean == pytest.approx(7 / 3)
    assert found.std == pytest.approx(math.sqrt(7 / 3))
    assert spread([3.0]).std is None
    with pytest.raises(ValueError, match="at least one"):
        spread([])


def test_paired_difference__hand_computed() -> None:
    arm, baseline = {0: 21.0, 1: 25.0, 2: 26.0}, {0: 20.0, 1: 23.0, 2: 23.0}
    found = paired_difference(arm, baseline)  # differences 1, 2, 3: mean 2, deviation 1
    assert found is not None
    assert (found.mean, found.pairs) == (2.0, 3)
    assert found.low == pytest.approx(2 - 4.302652729749 / math.sqrt(3))
    assert found.high == pytest.approx(2 + 4.302652729749 / math.sqrt(3))
    assert found.verdict == "undecided"


def test_paired_difference__only_common_seeds_count() -> None:
    found = paired_difference({0: 5.0, 1: 6.0, 7: 99.0}, {1: 4.0, 0: 3.5, 8: -99.0})
    assert found is not None
    assert (found.mean, found.pairs) == (1.75, 2)
    assert paired_difference({0: 1.0}, {1: 1.0}) is None


def test_paired_difference__noise_that_both_share_does_not_matter() -> None:
    baseline = {seed: 20.0 + 5 * seed for seed in range(5)}
    arm = {seed: value + 1 + 0.1 * (-1) ** seed for seed, value in baseline.items()}
    found = paired_difference(arm, baseline)
    assert found is not None
    assert found.low is not None
    assert found.low > 0


@pytest.mark.parametrize(
    ("differences", "verdict"),
    [
        ([3.0], "one seed"), ([-3.0], "one seed"), ([1.0, 3.0], "undecided"), ([0.0, 0.0], "undecided"),
        ([1.0, 1.1, 1.2], "gain"), ([-1.0, -1.1, -1.2], "loss"), ([1.0, -1.0, 1.0], "undecided"),
    ],
)  # fmt: skip
def test_verdict__follows_the_intervals(differences: list[float], verdict: str) -> None:
    arm, baseline = dict(enumerate(differences)), dict.fromkeys(range(len(differences)), 0.0)
    still = ImageDraws(50, np.tile(differences, (20, 1)).T)  # other images change nothing
    found = paired_difference(arm, baseline, still)
    assert found is not None
    assert found.verdict == verdict
    unknown = paired_difference(arm, baseline)
    assert unknown is not None
    assert unknown.verdict == ("seeds only" if verdict in {"gain", "loss"} else verdict)
    swing = 2.0 * np.array([-1, 1] * 10)
    moved = paired_difference(arm, baseline, ImageDraws(50, np.array(differences)[:, None] + swing))
    assert moved is not None
    assert moved.verdict == ("one seed" if len(differences) == 1 else "undecided")


@pytest.mark.parametrize(
    ("both", "verdict"), [((0.1, 5.0), "gain"), ((-0.1, 5.0), "undecided"), ((-5.0, -0.1), "undecided")]
)
def test_verdict__needs_both_intervals_on_the_same_side(both: tuple[float, float], verdict: str) -> None:
    assert Difference(2.0, 1.0, 3.0, 3, None, Interval(*both)).verdict == verdict
    mirrored = Difference(-2.0, -3.0, -1.0, 3, None, Interval(-both[1], -both[0])).verdict
    assert mirrored == {"gain": "loss"}.get(verdict, verdict)


def test_image_variances__hand_computed() -> None:
    shared, own = np.array([1.0, -1.0, 1.0, -1.0]), np.array([1.0, 1.0, -1.0, -1.0])  # no covariance
    total, common = image_variances(ImageDraws(5, np.stack([2 * shared + own, 2 * shared - own])))
    # Each has variance 4/3 · (4 + 1), their covariance is 4/3 · (4 − 1), the mean's is 4/3 · 4; all times 5/4.
    assert (total, common) == pytest.approx((4 / 3 * 4 * 5 / 4, 4 / 3 * 3 * 5 / 4))
    assert image_variances(ImageDraws(5, shared[None])) == pytest.approx((4 / 3 * 5 / 4,) * 2)
    assert image_variances(ImageDraws(5, np.stack([own, -own]))) == (0.0, 0.0)


@pytest.mark.parametrize(("images", "shape"), [(1, (2, 9)), (9, (2, 1))])
def test_image_variances__too_few_to_vary(images: int, shape: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="at least 2 images and 2 draws"):
        image_variances(ImageDraws(images, np.zeros(shape)))


def test_paired_difference__intervals_for_new_images_hand_computed() -> None:
    arm, baseline = {0: 21.0, 1: 25.0, 2: 26.0}, {0: 20.0, 1: 23.0, 2: 23.0}
    draws = ImageDraws(31, np.random.default_rng(0).normal(0, 1, (3, 400)) + np.tile([1.0, -1.0], 200))
    found = paired_difference(arm, baseline, draws)
    assert found is not None
    assert found.images is not None
    assert found.images_and_seeds is not None
    total, shared = image_variances(draws)
    assert found.images.high == pytest.approx(2 + 2.0423 * math.sqrt(total), abs=1e-3)  # t of 30 degrees
    half = math.sqrt((4.302652729749 / math.sqrt(3)) ** 2 + 2.0423**2 * shared)
    assert found.images_and_seeds.low == pytest.approx(2 - half, abs=1e-3)
    assert found.images_and_seeds.high == pytest.approx(2 + half, abs=1e-3)
    alone = paired_difference(arm, baseline)
    assert alone is not None
    assert found.seeds == alone.seeds
    with pytest.raises(ValueError, match="draws must be of 2 seeds, got 3"):
        paired_difference({0: 1.0, 1: 2.0}, baseline, draws)


def test_paired_difference__one_seed_has_an_interval_over_images_alone() -> None:
    found = paired_difference({4: 0.3}, {4: 0.2}, ImageDraws(100, np.random.default_rng(0).normal(0.1, 0.02, (1, 500))))
    assert found is not None
    assert (found.seeds, found.images_and_seeds, found.verdict) == (None, None, "one seed")
    assert found.images is not None
    assert 0 < found.images.low < 0.1 < found.images.high


# What a seed gives, what the images give to all seeds, and what they give to one, as standard deviations.
SOURCES = [(1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0), (1.0, 1.0, 1.0), (0.3, 1.0, 0.3), (3.0, 1.0, 0.0)]


@pytest.mark.parametrize("sources", SOURCES)
@pytest.mark.parametrize("pairs", [2, 3, 5])
def test_paired_difference__interval_over_images_and_seeds_covers_at_least_95_of_100_cases(
    pairs: int, sources: tuple[float, float, float]
) -> None:
    rng = np.random.default_rng(pairs)
    seed, images, each = sources
    trials, count, hits, misses_of_seeds = 800, 100, 0, 0
    for _ in range(trials):
        parts = rng.normal(0, seed, pairs) + rng.normal(0, images) + rng.normal(0, each, pairs)
        drawn = rng.normal(0, images, count) + rng.normal(0, each, (pairs, count))
        found = paired_difference(dict(enumerate(parts)), dict.fromkeys(range(pairs), 0.0), ImageDraws(10_000, drawn))
        assert found is not None
        assert found.seeds is not None
        assert found.images_and_seeds is not None
        hits += found.images_and_seeds.low <= 0 <= found.images_and_seeds.high
        misses_of_seeds += found.seeds.sign != 0
    error = math.sqrt(0.95 * 0.05 / trials)
    assert hits / trials > 0.95 - 3 * error
    if seed < images:
        assert 1 - misses_of_seeds / trials < 0.95 - 3 * error  # the same images for all seeds deceive this one


def test_paired_difference__interval_holds_the_truth_in_95_of_100_cases() -> None:
    rng = np.random.default_rng(0)
    truth, pairs, trials = 0.7, 4, 4000
    hits = 0
    for _ in range(trials):
        baseline, arm = rng.normal(20, 3, pairs), rng.normal(0, 2, pairs)
        found = paired_difference(dict(enumerate(baseline + truth + arm)), dict(enumerate(baseline)))
        assert found is not None
        assert found.low is not None
        assert found.high is not None
        hits += found.low <= truth <= found.high
    assert hits / trials == pytest.approx(0.95, abs=0.011)  # three standard errors


scores = st.lists(st.floats(0, 1), min_size=2, max_size=6)


@given(scores, st.floats(-1, 1))
def test_paired_difference__swapping_the_arms_mirrors_the_interval(values: list[float], shift: float) -> None:
    one, other = dict(enumerate(values)), {seed: value**2 + shift for seed, value in enumerate(values)}
    there, back = paired_difference(one, other), paired_difference(other, one)
    assert there is not None
    assert back is not None
    assert (there.mean, there.low, there.high) == pytest.approx((-back.mean, -(back.high or 0), -(back.low or 0)))


def test_gap_closed__hand_computed() -> None:
    assert gap_closed({0: 24.0, 1: 26.0}, {0: 20.0, 1: 20.0}, 30.0) == pytest.approx(0.5)
    assert gap_closed({0: 18.0}, {0: 20.0}, 30.0) == pytest.approx(-0.2)
    assert gap_closed({0: 24.0, 1: 90.0}, {0: 20.0}, 30.0) == pytest.approx(0.4)
    assert gap_closed({0: 24.0}, {0: 20.0}, 20.0) is None
    assert gap_closed({0: 24.0}, {1: 20.0}, 30.0) is None
