"""What the models of Streets are made of: colours, plates, boxes, and hulls swept from a side profile.

Models are in metres, stand on the ground at the origin and face +z. Colours are blue, green, red from 0 to 255.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from math import cos, pi, sin

import numpy as np

from yolokd.data.streets.draw import Body, Colour, Face, Model, Point

Rng = np.random.Generator
Outline = Sequence[tuple[float, float]]  # (z, y) in metres
Profile = Sequence[tuple[str, float, float]]  # the panel that starts here, z as a share of the length, y in metres

GLASS: Colour = (78, 66, 52)
TYRE: Colour = (30, 28, 28)
PAINTS: Sequence[Colour] = (
    (235, 235, 235), (228, 232, 236), (44, 42, 42), (58, 54, 52), (120, 116, 112), (165, 162, 158), (190, 190, 188),
    (150, 80, 30), (110, 55, 25), (40, 40, 175), (35, 30, 120), (70, 95, 40), (60, 190, 220), (120, 150, 180),
    (60, 80, 120), (190, 130, 60),
)  # fmt: skip


@dataclass(frozen=True)
class Shape:
    """A model, the half extents of its footprint and its height."""

    model: Model
    half_width: float
    half_length: float
    height: float


def pick(rng: Rng, options: Sequence[Colour]) -> Colour:
    """One of the colours, a little brighter or darker."""
    return dark(options[int(rng.integers(len(options)))], float(rng.uniform(0.8, 1.1)))


def dark(colour: Colour, share: float) -> Colour:
    """The colour multiplied by a share."""
    b, g, r = colour
    return b * share, g * share, r * share


@cache
def circle(corners: int) -> tuple[tuple[float, float], ...]:
    """Corners of a regular polygon in the unit circle: (cosine, sine) of each angle."""
    angles = [2 * pi * i / corners for i in range(corners)]
    return tuple((cos(a), sin(a)) for a in angles)


def disc(x: float, y: float, z: float, radius: float, colour: Colour, corners: int = 12) -> Face:
    """A round plate in the plane across x, seen from both sides."""
    return Face([(x, y + radius * s, z + radius * c) for c, s in circle(corners)], colour, both=True)


def block(x: tuple[float, float], y: tuple[float, float], z: tuple[float, float], colour: Colour) -> list[Face]:
    """The visible sides of a box (all but the bottom): near, far, left, right, top."""
    (a, b), (c, d), (e, f) = x, y, z
    quads: list[list[Point]] = [
        [(a, c, e), (b, c, e), (b, d, e), (a, d, e)],
        [(a, c, f), (b, c, f), (b, d, f), (a, d, f)],
        [(a, c, e), (a, c, f), (a, d, f), (a, d, e)],
        [(b, c, e), (b, c, f), (b, d, f), (b, d, e)],
        [(a, d, e), (b, d, e), (b, d, f), (a, d, f)],
    ]
    return [Face(quad, colour) for quad in quads]


def moved(body: Body, z: float) -> Body:
    """The body shifted forward by so many metres."""

    def shift(face: Face) -> Face:
        points = [(a, b, c + z) for a, b, c in face.points]
        return face._replace(points=points, details=tuple(shift(detail) for detail in face.details))

    return Body([shift(face) for face in body.faces], body.layer)


def shrink(outline: Outline, share: float) -> list[tuple[float, float]]:
    """An outline pulled towards its middle."""
    middle = np.mean(outline, 0)
    return [(float(z), float(y)) for z, y in middle + (np.array(outline) - middle) * share]


@dataclass(frozen=True)
class Hull:
    """A side profile swept across the width; above the belt line it may get narrower."""

    profile: Profile
    length: float
    half: float  # half of the width
    belt: float = 9.0  # height from which it narrows
    taper: float = 0.0  # share of the width lost per metre above the belt

    def point(self, s: float, z: float, y: float) -> Point:
        """The point at the lateral share s (-1 left, 1 right), z in metres from the middle, height y."""
        return s * self.half * (1 - self.taper * max(0.0, y - self.belt)), y, z

    @cached_property
    def corners(self) -> Mapping[str, tuple[float, float]]:
        """(z, y) in metres where each panel starts."""
        return {name: ((z - 0.5) * self.length, y) for name, z, y in self.profile}

    @cached_property
    def edges(self) -> Mapping[str, tuple[tuple[float, float], tuple[float, float]]]:
        """Where each panel starts and ends, (z, y) in metres."""
        around = [*self.corners.values()]
        return dict(zip(self.corners, zip(around, [*around[1:], around[0]], strict=True), strict=True))

    def on(self, panel: str, s: tuple[float, float], t: tuple[float, float], colour: Colour, glow: float = 0) -> Face:
        """A rectangle on a panel: lateral shares s, shares t along the profile."""
        (z0, y0), (z1, y1) = self.edges[panel]
        low, high = ((z0 + (z1 - z0) * share, y0 + (y1 - y0) * share) for share in t)
        points = (self.point(s[0], *low), self.point(s[1], *low), self.point(s[1], *high), self.point(s[0], *high))
        return Face(points, colour, glow=glow)

    def pair(
        self, panel: str, s: tuple[float, float], t: tuple[float, float], colour: Colour, glow: float
    ) -> list[Face]:
        """The same rectangle left and right, such as two lamps."""
        return [self.on(panel, (sign * s[0], sign * s[1]), t, colour, glow) for sign in (-1, 1)]

    def flank(self, s: int, outline: Outline, colour: Colour, width: float = 0.0) -> Face:
        """A polygon (or line) of (z, y) on the left (-1) or right (1) side."""
        return Face([self.point(s, z, y) for z, y in outline], colour, width=width)

    def wheel(self, s: int, z: float, radius: float, rim: Colour) -> list[Face]:
        """A wheel on one side, with the dark arch around it."""
        parts: Sequence[tuple[float, Colour]] = ((1.12, (20, 18, 18)), (1.0, TYRE), (0.6, rim))
        return [disc(s * self.half, radius, z, radius * share, colour) for share, colour in parts]

    def body(
        self, colour: Colour, panels: Mapping[str, Sequence[Face]], flank: Callable[[int], Sequence[Face]]
    ) -> Body:
        """All panels and both sides, with what is on them."""
        faces = [self.on(n, (-1, 1), (0, 1), colour)._replace(details=panels.get(n, ())) for n in self.corners]
        outline = [*self.corners.values()]
        return Body([*faces, *(self.flank(s, outline, colour)._replace(details=flank(s)) for s in (-1, 1))])


def chassis(half: float, length: float, axles: Sequence[float], radius: float, clearance: float) -> Body:
    """Underside and tyres, as seen below the bumpers; always behind the hull above it."""
    end = length / 2 - 0.15
    faces = block((-half * 0.92, half * 0.92), (clearance * 0.55, clearance + 0.2), (-end, end), (26, 24, 24))
    for z in axles:
        for s in (-1, 1):
            inner, outer = sorted((s * half * 0.72, s * half * 0.98))
            faces += block((inner, outer), (0.0, 2 * radius), (z - radius * 0.7, z + radius * 0.7), TYRE)
    return Body(faces, layer=-1)


def box_profile(length: float, low: float, high: float, lean: float = 0.0) -> Profile:
    """Profile of a box whose front leans back by `lean` metres at the top."""
    middle, back = (low + high) / 2, 1.0 - lean / length
    points = (("rear", 0.0, low), ("roof", 0.0, high), ("screen", back, high), ("front", 1.0, middle))
    return (*points, ("under", 1.0, low))
