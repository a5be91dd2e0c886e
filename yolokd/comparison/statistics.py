"""Paired comparison of training recipes over seeds: differences, their intervals, and what may be called a gain.

For one seed every recipe starts from the same weights and sees the same images, so what counts is the difference to
the baseline of the same seed; its mean has a Student-t interval, since seeds are few and the spread is estimated from
them. The distribution of t is a finite sum for whole degrees of freedom (Abramowitz and Stegun, "Handbook of
Mathematical Functions", 26.7.3 and 26.7.4), which bisection inverts. Each interval speaks of one recipe by itself: of
twenty recipes that do nothing, one is expected to seem a gain or a loss.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

CONFIDENCE = 0.95

Verdict = Literal["gain", "loss", "undecided", "one seed"]


@dataclass(frozen=True)
class Spread:
    """Mean and sample standard deviation of a recipe's scores over its seeds; no deviation of a single one."""

    mean: float
    std: float | None


@dataclass(frozen=True)
class Difference:
    """Mean difference to the baseline over the seeds that both have, with its interval; none with a single seed."""

    mean: float
    low: float | None
    high: float | None
    pairs: int

    @property
    def verdict(self) -> Verdict:
        """A gain or a loss only if the interval excludes 0."""
        if self.low is None or self.high is None:
            return "one seed"
        if self.low > 0:
            return "gain"
        return "loss" if self.high < 0 else "undecided"


def t_probability(t: float, freedom: int) -> float:
    """Return the probability that |T| ≤ t for Student's T with whole degrees of freedom.

    Args:
        t: At least 0.
        freedom: Degrees of freedom, at least 1.
    """
    angle = math.atan(t / math.sqrt(freedom))
    cosine, sine = math.cos(angle), math.sin(angle)
    odd = freedom % 2 == 1
    term = cosine if odd else 1.0
    total = 0.0
    for power in range(1 if odd else 0, freedom - 1, 2):
        total += term
        term *= cosine**2 * (power + 1) / (power + 2)
    return 2 / math.pi * (angle + sine * total) if odd else sine * total


def t_quantile(freedom: int, confidence: float = CONFIDENCE) -> float:
    """Return the t whose interval [−t, t] holds the given share of Student's distribution: 12.706 at 1 and 95 %.

    Raises:
        ValueError: Degrees of freedom below 1, or a confidence outside (0, 1).
    """
    if freedom < 1:
        raise ValueError(f"freedom must be at least 1, got {freedom}")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must lie between 0 and 1, got {confidence}")
    low, high = 0.0, 1.0
    while t_probability(high, freedom) < confidence:
        high *= 2
    while low < (middle := (low + high) / 2) < high:
        low, high = (middle, high) if t_probability(middle, freedom) < confidence else (low, middle)
    return high


def spread(values: Sequence[float]) -> Spread:
    """Return mean and sample standard deviation (n − 1).

    Raises:
        ValueError: No values.
    """
    if not values:
        raise ValueError("spread needs at least one value, got none")
    return Spread(statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None)


def paired_difference(arm: Mapping[int, float], baseline: Mapping[int, float]) -> Difference | None:
    """Return the mean difference with its 95 % interval, paired by seed; None without a seed that both have.

    Args:
        arm: Seed → score.
        baseline: Seed → score of the same training without distillation.
    """
    differences = [arm[seed] - baseline[seed] for seed in sorted(arm.keys() & baseline.keys())]
    if not differences:
        return None
    found = spread(differences)
    if found.std is None:
        return Difference(found.mean, None, None, 1)
    half = t_quantile(len(differences) - 1) * found.std / math.sqrt(len(differences))
    return Difference(found.mean, found.mean - half, found.mean + half, len(differences))


def gap_closed(arm: Mapping[int, float], baseline: Mapping[int, float], teacher: float) -> float | None:
    """Return (arm − baseline) / (teacher − baseline) of the means over common seeds; None where there is no gap."""
    common = arm.keys() & baseline.keys()
    if not common:
        return None
    floor = statistics.fmean(baseline[seed] for seed in common)
    if teacher <= floor:
        return None
    return (statistics.fmean(arm[seed] for seed in common) - floor) / (teacher - floor)
