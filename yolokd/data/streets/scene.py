"""One picture of Streets: who stands where, what hides what, and the boxes of what can be seen."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np

from yolokd.data.streets.backdrop import draw_road, paint_backdrop
from yolokd.data.streets.draw import MAX_OBJECTS, Array, Camera, Canvas, Thing
from yolokd.data.streets.shapes import Rng
from yolokd.data.streets.traffic import PERSON, Crowd, Item, furnish
from yolokd.data.streets.weather import Weather, develop, draw_weather

SCALE = 2  # the canvas is this many times the picture
MIN_SHARE = 0.25  # of an object's pixels must be visible for it to get a label
MIN_SIDE = 4.0  # pixels of the picture, of a labelled box


@dataclass(frozen=True)
class Picture:
    """A finished picture with its labels."""

    image: Array  # (h, w, 3) uint8, blue, green, red
    classes: Array  # (N,) int64, index in NAMES
    boxes_xyxy_px: Array  # (N, 4) float64, extent of the visible pixels
    numbers: Array  # (h·SCALE, w·SCALE) uint8: on the canvas, which object is on top
    objects: Array  # (N,) int64: the number of each labelled object in `numbers`


@dataclass(frozen=True)
class Drawn:
    """An object on the canvas: its class, all its pixels if nothing hid any, and where to look for those left."""

    label: int
    whole: float
    rows: slice
    columns: slice


def render(rng: Rng, size: tuple[int, int]) -> Picture:
    """Draw one scene of the size (w, h) in pixels from a random stream."""
    weather = draw_weather(rng)
    elevated = bool(rng.random() < 0.3)
    camera = _camera(rng, size, elevated)
    road = draw_road(rng, elevated)
    crowd = Crowd(camera)
    furnish(crowd, road, weather, rng)
    canvas = Canvas(camera, weather.light)
    paint_backdrop(canvas, road, weather, shadows(camera, crowd.items, weather), rng)
    return compose(canvas, crowd.items, weather, rng)


def _camera(rng: Rng, size: tuple[int, int], elevated: bool) -> Camera:
    """A car's or pedestrian's view, or a high one from a bus, a bridge or a mast, looking down."""
    width, height = size[0] * SCALE, size[1] * SCALE
    focal = width * float(rng.uniform(0.85, 1.45))
    u0 = width * float(np.clip(rng.normal(0.5, 0.12), 0.2, 0.8))
    horizon = height * float(rng.uniform(0.14, 0.32) if elevated else rng.uniform(0.38, 0.54))
    eye = float(rng.uniform(3.0, 6.5) if elevated else rng.uniform(1.2, 1.9))
    return Camera(width, height, focal, u0, horizon, eye)


def compose(canvas: Canvas, items: list[Item], weather: Weather, rng: Rng) -> Picture:
    """Draw the items, far ones first, over a canvas with a backdrop, and take the boxes from the pixels on top."""
    things: list[Thing] = []
    labels: list[int] = []  # of the objects numbered 1, 2, …
    for item in (items[i] for i in back_to_front(items)):
        for shape, label in ((item.shape, item.label), (item.rider, PERSON)):
            if shape is None:
                continue
            number = 0
            if label is not None and len(labels) < MAX_OBJECTS:
                labels.append(label)
                number = len(labels)
            things.append(Thing(shape.model, item.x, item.z, item.heading, number))
    drawn = [
        _measure(canvas.numbers, extent, thing.number, labels[thing.number - 1])
        for thing, extent in zip(things, canvas.draw(things), strict=True)
        if thing.number
    ]
    classes, boxes, objects = _visible(canvas.numbers, drawn)
    image = develop(canvas, weather, SCALE, rng)
    return Picture(image, classes, boxes, canvas.numbers.copy(), objects)


def _measure(numbers: Array, extent: Array, number: int, label: int) -> Drawn:
    """How much of an object just drawn there is: its pixels, plus what lies outside the picture in proportion."""
    height, width = numbers.shape
    left, top = np.clip(np.floor(extent[:2]) - 2, 0, (width, height)).astype(int).tolist()
    right, bottom = np.clip(np.ceil(extent[2:]) + 3, 0, (width, height)).astype(int).tolist()
    inside = max(0.0, min(extent[2], width) - max(extent[0], 0)) * max(0.0, min(extent[3], height) - max(extent[1], 0))
    area = float((extent[2] - extent[0]) * (extent[3] - extent[1]))
    pixels = np.count_nonzero(numbers[top:bottom, left:right] == number)
    return Drawn(label, pixels * area / max(float(inside), 1e-9), slice(top, bottom), slice(left, right))


def _visible(numbers: Array, drawn: list[Drawn]) -> tuple[Array, Array, Array]:
    """Classes, boxes (pixels of the picture) and numbers of the objects that can be seen well enough."""
    rows = []
    for number, thing in enumerate(drawn, start=1):
        mask = (numbers[thing.rows, thing.columns] == number).astype(np.uint8)
        seen = cv2.countNonZero(mask) if mask.size else 0
        if seen == 0 or seen < MIN_SHARE * thing.whole:
            continue
        left, top, wide, high = cv2.boundingRect(mask)
        left, top = left + thing.columns.start, top + thing.rows.start
        if min(wide, high) >= MIN_SIDE * SCALE:
            rows.append((thing.label, number, left / SCALE, top / SCALE, (left + wide) / SCALE, (top + high) / SCALE))
    table = np.array(rows, dtype=np.float64).reshape(-1, 6)
    return table[:, 0].astype(np.int64), table[:, 2:], table[:, 1].astype(np.int64)


def back_to_front(items: list[Item]) -> Iterator[int]:
    """Yield the items' indices so that nobody is drawn before what stands behind them.

    Of two footprints that are apart in depth, the farther is behind; of two apart sideways on the same side of the
    camera, the outer one. Where such rules go round in a circle, the item with the farthest near edge goes first.
    """
    if not items:
        return
    left, right, near, far = np.array([item.bounds for item in items]).T
    behind = near[:, None] >= far[None]  # [i, j]: i is behind j
    level = ~(behind | behind.T)
    outer_right = (left[:, None] >= right[None]) & (right[None] > 0)
    outer_left = (right[:, None] <= left[None]) & (left[None] < 0)
    behind |= level & (outer_right | outer_left)
    np.fill_diagonal(behind, False)
    waiting = np.ones(len(items), bool)
    while waiting.any():
        free = waiting & ~(behind & waiting[:, None]).any(0)
        chosen = int(np.argmax(np.where(free if free.any() else waiting, near, -np.inf)))
        waiting[chosen] = False
        yield chosen


def shadows(camera: Camera, items: list[Item], weather: Weather) -> Array:
    """Darkness 0 to 1 of the canvas, (height, width): under the items and, where the sun shines, beside them."""
    sun = weather.light.sun
    mask = np.zeros((camera.height, camera.width), np.float32)
    for item in items:
        left, right, near, far = item.bounds
        corners = np.array([(left, 0, near), (right, 0, near), (right, 0, far), (left, 0, far)])
        reach = min(3.0, item.shape.height) / sun[1] if weather.shadow >= 0.3 else 0.25
        points = np.concatenate((corners, corners - np.array((sun[0], 0, sun[2])) * reach))
        ground = np.clip(camera.project(points), -8000, 8000).astype(np.int32)
        cv2.fillConvexPoly(mask, cv2.convexHull(ground), weather.shadow)
        cv2.fillConvexPoly(mask, ground[:4], max(0.45, weather.shadow))
    soft: Array = cv2.blur(mask, (7, 7))
    return soft
