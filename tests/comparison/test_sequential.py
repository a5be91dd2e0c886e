"""Intervals that hold at every number of seeds, against closed forms and simulated comparisons."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from yolokd.comparison.sequential import sequence_quantile, spent
from yolokd.comparison.statistics import t_quantile

LOOKS = range(2, 11)
PATHS = 200_000


@pytest.fixture(scope="module")
def quantiles() -> NDArray[np.float64]:
    return np.array([sequence_quantile(pairs) for pairs in LOOKS])


def simulated(mean: float, seed: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and standard error of the first 2 to 10 normal differences with deviation 1, (PATHS, 9) each."""
    x = np.random.default_rng(seed).standard_normal((PATHS, max(LOOKS))) + mean
    n = np.arange(1, max(LOOKS) + 1)
    means = np.cumsum(x, axis=1) / n
    squares = np.cumsum(x**2, axis=1) - n * means**2
    return means[:, 1:], np.sqrt(squares[:, 1:] / (n * (n - 1))[1:])


def test_sequence_quantile__two_pairs_are_a_single_t_test() -> None:
    assert sequence_quantile(2) == pytest.approx(t_quantile(1, 1 - spent(2)), rel=1e-9)
    assert spent(2) == pytest.approx(0.01)


def test_sequence_quantile__is_wider_than_for_a_number_fixed_beforehand(quantiles: NDArray[np.float64]) -> None:
    assert all(own > t_quantile(pairs - 1) for own, pairs in zip(quantiles, LOOKS, strict=True))
    assert quantiles[[1, -1]] == pytest.approx([10.41, 3.55], abs=0.01)  # as the documents say
    half = [sequence_quantile(pairs) / math.sqrt(pairs) for pairs in range(2, 31)]
    assert half == sorted(half, reverse=True)


def test_sequence_quantile__spends_at_each_look_what_it_may(quantiles: NDArray[np.float64]) -> None:
    """Differences without a true difference: false decisions up to each look, on 200,000 simulated comparisons."""
    means, errors = simulated(0.0, seed=1)
    crossed = np.abs(means) >= quantiles * errors
    rates = np.maximum.accumulate(crossed, axis=1).mean(axis=0)
    for pairs, rate in zip(LOOKS, rates, strict=True):
        tolerance = 4 * math.sqrt(spent(pairs) / PATHS)
        assert rate == pytest.approx(spent(pairs), abs=tolerance), pairs
    assert rates[-1] <= 0.05


def test_sequence_quantile__looking_with_fixed_intervals_errs_four_times_as_often() -> None:
    means, errors = simulated(0.0, seed=2)
    fixed = np.array([t_quantile(pairs - 1) for pairs in LOOKS])
    assert (np.abs(means) >= fixed * errors).any(axis=1).mean() == pytest.approx(0.197, abs=0.004)


@pytest.mark.parametrize(("mean", "precision"), [(0.0, 1.0), (0.8, 1.5), (2.0, None)])
def test_sequence_quantile__the_interval_at_the_stop_covers(
    quantiles: NDArray[np.float64], mean: float, precision: float | None
) -> None:
    """Stopped where the interval excludes 0, or is narrow enough, or at ten seeds."""
    means, errors = simulated(mean, seed=3)
    half = quantiles * errors
    decided = np.abs(means) >= half
    if precision is not None:
        decided |= half < precision
    stop = np.where(decided.any(axis=1), decided.argmax(axis=1), len(LOOKS) - 1)
    rows = np.arange(PATHS)
    covered = np.abs(means[rows, stop] - mean) < half[rows, stop]
    assert covered.mean() >= 0.95


def test_sequence_quantile__is_useful_with_a_few_seeds(quantiles: NDArray[np.float64]) -> None:
    """A gain of three standard deviations of the difference is found in 4.2 seeds on average, always within ten."""
    means, errors = simulated(3.0, seed=4)
    crossed = means >= quantiles * errors
    assert crossed.any(axis=1).mean() > 0.999
    assert (crossed.argmax(axis=1) + LOOKS[0]).mean() == pytest.approx(4.2, abs=0.1)


def test_sequence_quantile__one_pair_has_none() -> None:
    with pytest.raises(ValueError, match="pairs must be at least 2, got 1"):
        sequence_quantile(1)
