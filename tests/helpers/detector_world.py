"""A world of images and detectors whose AP is known: draws validation sets and training seeds as often as one likes."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from yolokd.evaluation.bootstrap import weighted_ap
from yolokd.evaluation.matches import THRESHOLDS, ClassMatches, Matches

Floats = NDArray[np.float64]
Places = NDArray[np.int32]

STRICT = np.linspace(-0.5, 1.5, len(THRESHOLDS))  # how good a detection must be at each IoU


@dataclass(frozen=True)
class World:
    """Standard deviations of how good a detection is, in units of its own chance.

    An object is found at an IoU where the quality of its detection exceeds that IoU's limit; the score of a detection
    follows its quality, with noise. Two recipes differ by `gain`, by what suits one of them in an image, whatever the
    seed (`taste`), by what a seed gives a network everywhere (`seed`), and in an image (`mood`).
    """

    gain: float = 0.3
    taste: float = 0.6
    seed: float = 0.1
    mood: float = 0.4
    objects: float = 3.0  # of an image, on average, beyond one
    false: float = 3.0  # false positives of an image, on average

    def score(self, rng: np.random.Generator, images: int, seeds: int) -> tuple[list[Matches], list[Matches]]:
        """Score networks of the recipe and of its baseline, one each per seed, on new images."""
        owner, hard, taste = self._images(rng, images)
        return (
            [self._network(rng, owner, taste[owner] - hard, images, rng.normal(0, self.seed)) for _ in range(seeds)],
            [self._network(rng, owner, -hard, images, rng.normal(0, self.seed)) for _ in range(seeds)],
        )

    def _network(self, rng: np.random.Generator, owner: Places, ease: Floats, images: int, luck: float) -> Matches:
        quality = ease + luck + rng.normal(0, self.mood, images)[owner] + rng.normal(0, 0.5, len(owner))  # (G,)
        false = np.repeat(np.arange(images, dtype=np.int32), rng.poisson(self.false, images))
        scores = np.concatenate([quality + rng.normal(0, 0.5, len(owner)), rng.normal(-1, 1, len(false))])
        order = np.argsort(-scores)
        bits = ((quality[:, None] > STRICT) << np.arange(len(STRICT))).sum(axis=1)
        found = np.concatenate([bits, np.zeros(len(false), bits.dtype)])[order].astype(np.uint16)
        image = np.concatenate([owner, false])[order]
        return Matches(images, (ClassMatches(image, found, np.zeros(len(found), np.uint16), owner),))

    def true_difference(self, images: int = 4000, networks: int = 41) -> float:
        """AP of the recipe less that of its baseline over very many images and the whole range of seeds."""
        rng = np.random.default_rng(99)
        owner, hard, taste = self._images(rng, images)
        ease, once = (taste[owner] - hard, -hard), np.ones((1, images), np.float32)
        lucks = [self.seed * NormalDist().inv_cdf((n + 0.5) / networks) for n in range(networks)]
        first, second = (
            [weighted_ap(self._network(rng, owner, own, images, luck), once).mean() for luck in lucks] for own in ease
        )
        return float(np.mean(first) - np.mean(second))

    def _images(self, rng: np.random.Generator, images: int) -> tuple[Places, Floats, Floats]:
        """Image of each object, (G,); how hard each object is, (G,); what suits the recipe in each image, (n,)."""
        owner = np.repeat(np.arange(images, dtype=np.int32), 1 + rng.poisson(self.objects, images))
        hard = rng.normal(0, 0.5, images)[owner] + rng.normal(0, 0.5, len(owner))
        return owner, hard, self.gain + rng.normal(0, self.taste, images)
