from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from yolokd.data.streets import people, vehicles
from yolokd.data.streets.draw import Array, Camera, Canvas
from yolokd.data.streets.scene import MIN_SIDE, SCALE, back_to_front, compose, render, shadows
from yolokd.data.streets.shapes import Shape
from yolokd.data.streets.traffic import NAMES, Crowd, Item
from yolokd.data.streets.weather import Weather, draw_weather

SIZE = (160, 96)
CAMERA = Camera(SIZE[0] * SCALE, SIZE[1] * SCALE, focal=300.0, u0=SIZE[0], horizon=90.0, eye=1.6)
FLAT = Shape((), 0.9, 2.2, 1.5)  # nothing to see, a car's footprint


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def daylight() -> Weather:
    weather = next(w for w in (draw_weather(rng(i)) for i in range(50)) if w.kind == "sun")
    return replace(weather, light=replace(weather.light, haze=0.0), blur=0.0, noise=0.0)


def magenta_canvas() -> Canvas:
    """A canvas of a colour that no object has."""
    canvas = Canvas(CAMERA, daylight().light)
    canvas.pixels[..., :3] = (255, 0, 255)
    return canvas


def extent(mask: Array) -> list[float]:
    rows, columns = np.nonzero(mask)
    return [columns.min() / SCALE, rows.min() / SCALE, (columns.max() + 1) / SCALE, (rows.max() + 1) / SCALE]


SHAPES = {
    "person": people.person(rng(1)),
    "bicycle": people.bicycle(rng(1)),
    "car": vehicles.car(rng(1), False),
    "motorcycle": people.motorcycle(rng(1), True),
    "bus": vehicles.bus(rng(1), True),
    "truck": vehicles.truck(rng(1), False),
}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("x, z, heading", [(0.0, 14.0, 0.0), (-2.0, 12.0, 2.5), (4.0, 16.0, 1.2)])
def test_compose__the_box_is_the_extent_of_the_pixels_that_changed(
    name: str, x: float, z: float, heading: float
) -> None:
    canvas = magenta_canvas()
    before = canvas.pixels[..., :3].copy()
    picture = compose(canvas, [Item(SHAPES[name], x, z, heading, NAMES.index(name))], daylight(), rng())
    changed = (canvas.pixels[..., :3] != before).any(-1)
    assert picture.classes.tolist() == [NAMES.index(name)]
    np.testing.assert_array_equal(picture.boxes_xyxy_px, [extent(changed)])


def test_compose__the_box_of_a_half_hidden_object_ends_where_the_nearer_one_begins() -> None:
    far = Item(SHAPES["bus"], 0.0, 25.0, np.pi / 2, NAMES.index("bus"))
    near = Item(SHAPES["truck"], 3.0, 14.0, 0.0, NAMES.index("truck"))
    alone = compose(magenta_canvas(), [far], daylight(), rng())
    both = compose(magenta_canvas(), [near, far], daylight(), rng())
    assert both.classes.tolist() == [NAMES.index("bus"), NAMES.index("truck")]
    assert both.boxes_xyxy_px[0, 2] < alone.boxes_xyxy_px[0, 2] - 5
    np.testing.assert_array_equal(both.boxes_xyxy_px[0, :2], alone.boxes_xyxy_px[0, :2])


def test_compose__a_hidden_object_has_no_label() -> None:
    hidden = Item(SHAPES["person"], 0.0, 30.0, 0.0, NAMES.index("person"))
    bus = Item(SHAPES["bus"], 0.0, 14.0, 0.0, NAMES.index("bus"))
    assert compose(magenta_canvas(), [hidden, bus], daylight(), rng()).classes.tolist() == [NAMES.index("bus")]


def test_compose__what_is_mostly_outside_the_picture_has_no_label() -> None:
    edge = CAMERA.width / 2 * 14.0 / CAMERA.focal  # x of the picture's border at z = 14
    inside = Item(SHAPES["bus"], edge - 4, 14.0, np.pi / 2, NAMES.index("bus"))
    outside = Item(SHAPES["bus"], edge + 5, 14.0, np.pi / 2, NAMES.index("bus"))
    assert compose(magenta_canvas(), [inside], daylight(), rng()).classes.tolist() == [NAMES.index("bus")]
    picture = compose(magenta_canvas(), [outside], daylight(), rng())
    assert picture.classes.tolist() == []
    assert (picture.numbers == 1).any()


def test_compose__what_is_tiny_has_no_label() -> None:
    distance = 1.7 * CAMERA.focal / (SCALE * MIN_SIDE) * 1.3
    far = Item(SHAPES["person"], 0.0, distance, 0.0, NAMES.index("person"))
    assert compose(magenta_canvas(), [far], daylight(), rng()).classes.tolist() == []


def test_compose__a_rider_is_a_person_before_the_vehicle() -> None:
    item = Item(people.bicycle(rng(2)), 0.0, 8.0, 1.4, NAMES.index("bicycle"), people.cyclist(rng(3)))
    picture = compose(magenta_canvas(), [item], daylight(), rng())
    assert picture.classes.tolist() == [NAMES.index("bicycle"), NAMES.index("person")]
    bicycle, person = picture.boxes_xyxy_px
    assert person[1] < bicycle[1]
    assert person[3] <= bicycle[3]


@settings(max_examples=12, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_render__every_label_is_the_extent_of_enough_visible_pixels(seed: int) -> None:
    picture = render(rng(seed), SIZE)
    assert picture.image.shape == (SIZE[1], SIZE[0], 3)
    assert picture.image.dtype == np.uint8
    assert len(set(picture.objects.tolist())) == len(picture.classes) == len(picture.boxes_xyxy_px)
    for label, box, number in zip(picture.classes, picture.boxes_xyxy_px, picture.objects, strict=True):
        assert 0 <= label < len(NAMES)
        np.testing.assert_array_equal(box, extent(picture.numbers == number))
        assert min(box[2] - box[0], box[3] - box[1]) >= MIN_SIDE
        assert (box >= 0).all()
        assert (box <= (*SIZE, *SIZE)).all()


def test_render__pictures_differ_and_hold_every_class() -> None:
    pictures = [render(rng(seed), SIZE) for seed in range(30)]
    classes = np.concatenate([picture.classes for picture in pictures])
    counts = np.bincount(classes, minlength=len(NAMES))
    assert (counts > 0).all()
    assert counts.max() > 5 * counts.min()  # some classes are rare
    assert len({picture.image.tobytes() for picture in pictures}) == len(pictures)


def test_back_to_front__a_cyclist_beside_a_long_bus_comes_after_it_and_a_parked_car_behind_it_before() -> None:
    bus = Item(Shape((), 1.3, 6.0, 3.0), -3.5, 12.0)
    cyclist = Item(Shape((), 0.3, 0.9, 1.7), -1.2, 9.0)
    parked = Item(FLAT, -7.0, 9.0)
    order = list(back_to_front([cyclist, parked, bus]))
    assert order == [1, 2, 0]


@given(
    st.lists(st.tuples(st.floats(-20, 20), st.floats(2, 60), st.floats(0, 6)), max_size=12),
)
def test_back_to_front__is_a_permutation_and_respects_disjoint_depths_on_one_line(
    places: list[tuple[float, float, float]],
) -> None:
    items = [Item(FLAT, x, z, heading) for x, z, heading in places]
    assert sorted(back_to_front(items)) == list(range(len(items)))
    line = [Item(FLAT, 0.0, 5.0 + 6.0 * i) for i in range(len(items))]
    assert list(back_to_front(line)) == list(range(len(items)))[::-1]


def test_crowd__refuses_what_overlaps_is_too_near_too_far_or_out_of_sight() -> None:
    crowd = Crowd(CAMERA)
    for item in (Item(FLAT, 0.0, 10.0), Item(FLAT, 1.0, 12.0), Item(FLAT, 0.0, 3.0), Item(FLAT, 0.0, 99.0)):
        crowd.add(item)
    crowd.add(Item(FLAT, 40.0, 10.0))
    assert [(item.x, item.z) for item in crowd.items] == [(0.0, 10.0)]


def test_shadows__fall_away_from_the_sun() -> None:
    weather = daylight()
    for side in (-1.0, 1.0):
        light = replace(weather.light, sun=(side * 0.7, 0.7, 0.0))
        mask = shadows(CAMERA, [Item(FLAT, 0.0, 12.0)], replace(weather, light=light))
        middle = np.nonzero(mask)[1].mean()
        assert (middle - CAMERA.u0) * side < 0
        assert mask.max() <= 1
