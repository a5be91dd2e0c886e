"""Cars, buses and lorries of Streets. Each function draws a variant from the random stream that it is given."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from yolokd.data.streets.draw import Body, Colour, Face
from yolokd.data.streets.shapes import (
    GLASS,
    PAINTS,
    Hull,
    Profile,
    Rng,
    Shape,
    block,
    box_profile,
    chassis,
    dark,
    moved,
    pick,
    shrink,
)

PLATES: tuple[Colour, ...] = ((205, 215, 218), (205, 215, 218), (80, 190, 215))
LORRY_LOADS: tuple[Colour, ...] = (
    (230, 230, 230), (200, 205, 210), (150, 90, 40), (60, 60, 150), (110, 130, 100), (120, 120, 125), (70, 170, 215)
)  # fmt: skip
BUS_PAINTS: tuple[Colour, ...] = (
    (60, 60, 200), (190, 120, 40), (235, 235, 235), (70, 160, 60), (60, 190, 235), (150, 60, 90)
)  # fmt: skip

CARS: Mapping[str, tuple[float, float, float, Profile]] = {  # share, length, width, profile from the rear over the roof
    "hatchback": (0.30, 3.95, 1.74, (
        ("rear", 0.0, 0.34), ("tail", 0.0, 0.74), ("back", 0.03, 1.0), ("roof", 0.13, 1.42), ("screen", 0.50, 1.47),
        ("bonnet", 0.71, 1.0), ("nose", 0.96, 0.82), ("front", 1.0, 0.60), ("under", 1.0, 0.30))),
    "saloon": (0.25, 4.6, 1.80, (
        ("rear", 0.0, 0.34), ("tail", 0.0, 0.72), ("boot", 0.02, 0.98), ("back", 0.14, 1.03), ("roof", 0.29, 1.41),
        ("screen", 0.54, 1.44), ("bonnet", 0.73, 0.98), ("nose", 0.97, 0.80), ("front", 1.0, 0.58),
        ("under", 1.0, 0.28))),
    "estate": (0.15, 4.7, 1.82, (
        ("rear", 0.0, 0.34), ("tail", 0.0, 0.76), ("back", 0.02, 1.02), ("roof", 0.08, 1.44), ("screen", 0.55, 1.48),
        ("bonnet", 0.74, 1.0), ("nose", 0.97, 0.82), ("front", 1.0, 0.58), ("under", 1.0, 0.28))),
    "offroader": (0.18, 4.55, 1.88, (
        ("rear", 0.0, 0.45), ("tail", 0.0, 0.9), ("back", 0.02, 1.18), ("roof", 0.09, 1.70), ("screen", 0.56, 1.74),
        ("bonnet", 0.73, 1.18), ("nose", 0.97, 1.02), ("front", 1.0, 0.76), ("under", 1.0, 0.42))),
    "van": (0.12, 4.9, 1.92, (
        ("rear", 0.0, 0.40), ("tail", 0.0, 0.85), ("back", 0.01, 1.10), ("roof", 0.04, 1.88), ("screen", 0.66, 1.92),
        ("bonnet", 0.84, 1.18), ("nose", 0.98, 0.98), ("front", 1.0, 0.72), ("under", 1.0, 0.36))),
}  # fmt: skip


class Lights(NamedTuple):
    """Colours of rear and front lamps and the radius of their halo, 0 while off."""

    red: Colour
    white: Colour
    glow: float


def _lights(on: bool) -> Lights:
    return Lights((60, 50, 255), (235, 250, 255), 0.3) if on else Lights((45, 40, 170), (205, 208, 208), 0.0)


def car(rng: Rng, on: bool) -> Shape:
    """A passenger car: hatchback, saloon, estate, off-roader or van; a few are taxis. `on`: with its lamps lit."""
    kind = str(rng.choice(list(CARS), p=[share for share, *_ in CARS.values()]))
    _, length, width, profile = CARS[kind]
    length, width = length * float(rng.uniform(0.93, 1.07)), width * float(rng.uniform(0.96, 1.04))
    height = max(y for _, _, y in profile)
    hull = Hull(profile, length, width / 2, belt=profile[0][2] + 0.6 * (height - profile[0][2]), taper=0.3)
    paint, rim = pick(rng, PAINTS), pick(rng, ((170, 170, 172), (90, 90, 92), (60, 58, 58)))
    radius = float(rng.uniform(0.30, 0.36)) * (1.12 if kind == "offroader" else 1.0)
    axles = (-length * 0.31, length * 0.32)
    blind = kind == "van" and rng.random() < 0.5  # a delivery van has no windows behind
    lights, lamp, plate = _lights(on), float(rng.uniform(0.22, 0.36)), pick(rng, PLATES)
    panels: dict[str, list[Face]] = {
        "rear": [
            hull.on("rear", (-1, 1), (0.0, 0.3), dark(paint, 0.55)),
            hull.on("rear", (-0.28, 0.28), (0.5, 0.82), plate),
        ],
        "tail": hull.pair("tail", (0.97, 0.97 - lamp), (0.0, 0.8), lights.red, lights.glow),
        "back": [hull.on("back", (-0.86, 0.86), (0.12, 0.9), dark(paint, 0.8) if blind else GLASS)],
        "screen": [hull.on("screen", (-0.9, 0.9), (0.06, 0.94), GLASS)],
        "nose": [
            hull.on("nose", (-0.5, 0.5), (0.3, 0.95), (42, 40, 40)),
            *hull.pair("nose", (0.95, 0.62), (0.15, 0.9), lights.white, lights.glow),
        ],
        "front": [
            hull.on("front", (-0.6, 0.6), (0.45, 0.95), (48, 45, 45)),
            hull.on("front", (-0.26, 0.26), (0.12, 0.42), plate),
        ],
    }

    def flank(s: int) -> list[Face]:
        wheels = [face for z in axles for face in hull.wheel(s, z, radius, rim)]
        return [*_cabin(hull, s, paint, blind), *wheels]

    bodies = [chassis(width / 2, length, axles, radius, profile[0][2]), hull.body(paint, panels, flank)]
    if rng.random() < 0.06:  # the roof sign of a taxi
        bodies.append(Body(block((-0.3, 0.3), (height, height + 0.14), (-0.1, 0.1), (90, 220, 245)), layer=1))
    return Shape(bodies, width / 2, length / 2, height)


def _cabin(hull: Hull, s: int, paint: Colour, blind: bool) -> list[Face]:
    """Side windows, door lines and sill of a car."""
    glass = shrink([hull.corners[name] for name in ("back", "roof", "screen", "bonnet")], 0.84)
    low, top = min(y for _, y in glass), max(y for _, y in glass)
    pillar, end = float(np.mean([z for z, _ in glass])) - 0.05 * hull.length, 0.49 * hull.length
    sill = hull.corners["rear"][1] + 0.07
    window = [(pillar, low), (pillar, top), glass[2], glass[3]] if blind else glass
    return [
        hull.flank(s, window, GLASS),
        hull.flank(s, [(pillar, low - 0.4), (pillar, low)], dark(paint, 0.7), 0.02),
        hull.flank(s, [(pillar, low), (pillar, top)], paint, 0.08),
        hull.flank(s, [(-end, sill), (end, sill)], dark(paint, 0.6), 0.10),
        hull.flank(s, [(pillar - 0.3, low - 0.12), (pillar - 0.12, low - 0.12)], dark(paint, 0.5), 0.04),
    ]


def bus(rng: Rng, on: bool) -> Shape:
    """A city bus, a coach or a double-decker."""
    decks = 2 if rng.random() < 0.15 else 1
    length, height = float(rng.uniform(9.5, 12.5)), float(rng.uniform(2.9, 3.25)) + 1.1 * (decks - 1)
    half, axles = 1.27, (-length * 0.27, length * 0.29)
    hull = Hull(box_profile(length, 0.35, height, 0.15), length, half)
    paint, stripe, lights = pick(rng, BUS_PAINTS), pick(rng, PAINTS), _lights(on)
    panels: dict[str, list[Face]] = {
        "rear": [
            hull.on("rear", (-0.8, 0.8), (0.55, 0.85), GLASS),
            hull.on("rear", (-0.7, 0.7), (0.12, 0.4), dark(paint, 0.6)),
            *hull.pair("rear", (0.97, 0.8), (0.15, 0.35), lights.red, lights.glow),
        ],
        "screen": [
            hull.on("screen", (-0.94, 0.94), (0.28, 0.98), GLASS),
            hull.on("screen", (-0.7, 0.7), (0.06, 0.22), (30, 30, 30)),
            hull.on("screen", (-0.5, 0.5), (0.10, 0.19), (60, 190, 250)),
        ],
        "front": [
            hull.on("front", (-0.5, 0.5), (0.5, 0.8), dark(paint, 0.5)),
            *hull.pair("front", (0.92, 0.6), (0.5, 0.72), lights.white, lights.glow),
        ],
    }

    def flank(s: int) -> list[Face]:
        faces = [hull.flank(s, [(-length / 2, 0.55), (length / 2, 0.55)], stripe, 0.3)]
        step = length / 8
        for low in [1.25 + 1.3 * deck for deck in range(decks)]:
            for z in [-length / 2 + 0.15 + k * step for k in range(8)]:
                end = z + step - 0.15
                faces.append(hull.flank(s, [(z, low), (end, low), (end, low + 1.0), (z, low + 1.0)], GLASS))
        for z in (length * 0.38, 0.0) if s == 1 else ():  # doors
            faces.append(hull.flank(s, [(z, 0.4), (z + 1.1, 0.4), (z + 1.1, 2.3), (z, 2.3)], (98, 88, 78)))
        return faces + [face for z in axles for face in hull.wheel(s, z, 0.48, (110, 110, 110))]

    return Shape([chassis(half, length, axles, 0.48, 0.4), hull.body(paint, panels, flank)], half, length / 2, height)


def truck(rng: Rng, on: bool) -> Shape:
    """A lorry: a cab in front of a box, a tank or an open bed with a load."""
    length, half = float(rng.uniform(6.2, 10.5)), float(rng.uniform(1.08, 1.25))
    kind = str(rng.choice(["box", "bed", "tank"], p=[0.65, 0.22, 0.13]))
    top = {"box": float(rng.uniform(2.7, 3.7)), "bed": 1.55, "tank": 2.8}[kind]
    axles = [-length * 0.36, length * 0.36] + ([-length * 0.22] if length > 8 else [])
    load = pick(rng, LORRY_LOADS)
    frame = Hull(box_profile(length, 0.4, 0.9), length, half)
    paint = pick(rng, PAINTS)

    def wheels(s: int) -> list[Face]:
        return [face for z in axles for face in frame.wheel(s, z, 0.48, (120, 120, 120))]

    bodies = [
        chassis(half, length, axles, 0.48, 0.55),
        replace(frame.body((40, 38, 38), {}, wheels), layer=-1),
        _cargo(length, half, kind, top, load, pick(rng, PAINTS), _lights(on)),
        _cab(length, half, float(rng.uniform(2.4, 2.9)), paint, _lights(on)),
    ]
    if kind == "bed":
        high = float(rng.uniform(1.9, 2.6))
        bodies.append(Body(block((-half * 0.8, half * 0.8), (1.5, high), (-length * 0.4, length * 0.1), load)))
    return Shape(bodies, half, length / 2, max(top, 2.6))


def _cargo(length: float, half: float, kind: str, top: float, load: Colour, logo: Colour, lights: Lights) -> Body:
    size = length - 2.15  # behind the cab
    hull = Hull(box_profile(size, 0.85, top), size, half, belt=1.9, taper=0.5 if kind == "tank" else 0.0)
    back = [
        hull.on("rear", (-0.02, 0.02), (0.05, 0.98), dark(load, 0.5)),
        hull.on("rear", (-0.98, 0.98), (0.0, 0.09), (50, 48, 48)),
        *hull.pair("rear", (0.97, 0.75), (0.0, 0.09), lights.red, lights.glow),
    ]

    def flank(s: int) -> list[Face]:
        beam = hull.flank(s, [(-size / 2, 0.95), (size / 2, 0.95)], dark(load, 0.5), 0.16)
        z, high = size * 0.3, top - 0.5
        sign = [hull.flank(s, [(-z, 1.6), (z, 1.6), (z, high), (-z, high)], logo)] if kind == "box" else []
        return [beam, *sign]

    return moved(hull.body(load, {"rear": back}, flank), (size - length) / 2)


def _cab(length: float, half: float, height: float, paint: Colour, lights: Lights) -> Body:
    size = 2.0
    hull = Hull(box_profile(size, 0.55, height, 0.25), size, half * 0.97)
    panels = {
        "screen": [hull.on("screen", (-0.9, 0.9), (0.2, 0.95), GLASS)],
        "front": [
            hull.on("front", (-0.6, 0.6), (0.15, 0.6), (45, 42, 42)),
            *hull.pair("front", (0.95, 0.62), (0.66, 0.9), lights.white, lights.glow),
        ],
    }

    def flank(s: int) -> list[Face]:
        window = hull.flank(s, [(-0.5, 1.55), (0.75, 1.55), (0.65, 2.2), (-0.5, 2.2)], GLASS)
        return [window, hull.flank(s, [(-0.55, 0.8), (-0.55, 2.2)], dark(paint, 0.6), 0.04)]

    return moved(hull.body(paint, panels, flank), (length - size) / 2)
