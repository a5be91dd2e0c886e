"""Paired comparison of training recipes over seeds: differences, their intervals, and what may be called a gain.

For one seed every recipe starts from the same weights and sees the same images, so what counts is the difference to
the baseline of the same seed; its mean has a Student-t interval, since seeds are few and the spread is estimated from
them. That interval holds for other seeds on the same validation images. The distribution of t is a finite sum for whole
degrees of freedom (Abramowitz and Stegun, "Handbook of Mathematical Functions", 26.7.3 and 26.7.4), which bisection
inverts.

The interval for new images and seeds adds what other validation images would change. Seeds and images are crossed:
every network is scored on every image. A difference then has a part of its seed, a part of the images, which all seeds
share, and a part of both. The variance over seeds, divided by their number, holds the first and the last; so only the
shared part is added. It is the mean covariance between the differences of two seeds when the images are drawn anew, the
same draw for all. The variance of the mean difference over the draws would count the part of both twice, a bootstrap of
rows and columns up to three times, and none is exact for crossed data (Owen, "The pigeonhole bootstrap", Annals of
Applied Statistics 1, 2007; McCullagh, "Resampling and exchangeable arrays", Bernoulli 6, 2000).

The two variances are combined as squares of half widths, each with its own quantile, (t₁² s₁² + t₂² s₂²)^½ (Banerjee,
"Approximate confidence interval for linear functions of means of k populations when the population variances are not
equal", Sankhyā 22, 1960), which covers at least as often as it says if both parts are normal. One t with
Satterthwaite's degrees of freedom (Biometrics Bulletin 2, 1946) is narrower, but in simulations of three seeds whose
own part is the largest it covers 93 times in 100, of two seeds 88; this one covers 95 to 98 times of 100 for three
seeds and up to 99 for two. Therefore it is never narrower than the interval over the seeds.

Both hold for a number of seeds that is fixed beforehand; `yolokd.comparison.sequential` has the intervals for seeds
that are added until something is decided.

Each interval speaks of one recipe by itself: of twenty recipes that do nothing, one is expected to seem a gain or a
loss.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray

CONFIDENCE = 0.95
MOST_FREEDOM = 1000  # degrees of freedom, beyond which t changes by less than 0.2 %

Verdict = Literal["gain", "loss", "undecided", "seeds only", "one seed"]


@dataclass(frozen=True)
class Spread:
    """Mean and sample standard deviation of a recipe's scores over its seeds; no deviation of a single one."""

    mean: float
    std: float | None


@dataclass(frozen=True)
class Interval:
    """A 95 % interval of a difference."""

    low: float
    high: float

    @property
    def sign(self) -> int:
        """1 above 0, −1 below; 0 if it holds 0."""
        return (self.low > 0) - (self.high < 0)


@dataclass(frozen=True)
class Difference:
    """Mean difference to the baseline over the seeds that both have.

    `low` and `high` bound it for new seeds on the same images; none with a single seed. `images` is the interval of
    these very networks on new images, `images_and_seeds` that of new networks on new images; None where the runs'
    matches are not known, and the latter with a single seed.
    """

    mean: float
    low: float | None
    high: float | None
    pairs: int
    images: Interval | None = None
    images_and_seeds: Interval | None = None

    @property
    def seeds(self) -> Interval | None:
        """The interval over the seeds."""
        return None if self.low is None or self.high is None else Interval(self.low, self.high)

    @property
    def verdict(self) -> Verdict:
        """A gain or a loss only if both intervals exclude 0; "seeds only" if the second one is not known."""
        if self.seeds is None:
            return "one seed"
        if self.seeds.sign == 0:
            return "undecided"
        if self.images_and_seeds is None:
            return "seeds only"
        if self.images_and_seeds.sign != self.seeds.sign:
            return "undecided"
        return "gain" if self.seeds.sign > 0 else "loss"


@dataclass(frozen=True, eq=False)
class ImageDraws:
    """Differences of S seeds in [−1, 1] on R draws of n images, the same draws for all seeds."""

    images: int
    differences: NDArray[np.float64]  # (S, R)


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


@cache
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


def seed_quantile(pairs: int) -> float:
    """Return the t of the interval over a number of seeds, at least 2, that is fixed beforehand."""
    return t_quantile(pairs - 1)


def paired_difference(
    arm: Mapping[int, float],
    baseline: Mapping[int, float],
    draws: ImageDraws | None = None,
    *,
    quantile: Callable[[int], float] = seed_quantile,
) -> Difference | None:
    """Return the mean difference with its 95 % intervals, paired by seed; None without a seed that both have.

    Args:
        arm: Seed → score.
        baseline: Seed → score of the same training without distillation.
        draws: Of the seeds that both have; None leaves out the intervals for new images.
        quantile: Number of seeds → by which the standard error over the seeds is multiplied.

    Raises:
        ValueError: `draws` are of another number of seeds, or of fewer than two images.
    """
    differences = [arm[seed] - baseline[seed] for seed in sorted(arm.keys() & baseline.keys())]
    if not differences:
        return None
    found, pairs = spread(differences), len(differences)
    own, shared, t = 0.0, 0.0, 0.0
    if draws is not None:
        own, shared = image_variances(draws)
        if len(draws.differences) != pairs:
            raise ValueError(f"draws must be of {pairs} seeds, got {len(draws.differences)}")
        t = t_quantile(min(draws.images - 1, MOST_FREEDOM))
    images = None if draws is None else _around(found.mean, t * math.sqrt(own))
    if found.std is None:
        return Difference(found.mean, None, None, 1, images)
    half = quantile(pairs) * found.std / math.sqrt(pairs)
    over_seeds = _around(found.mean, half)
    both = None if draws is None else _around(found.mean, math.hypot(half, t * math.sqrt(shared)))
    return Difference(found.mean, over_seeds.low, over_seeds.high, pairs, images, both)


def image_variances(draws: ImageDraws) -> tuple[float, float]:
    """Return the variances of the mean difference over the draws: in all, and the part that all seeds share.

    The latter is the mean covariance of two seeds, 0 if that is negative, and the same as the former for one seed. Both
    are times n / (n − 1), since n images drawn from n vary by so much less than n new ones.

    Raises:
        ValueError: Fewer than two images or draws.
    """
    seeds, count = draws.differences.shape
    if draws.images < 2 or count < 2:
        raise ValueError(f"draws need at least 2 images and 2 draws, got {draws.images} and {count}")
    covariance = np.cov(draws.differences).reshape(seeds, seeds) * draws.images / (draws.images - 1)
    total = float(covariance.mean())
    if seeds == 1:
        return total, total
    return total, max(float(covariance.sum() - covariance.trace()) / (seeds * (seeds - 1)), 0.0)


def _around(mean: float, half: float) -> Interval:
    return Interval(mean - half, mean + half)


def gap_closed(arm: Mapping[int, float], baseline: Mapping[int, float], teacher: float) -> float | None:
    """Return (arm − baseline) / (teacher − baseline) of the means over common seeds; None where there is no gap."""
    common = arm.keys() & baseline.keys()
    if not common:
        return None
    floor = statistics.fmean(baseline[seed] for seed in common)
    if teacher <= floor:
        return None
    return (statistics.fmean(arm[seed] for seed in common) - floor) / (teacher - floor)
