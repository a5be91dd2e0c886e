"""Drawing for Streets: a pinhole camera above flat ground, and a canvas that knows which object is on top.

World and model coordinates are metres: x right, y up, z forward (away from the camera), ground at y = 0. A model is a
list of bodies, a body a list of faces; whatever is farther is drawn first (painter's algorithm). The canvas has four
channels: blue, green, red and the number of the object drawn last at a pixel. One call of OpenCV draws colour and
number alike, so the masks that the boxes come from are exactly the pixels drawn. Nothing is anti-aliased here; the
canvas is larger than the picture and is reduced at the end.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Colour = tuple[float, float, float]  # blue, green, red, 0 to 255
Point = tuple[float, float, float]

LIT = 255  # number of pixels that shine by themselves (windows at night) and belong to no object
MAX_OBJECTS = 250
_SHIFT = 4  # OpenCV takes corners as integers in 1/16 pixel


@dataclass(frozen=True)
class Camera:
    """Pinhole camera looking along +z, on the canvas: pixels of the canvas, metres of the world."""

    width: int
    height: int
    focal: float
    u0: float  # column of the vanishing point
    horizon: float  # its row
    eye: float  # metres above the ground

    def project(self, points: Array) -> Array:
        """Return canvas positions (N, 2) of world points (N, 3); points nearer than 0.5 m are pushed to 0.5 m."""
        z = np.maximum(points[:, 2], 0.5)
        u = self.u0 + self.focal * points[:, 0] / z
        v = self.horizon + self.focal * (self.eye - points[:, 1]) / z
        return np.stack((u, v), 1)


@dataclass(frozen=True)
class Light:
    """What the air and the sun do to colours: towards the sun, shares of light, haze per metre and its colour."""

    sun: Point
    ambient: float
    diffuse: float
    haze: float
    haze_colour: Colour

    def through(self, colour: Colour, distance: float) -> Colour:
        """A colour as seen through so many metres of haze."""
        veil = 1 - float(np.exp(-self.haze * distance))
        b, g, r = (c * (1 - veil) + h * veil for c, h in zip(colour, self.haze_colour, strict=True))
        return b, g, r


class Face(NamedTuple):  # made by the thousand, hence no dataclass
    """A flat polygon, or with `width` a line of that many metres across (one point: a ball of that diameter)."""

    points: Sequence[Point]
    colour: Colour
    width: float = 0.0
    glow: float = 0.0  # radius in metres of the halo of a lamp that is on; 0 for none
    both: bool = False  # also visible from behind
    closed: bool = False  # joins the last point of a line to the first
    lit: bool = False  # shines by itself: not dimmed at night, part of no object
    details: Sequence[Face] = ()  # drawn right after, wherever this face is visible


@dataclass(frozen=True)
class Body:
    """Faces around a common middle, which tells outside from inside. A lower layer is always drawn earlier."""

    faces: Sequence[Face]
    layer: int = 0


Model = Sequence[Body]


@dataclass(frozen=True)
class Thing:
    """A model that stands at (x, z), turned by `heading`: radians, 0 faces away, clockwise seen from above."""

    model: Model
    x: float = 0.0
    z: float = 0.0
    heading: float = 0.0
    number: int = 0  # 0 if it is no object


@dataclass(frozen=True)
class Lamp:
    """A light that is on, where it landed on the canvas."""

    u: float
    v: float
    radius: float  # pixels of the halo
    colour: Colour
    pixel: tuple[float, ...]  # what was drawn: hazed colour and number; anything else there by now hides the lamp


@dataclass
class Canvas:
    """The picture in the making: (height, width, 4) uint8, and the lamps that are on."""

    camera: Camera
    light: Light
    pixels: Array = field(init=False)
    lamps: list[Lamp] = field(init=False, default_factory=list)

    def __post_init__(self) -> None:
        self.pixels = np.zeros((self.camera.height, self.camera.width, 4), np.uint8)

    @property
    def numbers(self) -> Array:
        """Number of the object on top, (height, width)."""
        return self.pixels[..., 3]

    def fill(self, corners: Array, colour: Colour) -> None:
        """Fill one polygon (N, 2) of canvas positions, or several (M, N, 2); they belong to no object."""
        fixed = _fixed(corners)
        cv2.fillPoly(self.pixels, [fixed] if fixed.ndim == 2 else list(fixed), (*colour, 0), cv2.LINE_8, _SHIFT)

    def draw(self, things: Sequence[Thing]) -> Iterator[Array]:
        """Draw things one after the other; after each, yield its extent on the canvas: left, top, right, bottom.

        Extents are not clipped to the canvas. Everything is projected and shaded in one go, which is several times
        faster than thing by thing; what is drawn first is up to the caller.
        """
        if not things:
            return
        mesh = _Mesh(things)
        corners = self.camera.project(mesh.points)
        scale = self.camera.focal / np.maximum(mesh.centres[:, 2], 0.5)  # (F,) pixels per metre
        facing, colours = mesh.shade(self.light, self.camera.eye)
        reach = np.repeat(mesh.widths / 2 * scale, mesh.counts)[:, None]
        starts = mesh.starts[np.searchsorted(mesh.things, np.arange(len(things)))]  # first point of each thing
        low = np.minimum.reduceat(corners - reach, starts)
        extents = np.concatenate((low, np.maximum.reduceat(corners + reach, starts)), 1)
        fixed, scales = _fixed(corners), scale.tolist()
        current = 0
        for i in mesh.order(self.camera.eye):
            while mesh.things[i] > current:
                yield extents[current]
                current += 1
            if facing[i]:
                face, place = mesh.faces[i], mesh.place(i)
                value = (*colours[i], LIT if face.lit else things[current].number)
                self._face(face, fixed[place], value, scales[i])
                if face.glow:
                    u, v = corners[place].mean(0).tolist()
                    self.lamps.append(Lamp(u, v, face.glow * scales[i], face.colour, value))
        yield from extents[current:]

    def _face(self, face: Face, corners: Array, value: tuple[float, ...], scale: float) -> None:
        """Draw one face; corners are fixed-point, scale is in pixels per metre."""
        if not face.width:
            cv2.fillPoly(self.pixels, [corners], value, cv2.LINE_8, _SHIFT)
        elif len(corners) == 1:
            radius = max(1 << _SHIFT - 1, round(face.width * scale / 2 * (1 << _SHIFT)))
            cv2.circle(self.pixels, corners[0].tolist(), radius, value, -1, cv2.LINE_8, _SHIFT)
        else:
            thickness = max(1, round(face.width * scale))
            cv2.polylines(self.pixels, [corners], face.closed, value, thickness, cv2.LINE_8, _SHIFT)


class _Mesh:
    """The faces of several things in arrays: F faces of B bodies, P points in all, in metres of the world."""

    def __init__(self, things: Sequence[Thing]) -> None:
        self.faces: list[Face] = []
        owners: list[int] = []  # per face, the one that decides when it is drawn: itself, or the face that it is on
        bodies: list[int] = []  # per face
        parts: list[tuple[int, int]] = []  # per body: thing, layer
        for number, thing in enumerate(things):
            for body in thing.model:
                for face in body.faces:
                    owners += [len(self.faces)] * (1 + len(face.details))
                    bodies += [len(parts)] * (1 + len(face.details))
                    self.faces += [face, *face.details]
                parts.append((number, body.layer))
        self.owners, self.bodies, table = np.array(owners), np.array(bodies), np.array(parts)
        self.things, self.layers = table[self.bodies].T
        self.counts = np.array([len(face.points) for face in self.faces])
        self.ends = self.counts.cumsum()
        self.starts = self.ends - self.counts
        self.widths = np.array([face.width for face in self.faces])
        self.points = self._placed(things)  # (P, 3)
        self.centres = np.add.reduceat(self.points, self.starts) / self.counts[:, None]  # (F, 3)
        firsts = np.searchsorted(self.bodies, np.arange(len(parts)))
        sizes = np.diff(np.append(firsts, len(self.faces)))
        self.middles = (np.add.reduceat(self.centres, firsts) / sizes[:, None])[self.bodies]  # (F, 3), of the body

    def _placed(self, things: Sequence[Thing]) -> Array:
        local = np.array([point for face in self.faces for point in face.points], dtype=np.float64)
        places = np.array([(thing.x, thing.z, np.cos(thing.heading), np.sin(thing.heading)) for thing in things])
        x, z, c, s = places[np.repeat(self.things, self.counts)].T
        return np.stack((x + c * local[:, 0] + s * local[:, 2], local[:, 1], z - s * local[:, 0] + c * local[:, 2]), 1)

    def place(self, i: int) -> slice:
        """The points of a face."""
        return slice(self.starts[i], self.ends[i])

    def order(self, eye: float) -> list[int]:
        """Thing by thing; in each by layer, then far bodies first, then far faces first, details after theirs."""
        far = np.linalg.norm(self.centres - (0, eye, 0), axis=1)[self.owners]
        away = np.linalg.norm(self.middles - (0, eye, 0), axis=1)
        order: list[int] = np.lexsort((np.arange(len(far)), -far, -away, self.layers, self.things)).tolist()
        return order

    def shade(self, light: Light, eye: float) -> tuple[list[bool], list[list[float]]]:
        """Visibility and colour (blue, green, red) of every face."""
        lines = self.widths > 0
        normals = self._normals()
        normals *= np.where(((self.centres - self.middles) * normals).sum(1, keepdims=True) < 0, -1, 1)  # outwards
        towards = np.array([0, eye, 0]) - self.centres
        free = lines | np.array([face.both for face in self.faces])
        facing = (((normals * towards).sum(1) > 0) | free)[self.owners]
        bright = light.ambient + light.diffuse * np.where(lines, 0.5, np.clip(normals @ np.array(light.sun), 0, 1))
        shining = np.array([face.lit or face.glow > 0 for face in self.faces])
        bright = np.where(shining, 1.0, bright[self.owners])[:, None]
        veil = 1 - np.exp(-light.haze * np.linalg.norm(self.middles, axis=1))[:, None]
        colours = np.array([face.colour for face in self.faces]) * bright * (1 - veil)
        return facing.tolist(), np.clip(colours + veil * np.array(light.haze_colour), 0, 255).tolist()

    def _normals(self) -> Array:
        """Unit normals (F, 3) by the first three points; meaningless for lines and balls."""
        last = len(self.points) - 1
        origin = self.points[self.starts]
        a = self.points[np.minimum(self.starts + 1, last)] - origin
        b = self.points[np.minimum(self.starts + 2, last)] - origin
        normals = np.cross(a, b)
        unit: Array = normals / np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-9)
        return unit


def _fixed(corners: Array) -> Array:
    """Positions as OpenCV's fixed-point integers; far outside the canvas they are cut, so that nothing overflows."""
    cut: Array = np.rint(np.clip(corners, -20000, 20000) * (1 << _SHIFT)).astype(np.int32)
    return cut
