"""Rotated boxes: Ultralytics' decoding and probabilistic IoU as oracle, closed forms, an integral and slow loops."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from ultralytics.utils.metrics import batch_probiou, probiou
from ultralytics.utils.ops import xywhr2xyxyxyxy
from ultralytics.utils.tal import dist2rbox

from yolokd.errors import ShapeError
from yolokd.losses.rotated import hellinger_distance, inside_rotated, rotated_around, upright


def box(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def random_boxes(count: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    numbers = torch.rand(count, 5, generator=generator, dtype=torch.float64)
    return numbers * box(60, 60, 50, 30, 7) + box(0, 0, 2, 1, -3)


def near(boxes: Tensor, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    moved = boxes + torch.randn(boxes.shape, generator=generator, dtype=boxes.dtype) * box(5, 5, 4, 4, 0.5)
    return torch.cat((moved[:, :2], moved[:, 2:4].abs() + 1, moved[:, 4:]), 1)


def plain_distance(one: list[float], other: list[float]) -> float:
    """The definition, number by number: covariances, their mean, its inverse and determinants."""

    def covariance(row: list[float]) -> tuple[float, float, float]:
        _, _, width, height, angle = row
        a, b, cos, sin = width**2 / 12, height**2 / 12, math.cos(angle), math.sin(angle)
        return a * cos * cos + b * sin * sin, a * sin * sin + b * cos * cos, (a - b) * cos * sin

    first, second = covariance(one), covariance(other)
    a, b, c = ((x + y) / 2 for x, y in zip(first, second, strict=True))
    determinant = a * b - c * c
    dx, dy = one[0] - other[0], one[1] - other[1]
    mahalanobis = (b * dx * dx - 2 * c * dx * dy + a * dy * dy) / determinant
    product = math.prod(x * y - z * z for x, y, z in (first, second))
    return math.sqrt(1 - math.exp(-mahalanobis / 8 - math.log(determinant / math.sqrt(product)) / 2))


def test_rotated_around__equals_ultralytics_decoding() -> None:
    generator = torch.Generator().manual_seed(0)
    distances, angles = torch.rand(2, 9, 4, generator=generator) * 5, torch.randn(2, 9, 1, generator=generator)
    points = torch.rand(9, 2, generator=generator) * 64
    theirs = torch.cat((dist2rbox(distances, angles, points), angles), -1)
    torch.testing.assert_close(rotated_around(points, distances, angles), theirs)


def test_rotated_around__without_a_turn_is_the_upright_box() -> None:
    found = rotated_around(box(10, 20), box(1, 2, 3, 4), box(0))
    assert found.tolist() == [11, 21, 4, 6, 0]
    assert upright(found).tolist() == [9, 18, 13, 24]


def test_upright__holds_the_corners_and_touches_them() -> None:
    boxes = random_boxes(50, 0)
    corners = xywhr2xyxyxyxy(boxes)  # (N, 4, 2)
    torch.testing.assert_close(upright(boxes), torch.cat((corners.amin(1), corners.amax(1)), 1))


def test_inside_rotated__equals_a_slow_loop() -> None:
    boxes, points = random_boxes(6, 1).view(2, 3, 5), torch.rand(40, 2, dtype=torch.float64) * 64
    found = inside_rotated(points, boxes)
    assert found.shape == (2, 3, 40)
    assert found.any()
    for image in range(2):
        for slot, (x, y, width, height, angle) in enumerate(boxes[image].tolist()):
            for place, (px, py) in enumerate(points.tolist()):
                turned = complex(px - x, py - y) * complex(math.cos(angle), -math.sin(angle))
                expected = abs(turned.real) < width / 2 and abs(turned.imag) < height / 2
                assert found[image, slot, place].item() is expected


@pytest.mark.parametrize("floor", [0.0, 0.25])
def test_hellinger_distance__equals_ultralytics_probiou(floor: float) -> None:
    boxes = random_boxes(300, 2)
    others = near(boxes, 3)
    theirs = probiou(boxes, others, eps=1e-14, floor=floor).squeeze(-1)
    torch.testing.assert_close(1 - hellinger_distance(boxes, others, floor=floor), theirs, rtol=0, atol=1e-11)
    if not floor:
        assert (1 - hellinger_distance(boxes, others) - batch_probiou(boxes, others).diag()).abs().max() < 1e-3


def test_hellinger_distance__equals_the_definition_in_a_slow_loop() -> None:
    boxes = random_boxes(40, 4)
    others = near(boxes, 5)
    plain = [plain_distance(*pair) for pair in zip(boxes.tolist(), others.tolist(), strict=True)]
    torch.testing.assert_close(hellinger_distance(boxes, others), box(*plain), rtol=1e-12, atol=0)


def test_hellinger_distance__equals_the_integral_over_both_densities() -> None:
    one, other = box(0, 0, 8, 4, 0.3), box(1, 2, 5, 6, -0.8)
    axis = torch.linspace(-20, 20, 801, dtype=torch.float64)
    points = torch.stack(torch.meshgrid(axis, axis, indexing="xy"), -1)

    def density(rectangle: Tensor) -> Tensor:
        x, y, width, height, angle = rectangle
        turn = torch.stack((torch.stack((angle.cos(), angle.sin())), torch.stack((-angle.sin(), angle.cos()))))
        along = (points - torch.stack((x, y))) @ turn.T / torch.stack((width, height)) * math.sqrt(12)
        values: Tensor = (-along.square().sum(-1) / 2).exp() * 12 / (2 * math.pi * width * height)
        return values

    coefficient = (density(one) * density(other)).sqrt().sum() * 0.05**2
    torch.testing.assert_close(hellinger_distance(one, other), (1 - coefficient).sqrt(), rtol=1e-6, atol=0)


@pytest.mark.parametrize("shift", [0.5, 3.0, 9.0])
def test_hellinger_distance__a_shift_along_a_side_in_closed_form(shift: float) -> None:
    # equal covariances: B = ⅛ d² / (w²/12) = 3d²/2w²
    found = hellinger_distance(box(0, 0, 6, 2, 0.7), box(shift * math.cos(0.7), shift * math.sin(0.7), 6, 2, 0.7))
    assert found.item() == pytest.approx(math.sqrt(1 - math.exp(-1.5 * (shift / 6) ** 2)), rel=1e-12)


@pytest.mark.parametrize("scale", [1.5, 4.0])
def test_hellinger_distance__concentric_sizes_in_closed_form(scale: float) -> None:
    # det of the mean is ((1 + k²)/2)² of the smaller one's, so that e^−B = 2k / (1 + k²)
    found = hellinger_distance(box(5, 5, 6, 2, 1.0), box(5, 5, 6 * scale, 2 * scale, 1.0))
    assert found.item() == pytest.approx(math.sqrt(1 - 2 * scale / (1 + scale**2)), rel=1e-12)


@pytest.mark.parametrize("turn", [0.2, math.pi / 4, math.pi / 2])
def test_hellinger_distance__a_turn_in_closed_form(turn: float) -> None:
    # of equal sides with the ratio r, det of the mean is 1 + sin²δ ((r − 1/r)/2)² of det Σ; r = 4
    growth = 1 + (math.sin(turn) * (4 - 1 / 4) / 2) ** 2
    found = hellinger_distance(box(5, 5, 8, 2, 0.3), box(5, 5, 8, 2, 0.3 + turn))
    assert found.item() == pytest.approx(math.sqrt(1 - growth**-0.5), rel=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("floor", [0.0, 1 / 12])
def test_hellinger_distance__equal_boxes_give_exactly_zero_and_no_gradient(dtype: torch.dtype, floor: float) -> None:
    boxes = torch.cat((random_boxes(500, 6), box(3, 3, 900, 1e-3, 1).view(1, 5), box(9, 9, -2, 4, 2).view(1, 5)))
    boxes = boxes.to(dtype).requires_grad_()
    found = hellinger_distance(boxes, boxes.detach(), floor=floor)
    assert not found.any()
    (slope,) = torch.autograd.grad(found.sum(), boxes)
    assert torch.equal(slope, torch.zeros_like(slope))


@pytest.mark.parametrize("written", [(6, 2, 0.4 + math.pi), (2, 6, 0.4 + math.pi / 2), (2, 6, 0.4 - math.pi / 2)])
def test_hellinger_distance__one_rectangle_in_other_words_is_zero(written: tuple[float, float, float]) -> None:
    assert hellinger_distance(box(1, 1, 6, 2, 0.4), box(1, 1, *written)).item() < 1e-7


def test_hellinger_distance__the_angle_of_a_square_has_no_slope() -> None:
    square = box(0, 0, 4, 4, 0.3).requires_grad_()
    found = hellinger_distance(square, box(1, 0, 6, 2, 0.0))
    slope = torch.autograd.grad(found, square)[0]
    assert slope[4].abs() < 1e-12
    assert slope[0].abs() > 0.01


def test_hellinger_distance__gradient_equals_finite_differences() -> None:
    boxes, others = random_boxes(12, 7).requires_grad_(), near(random_boxes(12, 7), 8)
    assert torch.autograd.gradcheck(lambda x: hellinger_distance(x, others, floor=0.1), boxes)


def test_hellinger_distance__far_apart_is_one_without_a_gradient() -> None:
    boxes = box(0, 0, 4, 2, 0).requires_grad_()
    found = hellinger_distance(boxes, box(1e4, 0, 4, 2, 0))
    assert found.item() == 1
    assert not torch.autograd.grad(found, boxes)[0].any()


def test_hellinger_distance__thin_boxes_are_exact_in_single_precision() -> None:
    thin, other = box(300, 300, 500, 0.5, 0.7), box(300, 300, 500, 0.5, 0.7001)
    expected = plain_distance(thin.tolist(), other.tolist())
    assert hellinger_distance(thin.float(), other.float()).item() == pytest.approx(expected, rel=5e-3)


def test_hellinger_distance__the_floor_bounds_the_slope_of_boxes_without_a_width() -> None:
    boxes = box(0, 0, 1e-9, 1e-9, 0).requires_grad_()
    found = hellinger_distance(boxes, box(0.1, 0, 1, 1, 0), floor=1 / 12)
    assert torch.autograd.grad(found, boxes)[0].abs().max() < 1


@pytest.mark.parametrize(("boxes", "others"), [((2, 5), (3, 5)), ((2, 4), (2, 4)), ((2, 1, 5), (2, 5))])
def test_hellinger_distance__other_shapes_are_refused(boxes: tuple[int, ...], others: tuple[int, ...]) -> None:
    with pytest.raises(ShapeError, match="shape"):
        hellinger_distance(torch.ones(boxes), torch.ones(others))
