from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import box_iou, generalized_box_iou

from tests.helpers.bckd import boxes, plain_cls
from tests.helpers.steps import gradient, moves
from yolokd.errors import ShapeError
from yolokd.losses.bckd import _cls_map_and_gap, bckd_box_map, bckd_cls_map, score_gap

TERMS = ("bckd_cls", "bckd_box")
NONE = nn.ModuleDict()


def logits(*values: float) -> Tensor:
    """One image, one anchor, a class per value."""
    return torch.tensor([[values]], dtype=torch.float64, requires_grad=True)


def random_boxes(count: int, seed: int, dtype: torch.dtype = torch.float64) -> Tensor:
    corner, size = torch.rand(2, count, 2, generator=torch.Generator().manual_seed(seed), dtype=dtype) * 50
    return torch.cat((corner, corner + size + 0.1), -1).unsqueeze(0)


# score_gap


def test_score_gap__largest_difference_of_probabilities() -> None:
    gap = score_gap(logits(0, math.log(3), -1), logits(math.log(3), math.log(3), -1))
    assert gap.tolist() == [[pytest.approx(0.25, abs=1e-15)]]
    assert not gap.requires_grad


def test_score_gap__leaves_its_inputs_alone() -> None:
    student, teacher = torch.randn(2, 5, 3), torch.randn(2, 5, 3)
    copies = student.clone(), teacher.clone()
    score_gap(student, teacher)
    assert torch.equal(student, copies[0])
    assert torch.equal(teacher, copies[1])


# bckd_cls_map


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("detach, slope", [(False, 0.219435), (True, 0.0625)])
def test_bckd_cls_map__one_class_in_closed_form(sign: int, detach: bool, slope: float) -> None:
    # p_t = 1/2 and p_s = 3/4, so w = 1/4 and BCE = ln 4 − ln 3 / 2
    student = logits(sign * math.log(3))
    loss = bckd_cls_map(student, logits(0), detach_weight=detach)
    assert loss.item() == pytest.approx((math.log(4) - math.log(3) / 2) / 4, abs=1e-15)
    assert loss.item() == pytest.approx(0.209247, abs=5e-7)
    assert gradient(loss, student).item() == pytest.approx(sign * slope, abs=5e-7)


@pytest.mark.parametrize("beta", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("detach", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_bckd_cls_map__identical_heads_give_zero_without_gradient(
    beta: float, detach: bool, dtype: torch.dtype
) -> None:
    student = torch.randn(2, 7, 3, dtype=dtype, requires_grad=True)
    loss = bckd_cls_map(student, student.detach().clone(), beta=beta, detach_weight=detach)
    assert not loss.any()
    assert not gradient(loss, student).any()


def test_bckd_cls_map__sees_a_shift_that_softmax_does_not() -> None:
    student, teacher = logits(5, 0), logits(0, -5)
    assert F.kl_div(student.log_softmax(-1), teacher.softmax(-1), reduction="sum").item() == pytest.approx(0, abs=1e-12)
    assert bckd_cls_map(student, teacher).item() == pytest.approx(1.578515, abs=5e-7)


@pytest.mark.parametrize("side", [1, -1])
@pytest.mark.parametrize("detach, slope", [(False, math.log(2) / 4), (True, 0.0)])
def test_bckd_cls_map__has_a_kink_at_the_optimum_unless_detached(side: int, detach: bool, slope: float) -> None:
    student = logits(side * 1e-6)
    loss = bckd_cls_map(student, logits(0), detach_weight=detach)
    assert gradient(loss, student).item() == pytest.approx(side * slope, abs=1e-6)


@pytest.mark.parametrize("beta", [0.0, 0.5, 1.0, 2.0])
@pytest.mark.parametrize("detach", [False, True])
def test_bckd_cls_map__value_and_gradient_equal_the_definition(beta: float, detach: bool) -> None:
    student, teacher = 3 * torch.randn(2, 2, 9, 4, dtype=torch.float64)
    student.requires_grad_()
    coefficients = torch.randn(2, 9, dtype=torch.float64)
    ours = bckd_cls_map(student, teacher, beta=beta, detach_weight=detach)
    wanted = plain_cls(student, teacher, beta, detach=detach)
    torch.testing.assert_close(ours, wanted, rtol=1e-12, atol=1e-14)
    gradients = [torch.autograd.grad(x, student, coefficients)[0] for x in (ours, wanted)]
    torch.testing.assert_close(*gradients, rtol=1e-12, atol=1e-14)


def test_bckd_cls_map__equals_a_slow_loop() -> None:
    student, teacher = torch.randn(2, 2, 3, 4, dtype=torch.float64)
    loss = bckd_cls_map(student, teacher, beta=1.5)
    for b in range(2):
        for a in range(3):
            total = 0.0
            for z_s, z_t in zip(student[b, a].tolist(), teacher[b, a].tolist(), strict=True):
                p_s, p_t = 1 / (1 + math.exp(-z_s)), 1 / (1 + math.exp(-z_t))
                total -= abs(p_t - p_s) ** 1.5 * (p_t * math.log(p_s) + (1 - p_t) * math.log(1 - p_s))
            assert loss[b, a].item() == pytest.approx(total, rel=1e-12)


@pytest.mark.parametrize("beta", [0.5, 1.0, 2.0])
def test_bckd_cls_map__gradient_equals_finite_differences(beta: float) -> None:
    student, teacher = torch.randn(2, 2, 3, 4, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda s: bckd_cls_map(s, teacher, beta=beta), student.requires_grad_())


def test_bckd_cls_map__only_the_student_gets_a_gradient() -> None:
    student, teacher = (torch.randn(2, 5, 3, requires_grad=True) for _ in range(2))
    loss = bckd_cls_map(student, teacher)
    assert [moves(loss, x) for x in (student, teacher)] == [True, False]


@pytest.mark.parametrize("beta", [0.5, 1.0, 2.0])
def test_bckd_cls_map__saturated_logits_stay_finite(beta: float) -> None:
    student = torch.tensor([[[100.0, -100.0, 100.0, 0.0]]], requires_grad=True)
    loss = bckd_cls_map(student, torch.tensor([[[-100.0, 100.0, 100.0, 0.0]]]), beta=beta)
    assert loss.item() == pytest.approx(200, rel=1e-6)
    assert gradient(loss, student).flatten().tolist() == pytest.approx([1, -1, 0, 0], abs=1e-6)


def test_bckd_cls_map__keeps_one_tensor_for_the_backward_pass() -> None:
    student, teacher = torch.randn(2, 2, 50, 8)
    kept: set[int] = set()

    def pack(x: Tensor) -> Tensor:
        kept.add(x.data_ptr())
        return x

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        bckd_cls_map(student.requires_grad_(), teacher)
    assert len(kept) == 1


@pytest.mark.parametrize("values", [1, 50, 10**6])
def test_bckd__both_terms_at_once_are_the_public_functions(values: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("yolokd.losses.tensors.CACHED", values)
    student, teacher = (torch.randn(3, 7, 5, dtype=torch.float64) for _ in range(2))
    student.requires_grad_()
    found, gap = _cls_map_and_gap(student, teacher, 0.5, False)
    assert not gap.requires_grad
    assert torch.equal(gap, score_gap(student, teacher))
    p_student, p_teacher = student.sigmoid(), teacher.sigmoid()
    bce = torch.nn.functional.binary_cross_entropy(p_student, p_teacher, reduction="none")
    expected = ((p_student - p_teacher).abs().sqrt() * bce).sum(-1)
    torch.testing.assert_close(found, expected)
    weight = torch.rand(3, 7, dtype=torch.float64)
    gradients = [torch.autograd.grad((x * weight).sum(), student, retain_graph=True) for x in (found, expected)]
    torch.testing.assert_close(*gradients)


def test_bckd_cls_map__negative_beta_is_refused() -> None:
    with pytest.raises(ValueError, match=r"beta must be at least 0, got -1"):
        bckd_cls_map(logits(0), logits(0), beta=-1)


# bckd_box_map


@pytest.mark.parametrize(
    "student, giou, iou",
    [((0, 0, 10, 5), 0.5, 0.5), ((20, 0, 30, 10), 4 / 3, 1 - 1e-6), ((0, 0, 10, 10), 0, 0)],
)
def test_bckd_box_map__closed_forms(student: tuple[float, ...], giou: float, iou: float) -> None:
    teacher, gap = boxes(0, 0, 10, 10), torch.ones(1, 1, dtype=torch.float64)
    assert bckd_box_map(boxes(*student), teacher, gap).item() == pytest.approx(giou, abs=1e-15)
    assert bckd_box_map(boxes(*student), teacher, gap / 4).item() == pytest.approx(giou / 4, abs=1e-15)
    assert bckd_box_map(boxes(*student), teacher, gap, iou="iou").item() == pytest.approx(iou, abs=1e-15)


def test_bckd_box_map__points_far_apart_reach_two() -> None:
    gap = torch.ones(1, 1, dtype=torch.float64)
    assert bckd_box_map(boxes(0, 0, 0, 0), boxes(100, 100, 100, 100), gap).item() == pytest.approx(2, abs=1e-9)
    # union and enclosing area are both at their floor
    assert bckd_box_map(boxes(5, 5, 5, 5), boxes(5, 5, 5, 5), gap).item() == 1


def test_bckd_box_map__equals_torchvision() -> None:
    student, teacher = random_boxes(40, 0), random_boxes(40, 1)
    gap = torch.rand(1, 40, dtype=torch.float64)
    giou, iou = generalized_box_iou(student[0], teacher[0]).diag(), box_iou(student[0], teacher[0]).diag()
    torch.testing.assert_close(bckd_box_map(student, teacher, gap), gap * (1 - giou), rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(
        bckd_box_map(student, teacher, gap, iou="iou"), gap * (1 - iou.clamp_min(1e-6)), rtol=1e-12, atol=1e-14
    )


@pytest.mark.parametrize("iou", ["giou", "iou"])
def test_bckd_box_map__gradient_equals_finite_differences(iou: str) -> None:
    student, teacher = random_boxes(6, 0), random_boxes(6, 1)
    gap = torch.rand(1, 6, dtype=torch.float64)
    assert torch.autograd.gradcheck(
        lambda s: bckd_box_map(s, teacher, gap, iou=iou),  # type: ignore[arg-type]
        student.requires_grad_(),
    )


def test_bckd_box_map__giou_pulls_a_disjoint_box_and_iou_does_not() -> None:
    teacher, gap = boxes(0, 0, 10, 10), torch.ones(1, 1, dtype=torch.float64)
    student = boxes(20, 0, 30, 10)
    assert gradient(bckd_box_map(student, teacher, gap), student)[0, 0, 0] > 0  # the left edge wants to go left
    assert not moves(bckd_box_map(student, teacher, gap, iou="iou"), student)


def test_bckd_box_map__boxes_inside_out_stay_in_range() -> None:
    student, teacher = torch.rand(2, 1, 5000, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 9
    loss = bckd_box_map(student, teacher, torch.ones(1, 5000, dtype=torch.float64))
    assert loss.min() >= 0
    assert loss.max() <= 2
    assert bckd_box_map(boxes(20, 20, -10, -10), boxes(0, 0, 10, 10), torch.ones(1, 1)).item() >= 1


def test_bckd_box_map__only_the_student_boxes_get_a_gradient() -> None:
    student, teacher = random_boxes(4, 0).requires_grad_(), random_boxes(4, 1).requires_grad_()
    gap = torch.rand(1, 4, dtype=torch.float64, requires_grad=True)
    loss = bckd_box_map(student, teacher, gap)
    assert [moves(loss, x) for x in (student, teacher, gap)] == [True, False, False]


def test_bckd_box_map__unknown_iou_lists_the_known() -> None:
    with pytest.raises(ValueError, match="iou must be one of 'giou', 'iou', got 'ciou'"):
        bckd_box_map(boxes(0, 0, 1, 1), boxes(0, 0, 1, 1), torch.ones(1, 1), iou="ciou")  # type: ignore[arg-type]


# all three


def run_all(student: Tensor, teacher: Tensor, student_boxes: Tensor, teacher_boxes: Tensor) -> tuple[Tensor, ...]:
    gap = score_gap(student, teacher)
    return gap, bckd_cls_map(student, teacher), bckd_box_map(student_boxes, teacher_boxes, gap)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_bckd__half_is_computed_and_returned_in_float32(dtype: torch.dtype) -> None:
    half = [torch.randn(2, 2, 9, 4)[i].to(dtype) for i in (0, 1)]
    half += [random_boxes(9, i).expand(2, 9, 4).to(dtype) for i in (0, 1)]
    for ours, wanted in zip(run_all(*half), run_all(*(x.float() for x in half)), strict=True):
        assert ours.dtype == torch.float32
        assert torch.equal(ours, wanted)


def test_bckd__autocast_changes_nothing() -> None:
    inputs = [*torch.randn(2, 2, 9, 4), random_boxes(18, 0).view(2, 9, 4), random_boxes(18, 1).view(2, 9, 4)]
    outside = run_all(*inputs)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = run_all(*inputs)
    assert all(torch.equal(a, b) for a, b in zip(inside, outside, strict=True))


def test_bckd__anchors_may_be_permuted() -> None:
    inputs = [*torch.randn(2, 1, 9, 4), random_boxes(9, 0), random_boxes(9, 1)]
    order = torch.randperm(9)
    for ours, wanted in zip(run_all(*(x[:, order] for x in inputs)), run_all(*inputs), strict=True):
        torch.testing.assert_close(ours, wanted[:, order])


def test_bckd__shapes_that_merely_broadcast_are_refused() -> None:
    one, many = torch.zeros(1, 9, 4), torch.zeros(2, 9, 4)
    pair = r"\(1, 9, 4\) and \(2, 9, 4\)"
    with pytest.raises(ShapeError, match=pair):
        score_gap(one, many)
    with pytest.raises(ShapeError, match=pair):
        bckd_cls_map(one, many)
    with pytest.raises(ShapeError, match=pair):
        bckd_box_map(one, many, torch.zeros(2, 9))
    with pytest.raises(ShapeError, match=r"coordinate of the boxes and gap .* \(2, 9\) and \(2, 1\)"):
        bckd_box_map(many, many, torch.zeros(2, 1))
    with pytest.raises(ShapeError, match=r"boxes must have shape \(B, A, 4\), got \(2, 9, 5\)"):
        bckd_box_map(torch.zeros(2, 9, 5), torch.zeros(2, 9, 5), torch.zeros(2, 9))
    with pytest.raises(ShapeError, match=r"3 dimensions, got \(9, 4\)"):
        bckd_cls_map(one[0], one[0])
