"""One image of Streets: a road scene, drawn from far to near, and the boxes of what can be seen.

The ground is divided into strips along z (lanes, parking lanes, pavements, houses), cut in two by a cross street. Seen
from the camera at x0, what stands in a strip farther from x0 never hides what stands in one nearer to it, since a line
of sight only moves away from x0. Within a strip the extents along z do not overlap. Hence the order

    beyond the cross street < its far lane < its near lane < before it        (drawn first < drawn last)
    in each part: strips by falling distance from x0, in each strip from far to near
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np

from yolokd.data.streets import objects
from yolokd.data.streets.drawing import MAX_OBJECTS, Array, Camera, Canvas, Face, Model, placed, to_fixed_point
from yolokd.data.streets.light import Light, develop, draw_light, paint_sky
from yolokd.data.streets.objects import NAMES, OBJECTS, Rng

SCALE = 2  # the canvas is this many times the image
MIN_VISIBLE = 0.25  # of the pixels that an object would have if nothing hid it, for it to get a box
MIN_INSIDE = 0.6  # of an object's extent inside the image, for it to be placed at all
MIN_SIDE = 6.0  # pixels of the image, of a box
NEAR, FAR = 4.0, 21.0  # meters, of objects
HORIZON = 90.0  # meters, where road and houses end

LANE = 3.5  # meters
VEHICLES = ("car", "car", "bus", "truck")


@dataclass(frozen=True)
class Item:
    """A model placed in a scene."""

    model: Model
    name: str | None  # of its class; None for what gets no box
    x: float
    z: float
    direction: tuple[float, float]
    order: tuple[float, ...]  # drawn by rising order

    @property
    def corners(self) -> Array:
        """The footprint, (4, 3) meters."""
        (dx, dz), a, b = self.direction, self.model.half_width, self.model.half_length
        around = [(self.x + s * a * dz + t * b * dx, 0.0, self.z - s * a * dx + t * b * dz)
                  for s, t in ((-1, -1), (1, -1), (1, 1), (-1, 1))]  # fmt: skip
        return np.array(around)


@dataclass(frozen=True)
class Strip:
    """Ground between two x, with what may stand there: names of objects or of clutter."""

    left: float
    right: float
    names: tuple[str, ...]
    gap: float  # mean distance between two things, meters
    heading: int = 0  # 1 away from the camera, -1 towards it, 0 either

    def distance(self, x0: float) -> float:
        """Return the distance from the line x = x0."""
        return max(self.left - x0, x0 - self.right, 0.0)


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
    numbers: Array  # (N,) int64, number of each labeled object in `owners`
    owners: Array  # (h·SCALE, w·SCALE) uint8, number of the object seen at each pixel of the canvas, 0 for none
    light: str  # kind


def render(rng: Rng, size: tuple[int, int]) -> Rendered:
    """Draw a scene of the size (w, h) in pixels from a random stream."""
    light, camera = draw_light(rng), draw_camera(rng, size)
    street = draw_street(rng)
    items = [item for item in furnish(street, camera, rng) if item.name is None or is_inside(item, camera)]
    canvas = Canvas(camera, light.shading)
    paint_ground(canvas, street, light, rng)
    paint_shadows(canvas, items, light)
    classes, boxes, numbers = draw_items(canvas, items)
    image = develop(canvas.colors, light, size, rng)
    return Rendered(image, classes, boxes, numbers, canvas.numbers.copy(), light.kind)


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
    """Return a street: two lanes, or three, a parking lane or none, pavements and houses."""
    left, right = -LANE * 1.5, LANE / 2
    busy = float(rng.uniform(0.7, 1.6))
    lanes = [Strip(-LANE / 2, right, VEHICLES, 11 * busy, 1), Strip(left, -LANE / 2, VEHICLES, 11 * busy, -1)]
    sides = []
    for sign, edge in ((1, right), (-1, left)):
        if rng.random() < 0.5:
            sides.append(_strip(sign, edge, 2.3, ("car", "car", "truck"), 6, sign))
            edge += sign * 2.3
        sides.append(_strip(sign, edge, 1.9, ("tree", "post", "block", "person"), 5))
        sides.append(_strip(sign, edge + sign * 1.9, 1.2, ("person",), 5 * busy))
        sides.append(_strip(sign, edge + sign * 3.1, 1.2, ("person", "block"), 8 * busy))
        sides.append(_strip(sign, edge + sign * float(rng.uniform(4.5, 7.0)), 8.0, ("building",), 1.5))
        left, right = (edge, right) if sign < 0 else (left, edge)
    crossing = float(rng.uniform(8, 18)) if rng.random() < 0.6 else None
    return Street((*lanes, *sides), crossing, left, right)


def _strip(sign: int, edge: float, width: float, names: tuple[str, ...], gap: float, heading: int = 0) -> Strip:
    """Return a strip that begins at an edge and goes outwards to the right (sign 1) or to the left (-1)."""
    left, right = sorted((edge, edge + sign * width))
    return Strip(left, right, names, gap, heading)


def furnish(street: Street, camera: Camera, rng: Rng) -> list[Item]:
    """Return what stands in a street, in drawing order."""
    items: list[Item] = []
    begin = street.crossing if street.crossing is not None else HORIZON
    end = begin + 2 * LANE + 1
    for strip in street.strips:
        far = HORIZON if "building" in strip.names else FAR
        start = 1.0 if "building" in strip.names else NEAR
        for part, low, high in ((3.0, start, min(begin, far)), (0.0, end + 1, far)):
            items += _along(strip, part, low, high, camera, rng)
    if street.crossing is not None:
        for part, z, sign in ((1.0, begin + 1.5 * LANE + 0.5, -1), (2.0, begin + LANE / 2 + 0.5, 1)):
            items += _across(part, z, sign, camera, rng)
    return sorted(items, key=lambda item: item.order)


def _along(strip: Strip, part: float, low: float, high: float, camera: Camera, rng: Rng) -> Iterator[Item]:
    """Fill a strip from `low` to `high` (z, meters)."""
    z = low + float(rng.uniform(0, 1)) * (0 if "building" in strip.names else strip.gap)
    while True:
        name = strip.names[int(rng.integers(len(strip.names)))]
        model = _model(name, rng)
        if z + 2 * model.half_length > high:
            return
        sign = strip.heading or int(rng.choice([-1, 1]))
        room = max(0.0, (strip.right - strip.left) / 2 - model.half_width)
        x = (strip.left + strip.right) / 2 + room * float(rng.uniform(-0.8, 0.8))
        middle = z + model.half_length
        order = (part, -strip.distance(camera.x0), -middle)
        yield Item(model, name if name in OBJECTS else None, x, middle, (0.0, float(sign)), order)
        z += 2 * model.half_length + strip.gap * float(rng.uniform(0.2, 1.8))


def _across(part: float, z: float, sign: int, camera: Camera, rng: Rng) -> Iterator[Item]:
    """Fill a lane of the cross street, in which vehicles are seen from the side."""
    reach = z * camera.width / camera.focal
    x = camera.x0 - reach + float(rng.uniform(0, 8))
    while x < camera.x0 + reach:
        name = ("car", "car", "bus", "truck", "person")[int(rng.integers(5))]
        model = _model(name, rng)
        x += model.half_length
        yield Item(model, name, x, z, (float(sign), 0.0), (part, -abs(x - camera.x0)))
        x += model.half_length + float(rng.uniform(0.8, 9))


def _model(name: str, rng: Rng) -> Model:
    if name == "building":
        return objects.building(rng, float(rng.uniform(4, 8)))
    return (OBJECTS | objects.CLUTTER)[name](rng)


def is_inside(item: Item, camera: Camera) -> bool:
    """Whether most of an object's extent is inside the image, and not too small to be seen."""
    ground = item.corners
    corners = camera.project(np.concatenate((ground, ground + (0, item.model.height, 0))))
    low, high = corners.min(0), corners.max(0)
    inside = np.clip(np.minimum(high, (camera.width, camera.height)) - np.maximum(low, 0), 0, None)
    share = float(inside[0] * inside[1]) / float((high[0] - low[0]) * (high[1] - low[1]))
    return share >= MIN_INSIDE


def paint_ground(canvas: Canvas, street: Street, light: Light, rng: Rng) -> None:
    """Paint sky, meadow, pavements, roadway with its lines, and the cross street."""
    paint_sky(canvas.colors, light, canvas.camera.v0)
    gray, begin = float(rng.uniform(75, 120)), street.crossing
    asphalt, pavement, white = (gray,) * 3, (gray + 55, gray + 60, gray + 62), (205.0, 205.0, 205.0)
    grass = objects.pick(rng, ((80, 125, 105), (90, 150, 130), (130, 140, 145)))

    def patch(left: float, near: float, right: float, far: float, color: objects.Color) -> None:
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
    _add_texture(canvas.colors, rng)


def _add_texture(colors: Array, rng: Rng) -> None:
    """Make a canvas (H, W, 3) uint8 blotchy, in place."""
    height, width = colors.shape[:2]
    coarse = rng.integers(0, 24, (max(2, height // 24), max(2, width // 48)), dtype=np.uint8)
    blotches = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_LINEAR_EXACT)
    colors[:] = cv2.subtract(colors, np.repeat(blotches[..., None], 3, 2))


def paint_shadows(canvas: Canvas, items: list[Item], light: Light) -> None:
    """Darken the ground below the items and away from the sun."""
    mask = np.zeros(canvas.numbers.shape, np.uint8)
    sx, sy, sz = light.shading.sun
    for item in items:
        ground, height = item.corners, min(item.model.height, 4.0) * 0.8
        cast = ground - (height * sx / sy, 0, height * sz / sy)
        corners = to_fixed_point(canvas.camera.project(np.concatenate((ground, cast))))
        cv2.fillConvexPoly(mask, cv2.convexHull(corners), 1, cv2.LINE_8, 4)
    keep = np.where(mask, 1 - light.shadow, 1.0)[..., None]
    canvas.colors[:] = np.rint(canvas.colors * keep).astype(np.uint8)


def draw_items(canvas: Canvas, items: list[Item]) -> tuple[Array, Array, Array]:
    """Draw items in their order; return classes, boxes (pixels of the image) and numbers of those seen well enough."""
    whole, names = [0], [""]  # by number: pixels when just drawn, class
    for item in items:
        number = len(whole) if item.name is not None and len(whole) <= MAX_OBJECTS else 0
        canvas.draw_faces(placed(item.model, item.x, item.z, item.direction), number)
        if item.name is not None and number:
            whole.append(int(np.count_nonzero(canvas.numbers == number)))
            names.append(item.name)
    rows = []
    for number in range(1, len(whole)):
        left, top, wide, high = cv2.boundingRect((canvas.numbers == number).astype(np.uint8))
        seen = int(np.count_nonzero(canvas.numbers == number))
        if seen and seen >= MIN_VISIBLE * whole[number] and min(wide, high) >= MIN_SIDE * SCALE:
            box = (left / SCALE, top / SCALE, (left + wide) / SCALE, (top + high) / SCALE)
            rows.append((NAMES.index(names[number]), *box, number))
    table = np.array(rows, dtype=np.float64).reshape(-1, 6)
    return table[:, 0].astype(np.int64), table[:, 1:5], table[:, 5].astype(np.int64)
