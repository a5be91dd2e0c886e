from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from yolokd.data.streets.drawing import Array, Camera, Canvas, Face, Model, Shading, line, placed, prism, rectangle

CAMERA = Camera(width=200, height=100, focal=100, u0=100, v0=50, x0=0, eye=1.5)
PLAIN = Shading(sun=(0, 1, 0), ambient=1.0, diffuse=0.0, haze_m=np.inf, haze_color=(0, 0, 0))
RED, GREEN, BLUE = (0.0, 0.0, 200.0), (0.0, 200.0, 0.0), (200.0, 0.0, 0.0)
COLORS = {"bottom": (1.0, 1.0, 1.0), "far end": BLUE, "top": (2.0, 2.0, 2.0), "near end": GREEN}
BOX = prism(rectangle(-2, 0, 2, 1), 1.0, RED, list(COLORS.values()))


def seen(faces: list[Face], camera: Camera = CAMERA) -> set[tuple[float, ...]]:
    canvas = Canvas(camera, PLAIN)
    canvas.draw_faces(faces, number=1)
    return {tuple(color) for color in canvas.colors[canvas.numbers == 1].tolist()}


def box_at(x: float, direction: tuple[float, float] = (0.0, 1.0)) -> list[Face]:
    return placed(Model([BOX], 1, 2, 1), x, 10.0, direction)


def test_project__follows_the_pinhole_formula() -> None:
    camera = replace(CAMERA, x0=1.0)
    points = np.array([(1.0, 1.5, 7.0), (3.0, 0.0, 10.0)])
    np.testing.assert_allclose(camera.project(points), [(100, 50), (100 + 100 * 2 / 10, 50 + 100 * 1.5 / 10)])


def test_draw_faces__shows_only_the_sides_turned_to_the_camera() -> None:
    top = COLORS["top"]
    assert seen(box_at(0.0)) == {GREEN, top}
    assert seen(box_at(-4.0)) == {GREEN, top, RED}
    assert seen(box_at(4.0)) == {GREEN, top, RED}
    assert seen(box_at(0.0), replace(CAMERA, eye=0.5)) == {GREEN}
    assert seen(box_at(0.0, (0.0, -1.0))) == {BLUE, top}
    assert seen(box_at(0.0, (1.0, 0.0))) == {RED, top}


def test_draw_faces__a_box_covers_the_hull_of_its_corners() -> None:
    canvas = Canvas(CAMERA, PLAIN)
    canvas.draw_faces(box_at(-4.0), number=3)
    rows, columns = np.nonzero(canvas.numbers == 3)
    corners = CAMERA.project(np.array([(x, y, z) for x in (-5, -3) for y in (0, 1) for z in (8, 12)], dtype=float))
    np.testing.assert_allclose((columns.min(), rows.min()), corners.min(0), atol=1.5)
    np.testing.assert_allclose((columns.max(), rows.max()), corners.max(0), atol=1.5)


def test_prism__decals_appear_on_the_side_they_are_painted_on() -> None:
    window = rectangle(-0.5, 0.4, 0.5, 0.6)
    white = (250.0, 250.0, 250.0)
    box = prism(rectangle(-2, 0, 2, 1), 1.0, RED, list(COLORS.values()), on_strips={3: [(window, white)]})
    model = Model([box], 1, 2, 1)
    assert white in seen(placed(model, 0.0, 10.0, (0.0, 1.0)))
    assert white not in seen(placed(model, 0.0, 10.0, (0.0, -1.0)))


def test_placed__parts_go_from_far_to_near_within_a_level() -> None:
    near, far = (prism(rectangle(z, 0, z + 1, 1), 1.0, color, [color] * 4) for z, color in ((-2.0, RED), (1.0, BLUE)))
    for parts in ([near, far], [far, near]):
        ahead = placed(Model(parts, 1, 2, 1), 0.0, 10.0, (0.0, 1.0))
        assert [ahead[0].color, ahead[-1].color] == [BLUE, RED]
        back = placed(Model(parts, 1, 2, 1), 0.0, 10.0, (0.0, -1.0))
        assert [back[0].color, back[-1].color] == [RED, BLUE]
    raised = Model([near, far._replace(level=1)], 1, 2, 1)
    assert placed(raised, 0.0, 10.0, (0.0, 1.0))[-1].color == BLUE


@pytest.mark.parametrize("width, expected", [(0.5, 5), (2.0, 20)])
def test_line__is_as_wide_as_its_meters(width: float, expected: int) -> None:
    canvas = Canvas(CAMERA, PLAIN)
    canvas.draw_faces([line([(0, 0, 10), (0, 2, 10)], RED, width)], number=1)
    assert abs(int(np.count_nonzero(canvas.numbers[55])) - expected) <= 2  # OpenCV rounds lines up


def test_shading__light_grows_with_the_cosine_to_the_sun_and_haze_with_distance() -> None:
    def quad(z: float) -> Array:
        return np.array([(-1, 0, z), (1, 0, z), (1, 2, z), (-1, 2, z)], dtype=float)  # faces the camera

    shading = Shading(sun=(0.6, 0.0, -0.8), ambient=0.5, diffuse=0.25, haze_m=np.inf, haze_color=(80, 80, 80))
    np.testing.assert_allclose(shading.apply(Face(quad(5), RED)), np.array(RED) * (0.5 + 0.25 * 0.8))
    np.testing.assert_allclose(shading.apply(Face(quad(5)[::-1], RED)), np.array(RED) * 0.5)
    foggy = replace(shading, haze_m=20.0)
    np.testing.assert_allclose(foggy.apply(Face(quad(20), RED)), np.array(RED) * 0.7 / 2 + 40)
