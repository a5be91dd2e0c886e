from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.helpers.pairs import (
    BOXES,
    LEVELS,
    SIZE,
    build,
    check_maps,
    check_optimum,
    config,
    equal_step,
    step_with_boxes,
)
from tests.helpers.steps import GRID, TEACHER_CHANNELS, make_step
from yolokd.errors import RunError, ShapeError
from yolokd.losses.fgd import FGD, batch_masks, box_masks, context_block, focal_map, with_context
from yolokd.losses.samkd import channel_attention, spatial_attention


def fgd(**changes: float) -> FGD:
    values: dict[str, Any] = {"foreground": 2.0, "background": 3.0, "attention": 5.0, "relation": 7.0, "tau": 0.5}
    return FGD(config(**values | changes))


def slow_masks(boxes: Tensor, size: tuple[int, int], grid: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Walk over boxes and cells."""
    (h, w), (height, width) = size, grid
    foreground = torch.zeros(height, width, dtype=torch.float64)
    for x1, y1, x2, y2 in boxes.tolist():
        left, top = math.floor(x1 / w * width), math.floor(y1 / h * height)
        right, bottom = math.ceil(x2 / w * width), math.ceil(y2 / h * height)
        share = 1 / ((right - left + 1) * (bottom - top + 1))
        for y in range(max(top, 0), min(bottom + 1, height)):
            for x in range(max(left, 0), min(right + 1, width)):
                foreground[y, x] = max(foreground[y, x].item(), share)
    background = (foreground == 0).double()
    return foreground, background / max(background.sum().item(), 1)


def test_box_masks__one_box_covers_floor_to_ceil_inclusive() -> None:
    boxes = torch.tensor([[9.0, 17.0, 30.0, 31.0]])  # cells 1.1 to 3.8 across, 2.1 to 3.9 down
    foreground, background = box_masks(boxes, image_size=(64, 96), grid=(8, 12))
    expected = torch.zeros(8, 12)
    expected[2:5, 1:5] = 1 / 12
    assert torch.equal(foreground, expected)
    assert background.sum().item() == pytest.approx(1)
    assert background[0, 0].item() == pytest.approx(1 / (96 - 12))
    assert background[expected > 0].eq(0).all()


def test_box_masks__at_the_border_cells_are_clipped_but_the_size_is_not() -> None:
    boxes = torch.tensor([[80.0, 48.0, 96.0, 64.0]])  # the ceil, cell 12 and row 8, does not exist
    foreground, _ = box_masks(boxes, image_size=(64, 96), grid=(8, 12))
    expected = torch.zeros(8, 12)
    expected[6:, 10:] = 1 / 9
    assert torch.equal(foreground, expected)


def test_box_masks__the_smaller_box_wins_an_overlap() -> None:
    boxes = torch.tensor([[0.0, 0.0, 96.0, 64.0], [9.0, 9.0, 15.0, 15.0]])
    for order in ([0, 1], [1, 0]):
        foreground, background = box_masks(boxes[order], image_size=(64, 96), grid=(8, 12))
        assert foreground[1, 1].item() == pytest.approx(1 / 4)
        assert foreground[7, 11].item() == pytest.approx(1 / 117)
        assert background.eq(0).all()  # nothing is left


def test_batch_masks__are_those_of_each_image() -> None:
    images = [torch.rand(count, 4) * 40 + torch.tensor([0.0, 0, 40, 20]) for count in (3, 0, 1, 5)]
    size: dict[str, Any] = {"image_size": (64, 96), "grid": (8, 12)}
    for found, *alone in zip(batch_masks(images, **size), *(box_masks(one, **size) for one in images), strict=True):
        assert torch.equal(found, torch.stack(alone))
    nothing, everywhere = batch_masks([torch.zeros(0, 4)] * 2, **size)
    assert not nothing.any()
    assert torch.equal(everywhere, torch.full((2, 8, 12), 1 / 96))


def test_box_masks__without_objects_all_is_background() -> None:
    foreground, background = box_masks(torch.zeros(0, 4), image_size=(64, 96), grid=(8, 12))
    assert foreground.eq(0).all()
    torch.testing.assert_close(background, torch.full((8, 12), 1 / 96))


@pytest.mark.parametrize("grid", [(8, 12), (4, 6), (2, 3)])
def test_box_masks__equals_a_slow_loop(grid: tuple[int, int]) -> None:
    generator = torch.Generator().manual_seed(1)
    corners = torch.rand(30, 2, 2, generator=generator, dtype=torch.float64) * torch.tensor([130.0, 90.0]) - 15
    boxes = torch.cat((corners.amin(1), corners.amax(1)), 1)
    for some in (boxes[:1], boxes[:3], boxes):
        foreground, background = box_masks(some, image_size=SIZE, grid=grid)
        expected = slow_masks(some, SIZE, grid)
        torch.testing.assert_close(foreground, expected[0], atol=1e-12, rtol=0)
        torch.testing.assert_close(background, expected[1], atol=1e-12, rtol=0)


def test_box_masks__a_box_outside_or_inside_out_covers_nothing() -> None:
    boxes = torch.tensor([[200.0, 10.0, 220.0, 20.0], [-50.0, 10.0, -20.0, 20.0], [60.0, 40.0, 20.0, 10.0]])
    foreground, background = box_masks(boxes, image_size=(64, 96), grid=(8, 12))
    assert foreground.eq(0).all()
    assert background.sum().item() == pytest.approx(1)


def test_box_masks__names_the_shape_that_came() -> None:
    with pytest.raises(ShapeError, match=r"\(N, 4\), got \(3, 5\)"):
        box_masks(torch.zeros(3, 5), image_size=(8, 8), grid=(2, 2))


def test_focal_map__equals_a_slow_loop() -> None:
    generator = torch.Generator().manual_seed(0)
    student, teacher = torch.randn(2, 1, 2, 2, 3, generator=generator, dtype=torch.float64).unbind(0)
    weight = torch.rand(1, 2, 3, generator=generator, dtype=torch.float64)
    cells, channels = spatial_attention(teacher), channel_attention(teacher)
    expected = torch.zeros(1, 2, 3, dtype=torch.float64)
    for c in range(2):
        for y in range(2):
            for x in range(3):
                error = (student[0, c, y, x] - teacher[0, c, y, x]) ** 2
                expected[0, y, x] += weight[0, y, x] * cells[0, y, x] * channels[0, c] * error
    torch.testing.assert_close(focal_map(student, teacher, weight), expected, atol=1e-12, rtol=0)


def test_focal_map__gradient_reaches_the_student_only() -> None:
    student, teacher = (torch.randn(1, 2, 2, 2, dtype=torch.float64, requires_grad=True) for _ in range(2))
    weight = torch.ones(1, 2, 2, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda s: focal_map(s, teacher, weight), student)
    torch.autograd.backward(focal_map(student, teacher, weight).sum())
    assert teacher.grad is None


def test_focal_map__half_precision_is_computed_in_float32() -> None:
    student, teacher = torch.randn(2, 1, 4, 3, 3).half().unbind(0)
    weight = torch.ones(1, 3, 3)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        values = focal_map(student, teacher, weight)
    assert values.dtype == torch.float32
    torch.testing.assert_close(values, focal_map(student.double(), teacher.double(), weight.double()).float())


def test_with_context__starts_as_the_identity_and_adds_one_vector_to_all_cells() -> None:
    torch.manual_seed(0)
    block = context_block(6).double()
    feature = torch.randn(2, 6, 3, 4, dtype=torch.float64)
    assert torch.equal(with_context(feature, block["attend"], block["transform"]), feature)
    for parameter in block.parameters():
        nn.init.normal_(parameter)
    added = with_context(feature, block["attend"], block["transform"]) - feature
    torch.testing.assert_close(added, added[..., :1, :1].expand_as(added))
    share = block["attend"](feature).flatten(1).softmax(1)
    context = torch.stack([(feature[b].flatten(1) * share[b]).sum(1) for b in range(2)])
    torch.testing.assert_close(added[..., 0, 0], block["transform"](context[..., None, None])[..., 0, 0])


def test_fgd__value_is_the_papers_sum_over_the_batch_size() -> None:
    step, loss = step_with_boxes(), fgd()
    parts = build(loss)
    for parameter in parts.parameters():
        nn.init.normal_(parameter, std=0.3)
    maps = loss.maps(step, parts, loss.terms)
    cells = channels = torch.zeros((), dtype=torch.float64)
    for level in LEVELS:
        student, teacher = parts.get_submodule(f"adapter.{level}")(step.student[level]), step.teacher[level]
        masks = [slow_masks(boxes, SIZE, GRID.shapes[level]) for boxes in BOXES]
        weight = torch.stack([2 * foreground + 3 * background for foreground, background in masks])
        focus = spatial_attention(teacher).unsqueeze(1) * channel_attention(teacher)[..., None, None]
        cells = cells + (weight.unsqueeze(1) * focus * (student - teacher) ** 2).sum() / 2
        cells = cells + 5 * (spatial_attention(student) - spatial_attention(teacher)).abs().sum() / 2
        own, other = (
            with_context(x, *parts.get_submodule(f"{who}.{level}").children())
            for who, x in (("student", student), ("teacher", teacher))
        )
        cells = cells + 7 * nn.functional.mse_loss(own, other, reduction="sum") / 2
        channels = channels + 5 * (channel_attention(student) - channel_attention(teacher)).abs().sum() / 2
    torch.testing.assert_close(maps["fgd"].sum(1).mean(0), cells)
    torch.testing.assert_close(maps["fgd_channel"].mean(0), channels)


def test_fgd__maps_and_optimum() -> None:
    loss = fgd()
    assert check_maps(loss, step_with_boxes(), {"fgd": (2, GRID.anchors), "fgd_channel": (2,)})
    assert check_optimum(loss, equal_step(step_with_boxes()), build(loss, TEACHER_CHANNELS))


def test_fgd__both_context_blocks_are_trained() -> None:
    loss = fgd()
    parts = build(loss)
    torch.autograd.backward(loss.maps(step_with_boxes(), parts, ["fgd"])["fgd"].sum())
    for who in ("student", "teacher"):
        last = list(parts.get_submodule(f"{who}.p3.transform").parameters())[-2]
        assert last.grad is not None
        assert last.grad.abs().sum() > 0


def test_fgd__a_step_without_boxes_is_refused() -> None:
    loss = fgd()
    with pytest.raises(RunError, match="`fgd` needs the boxes of 2 images, got those of 0"):
        loss.maps(replace(make_step(), boxes_xyxy_px=()), build(loss), ["fgd"])


def test_fgd__parts_are_plain_modules() -> None:
    kinds = {type(module) for module in build(fgd()).modules()}
    assert kinds <= {nn.ModuleDict, nn.Sequential, nn.Conv2d, nn.LayerNorm, nn.ReLU, nn.Identity}
