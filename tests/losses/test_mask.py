from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import box_iou

from tests.helpers.instance_losses import check_equals_loop, check_unsure_image, with_teacher
from tests.helpers.pairs import check_maps, check_optimum, config, equal_step
from tests.helpers.steps import GRID, gradient, make_step
from tests.helpers.waits import Waits
from yolokd.errors import RunError, ShapeError
from yolokd.losses.base import COEFFICIENTS, MASKS, PROTOTYPES, Branch, Head, Requirements
from yolokd.losses.mask import (
    Mask,
    inside_boxes,
    mask_bce_map,
    mask_dice_map,
    mask_logits,
)

NONE = torch.nn.ModuleDict()
TERMS = ("mask_bce", "mask_dice")


def mask(confidence: float = 0.5, iou: float = 0.7, instances: int = 4) -> Mask:
    return Mask(config(confidence=confidence, iou=iou, instances=instances))


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def boxes(count: int, seed: int = 0) -> Tensor:
    corners = torch.rand(2, count, 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 20
    return torch.cat((corners.amin(0), corners.amax(0)), 1)


# The parts


def test_mask_bce_map__is_the_divergence_of_two_bernoulli_variables_in_closed_form() -> None:
    student, teacher = torch.full((1, 1, 1, 2), math.log(3.0)), torch.tensor([[[[0.0, math.log(4.0)]]]])
    half = 0.5 * math.log(0.5 / 0.75) + 0.5 * math.log(0.5 / 0.25)
    fifth = 0.8 * math.log(0.8 / 0.75) + 0.2 * math.log(0.2 / 0.25)
    both = mask_bce_map(student, teacher, torch.ones(1, 1, 1, 2)).item()
    assert both == pytest.approx((half + fifth) / 2, rel=1e-6)
    one = mask_bce_map(student, teacher, torch.tensor([[[[1.0, 0.0]]]])).item()
    assert one == pytest.approx(half, rel=1e-6)


def test_mask_bce_map__equals_torchs_cross_entropy_less_the_entropy() -> None:
    student, teacher = random(2, 3, 4, 5), random(2, 3, 4, 5, seed=1)
    target = teacher.sigmoid()
    entropy = F.binary_cross_entropy(target, target, reduction="none")
    expected = (F.binary_cross_entropy(student.sigmoid(), target, reduction="none") - entropy).mean((2, 3))
    torch.testing.assert_close(mask_bce_map(student, teacher, torch.ones(2, 3, 4, 5)), expected, atol=1e-12, rtol=0)


def test_mask_dice_map__in_closed_form() -> None:
    student, teacher = torch.full((1, 1, 1, 2), math.log(3.0)), torch.tensor([[[[0.0, math.log(4.0)]]]])
    overlap, squares = 2 * (0.75 * 0.5 + 0.75 * 0.8), 2 * 0.75**2 + 0.5**2 + 0.8**2
    found = mask_dice_map(student, teacher, torch.ones(1, 1, 1, 2)).item()
    assert found == pytest.approx(1 - overlap / squares, rel=1e-5)
    apart = mask_dice_map(torch.tensor([[[[50.0, -50.0]]]]), torch.tensor([[[[-50.0, 50.0]]]]), torch.ones(1, 1, 1, 2))
    assert apart.item() == pytest.approx(1.0)


@pytest.mark.parametrize("function", [mask_bce_map, mask_dice_map])
def test_maps__are_0_where_nothing_is_inside_and_gradients_are_right(function: Any) -> None:
    student, teacher = random(1, 2, 2, 3).requires_grad_(), random(1, 2, 2, 3, seed=1).requires_grad_()
    inside = torch.ones(1, 2, 2, 3)
    inside[0, 1] = 0
    values = function(student, teacher, inside)
    assert values[0, 1] == 0 < values[0, 0]
    assert torch.autograd.gradcheck(lambda s: function(s, teacher, inside), student)
    torch.autograd.backward(values.sum())
    assert teacher.grad is None


@pytest.mark.parametrize("function", [mask_bce_map, mask_dice_map])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_maps__half_precision_is_computed_in_float32(function: Any, dtype: torch.dtype) -> None:
    student, teacher = random(1, 2, 6, 6).to(dtype), random(1, 2, 6, 6, seed=1).to(dtype)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        values = function(student, teacher, torch.ones(1, 2, 6, 6, dtype=dtype))
    assert values.dtype == torch.float32
    expected = function(student.double(), teacher.double(), torch.ones(1, 2, 6, 6)).float()
    torch.testing.assert_close(values, expected, atol=1e-6, rtol=1e-4)


def test_mask_logits__are_sums_of_prototypes() -> None:
    coefficients, prototypes = random(2, 3, 4), random(2, 4, 5, 6, seed=1)
    found = mask_logits(coefficients, prototypes)
    for image in range(2):
        for row in range(3):
            expected = sum(coefficients[image, row, m] * prototypes[image, m] for m in range(4))
            torch.testing.assert_close(found[image, row], expected)


def test_inside_boxes__pixels_whose_center_lies_in_the_box() -> None:
    found = inside_boxes(boxes(50)[None] * 3, image_size=(64, 96), grid=(16, 24))[0]
    for (left, top, right, bottom), inside in zip((boxes(50) * 3).tolist(), found, strict=True):
        for row in range(16):
            for column in range(24):
                x, y = (column + 0.5) * 4, (row + 0.5) * 4
                assert inside[row, column] == float(left <= x < right and top <= y < bottom)
    assert found.sum() > 100


def test_parts__name_what_is_wrong() -> None:
    with pytest.raises(ShapeError, match=r"got \(1, 2, 3\) and \(1, 4, 5, 6\)"):
        mask_logits(torch.zeros(1, 2, 3), torch.zeros(1, 4, 5, 6))
    with pytest.raises(ShapeError, match=r"\(1, 1, 2, 2\) and \(1, 1, 2, 3\)"):
        mask_bce_map(torch.zeros(1, 1, 2, 2), torch.zeros(1, 1, 2, 3), torch.zeros(1, 1, 2, 2))
    with pytest.raises(ShapeError, match=r"inside must have the same shape"):
        mask_dice_map(torch.zeros(1, 1, 2, 2), torch.zeros(1, 1, 2, 2), torch.zeros(1, 1, 2, 3))


# The loss


def slow(branch: Branch, *, confidence: float, iou: float, instances: int) -> dict[str, Tensor]:
    """The loss of a branch pixel by pixel, (B, A) each."""
    student, teacher = branch.student, branch.teacher
    scores, places = teacher.logits.sigmoid().amax(-1), teacher.boxes
    maps = {term: torch.zeros_like(scores) for term in TERMS}
    for image in range(len(scores)):
        order = scores[image].argsort(descending=True)
        overlaps = box_iou(places[image], places[image]).nan_to_num()
        kept = [
            int(one)
            for rank, one in enumerate(order)
            if scores[image, one] >= confidence and not (overlaps[one, order[:rank]] > iou).any()
        ][:instances]
        for anchor in kept:
            own, other = (
                torch.einsum("m,mhw->hw", one[COEFFICIENTS][image, anchor], one[PROTOTYPES][image]).sigmoid()
                for one in (student.extras, teacher.extras)
            )
            left, top, right, bottom = places[image, anchor].tolist()
            pixels = [
                (own[row, column].item(), other[row, column].item())
                for row in range(own.shape[0])
                for column in range(own.shape[1])
                if left <= (column + 0.5) * 4 < right and top <= (row + 0.5) * 4 < bottom
            ]
            if pixels:
                divergence = [p * math.log(p / q) + (1 - p) * math.log((1 - p) / (1 - q)) for q, p in pixels]
                common, squares = sum(2 * q * p for q, p in pixels), sum(q * q + p * p for q, p in pixels)
                maps["mask_bce"][image, anchor] = sum(divergence) / len(pixels) / len(kept)
                maps["mask_dice"][image, anchor] = (1 - common / squares) / len(kept)
    return maps


def test_mask__equals_a_slow_loop_over_images_instances_and_pixels() -> None:
    assert check_equals_loop(mask, slow)


def test_mask__maps_and_optimum() -> None:
    assert check_maps(mask(), make_step(), {"mask_bce": (2, GRID.anchors), "mask_dice": (2, GRID.anchors)})
    assert check_optimum(mask(), equal_step(make_step(weights=(0.7, 0.3))), NONE)


def test_mask__only_coefficients_and_prototypes_get_a_gradient() -> None:
    step = make_step()
    (branch,) = step.branches
    values = sum(mask().maps(step, NONE, TERMS).values())
    assert isinstance(values, Tensor)
    for name in (COEFFICIENTS, PROTOTYPES):
        assert gradient(values, branch.student.extras[name]).any()
    with pytest.raises(RuntimeError, match="to not have been used"):
        gradient(values, branch.student.logits)


def test_mask__an_image_without_confident_instances_is_0_and_changes_no_other() -> None:
    assert check_unsure_image(mask())


def test_mask__prototypes_of_another_grid_and_number_are_resized() -> None:
    step = equal_step(make_step())
    (branch,) = step.branches
    flat = torch.ones_like(branch.teacher.extras[PROTOTYPES][:, :1])
    coefficients = branch.teacher.extras[COEFFICIENTS][..., :1]
    one = {COEFFICIENTS: coefficients, PROTOTYPES: flat}
    other = {COEFFICIENTS: torch.cat((coefficients,) * 2, -1) / 2, PROTOTYPES: flat[:, [0, 0], ::2, ::2]}
    student = Head(branch.student.logits, branch.student.raw, GRID, one)
    step = replace(step, branches=(replace(branch, student=student),))
    for values in mask().maps(with_teacher(step, extras=other), NONE, TERMS).values():
        torch.testing.assert_close(values, torch.zeros_like(values), atol=1e-12, rtol=0)


def test_mask__does_not_wait_for_the_device() -> None:
    step = make_step()
    with Waits() as waits:
        mask().maps(step, NONE, TERMS)
    assert waits.seen == []


def test_mask__refuses_a_step_without_heads() -> None:
    with pytest.raises(RunError, match="`mask` needs the heads"):
        mask().maps(replace(make_step(), branches=()), NONE, TERMS)
    assert Mask.requires == Requirements(heads=True, classes=True, extras=(MASKS,))
