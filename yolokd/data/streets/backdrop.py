"""What stands still behind the objects of Streets: sky, ground, road markings, buildings, trees on the skyline."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import cv2
import numpy as np

from yolokd.data.streets.draw import Array, Body, Canvas, Colour, Face, Thing
from yolokd.data.streets.shapes import GLASS, Rng, circle, dark, pick
from yolokd.data.streets.weather import Weather

FAR = 260.0  # metres to the end of the road
NEAR = 0.8
WALLS: tuple[Colour, ...] = (
    (150, 165, 180), (110, 130, 165), (95, 105, 140), (170, 180, 185), (140, 140, 140), (120, 150, 190), (90, 90, 125),
    (190, 200, 205), (130, 120, 110),
)  # fmt: skip
LIGHTS: tuple[Colour, ...] = ((68, 128, 169), (98, 150, 176), (135, 158, 169))  # behind windows at night
GROUNDS: tuple[Colour, ...] = ((70, 120, 95), (85, 125, 110), (95, 120, 130), (70, 100, 85))


@dataclass(frozen=True)
class Road:
    """A straight road along z, in metres from the camera's place."""

    left: float
    right: float
    lanes: tuple[tuple[float, int], ...]  # middle, and 1 for away from the camera or -1 towards it
    parking: tuple[bool, bool]  # at the left and the right kerb
    pavement: float  # width on either side
    built: bool  # houses on both sides, else trees and fields
    junction: float | None  # z of the middle of a crossing road
    zebra: float | None  # z of a zebra crossing


def draw_road(rng: Rng, elevated: bool) -> Road:
    """Choose the lanes and where the camera stands: in a lane, at the kerb, or anywhere if it is high up."""
    per_side = int(rng.choice([1, 2, 3], p=[0.55, 0.35, 0.10]))
    width = float(rng.uniform(3.0, 3.5))
    parking = (bool(rng.random() < 0.5), bool(rng.random() < 0.5))
    keep = 1 if rng.random() < 0.7 else -1  # right-hand or left-hand traffic
    middles = [((i + 0.5) * width * s, s * keep) for s in (-1, 1) for i in range(per_side)]
    half = per_side * width
    left, right = -half - 2.2 * parking[0], half + 2.2 * parking[1]
    if elevated:
        at = float(rng.uniform(left, right))
    elif rng.random() < 0.25:
        at = float(rng.choice([left - 1.0, right + 1.0]))
    else:
        away = [x for x, direction in middles if direction == 1]
        at = float(rng.choice(away) + rng.normal(0, 0.3))
    junction = float(rng.uniform(14, 45)) if rng.random() < 0.4 else None
    zebra = junction - 7.5 if junction else float(rng.uniform(8, 40)) if rng.random() < 0.25 else None
    return Road(
        left - at, right - at, tuple((x - at, d) for x, d in middles), parking, float(rng.uniform(2.0, 4.5)),
        bool(rng.random() < 0.7), junction, zebra,
    )  # fmt: skip


def paint_backdrop(canvas: Canvas, road: Road, weather: Weather, shade: Array, rng: Rng) -> None:
    """Paint everything that lies behind the objects; `shade` (height, width) is how dark shadows make the ground."""
    _sky(canvas, weather, rng)
    _ground(canvas, road, rng)
    _markings(canvas, road, rng)
    _weather_ground(canvas, shade, rng)
    _skyline(canvas, road, rng)
    for side in (-1, 1):
        edge = road.left - road.pavement if side < 0 else road.right + road.pavement
        if road.built and rng.random() < 0.93:
            _houses(canvas, road, side, edge, weather, rng)
        else:
            _hedges(canvas, side, edge, rng)


def _sky(canvas: Canvas, weather: Weather, rng: Rng) -> None:
    camera = canvas.camera
    rows, columns = max(2, int(camera.horizon) // 8 + 2), camera.width // 8  # painted small, then enlarged
    share = np.linspace(0, 1, rows, dtype=np.float32)[:, None, None] ** 1.3
    sky = np.array(weather.zenith, np.float32) * (1 - share) + np.array(weather.skyline, np.float32) * share
    sky = np.repeat(sky, columns, 1)
    if weather.kind != "night":
        for _ in range(int(rng.integers(0, 9))):
            centre = (int(rng.integers(0, columns)), int(rng.integers(0, rows)))
            axes = (int(rng.integers(3, 16)), int(rng.integers(1, 4)))
            cv2.ellipse(sky, centre, axes, 0, 0, 360, dark(weather.skyline, float(rng.uniform(0.85, 1.12))), -1)
        sky = cv2.GaussianBlur(sky, (0, 0), 1.5)
    large = cv2.resize(np.clip(sky, 0, 255).astype(np.uint8), (camera.width, rows * 8))[: camera.height]
    cv2.mixChannels([large], [canvas.pixels[: len(large)]], [0, 0, 1, 1, 2, 2])


def _skyline(canvas: Canvas, road: Road, rng: Rng) -> None:
    """Far houses or woods on the horizon."""
    camera, u = canvas.camera, -20.0
    tone = pick(rng, WALLS if road.built else GROUNDS)
    while u < camera.width + 20:
        wide = float(rng.uniform(0.03, 0.12)) * camera.width
        high = float(rng.uniform(0.01, 0.10 if road.built else 0.05)) * camera.height
        colour = canvas.light.through(dark(tone, float(rng.uniform(0.8, 1.1))), 190)
        low = camera.horizon + 2
        if road.built:
            box = [(u, low), (u + wide, low), (u + wide, low - high), (u, low - high)]
        else:
            crest = [(u + wide, low - high), (u + wide / 2, low - high * 1.2), (u, low - high)]
            box = [(u - wide, low), (u + wide * 2, low), *crest]
        canvas.fill(np.array(box), colour)
        u += wide * float(rng.uniform(0.6, 1.1))


def _quads(canvas: Canvas, rows: Sequence[tuple[float, float, float, float]], colour: Colour) -> None:
    """Paint rectangles (left, right, near, far) on the ground; `_weather_ground` hazes them later."""
    if rows:
        left, right, near, far = np.array(rows).T
        level = np.zeros_like(left)
        points = np.stack([(left, level, near), (right, level, near), (right, level, far), (left, level, far)])
        corners = canvas.camera.project(points.transpose(2, 0, 1).reshape(-1, 3))
        canvas.fill(corners.reshape(-1, 4, 2), colour)


def _ground(canvas: Canvas, road: Road, rng: Rng) -> None:
    stone = pick(rng, ((150, 155, 160), (135, 140, 150), (165, 165, 165)))
    asphalt = pick(rng, ((92, 90, 88), (105, 104, 104), (78, 76, 76), (118, 116, 112)))
    canvas.pixels[int(canvas.camera.horizon) :, :, :3] = asphalt
    _quads(canvas, [(-400, 400, NEAR, FAR)], stone if road.built and rng.random() < 0.6 else pick(rng, GROUNDS))
    _quads(canvas, [(road.left - road.pavement, road.right + road.pavement, NEAR, FAR)], stone)
    if road.junction:
        _quads(canvas, [(-300, 300, road.junction - 4.5, road.junction + 4.5)], asphalt)
    _quads(canvas, [(road.left - 0.18, road.right + 0.18, NEAR, FAR)], dark(stone, 1.15))
    _quads(canvas, [(road.left, road.right, NEAR, FAR)], asphalt)
    for _ in range(int(rng.integers(2, 9))):  # mended places and manholes
        x, z = float(rng.uniform(road.left, road.right - 1)), float(rng.uniform(3, 40))
        wide, long = float(rng.uniform(0.5, 2)), float(rng.uniform(0.6, 6))
        _quads(canvas, [(x, x + wide, z, z + long)], dark(asphalt, float(rng.uniform(0.82, 1.1))))


def _markings(canvas: Canvas, road: Road, rng: Rng) -> None:
    middles = sorted(x for x, _ in road.lanes)
    rows = [(x - 0.06, x + 0.06, NEAR, FAR) for x in (road.left + 0.2, road.right - 0.2)] if rng.random() < 0.6 else []
    for x in [(a + b) / 2 for a, b in pairwise(middles)]:
        start, dash, gap = float(rng.uniform(1, 6)), float(rng.uniform(1.5, 4)), float(rng.uniform(2, 6))
        for z in np.arange(start, 110, dash + gap).tolist():
            if not road.zebra or not road.zebra - dash < z < road.zebra + 3:
                rows.append((x - 0.07, x + 0.07, z, z + dash))
    if road.zebra:
        stripes = np.arange(road.left + 0.4, road.right - 0.6, 1.0).tolist()
        rows += [(x, x + 0.5, road.zebra, road.zebra + 3) for x in stripes]
    _quads(canvas, rows, dark((225, 225, 225), float(rng.uniform(0.75, 1.0))))


def _weather_ground(canvas: Canvas, shade: Array, rng: Rng) -> None:
    """Cast shadows, haze the ground row by row, roughen it with a pattern in perspective that fades with distance."""
    camera = canvas.camera
    top = int(camera.horizon)
    rows = np.arange(top, camera.height, dtype=np.float32) + 1
    depth = camera.focal * camera.eye / np.maximum(rows - np.float32(camera.horizon), 0.5)  # metres, per row
    keep = np.exp(-canvas.light.haze * depth).astype(np.float32)[:, None]
    pattern = cv2.blur(rng.integers(0, 256, (256, 256), np.uint8), (2, 2)).astype(np.float32) - 128
    few = depth[::2, None].astype(np.float32)  # the pattern is looked up at half the resolution
    across = (2 * np.arange(camera.width // 2, dtype=np.float32) - camera.u0) * few / camera.focal
    down = np.repeat(few, camera.width // 2, 1)
    rough = cv2.remap(pattern, across * 8, down * 8, cv2.INTER_NEAREST, borderMode=cv2.BORDER_WRAP)
    rough = cv2.resize(rough * (0.11 / (1 + few / 14)), (camera.width, len(rows)), interpolation=cv2.INTER_LINEAR)
    factor = keep * (1 - shade[top:])  # (rows, width): what shadows and haze leave of a colour
    veil = ((1 - keep) * np.array(canvas.light.haze_colour, np.float32)).astype(np.uint8)[:, None]  # (rows, 1, 3)
    ground = cv2.cvtColor(canvas.pixels[top:], cv2.COLOR_BGRA2BGR)
    ground = cv2.multiply(ground, cv2.merge([(255 * factor).astype(np.uint8)] * 3), scale=1 / 255)
    ground = cv2.add(ground, cv2.resize(veil, (camera.width, len(rows)), interpolation=cv2.INTER_NEAREST))
    ground = cv2.add(ground, cv2.merge([(rough * factor).astype(np.int8)] * 3), dtype=cv2.CV_8U)
    cv2.mixChannels([ground], [canvas.pixels[top:]], [0, 0, 1, 1, 2, 2])


def _houses(canvas: Canvas, road: Road, side: int, edge: float, weather: Weather, rng: Rng) -> None:
    """A row of fronts along the pavement, open where a road crosses; drawn from far to near."""
    fronts, z = [], float(rng.uniform(-6, 2))
    while z < 130:
        length = float(rng.uniform(6, 18))
        if not (road.junction and z < road.junction + 7 and z + length > road.junction - 7):
            fronts.append((z, length))
        z += length + (float(rng.uniform(2, 8)) if rng.random() < 0.25 else 0.0)
    back = edge + side * float(rng.choice([0.0, rng.uniform(1, 6)]))
    houses = []
    for start, length in reversed(fronts):
        x = back + side * float(rng.uniform(0, 0.8))
        houses.append(Thing([_house(side, x, max(start, 0.9), start + length, weather, rng)]))
    list(canvas.draw(houses))


def _house(side: int, x: float, near: float, far: float, weather: Weather, rng: Rng) -> Body:
    floors, wall = int(rng.integers(2, 7)), pick(rng, WALLS)
    height = 0.8 + 3.1 * floors
    shop = bool(rng.random() < 0.45)
    dim = pick(rng, (GLASS, (105, 95, 85), (60, 55, 50)))
    pitch, wide = float(rng.uniform(2.2, 3.6)), float(rng.uniform(0.9, 1.5))
    openings = []
    for floor in range(floors):
        low = 0.2 if shop and floor == 0 else 1.0 + 3.1 * floor
        high, broad = (2.7, pitch * 0.85) if shop and floor == 0 else (low + 1.6, wide)
        for z in np.arange(near + 0.6, min(far - broad, 75.0), pitch).tolist():
            shines = weather.kind in {"night", "dusk"} and rng.random() < (0.8 if low < 1 else 0.3)
            colour = pick(rng, LIGHTS) if shines else dark(dim, float(rng.uniform(0.8, 1.2)))
            window = [(x, low, z), (x, low, z + broad), (x, high, z + broad), (x, high, z)]
            openings.append(Face(window, colour, lit=shines))
    deep = side * 12.0
    front = Face([(x, 0, near), (x, 0, far), (x, height, far), (x, height, near)], wall, both=True, details=openings)
    end = Face(
        [(x, 0, near), (x + deep, 0, near), (x + deep, height, near), (x, height, near)], dark(wall, 0.85), both=True
    )
    return Body([end, front])


def _hedges(canvas: Canvas, side: int, edge: float, rng: Rng) -> None:
    """A band of bushes and trees beside the road, from far to near."""
    tone = pick(rng, GROUNDS)
    for z in sorted((4 + 140 * rng.uniform(0, 1, 45) ** 1.5).tolist(), reverse=True):
        x = edge + side * float(rng.uniform(0.5, 25))
        size = float(rng.uniform(0.5, 1.5 + min(4.0, 0.1 * z)))
        colour = canvas.light.through(dark(tone, float(rng.uniform(0.55, 0.95))), z)
        ((u, v),) = canvas.camera.project(np.array([[x, size * 0.45, z]])).tolist()
        radii = size * 0.6 * canvas.camera.focal / z * rng.uniform(0.85, 1.15, 14)
        canvas.fill(
            np.array([(u + r * c, v + 0.9 * r * s) for r, (c, s) in zip(radii, circle(14), strict=True)]), colour
        )
