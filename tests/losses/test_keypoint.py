from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from pycocotools.cocoeval import COCOeval
from torch import Tensor
from torchvision.ops import box_iou
from ultralytics.utils.metrics import OKS_SIGMA, kpt_iou

from tests.helpers.instance_losses import check_equals_loop, check_unsure_image
from tests.helpers.pairs import check_maps, check_optimum, config, equal_step
from tests.helpers.steps import GRID, gradient, make_step, moves
from tests.helpers.waits import Waits
from yolokd.errors import RunError, ShapeError
from yolokd.losses.base import KEYPOINTS, OFFSETS, VISIBILITY, Branch, Head, Requirements, Step
from yolokd.losses.keypoint import (
    COCO_SIGMAS,
    Keypoint,
    keypoints_px,
    oks_distance_map,
    sigmas_of,
    visibility_bce_map,
)

NONE = torch.nn.ModuleDict()
TERMS = ("keypoint_oks", "keypoint_visibility")


def keypoint(confidence: float = 0.5, iou: float = 0.7, instances: int = 4, visibility: Any = 0.5) -> Keypoint:
    return Keypoint(config(confidence=confidence, iou=iou, instances=instances, visibility=visibility))


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# The parts


def test_sigmas_of__are_ultralytics_and_pycocotools_own() -> None:
    assert pytest.approx(OKS_SIGMA.tolist(), rel=1e-6) == COCO_SIGMAS
    assert pytest.approx(COCOeval(iouType="keypoints").params.kpt_oks_sigmas.tolist(), rel=1e-12) == COCO_SIGMAS
    assert sigmas_of(17) == COCO_SIGMAS
    assert sigmas_of(5) == pytest.approx((np.ones(5) / 5).tolist())


def test_oks_distance_map__in_closed_form() -> None:
    sigmas, area = torch.tensor([0.1, 0.5]), torch.tensor([[8.0]])
    student = torch.tensor([[[[3.0, 4.0], [1.0, 1.0]]]])
    visibility = torch.tensor([[[1.0, 0.5]]])
    first, second = 1 - math.exp(-25 / (2 * 8 * 0.2**2)), 1 - math.exp(-2 / (2 * 8 * 1.0**2))
    found = oks_distance_map(student, torch.zeros(1, 1, 2, 2), visibility, area, sigmas).item()
    assert found == pytest.approx((first + 0.5 * second) / 1.5, rel=1e-6)


def test_oks_distance_map__keypoints_that_the_teacher_does_not_see_count_little_even_alone() -> None:
    sigmas, far = torch.tensor([0.1, 0.1]), torch.full((1, 1, 2, 2), 1e4)
    for seen, expected in ((0.0, 0.0), (0.1, 0.2), (0.5, 1.0), (1.0, 1.0)):
        found = oks_distance_map(far, torch.zeros(1, 1, 2, 2), torch.full((1, 1, 2), seen), torch.ones(1, 1), sigmas)
        assert found.item() == pytest.approx(expected)


def one_object(area: float) -> tuple[Tensor, Tensor, list[int]]:
    """Keypoints of a detection and of an object, (17, 2) in pixels, and which of the latter are labeled."""
    visible = [int(one) for one in random(17, seed=3) > -0.5]
    other = random(17, 2, seed=1) * 40 + 100
    return other + random(17, 2, seed=2) * math.sqrt(area) / 10, other, visible


def test_oks_distance_map__is_one_less_the_similarity_of_pycocotools_and_of_ultralytics() -> None:
    area = 900.0
    found, labeled, visible = one_object(area)
    evaluation = COCOeval(iouType="keypoints")
    flags = torch.tensor(visible, dtype=torch.float64)
    truth = {
        "keypoints": torch.cat((labeled, flags[:, None]), 1).flatten().tolist(),
        "bbox": [80, 80, 40, 40],
        "area": area,
    }
    detected = torch.cat((found, torch.ones(17, 1)), 1).flatten().tolist()
    evaluation._gts[1, 1], evaluation._dts[1, 1] = [truth], [{"keypoints": detected, "score": 0.9}]
    similarity = float(evaluation.computeOks(1, 1)[0, 0])
    assert 0.1 < similarity < 0.9
    ours = oks_distance_map(
        found[None, None], labeled[None, None], flags[None, None], torch.tensor([[area]]), torch.tensor(COCO_SIGMAS)
    )
    assert ours.item() == pytest.approx(1 - similarity, rel=1e-6)
    labels, answers = torch.cat((labeled, flags[:, None]), 1)[None], torch.cat((found, flags[:, None]), 1)[None]
    theirs = kpt_iou(labels, answers, area=torch.tensor([area]), sigma=OKS_SIGMA)
    assert ours.item() == pytest.approx(1 - theirs.item(), rel=1e-5)


def test_oks_distance_map__gradients_are_right_and_none_reaches_the_teacher() -> None:
    student, teacher = random(1, 2, 3, 2).requires_grad_(), random(1, 2, 3, 2, seed=1).requires_grad_()
    rest = (torch.rand(1, 2, 3).double(), torch.tensor([[4.0, 9.0]]).double(), torch.tensor([0.3, 0.4, 0.5]).double())
    assert torch.autograd.gradcheck(lambda s: oks_distance_map(s, teacher, *rest), student)
    torch.autograd.backward(oks_distance_map(student, teacher, *rest).sum())
    assert teacher.grad is None


def test_oks_distance_map__boxes_without_area_count_as_one_pixel() -> None:
    both = (torch.full((1, 1, 1, 2), 0.1), torch.zeros(1, 1, 1, 2), torch.ones(1, 1, 1))
    nothing, pixel = (
        oks_distance_map(*both, torch.full((1, 1), area), torch.tensor([0.5])).item() for area in (0.0, 1.0)
    )
    assert nothing == pixel == pytest.approx(1 - math.exp(-0.01))


def test_visibility_bce_map__equals_torchs_cross_entropy_less_the_entropy() -> None:
    student, teacher = random(2, 3, 5), random(2, 3, 5, seed=1)
    target = teacher.sigmoid()
    entropy = F.binary_cross_entropy(target, target, reduction="none")
    expected = (F.binary_cross_entropy(student.sigmoid(), target, reduction="none") - entropy).mean(-1)
    torch.testing.assert_close(visibility_bce_map(student, teacher), expected, atol=1e-12, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_maps__half_precision_is_computed_in_float32(dtype: torch.dtype) -> None:
    student, teacher = random(1, 2, 6, 2).to(dtype), random(1, 2, 6, 2, seed=1).to(dtype)
    rest = (torch.ones(1, 2, 6), torch.ones(1, 2) * 9, torch.full((6,), 0.2))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        positions = oks_distance_map(student, teacher, *rest)
        visibility = visibility_bce_map(student[..., 0], teacher[..., 0])
    assert positions.dtype == visibility.dtype == torch.float32
    expected = oks_distance_map(student.double(), teacher.double(), *rest).float()
    torch.testing.assert_close(positions, expected, atol=1e-6, rtol=1e-4)


def test_parts__name_what_is_wrong() -> None:
    points = torch.zeros(1, 2, 3, 2)
    with pytest.raises(ShapeError, match=r"visibility \(B, N, K\).*got \(1, 2, 3, 2\), \(1, 2, 4\), \(1, 2\) and"):
        oks_distance_map(points, points, torch.zeros(1, 2, 4), torch.zeros(1, 2), torch.ones(3))
    with pytest.raises(ShapeError, match=r"and \(2,\)"):
        oks_distance_map(points, points, torch.zeros(1, 2, 3), torch.zeros(1, 2), torch.ones(2))
    with pytest.raises(ShapeError, match="must have 3 dimensions"):
        visibility_bce_map(points, points)


def test_keypoints_px__are_offsets_in_cells_from_the_centers() -> None:
    (branch,) = make_step().branches
    anchors = torch.tensor([[0, 97], [119, 125]])  # of p3, p4 | p4, p5
    found = keypoints_px(branch.student, anchors)
    for image, slot, (x, y), stride in (
        (0, 0, (4, 4), 8),
        (0, 1, (24, 8), 16),
        (1, 0, (88, 56), 16),
        (1, 1, (80, 48), 32),
    ):
        offsets = branch.student.extras[OFFSETS][image, anchors[image, slot]]
        for number in range(4):
            expected = [x + stride * offsets[2 * number].item(), y + stride * offsets[2 * number + 1].item()]
            assert found[image, slot, number].tolist() == pytest.approx(expected)


# The loss


def slow(branch: Branch, *, confidence: float, iou: float, instances: int) -> dict[str, Tensor]:
    """The loss of a branch keypoint by keypoint, (B, A) each."""
    student, teacher = branch.student, branch.teacher
    scores, places = teacher.logits.sigmoid().amax(-1), teacher.boxes
    cells = [
        ((column + 0.5) * stride, (row + 0.5) * stride, stride)
        for (height, width), stride in zip(GRID.shapes.values(), GRID.strides.values(), strict=True)
        for row in range(height)
        for column in range(width)
    ]
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
            x, y, stride = cells[anchor]
            left, top, right, bottom = places[image, anchor].tolist()
            area = max(max(right - left, 0) * max(bottom - top, 0), 1)
            distance = weight = divergence = 0.0
            for number in range(4):
                (own_x, own_y), (other_x, other_y) = (
                    (x + stride * one[2 * number].item(), y + stride * one[2 * number + 1].item())
                    for one in (head.extras[OFFSETS][image, anchor] for head in (student, teacher))
                )
                q, p = (head.extras[VISIBILITY][image, anchor, number].sigmoid().item() for head in (student, teacher))
                squared = (own_x - other_x) ** 2 + (own_y - other_y) ** 2
                distance += p * (1 - math.exp(-squared / (2 * area * (2 / 4) ** 2)))
                weight += p
                divergence += p * math.log(p / q) + (1 - p) * math.log((1 - p) / (1 - q))
            maps["keypoint_oks"][image, anchor] = distance / max(weight, 1) / len(kept)
            maps["keypoint_visibility"][image, anchor] = divergence / 4 / len(kept)
    return maps


def test_keypoint__equals_a_slow_loop_over_images_instances_and_keypoints() -> None:
    assert check_equals_loop(keypoint, slow)


def test_keypoint__maps_and_optimum() -> None:
    assert check_maps(keypoint(), make_step(), dict.fromkeys(TERMS, (2, GRID.anchors)))
    assert check_optimum(keypoint(), equal_step(make_step(weights=(0.7, 0.3))), NONE)


def test_keypoint__equal_keypoints_are_exactly_0() -> None:
    step = equal_step(make_step())
    maps = keypoint().maps(step, NONE, TERMS)
    assert maps["keypoint_oks"].eq(0).all()
    assert gradient(maps["keypoint_oks"], step.branches[0].student.extras[OFFSETS]).eq(0).all()


def test_keypoint__only_keypoints_get_a_gradient() -> None:
    step = make_step()
    (branch,) = step.branches
    values = sum(keypoint().maps(step, NONE, TERMS).values())
    assert isinstance(values, Tensor)
    for name in (OFFSETS, VISIBILITY):
        assert gradient(values, branch.student.extras[name]).any()
        assert not moves(values, branch.teacher.extras[name])
    with pytest.raises(RuntimeError, match="to not have been used"):
        gradient(values, branch.student.logits)


def with_heads(step: Step, teacher: dict[str, Any], student: dict[str, Any] | None = None) -> Step:
    def changed(head: Head, changes: dict[str, Any]) -> Head:
        return replace(head, **changes)

    return replace(
        step,
        branches=tuple(
            replace(b, teacher=changed(b.teacher, teacher), student=changed(b.student, student or {}))
            for b in step.branches
        ),
    )


def test_keypoint__an_image_without_confident_instances_is_0_and_changes_no_other() -> None:
    assert check_unsure_image(keypoint())


def test_keypoint__without_visibility_every_keypoint_counts_alike() -> None:
    step = make_step()
    (branch,) = step.branches
    bare, sure = (
        with_heads(
            step,
            {"extras": {OFFSETS: branch.teacher.extras[OFFSETS], **others}},
            {"extras": {OFFSETS: branch.student.extras[OFFSETS]}},
        )
        for others in ({}, {VISIBILITY: torch.full_like(branch.teacher.extras[VISIBILITY], 60.0)})
    )
    loss = keypoint(visibility=0)
    assert not loss.requires.visibility
    found, expected = (loss.maps(one, NONE, ["keypoint_oks"])["keypoint_oks"] for one in (bare, sure))
    torch.testing.assert_close(found, expected)
    assert found.gt(0).any()


def test_keypoint__does_not_wait_for_the_device() -> None:
    step = make_step()
    keypoint().maps(step, NONE, TERMS)  # copies the constants
    with Waits() as waits:
        keypoint().maps(step, NONE, TERMS)
    assert waits.seen == []


def test_keypoint__refuses_a_step_without_heads() -> None:
    with pytest.raises(RunError, match="`keypoint` needs the heads"):
        keypoint().maps(replace(make_step(), branches=()), NONE, TERMS)
    expected = Requirements(heads=True, classes=True, extras=(KEYPOINTS,), visibility=True)
    assert keypoint().requires == keypoint(visibility="auto").requires == expected
