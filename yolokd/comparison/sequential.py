"""Intervals over seeds for a comparison that looks after every seed and may stop at any of them.

A 95 % interval of Student's t holds for a number of seeds that is fixed beforehand. Where seeds are added until the
interval excludes 0, it excludes 0 too often: without any difference in 20 of 100 comparisons of up to ten seeds. The
intervals here hold for all numbers of seeds at once: the probability that any of them misses the true difference is at
most 5 %, so that any rule for stopping may be used, and more seeds may be added after that. These are repeated
confidence intervals (Jennison and Turnbull, "Interim analyses: the repeated confidence interval approach", JRSS B 51,
1989), mean ± c(n) s / √n, whose c(n) spend the error of 5 % over the looks (Lan and DeMets, "Discrete sequential
boundaries for clinical trials", Biometrika 70, 1983). The spending function is of the family of Hwang, Shih and DeCani
(Statistics in Medicine 9, 1990), without a horizon: each pair after the first spends a fifth of what is left, 0.05 (1 −
0.8ⁿ⁻¹) up to n pairs. So no largest number of seeds needs to be known or kept to. The price: beyond twenty seeds the
intervals hardly narrow any more.

The variance is estimated from the same few differences, so c(n) is exact for sequential t statistics (Jennison and
Turnbull, "Exact calculations for sequential t, χ² and F tests", Biometrika 78, 1991) and not the normal boundary. For
differences that are normal with mean 0, Uₙ = Σxᵢ / √Σxᵢ² is a Markov chain, since the direction of the first n
differences is independent of their length: Uₙ₊₁ = (Uₙ + tan θ) cos θ, where tan θ · √n has Student's distribution with
n degrees of freedom; and t = √(n−1) tan φ for Uₙ = √n sin φ. The chain is computed on a grid of φ.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache

import numpy as np
from numpy.typing import NDArray

from yolokd.comparison.statistics import CONFIDENCE, t_probability

SHARE = 0.2  # of the error probability that is left, spent by each further pair
CELLS = 200  # of the grid of φ; with 1600, c(n) changes by less than 0.1 %
AT_ONCE = 10  # looks that are computed together

Array = NDArray[np.float64]


def spent(pairs: int) -> float:
    """Return the probability of an error up to a number of pairs: 0 for one, 0.05 in the limit."""
    return (1 - CONFIDENCE) * (1 - (1 - SHARE) ** (pairs - 1))


def sequence_quantile(pairs: int) -> float:
    """Return c(n), by which s / √n is multiplied: 63.7 for two pairs, 10.5 for three, 3.5 for ten.

    Raises:
        ValueError: Fewer than two pairs.
    """
    if pairs < 2:
        raise ValueError(f"pairs must be at least 2, got {pairs}")
    return _quantiles(math.ceil(pairs / AT_ONCE) * AT_ONCE)[pairs - 2]


@cache
def _quantiles(most: int) -> tuple[float, ...]:
    """Return c(2) to c(most)."""
    places, masses = np.ones(1), np.ones(1)  # |U₁| is 1
    found = []
    for pairs in range(2, most + 1):
        within = _chain_step(places, masses, pairs - 1)
        left = float(masses.sum()) - (spent(pairs) - spent(pairs - 1))
        bound = _bound(within, left, pairs)
        found.append(math.sqrt(pairs - 1) * math.tan(bound))
        edges = np.linspace(0, bound, CELLS + 1)
        masses = np.diff(within(math.sqrt(pairs) * np.sin(edges)))  # (CELLS,)
        places = math.sqrt(pairs) * np.sin((edges[1:] + edges[:-1]) / 2)
    return tuple(found)


def _chain_step(places: Array, masses: Array, pairs: int) -> Callable[[Array], Array]:
    """Return the function b → probability that no bound was crossed up to n pairs and |Uₙ₊₁| ≤ b, for an array of b.

    Uₙ₊₁ = ρ sin(θ + ψ) with ρ = (1 + u²)^½ and ψ = atan u; so it is at most b where θ + ψ is below asin(b / ρ) or above
    π less that.

    Args:
        places: |Uₙ| of the cells, (C,).
        masses: Their probabilities, (C,).
        pairs: n.
    """
    angles = np.linspace(0, math.pi / 2, 2049)
    shares = [t_probability(math.sqrt(pairs) * math.tan(angle), pairs) for angle in angles[:-1]]
    table = 0.5 + 0.5 * np.array([*shares, 1.0])
    radius, turn = np.sqrt(1 + places**2)[:, None], np.arctan(places)[:, None]  # (C, 1)

    def below(angle: Array) -> Array:
        half = np.interp(np.abs(angle), angles, table)  # beyond π/2: 1
        return np.where(angle < 0, 1 - half, half)

    def up_to(bounds: Array) -> Array:
        reach = np.arcsin(np.clip(bounds / radius, -1, 1))  # (C, B)
        return below(reach - turn) + 1 - below(math.pi - reach - turn)

    def within(bounds: Array) -> Array:
        return np.asarray(masses @ (up_to(bounds[None]) - up_to(-bounds[None])))  # (B,)

    return within


def _bound(within: Callable[[Array], Array], left: float, pairs: int) -> float:
    """Return the φ in (0, π/2) up to which the probability is `left`."""
    low, high = 0.0, math.pi / 2
    while low < (middle := (low + high) / 2) < high:
        inside = float(within(np.array([math.sqrt(pairs) * math.sin(middle)]))[0])
        low, high = (middle, high) if inside < left else (low, middle)
    return low
