from __future__ import annotations

import importlib.util
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from yolokd.comparison.statistics import gap_closed, paired_difference, spread, t_probability, t_quantile

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
    assert found.verdict == "gain"


@pytest.mark.parametrize(
    ("differences", "verdict"),
    [
        ([3.0], "one seed"), ([-3.0], "one seed"), ([1.0, 3.0], "undecided"), ([0.0, 0.0], "undecided"),
        ([1.0, 1.1, 1.2], "gain"), ([-1.0, -1.1, -1.2], "loss"), ([1.0, -1.0, 1.0], "undecided"),
    ],
)  # fmt: skip
def test_verdict__follows_the_interval(differences: list[float], verdict: str) -> None:
    found = paired_difference(dict(enumerate(differences)), dict.fromkeys(range(len(differences)), 0.0))
    assert found is not None
    assert found.verdict == verdict


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
