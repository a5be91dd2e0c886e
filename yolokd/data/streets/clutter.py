"""Things of Streets without a class, many of which look like things that have one."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from yolokd.data.streets.draw import Body, Colour, Face, Point
from yolokd.data.streets.people import CLOTHES
from yolokd.data.streets.shapes import GLASS, PAINTS, TYRE, Rng, Shape, block, circle, dark, pick

GREENS: Sequence[Colour] = ((45, 95, 60), (40, 80, 45), (60, 120, 80), (50, 105, 95), (60, 110, 140))
STEEL: Colour = (110, 110, 108)


def _flat(outline: Sequence[tuple[float, float]], colour: Colour, z: float = 0.0) -> Face:
    """A plate that faces the camera, outline in (x, y)."""
    return Face([(x, y, z) for x, y in outline], colour, both=True)


def _round(x: float, y: float, radius: float, colour: Colour, corners: int = 12) -> Face:
    return _flat([(x + radius * c, y + radius * s) for c, s in circle(corners)], colour)


def _rectangle(x: float, y: float, half: float, height: float, colour: Colour, z: float = 0.0) -> Face:
    return _flat([(x - half, y), (x + half, y), (x + half, y + height), (x - half, y + height)], colour, z)


def _stack(first: Face, *rest: Face) -> Face:
    return first._replace(details=rest)


def tree(rng: Rng) -> Shape:
    """A trunk and a crown of leaves."""
    height, spread, green = float(rng.uniform(3.5, 9)), float(rng.uniform(1.0, 2.2)), pick(rng, GREENS)
    faces = [Face([(0, 0, 0), (0, height * 0.6, 0)], (45, 60, 80), width=float(rng.uniform(0.18, 0.4)))]
    for _ in range(9):
        x, y, z = rng.uniform(-1, 1, 3) * (spread * 0.7, height * 0.22, spread * 0.7)
        shade = dark(green, float(rng.uniform(0.75, 1.2) + 0.12 * y))
        size = float(rng.uniform(0.9, 1.6)) * spread
        faces.append(Face([(float(x), height * 0.72 + float(y), float(z))], shade, width=size))
    return Shape([Body(faces)], 0.3, 0.3, height)


def bush(rng: Rng) -> Shape:
    """A low heap of leaves."""
    green, size = pick(rng, GREENS), float(rng.uniform(0.5, 1.1))
    blobs = [rng.uniform(-1, 1, 3) * (size, size * 0.25, size * 0.5) + (0, size * 0.45, 0) for _ in range(6)]
    faces = [Face([tuple(b)], dark(green, float(rng.uniform(0.7, 1.15))), width=size * 0.9) for b in blobs]
    return Shape([Body(faces)], size, size * 0.6, size)


def lamp_post(rng: Rng, on: bool = False) -> Shape:
    """A street lamp, its arm over the road (towards -x)."""
    height, arm = float(rng.uniform(5, 8)), float(rng.uniform(0.8, 2.0))
    mast = Face([(0, 0, 0), (0, height, 0), (-arm, height + 0.2, 0)], STEEL, width=0.14)
    head = [(-arm - 0.3, height + 0.15, 0.0), (-arm + 0.2, height + 0.2, 0.0)]
    lamp = Face(head, (170, 220, 245), width=0.16, glow=0.5 * on)
    foot = Face([(0, 0, 0), (0, 1.0, 0)], dark(STEEL, 0.8), width=0.24)
    return Shape([Body([foot, mast, lamp])], 0.15, 0.15, height)


def traffic_sign(rng: Rng) -> Shape:
    """A round, triangular or square sign on a pole."""
    y, kind = float(rng.uniform(2.0, 2.6)), rng.integers(4)
    pole = Face([(0, 0, 0.02), (0, y, 0.02)], STEEL, width=0.07)
    red, white, blue = (40, 40, 200), (235, 235, 235), (180, 90, 30)
    plates = (
        _stack(_round(0, y, 0.34, red), _round(0, y, 0.24, white)),
        _stack(_flat([(-0.38, y - 0.3), (0.38, y - 0.3), (0, y + 0.36)], red),
               _flat([(-0.24, y - 0.21), (0.24, y - 0.21), (0, y + 0.2)], white)),
        _stack(_rectangle(0, y - 0.35, 0.35, 0.7, blue), _rectangle(0, y - 0.2, 0.12, 0.4, white)),
        _stack(_round(0, y, 0.33, red, 8), _rectangle(0, y - 0.06, 0.22, 0.12, white)),
    )  # fmt: skip
    return Shape([Body([pole, plates[kind]])], 0.15, 0.1, y + 0.4)


def traffic_light(rng: Rng) -> Shape:
    """Three lamps on a pole, one of them on."""
    y, lit = 2.4, int(rng.integers(3))
    colours: Sequence[Colour] = ((40, 40, 240), (40, 190, 250), (120, 230, 60))
    lamps = [_round(0, y + 0.75 - 0.3 * i, 0.11, dark(colour, 0.25)) for i, colour in enumerate(colours)]
    lamps[lit] = lamps[lit]._replace(colour=colours[lit], glow=0.25)
    box = _stack(_rectangle(0, y, 0.17, 0.92, (30, 30, 30)), *lamps)
    return Shape([Body([Face([(0, 0, 0.02), (0, y, 0.02)], (60, 60, 60), width=0.1), box])], 0.2, 0.1, 3.4)


def bin_(rng: Rng) -> Shape:
    """A litter bin or wheelie bin, about as large as a child."""
    height, half = float(rng.uniform(0.8, 1.25)), float(rng.uniform(0.22, 0.36))
    colour = pick(rng, ((60, 60, 60), (60, 100, 50), (150, 90, 40), (40, 120, 200), (50, 50, 130)))
    lid = block((-half * 1.1, half * 1.1), (height, height + 0.09), (-half * 1.1, half * 1.1), dark(colour, 0.6))
    return Shape(
        [Body(block((-half, half), (0.05, height), (-half, half), colour)), Body(lid, layer=1)], half, half, height
    )


def post(rng: Rng) -> Shape:
    """A bollard, hydrant or parcel column: a figure of a person's width without limbs."""
    height, width = float(rng.uniform(0.7, 1.6)), float(rng.uniform(0.14, 0.42))
    colour = pick(rng, (*CLOTHES, STEEL))
    faces = [Face([(0, width / 2, 0), (0, height - width / 2, 0)], colour, width=width)]
    if rng.random() < 0.6:
        faces.append(Face([(0, height, 0)], pick(rng, ((60, 60, 60), (150, 180, 220))), width=width * 0.8))
    return Shape([Body(faces)], width / 2, width / 2, height)


def cone(rng: Rng) -> Shape:
    """A traffic cone."""
    orange, white = (30, 100, 240), (230, 230, 230)
    parts = ((0.0, 0.05, 0.26, orange), (0.05, 0.3, 0.17, orange), (0.3, 0.5, 0.12, white), (0.5, 0.75, 0.08, orange))
    faces = [Face([(-w, a, 0), (w, a, 0), (w * 0.7, b, 0), (-w * 0.7, b, 0)], c, both=True) for a, b, w, c in parts]
    return Shape([Body(faces)], 0.25, 0.25, 0.75)


def container(rng: Rng) -> Shape:
    """A skip, site hut or kiosk: the size and stripes of a small lorry, but no wheels."""
    half, length, height = float(rng.uniform(0.9, 1.25)), float(rng.uniform(1.2, 3.0)), float(rng.uniform(1.3, 2.7))
    colour = pick(rng, PAINTS)
    near, *rest = block((-half, half), (0.0, height), (-length, length), colour)
    tint = GLASS if rng.random() < 0.5 else dark(colour, 0.7)
    window = _rectangle(0, height * 0.45, half * 0.7, height * 0.35, tint, z=-length)
    far, left, right, top = rest

    def ribs(x: float) -> list[Face]:
        places = np.linspace(-length, length, 6)[1:-1].tolist()
        return [Face([(x, 0.1, z), (x, height - 0.1, z)], dark(colour, 0.75), width=0.05) for z in places]

    walls = [left._replace(details=ribs(-half)), right._replace(details=ribs(half))]
    return Shape([Body([near._replace(details=[window]), far, *walls, top])], half, length, height)


def billboard(rng: Rng) -> Shape:
    """A poster with the picture of a car or of a person."""
    half, low = float(rng.uniform(1.0, 1.7)), float(rng.uniform(0.5, 1.6))
    high = low + half * 1.2
    paper, ink = pick(rng, PAINTS), pick(rng, CLOTHES)
    if rng.random() < 0.5:
        picture = _poster_car(half, low, ink)
    else:
        y = low + half * 0.15
        legs, trunk = _rectangle(0, y, half * 0.13, half * 0.5, dark(ink, 0.7)), (0, y + half * 0.45, half * 0.2)
        head = _round(0, y + half * 0.92, half * 0.11, (140, 175, 220))
        picture = [legs, _rectangle(*trunk, half * 0.35, ink), head]
    board = _stack(_rectangle(0, low, half, high - low, paper), *picture)
    posts = [Face([(s * half * 0.7, 0, 0.05), (s * half * 0.7, low, 0.05)], STEEL, width=0.1) for s in (-1, 1)]
    return Shape([Body([*posts, board])], half, 0.1, high)


def _poster_car(half: float, low: float, ink: Colour) -> list[Face]:
    y, k = low + half * 0.3, half * 0.8
    side = [(-1, 0.05), (1, 0.05), (1, 0.28), (0.55, 0.35), (0.25, 0.62), (-0.45, 0.62), (-0.75, 0.36), (-1, 0.32)]
    glass = [(0.42, 0.36), (0.2, 0.56), (-0.4, 0.56), (-0.6, 0.37)]
    wheels = [_round(s * 0.58 * k, y + 0.08 * k, 0.17 * k, TYRE) for s in (-1, 1)]
    shapes = [_flat([(a * k, y + b * k) for a, b in outline], c) for outline, c in ((side, ink), (glass, GLASS))]
    return [*shapes, *wheels]


def rack(rng: Rng) -> Shape:
    """Hoops to lock bicycles to, round like their wheels."""
    faces = []
    for i in range(int(rng.integers(2, 5))):
        z = 0.8 * i - 1.2
        arc: list[Point] = [
            (0.0, 0.75 * float(np.sin(a)), z + 0.3 * float(np.cos(a))) for a in np.linspace(0, np.pi, 9)
        ]
        faces.append(Face(arc, STEEL, width=0.05))
    return Shape([Body(faces)], 0.1, 1.6, 0.8)


def bench(rng: Rng) -> Shape:
    """A bench that faces the road."""
    wood = pick(rng, ((60, 100, 140), (50, 70, 95)))
    slats = ((0.46, 0.1), (0.46, -0.1), (0.75, -0.25), (0.95, -0.28))
    seat = [Face([(-0.8, y, z), (0.8, y, z)], wood, width=0.12) for y, z in slats]
    legs = [Face([(s * 0.6, 0, 0), (s * 0.6, 0.45, 0)], STEEL, width=0.06) for s in (-1, 1)]
    return Shape([Body([*legs, *seat])], 0.85, 0.3, 1.0)
