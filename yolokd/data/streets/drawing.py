"""Drawing for Streets: a pinhole camera above flat ground, models of flat faces, and a canvas that numbers objects.

World coordinates are meters: x right, y up, z ahead, ground at y = 0. A camera at (x0, eye, 0) with focal length f
projects a point to

    u = u0 + f (x - x0) / z,    v = v0 + f (eye - y) / z    (pixels of the canvas, v downwards)

A model is a list of parts and each part is convex, so that of its faces those turned to the camera never hide each
other: their projection keeps its counterclockwise order. The canvas has four channels, blue, green, red and the number
of the object drawn last at a pixel; one call of OpenCV draws color and number alike, so the mask of an object is
exactly what was drawn. Nothing is anti-aliased; the canvas is larger than the image and is reduced at the end.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Color = tuple[float, float, float]  # blue, green, red, 0 to 255
Profile = Sequence[tuple[float, float]]  # polygon in a plane, meters
Decal = tuple[Profile, Color]  # polygon painted on a face

MAX_OBJECTS = 255
NEAREST = 0.5  # meters; nearer points are projected as if they were here
FRACTION_BITS = 4  # OpenCV takes corners as integers in 1/16 pixel
FARTHEST_PIXEL = 20000  # coordinates beyond are cut, so that the integers do not overflow


class Face(NamedTuple):
    """A polygon, counterclockwise seen from outside; or a line of some width, where one point gives a disc."""

    points: Array  # (N, 3) meters
    color: Color
    width: float = 0.0  # meters; 0 for a polygon
    details: Sequence[Face] = ()  # drawn right after this face, if it is visible


class Part(NamedTuple):
    """Faces of a convex body, or lines. Lower levels are drawn first, and parts of one level from far to near."""

    faces: Sequence[Face]
    level: int = 0


class Model(NamedTuple):
    """Parts around the origin, facing +z, with the half extents of the footprint and the height."""

    parts: Sequence[Part]
    half_width: float
    half_length: float
    height: float


@dataclass(frozen=True)
class Camera:
    """Pinhole camera looking along +z: canvas size, focal length, vanishing point (pixels), position (meters)."""

    width: int
    height: int
    focal: float
    u0: float
    v0: float
    x0: float
    eye: float

    def project(self, points: Array) -> Array:
        """Return canvas coordinates (N, 2) of world points (N, 3)."""
        scale = self.focal / np.maximum(points[:, 2], NEAREST)
        return np.stack((self.u0 + scale * (points[:, 0] - self.x0), self.v0 + scale * (self.eye - points[:, 1])), 1)


@dataclass(frozen=True)
class Shading:
    """How sun and air change a color: color · (ambient + diffuse · max(0, normal · sun)), then haze by distance."""

    sun: tuple[float, float, float]  # unit vector towards it
    ambient: float
    diffuse: float
    haze_m: float  # distance at which half of the light comes from the haze
    haze_color: Color

    def apply(self, face: Face) -> Color:
        """Return the color of a face in world coordinates."""
        light = self.ambient + self.diffuse * (0.5 if face.width else max(0.0, self._facing(face.points)))
        z = float(face.points[:, 2].max())
        veil = z / (z + self.haze_m)
        b, g, r = (
            min(255.0, c * light * (1 - veil) + h * veil) for c, h in zip(face.color, self.haze_color, strict=True)
        )
        return b, g, r

    def _facing(self, points: Array) -> float:
        """Return the cosine between a polygon's outward normal and the sun."""
        ax, ay, az = (points[2] - points[0]).tolist()
        bx, by, bz = (points[1] - points[0]).tolist()
        nx, ny, nz = ay * bz - az * by, az * bx - ax * bz, ax * by - ay * bx
        length = max(float(np.sqrt(nx * nx + ny * ny + nz * nz)), 1e-9)
        return float(nx * self.sun[0] + ny * self.sun[1] + nz * self.sun[2]) / length


@dataclass
class Canvas:
    """The image in the making: (height, width, 4) uint8, see the module."""

    camera: Camera
    shading: Shading
    pixels: Array = field(init=False)

    def __post_init__(self) -> None:
        self.pixels = np.zeros((self.camera.height, self.camera.width, 4), np.uint8)

    @property
    def colors(self) -> Array:
        """View of the colors, (height, width, 3)."""
        return self.pixels[..., :3]

    @property
    def numbers(self) -> Array:
        """View of the numbers, (height, width)."""
        return self.pixels[..., 3]

    def draw_faces(self, faces: Iterable[Face], number: int = 0) -> None:
        """Draw faces in world coordinates in the order given, without those turned away from the camera."""
        for face in faces:
            corners = self.camera.project(face.points)
            if face.width or _is_counterclockwise(corners):
                self._draw_face(face, corners, number)
                for detail in face.details:
                    self._draw_face(detail, self.camera.project(detail.points), number)

    def _draw_face(self, face: Face, corners: Array, number: int) -> None:
        value = (*self.shading.apply(face), number)
        fixed = to_fixed_point(corners)
        size = face.width * self.camera.focal / max(float(face.points[:, 2].min()), NEAREST)  # pixels
        if not face.width:
            cv2.fillPoly(self.pixels, [fixed], value, cv2.LINE_8, FRACTION_BITS)
        elif len(fixed) == 1:
            radius = max(1 << FRACTION_BITS - 1, round(size / 2 * (1 << FRACTION_BITS)))
            cv2.circle(self.pixels, fixed[0].tolist(), radius, value, -1, cv2.LINE_8, FRACTION_BITS)
        else:
            cv2.polylines(self.pixels, [fixed], False, value, max(1, round(size)), cv2.LINE_8, FRACTION_BITS)


def to_fixed_point(corners: Array) -> Array:
    """Return canvas coordinates as OpenCV's fixed-point integers."""
    limited = np.clip(corners, -FARTHEST_PIXEL, FARTHEST_PIXEL)
    fixed: Array = np.rint(limited * (1 << FRACTION_BITS)).astype(np.int32)
    return fixed


def placed(model: Model, x: float, z: float, direction: tuple[float, float]) -> list[Face]:
    """Return a model's faces in world coordinates and drawing order.

    Args:
        model: What to place.
        x: Where its origin goes, meters.
        z: Likewise.
        direction: Unit vector (x, z) that the model's +z axis is turned to.
    """
    dx, dz = direction

    def move(face: Face) -> Face:
        px, py, pz = face.points.T
        points = np.stack((x + dz * px + dx * pz, py, z - dx * px + dz * pz), 1)
        return face._replace(points=points, details=[move(detail) for detail in face.details])

    parts = [(part.level, [move(face) for face in part.faces]) for part in model.parts]
    parts.sort(key=lambda part: (part[0], -max(float(face.points[:, 2].min()) for face in part[1])))
    return [face for _, faces in parts for face in faces]


def prism(
    profile: Profile,
    half_width: float,
    side: Color,
    strips: Sequence[Color],
    *,
    on_sides: Sequence[Decal] = (),
    on_strips: Mapping[int, Sequence[Decal]] = MappingProxyType({}),
    level: int = 0,
) -> Part:
    """Return the convex body that a profile in (z, y) sweeps along x.

    Args:
        profile: Convex polygon in (z, y), counterclockwise with z to the right and y up, meters.
        half_width: It reaches from -half_width to half_width along x.
        side: Color of the two ends at ±half_width.
        strips: Color of the face on each edge of the profile, starting with the edge from point 0 to point 1.
        on_sides: Polygons in (z, y), painted on both ends.
        on_strips: Polygons in (x, y), painted on the face of the edge of this index, which must be vertical.
        level: See `Part`.
    """
    faces = []
    for x, points in ((half_width, profile), (-half_width, profile[::-1])):
        details = [Face(np.array([(x, y, z) for z, y in polygon]), color) for polygon, color in on_sides]
        faces.append(Face(np.array([(x, y, z) for z, y in points]), side, details=details))
    for i, ((z, y), (z_next, y_next)) in enumerate(zip(profile, [*profile[1:], profile[0]], strict=True)):
        corners = [(half_width, y, z), (-half_width, y, z), (-half_width, y_next, z_next), (half_width, y_next, z_next)]
        painted = [Face(np.array([(x, v, z) for x, v in polygon]), color) for polygon, color in on_strips.get(i, ())]
        faces.append(Face(np.array(corners), strips[i], details=painted))
    return Part(faces, level)


def line(points: Sequence[tuple[float, float, float]], color: Color, width: float) -> Face:
    """Return a line through points, `width` meters wide; one point gives a disc."""
    return Face(np.array(points, dtype=np.float64), color, width=width)


def rectangle(left: float, low: float, right: float, high: float) -> Profile:
    """Return the corners, counterclockwise."""
    return [(left, low), (right, low), (right, high), (left, high)]


def circle(x: float, y: float, radius: float) -> Profile:
    """Return a polygon of twelve corners in place of a circle."""
    turns = [(1.0, 0.0), (0.866, 0.5), (0.5, 0.866), (0.0, 1.0), (-0.5, 0.866), (-0.866, 0.5)]
    return [(x + radius * c, y + radius * s) for c, s in [*turns, *[(-c, -s) for c, s in turns]]]


def _is_counterclockwise(corners: Array) -> bool:
    """Whether a polygon on the canvas, whose v axis points down, is counterclockwise to the eye."""
    (u0, v0), (u1, v1), (u2, v2) = corners[:3].tolist()
    return bool((u1 - u0) * (v2 - v0) - (v1 - v0) * (u2 - u0) < 0)
