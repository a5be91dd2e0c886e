"""Models of Streets: people, cars, buses, trucks, and what stands between them; each varied at random."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from yolokd.data.streets.drawing import Color, Decal, Model, Part, circle, line, prism, rectangle

Rng = np.random.Generator

NAMES = ("person", "car", "bus", "truck")  # COCO's names, in COCO's order

TIRE: Color = (30, 28, 28)
HUB: Color = (150, 150, 150)
GLASS: Color = (95, 80, 65)
RED_LAMP: Color = (40, 30, 210)
WHITE_LAMP: Color = (225, 240, 245)
PAINTS: Sequence[Color] = (
    (225, 225, 225), (165, 165, 165), (55, 52, 50), (45, 40, 170), (140, 75, 35), (75, 120, 45), (60, 170, 215),
    (150, 150, 110), (60, 90, 130),
)  # fmt: skip
CARGO: Sequence[Color] = ((225, 225, 225), (200, 190, 180), (120, 110, 70), (90, 130, 170))
WALLS: Sequence[Color] = ((140, 165, 190), (120, 130, 165), (180, 185, 185), (110, 125, 135))
CLOTHES: Sequence[Color] = (
    (40, 36, 34), (120, 80, 50), (170, 110, 60), (50, 50, 170), (40, 100, 200), (60, 140, 70), (215, 215, 215),
    (150, 150, 150), (60, 200, 220), (140, 60, 120),
)  # fmt: skip
SKINS: Sequence[Color] = ((180, 205, 235), (140, 175, 220), (105, 140, 190), (70, 100, 150), (45, 65, 105))
LEAVES: Sequence[Color] = ((40, 90, 55), (45, 110, 80), (35, 75, 60), (60, 120, 110))


def pick(rng: Rng, colors: Sequence[Color]) -> Color:
    """Return one of the colors, a little lighter or darker."""
    return shade(colors[int(rng.integers(len(colors)))], float(rng.uniform(0.85, 1.12)))


def shade(color: Color, factor: float) -> Color:
    """Return a color times a factor, at most 255."""
    b, g, r = (min(255.0, channel * factor) for channel in color)
    return b, g, r


def person(rng: Rng) -> Model:
    """Return somebody walking or standing, drawn in lines as wide as the limbs."""
    size, stride = float(rng.uniform(0.85, 1.1)), float(rng.uniform(0.05, 0.4))
    top, trousers, skin = pick(rng, CLOTHES), pick(rng, CLOTHES), pick(rng, SKINS)
    hair = pick(rng, ((25, 22, 20), (30, 45, 70), (90, 130, 160)))
    swing = stride * 0.7
    limbs = [
        line([(-0.1, 0.9, 0), (-0.1, 0.05, stride)], shade(trousers, 0.85), 0.17),
        line([(0.1, 0.9, 0), (0.1, 0.05, -stride)], trousers, 0.17),
        line([(-0.24, 1.38, 0), (-0.28, 0.85, -swing)], shade(top, 0.85), 0.12),
        line([(0.24, 1.38, 0), (0.28, 0.85, swing)], shade(top, 0.85), 0.12),
        line([(-0.08, 0.95, 0), (-0.12, 1.38, 0)], top, 0.26),
        line([(0.08, 0.95, 0), (0.12, 1.38, 0)], top, 0.26),
        line([(0, 1.67, 0)], hair, 0.25),
        line([(0, 1.62, 0.02)], skin, 0.2),
    ]
    scaled = [face._replace(points=face.points * size, width=face.width * size) for face in limbs]
    return Model([Part(scaled)], 0.35, 0.45, 1.75 * size)


def car(rng: Rng) -> Model:
    """Return a car: a body with a cabin that ends at the rear (hatchback) or before it (sedan)."""
    half, wide = float(rng.uniform(1.9, 2.3)), float(rng.uniform(0.82, 0.92))
    waist, roof = float(rng.uniform(0.8, 0.92)), float(rng.uniform(1.38, 1.6))
    rear, hood, screen = -half + float(rng.choice([0.05, 0.1, 0.7])), half - 0.95, half - 1.6
    paint = pick(rng, PAINTS)
    bumper, axles = shade(paint, 0.75), (-half + 0.75, half - 0.8)
    wheels = [(circle(z, 0.32, radius), color) for radius, color in ((0.32, TIRE), (0.17, HUB)) for z in axles]
    body = prism(
        [(-half, 0.3), (half, 0.3), (half, 0.7), (hood, waist), (-half, waist)],
        wide,
        paint,
        (TIRE, bumper, paint, paint, bumper),
        on_sides=wheels,
        on_strips={1: lamps(wide, 0.55, WHITE_LAMP), 4: lamps(wide, 0.62, RED_LAMP)},
    )
    low, high, middle = waist + 0.04, roof - 0.07, (rear + hood) / 2 - 0.1
    panes = [
        ([(rear + 0.18, low), (middle, low), (middle, high), (rear + 0.42, high)], GLASS),
        ([(middle + 0.1, low), (hood - 0.12, low), (screen - 0.04, high), (middle + 0.1, high)], GLASS),
    ]
    outline = [(rear, waist), (hood, waist), (screen, roof), (rear + 0.35, roof)]
    cabin = prism(outline, wide - 0.06, paint, (paint, GLASS, paint, GLASS), on_sides=panes, level=1)
    return Model([body, cabin], wide, half, roof)


def bus(rng: Rng) -> Model:
    """Return a bus: one long box with a band of windows all around."""
    half, wide, roof = float(rng.uniform(4.2, 5.5)), 1.25, float(rng.uniform(2.9, 3.2))
    paint, low, high = pick(rng, PAINTS), float(rng.uniform(1.1, 1.35)), roof - 0.42
    count = int(half / 0.7)
    step = (2 * half - 0.4) / count
    starts = [-half + 0.25 + step * i for i in range(count)]
    panes = [(rectangle(z, low, z + step - 0.12, high), GLASS) for z in starts]
    wheels = [(circle(z, 0.48, 0.48), TIRE) for z in (-half * 0.55, half * 0.62)]
    skirt = (rectangle(-half, 0.35, half, 0.75), shade(paint, 0.7))
    screen, sign = rectangle(-wide + 0.1, low - 0.2, wide - 0.1, high), rectangle(-0.8, high + 0.06, 0.8, roof - 0.1)
    front: list[Decal] = [(screen, GLASS), (sign, (40, 160, 230)), *lamps(wide, 0.7, WHITE_LAMP)]
    back: list[Decal] = [(rectangle(-0.9, low + 0.2, 0.9, high), GLASS), *lamps(wide, 0.7, RED_LAMP)]
    box = prism(
        rectangle(-half, 0.35, half, roof),
        wide,
        paint,
        (TIRE, paint, paint, paint),
        on_sides=[skirt, *panes, *wheels],
        on_strips={1: front, 3: back},
    )
    return Model([box], wide, half, roof)


def truck(rng: Rng) -> Model:
    """Return a truck: a cab in front of a higher windowless box, both on a dark chassis."""
    half, wide = float(rng.uniform(3.0, 4.2)), 1.2
    roof, top = float(rng.uniform(2.9, 3.5)), float(rng.uniform(2.2, 2.6))
    paint, cargo = pick(rng, PAINTS), pick(rng, CARGO)
    seam = half - 1.9  # between box and cab
    wheels = [(circle(z, 0.48, 0.48), TIRE) for z in (-half + 0.9, -half + 2.0, half - 0.9)]
    chassis = prism(
        rectangle(-half, 0.35, half - 0.1, 0.95),
        wide - 0.1,
        TIRE,
        [TIRE] * 4,
        on_sides=wheels,
        on_strips={3: lamps(wide, 0.75, RED_LAMP)},
    )
    doors = (rectangle(-0.04, 1.0, 0.04, roof - 0.05), shade(cargo, 0.5))
    box = prism(rectangle(-half, 0.95, seam - 0.15, roof), wide, cargo, [cargo] * 4, on_strips={3: [doors]}, level=1)
    pane = [(seam + 0.7, 1.5), (half - 0.15, 1.5), (half - 0.3, top - 0.15), (seam + 0.7, top - 0.15)]
    cab = prism(
        [(seam, 0.5), (half, 0.5), (half, 1.4), (half - 0.25, top), (seam, top)],
        wide - 0.04,
        paint,
        (paint, paint, GLASS, paint, paint),
        on_sides=[(pane, GLASS), wheels[-1]],
        on_strips={1: lamps(wide, 0.75, WHITE_LAMP)},
        level=1,
    )
    return Model([chassis, box, cab], wide, half, roof)


def lamps(wide: float, y: float, color: Color) -> list[Decal]:
    """Return the two lamps at one end of a vehicle."""
    return [(circle(x, y, 0.12), color) for x in (-wide + 0.2, wide - 0.2)]


def tree(rng: Rng) -> Model:
    """Return a trunk below a few balls of leaves."""
    height, leaves = float(rng.uniform(3.2, 5.0)), pick(rng, LEAVES)
    faces = [line([(0, 0, 0), (0, height, 0)], (45, 60, 75), 0.24)]
    for i in range(5):
        x, y = float(rng.uniform(-0.6, 0.6)), height + float(rng.uniform(-0.7, 0.7))
        faces.append(line([(x, y, 0)], shade(leaves, 0.8 + 0.1 * i), float(rng.uniform(1.1, 1.7))))
    return Model([Part(faces)], 0.9, 0.9, height + 0.8)


def post(rng: Rng) -> Model:
    """Return a lamp post or a traffic sign."""
    if rng.random() < 0.5:
        pole = line([(0, 0, 0), (0, 5.5, 0), (0.9, 5.7, 0)], (95, 95, 95), 0.14)
        return Model([Part([pole, line([(0.9, 5.65, 0)], WHITE_LAMP, 0.35)])], 0.2, 0.2, 5.7)
    plate = line([(0, 2.3, 0)], pick(rng, ((40, 40, 200), (180, 90, 40), (60, 190, 220))), 0.65)
    return Model([Part([line([(0, 0, 0), (0, 2.4, 0)], (130, 130, 130), 0.1), plate])], 0.2, 0.2, 2.6)


def block(rng: Rng) -> Model:
    """Return a hedge, a bin or a power cabinet."""
    wide, half, height = (float(rng.uniform(*limits)) for limits in ((0.25, 0.5), (0.3, 1.2), (0.8, 1.3)))
    color = pick(rng, (*LEAVES, (110, 110, 110), (80, 95, 60)))
    return Model([prism(rectangle(-half, 0, half, height), wide, color, [color] * 4)], wide, half, height)


def building(rng: Rng) -> Model:
    """Return a house with rows of windows on both long sides."""
    half, wide, height = float(rng.uniform(4, 8)), 4.0, float(rng.uniform(5, 12))
    wall, window = pick(rng, WALLS), pick(rng, ((90, 75, 60), (120, 110, 100), (60, 55, 55)))
    panes = [
        (rectangle(z, y, z + 1.1, y + 1.5), window)
        for y in np.arange(1.2, height - 1.6, 3.0).tolist()
        for z in np.arange(-half + 0.8, half - 1.2, 2.2).tolist()
    ]
    return Model([prism(rectangle(-half, 0, half, height), wide, wall, [wall] * 4, on_sides=panes)], wide, half, height)


Draw = Callable[[Rng], Model]
OBJECTS: Mapping[str, Draw] = {"person": person, "car": car, "bus": bus, "truck": truck}
CLUTTER: Mapping[str, Draw] = {"tree": tree, "post": post, "block": block, "building": building}
