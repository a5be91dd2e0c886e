from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from yolokd.augment.ikd import adversarial, clipped, noisy, random_crop, sample_rule
from yolokd.errors import ShapeError

EPS = 8 / 255


# The rule


@pytest.mark.parametrize(
    ("boxes", "rule"),
    [
        ([[10, 10], [31, 33]], "noise"),  # 100 and 1023
        ([[10, 10], [32, 32]], "crop"),  # 1024 is not small
        ([[31.99, 32.0]], "noise"),  # not rounded
        ([[1024.0, 1.0]], "crop"),  # the area counts, not the sides
        ([], "noise"),
    ],
)
def test_sample_rule__policy_table(boxes: list[list[float]], rule: str) -> None:
    assert sample_rule(boxes) == rule
    assert sample_rule(np.array(boxes, dtype=np.float32).reshape(-1, 2)) == rule
    assert sample_rule(torch.tensor(boxes).reshape(-1, 2)) == rule


def test_sample_rule__small_integers_do_not_overflow() -> None:
    assert sample_rule(np.array([[128, 64]], dtype=np.uint8)) == "crop"  # 8192 would wrap to 0


def test_sample_rule__names_the_shape_that_came() -> None:
    with pytest.raises(ShapeError, match=r"\(N, 2\), got \(1, 4\)"):
        sample_rule(np.zeros((1, 4)))


# Noise


def test_noisy__has_the_given_spread_and_no_bias() -> None:
    image = np.full((200, 300, 3), 128, dtype=np.uint8)
    change = noisy(image, np.random.default_rng(0)).astype(float) - 128
    assert abs(change.mean()) < 5 * 20.4 / 180_000**0.5
    assert change.std() == pytest.approx(0.08 * 255, rel=0.01)
    assert abs(np.corrcoef(change[..., 0].ravel(), change[..., 1].ravel())[0, 1]) < 0.02  # each channel on its own


def test_noisy__clips_and_leaves_the_image_alone() -> None:
    image = np.zeros((50, 50, 3), dtype=np.uint8)
    image[:25] = 255
    image.flags.writeable = False
    result = noisy(image, np.random.default_rng(0), sigma=0.3)
    assert result.dtype == np.uint8
    assert result.flags.writeable
    assert 0.45 < (result[25:] == 0).mean() < 0.55  # half of the noise falls below 0
    assert 0.45 < (result[:25] == 255).mean() < 0.55
    assert image[:25].min() == 255


def test_noisy__follows_its_stream_only() -> None:
    image = np.full((4, 4, 3), 100, dtype=np.uint8)
    one, same, other = (noisy(image, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert np.array_equal(one, same)
    assert not np.array_equal(one, other)


# Crops


def coordinates(height: int, width: int) -> Any:
    """An image whose values tell where they come from."""
    rows, columns = np.indices((height, width))
    return np.stack((rows, columns, np.zeros_like(rows)), -1).astype(np.uint8)


def test_random_crop__ratios_are_independent_and_uniform() -> None:
    image, boxes = coordinates(200, 250), np.array([[0.0, 0.0, 250.0, 200.0]])
    rng = np.random.default_rng(0)
    ratios, corners = [], []
    for _ in range(3000):
        crop, kept_boxes, _ = random_crop(image, boxes, rng)
        ratios.append((crop.shape[0] / 200, crop.shape[1] / 250))
        corners.append(crop[0, 0, :2])
        assert np.array_equal(kept_boxes, [[0, 0, crop.shape[1], crop.shape[0]]])
    ratio = np.array(ratios)
    assert ratio.min() >= 0.8
    assert ratio.max() <= 1
    assert np.allclose(ratio.mean(0), 0.9, atol=0.005)
    assert np.allclose(ratio.std(0), 0.2 / 12**0.5, atol=0.003)
    assert abs(np.corrcoef(ratio.T)[0, 1]) < 0.07
    free = (1 - ratio) * (200, 250)
    assert np.mean(np.array(corners) / np.maximum(free, 1)) == pytest.approx(0.5, abs=0.05)


def test_random_crop__boxes_follow_the_image() -> None:
    image = coordinates(100, 120)
    boxes = np.array([[10.0, 20.0, 30.0, 40.0], [50.0, 60.0, 70.0, 90.0], [0.0, 0.0, 3.0, 3.0]])
    rng = np.random.default_rng(1)
    dropped = 0
    for _ in range(200):
        crop, moved, kept = random_crop(image, boxes, rng)
        top, left = (int(x) for x in crop[0, 0, :2])
        height, width = crop.shape[:2]
        assert np.array_equal(crop, image[top : top + height, left : left + width])
        dropped += len(boxes) - len(kept)
        for index in range(len(boxes)):
            x1, y1, x2, y2 = boxes[index]
            inside = [max(x1, left), max(y1, top), min(x2, left + width), min(y2, top + height)]
            alive = inside[2] > inside[0] and inside[3] > inside[1]
            assert alive == (index in kept)
            if alive:
                expected = np.array(inside) - [left, top, left, top]
                assert np.array_equal(moved[list(kept).index(index)], expected)
    assert dropped > 0


def test_random_crop__is_drawn_again_until_a_box_survives() -> None:
    image, boxes = coordinates(100, 100), np.array([[0.0, 0.0, 2.0, 2.0]])
    rng = np.random.default_rng(2)
    for _ in range(100):
        crop, moved, kept = random_crop(image, boxes, rng, low=0.5)
        assert kept.tolist() == [0]
        assert (moved[:, 2:] > moved[:, :2]).all()
        assert max(crop[0, 0]) < 2  # the window still holds the corner


def test_random_crop__a_box_that_never_survives_leaves_the_image_whole() -> None:
    image, boxes = coordinates(20, 20), np.array([[5.0, 5.0, 5.0, 9.0]])
    crop, moved, kept = random_crop(image, boxes, np.random.default_rng(0))
    assert np.array_equal(crop, image)
    assert np.array_equal(moved, boxes)
    assert kept.tolist() == [0]


def test_random_crop__copies() -> None:
    image, boxes = coordinates(50, 50), np.array([[5.0, 5.0, 40.0, 40.0]], dtype=np.float32)
    image.flags.writeable = boxes.flags.writeable = False
    crop, moved, _ = random_crop(image, boxes, np.random.default_rng(0))
    crop[:], moved[:] = 0, 0
    assert crop.flags.c_contiguous
    assert moved.dtype == np.float32
    assert image.max() == 49
    assert boxes.max() == 40


def test_random_crop__without_boxes_it_just_crops() -> None:
    crop, moved, kept = random_crop(coordinates(50, 50), np.zeros((0, 4)), np.random.default_rng(0))
    assert crop.size < 50 * 50 * 3
    assert moved.shape == (0, 4)
    assert kept.shape == (0,)


def test_random_crop__names_what_is_wrong() -> None:
    rng = np.random.default_rng(0)
    with pytest.raises(ValueError, match=r"low must be above 0 and at most 1, got 1\.2"):
        random_crop(coordinates(5, 5), np.zeros((0, 4)), rng, low=1.2)
    with pytest.raises(ShapeError, match=r"\(N, 4\), got \(3,\)"):
        random_crop(coordinates(5, 5), np.zeros(3), rng)


def test_clipped__drops_boxes_of_no_area() -> None:
    boxes = np.array([[0.0, 0.0, 10.0, 10.0], [10.0, 0.0, 20.0, 10.0], [9.5, 9.5, 30.0, 30.0]])
    inside, kept = clipped(boxes, (0, 0, 10, 10))
    assert kept.tolist() == [0, 2]
    assert inside.tolist() == [[0, 0, 10, 10], [9.5, 9.5, 10, 10]]


# The adversarial example


def linear(weight: Tensor) -> Any:
    def loss(images: Tensor) -> Tensor:
        return (images * weight).flatten(1).sum(1)

    return loss


@pytest.mark.parametrize(("steps", "reached"), [(5, 8), (3, 6), (0, 0)])
def test_adversarial__linear_teacher(steps: int, reached: int) -> None:
    weight = torch.randn(1, 3, 4, 4, dtype=torch.float64)
    weight[0, 0, 0, 0] = 0
    images = torch.full((2, 3, 4, 4), 0.5, dtype=torch.float64)
    example = adversarial(images, linear(weight), eps=8, step=2, steps=steps)
    torch.testing.assert_close(example - images, (reached / 255 * weight.sign()).expand_as(images), atol=1e-12, rtol=0)


def test_adversarial__stays_within_bounds_and_range() -> None:
    images = torch.rand(2, 3, 16, 16, dtype=torch.float64)
    example = adversarial(images, linear(torch.randn(1, 3, 16, 16).double()), eps=8, step=3, steps=7)
    assert example.min() >= 0
    assert example.max() <= 1
    assert (example - images).abs().max() <= EPS + 1e-12
    assert (example == 0).any()
    assert (example == 1).any()


def test_adversarial__equals_a_slow_loop_with_momentum() -> None:
    torch.manual_seed(0)
    images, quadratic = torch.rand(2, 3, 2, 2, dtype=torch.float64), torch.randn(12, 12, dtype=torch.float64)

    def loss(x: Tensor) -> Tensor:
        return ((x.flatten(1) - 0.5) @ quadratic).sin().sum(1)

    example = adversarial(images, loss, eps=20, step=6, steps=4, momentum=0.7)
    for b in range(2):
        x, running = images[b : b + 1].clone(), torch.zeros(1, 3, 2, 2, dtype=torch.float64)
        for _ in range(4):
            gradient = torch.func.grad(lambda z: loss(z).sum())(x)
            running = 0.7 * running + gradient / sum(abs(g) for g in gradient.flatten().tolist())
            for at in np.ndindex(1, 3, 2, 2):
                original = images[b][at[1:]].item()
                moved = x[at].item() + 6 / 255 * float(np.sign(running[at].item()))
                x[at] = min(max(moved, original - 20 / 255, 0), original + 20 / 255, 1)
        torch.testing.assert_close(example[b : b + 1], x, atol=1e-12, rtol=0)


def test_adversarial__a_zero_gradient_moves_nothing() -> None:
    images = torch.rand(2, 3, 4, 4)
    example = adversarial(images, lambda x: torch.stack((x[0].sum() * 0, x[1].sum())), eps=8, step=2, steps=5)
    assert torch.equal(example[0], images[0])
    assert (example[1] - images[1]).max().item() == pytest.approx(EPS, abs=1e-6)


def test_adversarial__the_images_do_not_share_their_gradients() -> None:
    images = torch.full((2, 3, 2, 2), 0.5)
    scale = torch.tensor([1e-20, 1e20])  # of the losses
    example = adversarial(images, lambda x: x.flatten(1).sum(1) * scale, eps=8, step=2, steps=2, momentum=1.0)
    torch.testing.assert_close(example - images, torch.full_like(images, 4 / 255))


def test_adversarial__works_under_no_grad_and_leaves_parameters_alone() -> None:
    torch.manual_seed(0)
    teacher = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 1))
    before = {name: p.detach().clone() for name, p in teacher.named_parameters()}
    images = torch.rand(2, 3, 8, 8, requires_grad=True)
    with torch.no_grad():
        example = adversarial(images, lambda x: teacher(x)[:, 0], eps=8, step=2, steps=5)
        assert not torch.is_grad_enabled()
        assert (teacher(example) > teacher(images)).all()
    assert not example.requires_grad
    assert images.grad is None
    for name, parameter in teacher.named_parameters():
        assert parameter.grad is None
        assert torch.equal(parameter, before[name])


def test_adversarial__beats_random_signs() -> None:
    torch.manual_seed(0)
    teacher = nn.Sequential(nn.Conv2d(3, 8, 3), nn.SiLU(), nn.Conv2d(8, 1, 3), nn.Flatten()).requires_grad_(False)
    images = torch.rand(4, 3, 12, 12)

    def loss(x: Tensor) -> Tensor:
        values: Tensor = teacher(x).square().sum(1)
        return values

    example = adversarial(images, loss, eps=8, step=2, steps=5)
    chance = (images + EPS * torch.randn_like(images).sign()).clamp(0, 1)
    assert (loss(example) > loss(images)).all()
    assert (loss(example) > loss(chance)).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_adversarial__half_precision_is_computed_in_float32_without_autocast(dtype: torch.dtype) -> None:
    seen = []

    def loss(x: Tensor) -> Tensor:
        seen.append((x.dtype, torch.is_autocast_enabled("cpu")))
        return x.flatten(1).sum(1)

    images = torch.full((1, 3, 2, 2), 0.5, dtype=dtype)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        example = adversarial(images, loss, eps=8, step=2, steps=5)
    assert set(seen) == {(torch.float32, False)}
    assert example.dtype == torch.float32
    torch.testing.assert_close(example - 0.5, torch.full_like(example, EPS))


def test_adversarial__does_not_change_its_input() -> None:
    images = torch.full((1, 3, 2, 2), 0.5)
    for steps in (0, 2):
        example = adversarial(images, linear(torch.ones(1)), eps=8, step=2, steps=steps)
        example.zero_()
        assert images.eq(0.5).all()


def test_adversarial__names_the_shape_that_came() -> None:
    with pytest.raises(ShapeError, match=r"\(B, 3, H, W\), got \(3, 8, 8\)"):
        adversarial(torch.rand(3, 8, 8), linear(torch.ones(1)), eps=8, step=2, steps=1)
