"""Light and weather of Streets: what the sky and the air look like, and how the camera turns it all into a picture."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np

from yolokd.data.streets.draw import LIT, Array, Canvas, Colour, Light
from yolokd.data.streets.shapes import Rng, dark


class Kind(NamedTuple):
    """What the pictures of one kind of weather have in common."""

    share: float  # of the pictures
    zenith: Colour
    skyline: Colour
    ambient: float
    diffuse: float
    shadow: float
    haze: float  # per metre


KINDS: Mapping[str, Kind] = {
    "sun": Kind(0.36, (215, 150, 85), (235, 215, 190), 0.66, 0.50, 0.50, 0.0022),
    "cloud": Kind(0.24, (200, 190, 180), (215, 212, 208), 0.84, 0.18, 0.18, 0.004),
    "dusk": Kind(0.12, (150, 105, 90), (120, 165, 240), 0.66, 0.34, 0.30, 0.005),
    "night": Kind(0.13, (60, 36, 26), (70, 55, 52), 0.80, 0.12, 0.15, 0.003),
    "rain": Kind(0.08, (160, 152, 146), (182, 178, 172), 0.78, 0.12, 0.14, 0.014),
    "fog": Kind(0.07, (205, 203, 200), (212, 210, 208), 0.86, 0.10, 0.08, 0.034),
}


@dataclass(frozen=True)
class Weather:
    """One picture's light. Colours are blue, green, red."""

    kind: str
    light: Light
    zenith: Colour
    skyline: Colour  # of the sky at the horizon
    shadow: float  # darkness of cast shadows, 0 to 1
    exposure: Colour  # factor per channel on everything that does not shine by itself
    lamps: bool  # vehicles have their lights on
    noise: float  # standard deviation of the sensor's noise, of 255
    blur: float  # of lens and motion, pixels of the picture


def draw_weather(rng: Rng) -> Weather:
    """Choose a kind of weather and its details."""
    kind = str(rng.choice(list(KINDS), p=[row.share for row in KINDS.values()]))
    row = KINDS[kind]
    tint = rng.normal(1, 0.025, 3) * rng.uniform(0.82, 1.15)
    if kind == "dusk":
        tint = tint * (0.78, 0.78, 0.88) * rng.uniform(0.75, 1.0)
    elif kind == "night":
        tint = tint * (0.56, 0.47, 0.44) * rng.uniform(0.8, 1.2)
    b, g, r = tint.tolist()
    high = rng.uniform(0.25, 0.55) if kind == "dusk" else rng.uniform(0.5, 1.2)
    side = rng.uniform(0, 2 * np.pi)
    sun = (float(np.cos(side) * np.cos(high)), float(np.sin(high)), float(np.sin(side) * np.cos(high)))
    light = Light(sun, row.ambient, row.diffuse, row.haze * float(rng.uniform(0.6, 1.5)), dark(row.skyline, 0.97))
    return Weather(
        kind=kind,
        light=light,
        zenith=dark(row.zenith, float(rng.uniform(0.85, 1.1))),
        skyline=row.skyline,
        shadow=row.shadow,
        exposure=(b, g, r),
        lamps=kind in {"night", "fog"} or (kind in {"dusk", "rain"} and rng.random() < 0.7),
        noise=float(rng.uniform(4, 11) if kind in {"night", "dusk"} else rng.uniform(1.5, 6)),
        blur=float(rng.choice([0.0, rng.uniform(0.3, 0.7), rng.uniform(0.7, 1.1)], p=[0.5, 0.38, 0.12])),
    )


def develop(canvas: Canvas, weather: Weather, scale: int, rng: Rng) -> Array:
    """Turn a canvas into the picture, (h, w, 3) uint8: reduced, exposed, with lamps, rain, blur, noise."""
    size = (canvas.camera.width // scale, canvas.camera.height // scale)
    image = cv2.resize(canvas.pixels, size, interpolation=cv2.INTER_AREA)[..., :3].astype(np.float32)
    if weather.kind == "rain":
        image = _wet(image, canvas.camera.horizon / scale, rng)
    image *= _exposure(canvas, weather, size)
    if canvas.lamps:
        image += _halos(canvas, scale, size, strength=0.9 if weather.kind in {"night", "dusk"} else 0.45)
    if weather.blur:
        image = cv2.GaussianBlur(image, (0, 0), weather.blur)
    if weather.kind == "rain":
        image += _streaks(rng, size)
    contrast = np.float32(rng.uniform(0.85, 1.15))
    noise = rng.standard_normal(image.shape, np.float32)
    noise *= np.float32(weather.noise)
    noise += 118 * (1 - contrast)
    image = cv2.scaleAdd(image, float(contrast), noise)
    picture: Array = np.clip(image, 0, 255, out=image).astype(np.uint8)
    return picture


def _exposure(canvas: Canvas, weather: Weather, size: tuple[int, int]) -> Array:
    """Factor per pixel and channel: the weather's, but 1 where something shines; at night our own beam on the road."""
    gain = np.broadcast_to(np.array(weather.exposure, np.float32), (size[1], size[0], 3))
    if weather.kind != "night":
        return gain
    lit = cv2.resize((canvas.numbers == LIT).astype(np.float32), size, interpolation=cv2.INTER_AREA)
    x = np.linspace(-1, 1, size[0], dtype=np.float32)[None]
    y = np.linspace(0, 1, size[1], dtype=np.float32)[:, None]
    beam = 0.55 * np.exp(-((x / 0.55) ** 2) - ((y - 0.72) / 0.22) ** 2)
    share = np.clip(lit + beam, 0, 1)[..., None]
    result: Array = gain * (1 - share) + share * np.array((0.86, 0.95, 1.0), np.float32)
    return result


def _halos(canvas: Canvas, scale: int, size: tuple[int, int], strength: float) -> Array:
    """Light that lamps add around themselves, (h, w, 3); lamps that something hides add none."""
    layer = np.zeros((size[1], size[0], 3), np.float32)
    for lamp in canvas.lamps:
        u, v = round(lamp.u), round(lamp.v)
        inside = 0 <= u < canvas.camera.width and 0 <= v < canvas.camera.height
        if inside and np.abs(canvas.pixels[v, u] - np.array(lamp.pixel)).max() <= 1:
            radius = max(1, round(lamp.radius / scale))
            cv2.circle(layer, (u // scale, v // scale), radius, lamp.colour, -1)
    unit = size[0] / 320  # halos are as wide in large pictures
    few = cv2.resize(layer, (size[0] // 4, size[1] // 4), interpolation=cv2.INTER_AREA)
    wide = cv2.resize(cv2.GaussianBlur(few, (0, 0), 2.5 * unit), size)
    result: Array = strength * (0.35 * cv2.GaussianBlur(layer, (0, 0), 1.2 * unit) + 0.8 * wide)
    return result


def _wet(image: Array, horizon: float, rng: Rng) -> Array:
    """Mirror what stands above the road in it, smeared downwards."""
    top = int(np.clip(horizon, 1, len(image) - 2))
    mirror = cv2.resize(cv2.flip(image[:top], 0), (image.shape[1], len(image) - top))
    share = np.float32(rng.uniform(0.12, 0.3))
    image[top:] = image[top:] * (1 - share) + cv2.blur(mirror, (3, 25)) * share
    return image


def _streaks(rng: Rng, size: tuple[int, int]) -> Array:
    """Falling rain as faint slanted lines, (h, w, 1)."""
    layer = np.zeros((size[1], size[0]), np.float32)
    slant, count = rng.uniform(-0.3, 0.3), int(rng.integers(60, 200))
    places = rng.uniform((0, 0, 4, 10), (*size, 14, 40), (count, 4))
    for x, y, length, bright in places.tolist():
        cv2.line(layer, (int(x), int(y)), (int(x + slant * length), int(y + length)), bright, 1)
    soft: Array = cv2.GaussianBlur(layer, (0, 0), 0.6)[..., None]
    return soft
