"""Who stands where in a scene of Streets: traffic, parked vehicles, people and clutter."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from yolokd.data.streets import clutter, people, vehicles
from yolokd.data.streets.backdrop import Road
from yolokd.data.streets.draw import Camera
from yolokd.data.streets.shapes import Rng, Shape
from yolokd.data.streets.weather import Weather

NAMES = ("person", "bicycle", "car", "motorcycle", "bus", "truck")  # COCO's words, in COCO's order
PERSON = NAMES.index("person")
FARTHEST = 55.0  # metres

KERBSIDE: tuple[tuple[Callable[[Rng], Shape], float], ...] = (  # clutter, and how many on average
    (clutter.traffic_sign, 1.0), (clutter.traffic_light, 0.4), (clutter.bin_, 0.8), (clutter.post, 1.2),
    (clutter.cone, 0.4), (clutter.rack, 0.3),
)  # fmt: skip
INNER: tuple[tuple[Callable[[Rng], Shape], float], ...] = (
    (clutter.bush, 1.0), (clutter.billboard, 0.5), (clutter.container, 0.3), (clutter.bin_, 0.5), (clutter.tree, 0.8),
)  # fmt: skip


@dataclass(frozen=True)
class Item:
    """A thing on the ground; a rider is drawn over what it rides."""

    shape: Shape
    x: float
    z: float
    heading: float = 0.0
    label: int | None = None
    rider: Shape | None = None

    @cached_property
    def bounds(self) -> tuple[float, float, float, float]:
        """The footprint's extent: left, right, near, far."""
        c, s = abs(np.cos(self.heading)), abs(np.sin(self.heading))
        half_x = float(c * self.shape.half_width + s * self.shape.half_length)
        half_z = float(s * self.shape.half_width + c * self.shape.half_length)
        return self.x - half_x, self.x + half_x, self.z - half_z, self.z + half_z


@dataclass
class Crowd:
    """Items placed so far; refuses what would stand inside another, too near, or out of sight."""

    camera: Camera
    items: list[Item] = field(default_factory=list)

    def add(self, item: Item) -> None:
        """Place an item if it fits."""
        left, right, near, far = item.bounds
        clear = 7.0 if item.label is None and item.shape.height > 3 else 2.0  # no tree right before the lens
        reach = self.camera.width / 2 + abs(self.camera.u0 - self.camera.width / 2)
        if near < clear or near > FARTHEST or min(abs(left), abs(right)) > reach * far / self.camera.focal + 1:
            return
        for other in self.items:
            a, b, c, d = other.bounds
            if left < b and right > a and near < d and far > c:
                return
        self.items.append(item)


def furnish(crowd: Crowd, road: Road, weather: Weather, rng: Rng) -> None:
    """Fill a road with traffic, parked vehicles, people and clutter."""
    busy = float(rng.choice([0.35, 0.8, 1.4], p=[0.3, 0.45, 0.25]))
    for x, direction in road.lanes:
        z = float(rng.uniform(6, 20) if abs(x) < 1.8 else rng.uniform(1, 20))
        while z < FARTHEST:
            crowd.add(_vehicle(rng, x, z, 0.0 if direction > 0 else np.pi, weather))
            z += 7 + float(rng.exponential(17 / busy))
    for side, parking, edge in ((-1, road.parking[0], road.left), (1, road.parking[1], road.right)):
        if parking:
            _parked(crowd, edge - side * 1.1, 0.0 if side > 0 else np.pi, rng)
        _pavement(crowd, road, side, edge, busy, weather, rng)
    if road.junction:
        for direction in (-1, 1):
            for x in rng.uniform(-25, 25, int(rng.integers(0, 3))).tolist():
                crowd.add(_vehicle(rng, x, road.junction - direction * 2.0, direction * np.pi / 2, weather))
    if road.zebra:
        for _ in range(int(rng.poisson(1.8 * busy))):
            place = float(rng.uniform(road.left, road.right)), road.zebra + float(rng.uniform(0.3, 2.7))
            heading = float(rng.choice([-1, 1]) * np.pi / 2 + rng.normal(0, 0.2))
            crowd.add(Item(people.person(rng), *place, heading, PERSON))


def _vehicle(rng: Rng, x: float, z: float, heading: float, weather: Weather) -> Item:
    kind = str(rng.choice(["car", "truck", "bus", "motorcycle", "bicycle"], p=[0.61, 0.1, 0.06, 0.11, 0.12]))
    heading += float(rng.normal(0, 0.04))
    x += float(rng.normal(0, 0.15))
    label = NAMES.index(kind)
    if kind == "bicycle":
        return Item(people.bicycle(rng), x + float(rng.uniform(0.3, 1.2)), z, heading, label, people.cyclist(rng))
    if kind == "motorcycle":
        return Item(people.motorcycle(rng, weather.lamps), x, z, heading, label, people.motorcyclist(rng))
    draw = {"car": vehicles.car, "truck": vehicles.truck, "bus": vehicles.bus}[kind]
    shape = draw(rng, weather.lamps)
    return Item(shape, x, z + shape.half_length, heading, label)


def _parked(crowd: Crowd, x: float, heading: float, rng: Rng) -> None:
    z, dense = float(rng.uniform(0, 10)), float(rng.uniform(0.4, 0.95))
    while z < FARTHEST * 0.8:
        if rng.random() < dense:
            turn = heading + float(rng.normal(0, 0.05)) + (np.pi if rng.random() < 0.15 else 0.0)
            if rng.random() < 0.1:
                crowd.add(Item(people.motorcycle(rng, False), x, z, turn, NAMES.index("motorcycle")))
            else:
                kind = "truck" if rng.random() < 0.06 else "car"
                shape = vehicles.truck(rng, False) if kind == "truck" else vehicles.car(rng, False)
                crowd.add(Item(shape, x, z + shape.half_length, turn, NAMES.index(kind)))
                z += 2 * shape.half_length
        z += float(rng.uniform(0.7, 2.5))


def _pavement(crowd: Crowd, road: Road, side: int, edge: float, busy: float, weather: Weather, rng: Rng) -> None:
    """People, parked bicycles and clutter beside the road."""
    width = road.pavement
    for _ in range(int(rng.poisson(4.0 * busy))):
        x, z = edge + side * float(rng.uniform(0.3, width)), float(rng.uniform(4, 45))
        heading, still = float(rng.choice([0, np.pi]) + rng.normal(0, 0.25)), bool(rng.random() < 0.25)
        if still:
            heading = float(rng.uniform(0, 2 * np.pi))
        for k in range(int(rng.choice([1, 2, 3], p=[0.65, 0.25, 0.1]))):
            umbrella = weather.kind == "rain" and rng.random() < 0.5
            shape = people.person(rng, still=still, umbrella=umbrella)
            place = x + 0.65 * k, z + float(rng.uniform(-0.3, 0.3))
            crowd.add(Item(shape, *place, heading + float(rng.normal(0, 0.1)), PERSON))
    for offset, choices in ((0.35, KERBSIDE), (width - 0.3, INNER)):
        for draw, rate in choices:
            for z in rng.uniform(4, 50, int(rng.poisson(rate))).tolist():
                crowd.add(Item(draw(rng), edge + side * offset, z, float(rng.normal(0, 0.15))))
    if rng.random() < 0.4:
        for z in np.arange(float(rng.uniform(3, 15)), FARTHEST, float(rng.uniform(9, 18))).tolist():
            crowd.add(Item(clutter.tree(rng), edge + side * 0.6, z))
    if rng.random() < 0.6:
        on = weather.kind in {"night", "dusk"}
        for z in np.arange(float(rng.uniform(5, 20)), FARTHEST, float(rng.uniform(18, 30))).tolist():
            crowd.add(Item(clutter.lamp_post(rng, on), edge + side * 0.3, z, 0.0 if side > 0 else np.pi))
    for z in rng.uniform(5, 40, int(rng.poisson(0.5))).tolist():
        crowd.add(Item(people.bicycle(rng), edge + side * 0.8, z, float(rng.uniform(0, np.pi)), NAMES.index("bicycle")))
    if rng.random() < 0.3:
        z = float(rng.uniform(5, 35))
        rider = people.sitter(rng) if rng.random() < 0.6 else None
        crowd.add(Item(clutter.bench(rng), edge + side * (width - 0.6), z, -side * np.pi / 2, rider=rider))
