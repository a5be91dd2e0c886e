"""Light of Streets: time of day and weather, and what a camera makes of a canvas under them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np

from yolokd.data.streets.drawing import Array, Color, Shading
from yolokd.data.streets.objects import Rng


class Kind(NamedTuple):
    """What the images of one kind of light have in common; a range is drawn from uniformly."""

    share: float  # of the images
    sky: tuple[Color, Color]  # at the zenith and at the horizon
    ambient: float
    diffuse: float
    shadow: float  # share of the light that a cast shadow takes
    haze_m: tuple[float, float]  # see `Shading`
    exposure: tuple[float, float]  # factor on all colors
    tint: Color  # factor per channel
    noise: int  # at most, in levels of 255


KINDS: Mapping[str, Kind] = {
    "sun": Kind(0.36, ((215, 150, 85), (235, 215, 190)), 0.6, 0.5, 0.45, (300, 600), (0.85, 1.1), (1, 1, 1), 6),
    "cloud": Kind(0.28, ((200, 190, 180), (215, 212, 208)), 0.84, 0.18, 0.2, (150, 400), (0.75, 1.05), (1, 1, 1), 8),
    "dusk": Kind(0.14, ((150, 105, 90), (120, 165, 240)), 0.6, 0.35, 0.3, (150, 400), (0.6, 0.8), (0.85, 0.9, 1.1), 12),
    "night": Kind(0.12, ((60, 36, 26), (70, 55, 52)), 0.8, 0.1, 0.15, (200, 400), (0.6, 0.8), (1.1, 0.95, 0.9), 14),
    "fog": Kind(0.10, ((205, 203, 200), (212, 210, 208)), 0.86, 0.1, 0.08, (25, 60), (0.85, 1.0), (1, 1, 1), 8),
}


@dataclass(frozen=True)
class Light:
    """The light of one image."""

    kind: str
    shading: Shading
    zenith: Color
    horizon: Color  # of the sky
    shadow: float
    gains: Color  # factor per channel on what does not shine
    noise: int
    blur: bool

    def sky(self, height: int, v0: float) -> Array:
        """Return the color of the sky in each row, (height, 3) uint8: zenith at the top, horizon from row `v0`."""
        share = np.clip(np.arange(height) / max(v0, 1.0), 0, 1)[:, None]
        return np.rint(np.array(self.zenith) * (1 - share) + np.array(self.horizon) * share).astype(np.uint8)


def draw_light(rng: Rng) -> Light:
    """Choose a kind of light, and its values in the kind's ranges."""
    name = str(rng.choice(list(KINDS), p=[kind.share for kind in KINDS.values()]))
    kind = KINDS[name]
    side, height = float(rng.uniform(-1, 1)), float(rng.uniform(0.4, 1.2))
    ahead = float(rng.choice([-1.0, 1.0])) * (1.2 - abs(side))
    length = float(np.sqrt(side * side + height * height + ahead * ahead))
    zenith, horizon = kind.sky
    sun = (side / length, height / length, ahead / length)
    shading = Shading(sun, kind.ambient, kind.diffuse, float(rng.uniform(*kind.haze_m)), horizon)
    exposure = float(rng.uniform(*kind.exposure))
    b, g, r = (exposure * channel * float(rng.uniform(0.95, 1.05)) for channel in kind.tint)
    noise = int(rng.integers(2, kind.noise + 1))
    return Light(name, shading, zenith, horizon, kind.shadow, (b, g, r), noise, bool(rng.random() < 0.3))


def develop(colors: Array, light: Light, size: tuple[int, int], rng: Rng) -> Array:
    """Reduce the colors of a canvas to an image (h, w, 3) uint8 of the size (w, h): exposure, blur and noise."""
    image = cv2.resize(colors, size, interpolation=cv2.INTER_AREA)
    image = np.rint(np.minimum(image * np.array(light.gains), 255)).astype(np.uint8)
    if light.blur:
        image = cv2.GaussianBlur(image, (3, 3), 0)
    noise = rng.integers(-light.noise, light.noise + 1, image.shape, dtype=np.int16)
    noisy: Array = np.clip(image + noise, 0, 255).astype(np.uint8)
    return noisy
