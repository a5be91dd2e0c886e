from __future__ import annotations

import math

import numpy as np
import pytest

from yolokd.data.streets.draw import LIT, Array, Body, Camera, Canvas, Colour, Face, Light, Point, Thing

CLEAR = Light(sun=(0.0, 1.0, 0.0), ambient=1.0, diffuse=0.0, haze=0.0, haze_colour=(0, 0, 0))
CAMERA = Camera(width=200, height=100, focal=100.0, u0=100.0, horizon=50.0, eye=1.0)
RED: Colour = (10, 20, 200)
BLUE: Colour = (200, 20, 10)


def wall(x: float, y: float, colour: Colour, *, both: bool = True, z: float = 0.0) -> Face:
    """A rectangle across the view, from -x to x and from the ground to y."""
    points: list[Point] = [(-x, 0, z), (x, 0, z), (x, y, z), (-x, y, z)]
    return Face(points, colour, both=both)


def extent(mask: Array) -> tuple[int, int, int, int]:
    rows, columns = np.nonzero(mask)
    return int(columns.min()), int(rows.min()), int(columns.max()), int(rows.max())


def test_project__is_the_pinhole_formula() -> None:
    points = np.array([[0, 1, 5], [2, 0, 4], [-1, 3, 10]], dtype=np.float64)
    expected: list[list[float]] = [
        [100, 50],
        [100 + 100 * 2 / 4, 50 + 100 * 1 / 4],
        [100 - 100 / 10, 50 + 100 * (1 - 3) / 10],
    ]
    np.testing.assert_allclose(CAMERA.project(points), expected, rtol=1e-12)


def test_project__what_is_behind_the_camera_stays_finite() -> None:
    assert np.isfinite(CAMERA.project(np.array([[1.0, 0.0, -3.0], [1.0, 0.0, 0.0]]))).all()


def test_through__mixes_with_the_haze_by_distance() -> None:
    light = Light((0, 1, 0), 1, 0, haze=0.01, haze_colour=(100, 200, 50))
    share = math.exp(-0.01 * 70)
    mixed = [c * share + h * (1 - share) for c, h in zip(RED, (100, 200, 50), strict=True)]
    np.testing.assert_allclose(light.through(RED, 70), mixed, rtol=1e-12)
    assert light.through(RED, 0) == RED


def test_draw__a_wall_covers_what_the_formula_says_in_colour_and_number() -> None:
    canvas = Canvas(CAMERA, CLEAR)
    (box,) = canvas.draw([Thing([Body([wall(1.0, 1.0, RED)])], z=10.0, number=7)])
    np.testing.assert_allclose(box, [90, 50, 110, 60])
    assert extent(canvas.numbers == 7) == (90, 50, 110, 60)
    painted = (canvas.pixels[..., :3] == np.array(RED)).all(-1)
    np.testing.assert_array_equal(painted, canvas.numbers == 7)


def test_draw__the_later_thing_is_on_top() -> None:
    canvas = Canvas(CAMERA, CLEAR)
    far, near = Body([wall(2.0, 1.0, RED)]), Body([wall(0.5, 1.0, BLUE)])
    list(canvas.draw([Thing([far], z=20.0, number=1), Thing([near], z=10.0, number=2)]))
    assert extent(canvas.numbers == 2) == (95, 50, 105, 60)
    assert not (canvas.numbers[50:56, 95:106] == 1).any()


def test_draw__yields_an_extent_when_the_thing_is_complete() -> None:
    canvas = Canvas(CAMERA, CLEAR)
    things = [Thing([Body([wall(0.5, 1.0, RED)])], x=x, z=10.0, number=n) for n, x in ((1, -3.0), (2, 0.0), (3, 3.0))]
    counts = []
    for number, box in enumerate(canvas.draw(things), start=1):
        counts.append([int((canvas.numbers == n).sum()) for n in (1, 2, 3)])
        left, top, right, bottom = extent(canvas.numbers == number)
        np.testing.assert_allclose(box, [left, top, right, bottom], atol=1)
    assert [[n > 0 for n in row] for row in counts] == [[True, False, False], [True, True, False], [True, True, True]]


def test_draw__within_a_body_the_nearer_face_is_on_top_whatever_the_order() -> None:
    faces = [wall(0.3, 0.6, BLUE, z=-1.0), wall(1.0, 1.0, RED, z=1.0)]
    for order in (faces, faces[::-1]):
        canvas = Canvas(CAMERA, CLEAR)
        list(canvas.draw([Thing([Body(order)], z=10.0, number=1)]))
        assert tuple(canvas.pixels[55, 100, :3]) == BLUE
        assert tuple(canvas.pixels[52, 107, :3]) == RED


def test_draw__a_higher_layer_is_on_top_although_farther() -> None:
    near, far = Body([wall(1.0, 1.0, RED, z=-1.0)]), Body([wall(0.3, 0.6, BLUE, z=1.0)], layer=1)
    canvas = Canvas(CAMERA, CLEAR)
    list(canvas.draw([Thing([near, far], z=10.0)]))
    assert tuple(canvas.pixels[56, 100, :3]) == BLUE


def test_draw__a_closed_box_shows_only_the_sides_that_face_the_camera() -> None:
    x, y, z = 1.0, 0.5, 1.0  # lower than the eye: top and near side are seen
    near = Face([(-x, 0, -z), (x, 0, -z), (x, y, -z), (-x, y, -z)], RED)
    far = Face([(-x, 0, z), (x, 0, z), (x, y, z), (-x, y, z)], BLUE)
    top = Face([(-x, y, -z), (x, y, -z), (x, y, z), (-x, y, z)], (0, 255, 0))
    canvas = Canvas(CAMERA, CLEAR)
    list(canvas.draw([Thing([Body([near, far, top])], z=6.0)]))
    seen = {tuple(int(c) for c in pixel) for pixel in canvas.pixels[..., :3].reshape(-1, 3)}
    assert seen == {(0, 0, 0), RED, (0, 255, 0)}


def test_draw__a_detail_shows_only_where_its_face_does() -> None:
    sign = wall(0.3, 0.5, BLUE, z=1.0)
    body = Body(
        [wall(1.0, 1.0, RED, both=False, z=-1.0), wall(1.0, 1.0, RED, both=False, z=1.0)._replace(details=[sign])]
    )
    for heading, visible in ((0.0, False), (math.pi, True)):
        canvas = Canvas(CAMERA, CLEAR)
        list(canvas.draw([Thing([body], z=10.0, heading=heading)]))
        assert bool((canvas.pixels[..., :3] == np.array(BLUE)).all(-1).any()) is visible


def test_draw__heading_turns_clockwise_seen_from_above() -> None:
    arrow = Body([Face([(0, 0.5, 0), (0, 0.5, 2)], RED, width=0.1)])  # points forward
    canvas = Canvas(CAMERA, CLEAR)
    (box,) = canvas.draw([Thing([arrow], z=10.0, heading=math.pi / 2, number=1)])
    assert box[0] == pytest.approx(100 - 0.5)
    assert box[2] == pytest.approx(120 + 0.5)


def test_draw__light_and_haze_give_the_expected_colour() -> None:
    light = Light((0.0, 0.0, -1.0), ambient=0.5, diffuse=0.25, haze=0.02, haze_colour=(100, 100, 100))
    canvas = Canvas(CAMERA, light)
    list(canvas.draw([Thing([Body([wall(1.0, 2.0, RED)])], z=10.0)]))
    distance = math.hypot(1.0, 10.0)  # of the wall's middle, measured on the ground plane's origin
    share = math.exp(-0.02 * distance)
    for pixel, colour in zip(canvas.pixels[50, 100], RED, strict=False):
        bright = {0.5 * colour, 0.75 * colour}  # turned away from the sun or towards it
        assert min(abs(pixel - (b * share + 100 * (1 - share))) for b in bright) <= 1


def test_draw__balls_and_lines_have_their_width() -> None:
    canvas = Canvas(CAMERA, CLEAR)
    ball = Body([Face([(0, 1, 0)], RED, width=2.0)])
    post = Body([Face([(0, 0, 0), (0, 3, 0)], BLUE, width=0.5)])
    list(canvas.draw([Thing([ball], z=10.0, number=1), Thing([post], x=1.0, z=2.0, number=2)]))
    left, top, right, bottom = extent(canvas.numbers == 1)
    assert (right - left, bottom - top) == pytest.approx((20, 20), abs=1)
    left, _, right, _ = extent(canvas.numbers == 2)
    assert right - left + 1 == pytest.approx(25, abs=2)  # OpenCV rounds up


def test_draw__lit_faces_belong_to_nobody_and_lamps_are_remembered() -> None:
    canvas = Canvas(CAMERA, CLEAR)
    face = wall(1.0, 1.0, RED)._replace(details=[wall(0.2, 0.5, BLUE)._replace(lit=True)])
    lamp = Face([(3, 1, 0)], (255, 255, 255), width=0.4, glow=0.5)
    list(canvas.draw([Thing([Body([face, lamp])], z=10.0, number=1)]))
    assert canvas.numbers[57, 100] == LIT
    (kept,) = canvas.lamps
    assert (kept.u, kept.v, kept.radius) == pytest.approx((130, 50, 5))
    np.testing.assert_array_equal(canvas.pixels[50, 130], kept.pixel)


def test_draw__nothing_is_fine() -> None:
    assert list(Canvas(CAMERA, CLEAR).draw([])) == []
