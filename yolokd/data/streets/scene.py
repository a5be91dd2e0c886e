"""One image of Streets: a road scene, drawn from far to near, and the boxes of what can be seen.

The ground is divided into strips along z (lanes, parking lanes, pavements, houses), cut in two by a cross street. Seen
from the camera at x0, what stands in a strip farther from x0 never hides what stands in one nearer to it, since a line
of sight only moves away from x0. Within a strip the extents along z do not overlap. Hence the order

    beyond the cross street < its far lane < its near lane < before it        (drawn first < drawn last)
    in each part: strips by falling distance from x0, in each strip from far to near
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from yolokd.data.streets.drawing import MAX_OBJECTS, Array, Camera, Canvas, Color, Face, Model, placed, to_fixed_point
from yolokd.data.streets.light import Light, develop, draw_light
from yolokd.data.streets.objects import CLUTTER, NAMES, OBJECTS, Rng, pick

SCALE = 2  # the canvas is this many times the image
MIN_VISIBLE = 0.25  # of the pixels that an object would have if nothing hid it, for it to get a box
MIN_INSIDE = 0.6  # of an object's extent inside the image, for it to be placed at all
MIN_SIDE = 6.0  # pixels of the image, of a box
NEAR, FAR = 4.0, 21.0  # meters, of objects
HORIZON = 90.0  # meters, where road and houses end

LANE = 3.5  # meters
VEHICLES = ("car", "car", "bus", "truck")
MODELS = {**OBJECTS, **CLUTTER}
LABELS = {name: index for index, name in enumerate(NAMES)}


@dataclass(frozen=True)
class Item:
    """A model placed in a scene."""

    model: Model
    label: int | None  # index in NAMES; None for what gets no box
    x: float
    z: float
    direction: tuple[float, float]
    order: tuple[float, ...]  # drawn by rising order

    @property
    def corners(self) -> Array:
        """The footprint, (4, 3) meters."""
        (dx, dz), across, along = self.direction, self.model.half_width, self.model.half_length
        signs = ((-1, -1), (1, -1), (1, 1), (-1, 1))
        offsets = [(s * across * dz + t * along * dx, t * along * dz - s * across * dx) for s, t in signs]
        return np.array([(self.x + dx, 0.0, self.z + dz) for dx, dz in offsets])


@dataclass(frozen=True)
class Strip:
    """Ground between two x, with what may stand there: names of objects or of clutter."""

    left: float
    right: float
    names: tuple[str, ...]
    gap: float  # mean distance between two things, meters
    heading: int  # 1 away from the camera, -1 towards it, 0 either
    near: float = NEAR
    far: float = FAR


@dataclass(frozen=True)
class Street:
    """Strips, and where the cross street begins (None if there is none)."""

    strips: tuple[Strip, ...]
    crossing: float | None
    left: float  # of the roadway
    right: float


@dataclass(frozen=True)
class Rendered:
    """An image with its labels."""

    image: Array  # (h, w, 3) uint8, blue, green, red
    classes: Array  # (N,) int64, index in NAMES
    boxes_xyxy_px: Array  # (N, 4) float64, extent of the visible pixels
    light: str  # its kind, see `light.KINDS`


def render(rng: Rng, size: tuple[int, int]) -> Rendered:
    """Draw a scene of the size (w, h) in pixels from a random stream."""
    light, camera = draw_light(rng), draw_camera(rng, size)
    street = draw_street(rng)
    items = furnish(street, camera, rng)
    canvas = Canvas(camera, light.shading)
    paint_ground(canvas, street, light, rng)
    paint_shadows(canvas, items, light)
    classes, boxes = draw_items(canvas, items)
    return Rendered(develop(canvas.colors, light, size, rng), classes, boxes, light.kind)


def draw_camera(rng: Rng, size: tuple[int, int]) -> Camera:
    """Return a camera in a car, in a bus or on a mast, somewhere above the right lane or the pavement."""
    width, height = size[0] * SCALE, size[1] * SCALE
    eye = float(rng.uniform(1.3, 4.0))
    return Camera(
        width=width,
        height=height,
        focal=width * float(rng.uniform(0.8, 1.3)),
        u0=width * float(rng.uniform(0.35, 0.65)),
        v0=height * (float(rng.uniform(0.42, 0.5)) - 0.05 * (eye - 1.3)),
        x0=float(rng.uniform(-1.0, 3.0)),
        eye=eye,
    )


def draw_street(rng: Rng) -> Street:
    """Return a street of two lanes; on each side a parking lane or none, trees, pavement and houses."""
    left, right, busy = -LANE * 1.5, LANE / 2, float(rng.uniform(0.7, 1.6))
    strips = [Strip(-LANE / 2, right, VEHICLES, 11 * busy, 1), Strip(left, -LANE / 2, VEHICLES, 11 * busy, -1)]
    curbs = []
    for sign, edge in ((-1, left), (1, right)):
        parking = 2.3 if rng.random() < 0.5 else 0.0
        curbs.append(edge + sign * parking)
        for width, names, gap, heading in (
            (parking, ("car", "car", "truck"), 6.0, sign),
            (1.9, ("tree", "post", "block", "person"), 5.0, 0),
            (1.2, ("person",), 5 * busy, 0),
            (1.2, ("person", "block"), 8 * busy, 0),
            (float(rng.uniform(0.2, 2.7)), (), 0.0, 0),
            (8.0, ("building",), 1.5, 0),
        ):
            outer = edge + sign * width
            if width and names:
                limits = (1.0, HORIZON) if names == ("building",) else (NEAR, FAR)
                strips.append(Strip(min(edge, outer), max(edge, outer), names, gap, heading, *limits))
            edge = outer
    crossing = float(rng.uniform(8, 18)) if rng.random() < 0.6 else None
    return Street(tuple(strips), crossing, curbs[0], curbs[1])


def furnish(street: Street, camera: Camera, rng: Rng) -> list[Item]:
    """Return what stands in a street, in drawing order."""
    items: list[Item] = []
    begin = street.crossing if street.crossing is not None else HORIZON
    end = begin + 2 * LANE + 1
    for strip in street.strips:
        for part, low, high in ((3.0, strip.near, min(begin, strip.far)), (0.0, end + 1, strip.far)):
            items += _along(strip, part, low, high, camera, rng)
    if street.crossing is not None:
        for part, z, sign in ((1.0, begin + 1.5 * LANE + 0.5, -1), (2.0, begin + LANE / 2 + 0.5, 1)):
            items += _across(part, z, sign, camera, rng)
    kept = [item for item in items if item.label is None or is_inside(item, camera)]
    return sorted(kept, key=lambda item: item.order)


def _along(strip: Strip, part: float, low: float, high: float, camera: Camera, rng: Rng) -> Iterator[Item]:
    """Fill a strip from `low` to `high` (z, meters)."""
    z = low + float(rng.uniform(0, 1)) * strip.gap
    while True:
        name = strip.names[int(rng.integers(len(strip.names)))]
        model = MODELS[name](rng)
        if z + 2 * model.half_length > high:
            return
        sign = strip.heading or int(rng.choice([-1, 1]))
        room = max(0.0, (strip.right - strip.left) / 2 - model.half_width)
        x = (strip.left + strip.right) / 2 + room * float(rng.uniform(-0.8, 0.8))
        middle = z + model.half_length
        order = (part, -max(strip.left - camera.x0, camera.x0 - strip.right, 0.0), -middle)  # by distance from x0
        yield Item(model, LABELS.get(name), x, middle, (0.0, float(sign)), order)
        z += 2 * model.half_length + strip.gap * float(rng.uniform(0.2, 1.8))


def _across(part: float, z: float, sign: int, camera: Camera, rng: Rng) -> Iterator[Item]:
    """Fill a lane of the cross street, in which vehicles are seen from the side."""
    reach = z * camera.width / camera.focal
    x = camera.x0 - reach + float(rng.uniform(0, 8))
    while x < camera.x0 + reach:
        name = ("car", "car", "bus", "truck", "person")[int(rng.integers(5))]
        model = MODELS[name](rng)
        x += model.half_length
        yield Item(model, LABELS[name], x, z, (float(sign), 0.0), (part, -abs(x - camera.x0)))
        x += model.half_length + float(rng.uniform(0.8, 9))


def is_inside(item: Item, camera: Camera) -> bool:
    """Return whether at least `MIN_INSIDE` of the extent of an object's bounding box lies in the image."""
    ground = item.corners
    corners = camera.project(np.concatenate((ground, ground + np.array((0, item.model.height, 0)))))
    low, high = corners.min(0), corners.max(0)
    inside = np.clip(np.minimum(high, (camera.width, camera.height)) - np.maximum(low, 0), 0, None)
    share = float(inside[0] * inside[1]) / float((high[0] - low[0]) * (high[1] - low[1]))
    return share >= MIN_INSIDE


def paint_ground(canvas: Canvas, street: Street, light: Light, rng: Rng) -> None:
    """Paint sky, meadow, pavements, roadway with its lines and the cross street, all a little blotchy."""
    canvas.colors[:] = light.sky(canvas.camera.height, canvas.camera.v0)[:, None]
    gray, begin = float(rng.uniform(75, 120)), street.crossing
    asphalt, pavement, white = (gray,) * 3, (gray + 55, gray + 60, gray + 62), (205.0, 205.0, 205.0)
    grass = pick(rng, ((80, 125, 105), (90, 150, 130), (130, 140, 145)))

    def patch(left: float, near: float, right: float, far: float, color: Color) -> None:
        corners = [(left, 0, near), (right, 0, near), (right, 0, far), (left, 0, far)]
        canvas.draw_faces([Face(np.array(corners, dtype=np.float64), color)])

    patch(-200, 0.5, 200, 400, grass)
    patch(street.left - 5, 0.5, street.right + 5, HORIZON, pavement)
    patch(street.left, 0.5, street.right, HORIZON, asphalt)
    for z in np.arange(1.0, HORIZON, 6.0).tolist():
        patch(-LANE / 2 - 0.08, z, -LANE / 2 + 0.08, z + 3, white)
    if begin is not None:
        patch(-80, begin, 80, begin + 2 * LANE + 1, asphalt)
        for x in np.arange(street.left + 0.4, street.right - 0.4, 1.0).tolist():
            patch(x, begin - 2.5, x + 0.5, begin - 0.3, white)
    height, width = canvas.numbers.shape
    coarse = rng.integers(0, 24, (max(2, height // 24), max(2, width // 48)), dtype=np.uint8)
    blotches = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_LINEAR_EXACT)
    canvas.colors[:] = cv2.subtract(canvas.colors, np.repeat(blotches[..., None], 3, 2))


def paint_shadows(canvas: Canvas, items: Sequence[Item], light: Light) -> None:
    """Darken the ground below the items and away from the sun."""
    mask = np.zeros(canvas.numbers.shape, np.uint8)
    sx, sy, sz = light.shading.sun
    for item in items:
        ground, height = item.corners, min(item.model.height, 4.0) * 0.8
        cast = ground - np.array((height * sx / sy, 0, height * sz / sy))
        corners = to_fixed_point(canvas.camera.project(np.concatenate((ground, cast))))
        cv2.fillConvexPoly(mask, cv2.convexHull(corners), 1, cv2.LINE_8, 4)
    keep = np.where(mask, 1 - light.shadow, 1.0)[..., None]
    canvas.colors[:] = np.rint(canvas.colors * keep).astype(np.uint8)


def draw_items(canvas: Canvas, items: Sequence[Item]) -> tuple[Array, Array]:
    """Draw items in the order given; return classes and boxes (pixels of the image) of those seen well enough."""
    drawn: list[tuple[int, int]] = []  # class of the objects numbered 1, 2, ..., and pixels when nothing hid them yet
    for item in items:
        faces = placed(item.model, item.x, item.z, item.direction)
        if item.label is None or len(drawn) == MAX_OBJECTS:
            canvas.draw_faces(faces)
        else:
            canvas.draw_faces(faces, len(drawn) + 1)
            drawn.append((item.label, int(np.count_nonzero(canvas.numbers == len(drawn) + 1))))
    rows = []
    for number, (label, whole) in enumerate(drawn, start=1):
        mask = (canvas.numbers == number).astype(np.uint8)
        left, top, wide, high = cv2.boundingRect(mask)
        if cv2.countNonZero(mask) >= MIN_VISIBLE * whole and min(wide, high) >= MIN_SIDE * SCALE:
            rows.append((label, left / SCALE, top / SCALE, (left + wide) / SCALE, (top + high) / SCALE))
    table = np.array(rows, dtype=np.float64).reshape(-1, 5)
    return table[:, 0].astype(np.int64), table[:, 1:]
