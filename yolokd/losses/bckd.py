"""BCKD: every class at every anchor is a Bernoulli variable of its own, and boxes follow where scores disagree.

Source: Yang et al., "Bridging Cross-task Protocol Inconsistency for Distillation in Dense Object Detection", ICCV 2023
(arXiv:2308.14286), and the authors' code, github.com/TinyTigerPan/BCKD at 121c9aa (`novel_kd_loss`, `ld_head.py`).
As in that code, the weight |p_t − p_s|^β of the classification term carries gradient, and the box term uses GIoU where
the paper writes IoU; `detach_weight` and `iou` choose otherwise.
Differs: returned per anchor instead of summed, so that instance weights apply; divided by the average number of
positives over the run instead of the batch's own (at least 1), by which a batch of backgrounds counts up to 70 times as
much (`average: batch` is the published form); a level without positives is not dropped; the areas of boxes turned
inside out do not count as positive, which keeps the loss within its range; rotated boxes, which the paper does not
have, are compared by ProbIoU (`yolokd.losses.rotated`), as Ultralytics' own loss does.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from yolokd.errors import RunError, ShapeError
from yolokd.losses.base import Branch, Head, Loss, Requirements, Step
from yolokd.losses.rotated import hellinger_distance
from yolokd.losses.tensors import as_pair, known, portions, same_shape, without_autocast

if TYPE_CHECKING:
    from yolokd.recipe import BCKDConfig

EPS = 1e-6  # smallest union, enclosing area and plain IoU, as in the authors' framework
PIXEL = 1 / 12  # variance of one pixel, which is added to those of rotated boxes


@torch.no_grad()
@without_autocast
def score_gap(student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
    """Return max over classes of |p_t − p_s|, (B, A) in [0, 1], detached.

    Args:
        student_logits: Class logits of the student, (B, A, K).
        teacher_logits: Class logits of the teacher, same shape.

    Raises:
        ShapeError: The two differ in shape or are not 3D.

    Example:
        >>> import torch
        >>> student = torch.tensor([[[0.0, 0.0]]])
        >>> teacher = torch.tensor([[[0.0, 2.0]]])
        >>> round(score_gap(student, teacher).item(), 4)
        0.3808
    """
    student, teacher = as_pair(student_logits, teacher_logits, rank=3)
    return student.sigmoid().sub_(teacher.sigmoid()).abs_().amax(-1)


@without_autocast
def bckd_cls_map(
    student_logits: Tensor, teacher_logits: Tensor, *, beta: float = 1.0, detach_weight: bool = False
) -> Tensor:
    """Return Σ_K |p_t − p_s|^β · BCE(p_s, p_t) of every anchor, (B, A).

    Where the probabilities are equal the weight counts as flat, also for β below 1, where its slope is infinite.
    The gradient is computed together with the value, so that one tensor of shape (B, A, K) is kept for the backward
    pass instead of six; it cannot be differentiated twice.

    Args:
        student_logits: Class logits of the student, (B, A, K).
        teacher_logits: Class logits of the teacher, same shape; no gradient flows into them.
        beta: Exponent of the weight; at least 0.
        detach_weight: Treat the weight as a constant.

    Raises:
        ShapeError: The two differ in shape or are not 3D.
        ValueError: `beta` is negative.

    Example:
        >>> import torch
        >>> student = torch.full((1, 1, 1), 3.0).log()  # p = 3/4
        >>> teacher = torch.zeros(1, 1, 1)  # p = 1/2
        >>> round(bckd_cls_map(student, teacher).item(), 4)
        0.2092
    """
    return _cls_map_and_gap(student_logits, teacher_logits, beta, detach_weight)[0]


@without_autocast
def _cls_map_and_gap(
    student_logits: Tensor, teacher_logits: Tensor, beta: float, detach_weight: bool
) -> tuple[Tensor, Tensor]:
    """Return what `bckd_cls_map` and `score_gap` return, computed together."""
    if beta < 0:
        raise ValueError(f"beta must be at least 0, got {beta}")
    student, teacher = as_pair(student_logits, teacher_logits, rank=3)
    result: tuple[Tensor, Tensor] = _WeightedBCE.apply(student, teacher, beta, detach_weight)  # type: ignore[no-untyped-call]
    return result


class _WeightedBCE(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, student: Tensor, teacher: Tensor, beta: float, detach_weight: bool) -> tuple[Tensor, Tensor]:
        slope = torch.empty_like(student) if ctx.needs_input_grad[0] else None
        values, gaps = student.new_empty(student.shape[:2]), student.new_empty(student.shape[:2])  # (B, A) each
        parts = portions(student)
        buffers = [torch.empty_like(student[parts[0]]) for _ in range(4)]  # asking for memory anew costs a CPU more
        for part in parts:
            p_student, p_teacher, gap, weight = (buffer[: len(values[part])] for buffer in buffers)
            torch.sigmoid(student[part], out=p_student)
            torch.sigmoid(teacher[part], out=p_teacher)
            bce = F.softplus(student[part], threshold=80).addcmul_(student[part], p_teacher, value=-1)
            torch.abs(torch.sub(p_student, p_teacher, out=gap), out=weight)
            torch.amax(weight, -1, out=gaps[part])
            weight.pow_(beta)  # (B, A, K)
            if slope is not None:
                torch.mul(weight, gap, out=slope[part])  # w · dBCE/dz
                if not detach_weight:
                    slope_of_weight = torch.div(weight, gap, out=gap).nan_to_num_(0, 0, 0).mul_(beta)  # dw/dp_s
                    dp_dz = p_student.addcmul_(p_student, p_student, value=-1)
                    slope[part] += slope_of_weight.mul_(bce).mul_(dp_dz)
            torch.sum(bce.mul_(weight), -1, out=values[part])
        ctx.save_for_backward(slope)
        ctx.mark_non_differentiable(gaps)
        return values, gaps

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor, _: None) -> tuple[Tensor, None, None, None]:
        (slope,) = ctx.saved_tensors
        return slope * gradient.unsqueeze(-1), None, None, None


@without_autocast
def bckd_box_map(
    student_boxes: Tensor, teacher_boxes: Tensor, gap: Tensor, *, iou: Literal["giou", "iou"] = "giou"
) -> Tensor:
    """Return gap · (1 − IoU) of every anchor, (B, A).

    Args:
        student_boxes: Decoded boxes of the student, (B, A, 4) xyxy in any unit.
        teacher_boxes: Decoded boxes of the teacher in the same unit; no gradient flows into them.
        gap: `score_gap` of the two heads, (B, A); no gradient flows into it.
        iou: "giou", then 1 − IoU lies in [0, 2] and pulls disjoint boxes too, or "iou", of at least 1e-6.

    Raises:
        ShapeError: The boxes differ in shape or are not (B, A, 4), or the gap does not fit them.
        ValueError: `iou` is an unknown word.

    Example:
        >>> import torch
        >>> student = torch.tensor([[[0.0, 0.0, 2.0, 2.0]]])
        >>> teacher = torch.tensor([[[0.0, 0.0, 2.0, 1.0]]])
        >>> bckd_box_map(student, teacher, torch.tensor([[0.5]]))
        tensor([[0.2500]])
    """
    known(iou, ("giou", "iou"), "iou")
    student, teacher = as_pair(student_boxes, teacher_boxes, rank=3)
    if student.shape[-1] != 4:
        raise ShapeError(f"boxes must have shape (B, A, 4), got {tuple(student.shape)}")
    same_shape(student[..., 0], gap, what="a coordinate of the boxes and gap")
    return gap.detach().to(student.dtype) * (1 - _iou(student, teacher, generalized=iou == "giou")).clamp_min(0)


def _iou(student: Tensor, teacher: Tensor, *, generalized: bool) -> Tensor:
    """Return the (generalized) IoU of boxes (..., 4), pair by pair."""
    (s_min, s_max), (t_min, t_max) = student.chunk(2, -1), teacher.chunk(2, -1)
    width, height = (torch.minimum(s_max, t_max) - torch.maximum(s_min, t_min)).clamp_min(0).unbind(-1)
    overlap = width * height
    union = (_area(student) + _area(teacher) - overlap).clamp_min(EPS)
    if not generalized:
        return (overlap / union).clamp_min(EPS)
    width, height = (torch.maximum(s_max, t_max) - torch.minimum(s_min, t_min)).clamp_min(0).unbind(-1)
    enclosing = (width * height).clamp_min(EPS)
    return overlap / union - (enclosing - union) / enclosing


def _area(boxes: Tensor) -> Tensor:
    """Return width · height of boxes (..., 4); negative for a box turned inside out along one axis or both."""
    width, height = (boxes[..., 2:] - boxes[..., :2]).unbind(-1)
    return width * height - 2 * (-width).clamp_min(0) * (-height).clamp_min(0)


@without_autocast
def bckd_rotated_map(student_boxes: Tensor, teacher_boxes: Tensor, gap: Tensor) -> Tensor:
    """Return gap · (1 − ProbIoU) of every anchor, (B, A), at most 1.

    The angle takes part by the Gaussians of the boxes, so that equal rectangles give 0 however they are written. To
    their variances that of one pixel is added, which bounds the gradient of boxes thinner than that. Boxes far apart
    give `gap` and no gradient, and the angle of a square none either.

    Args:
        student_boxes: Rotated boxes of the student, (B, A, 5): x, y of the middle, width, height in pixels, radians.
        teacher_boxes: Those of the teacher; no gradient flows into them.
        gap: `score_gap` of the two heads, (B, A); no gradient flows into it.

    Raises:
        ShapeError: The boxes differ in shape or are not (B, A, 5), or the gap does not fit them.

    Example:
        >>> import torch
        >>> student = torch.tensor([[[8.0, 8.0, 6.0, 2.0, 0.0]]])
        >>> teacher = torch.tensor([[[8.0, 8.0, 2.0, 6.0, torch.pi / 2]]])  # the same rectangle
        >>> round(bckd_rotated_map(student, teacher, torch.tensor([[0.5]])).item(), 3)
        0.0
    """
    student, teacher = as_pair(student_boxes, teacher_boxes, rank=3)
    same_shape(student[..., 0], gap, what="a coordinate of the boxes and gap")
    return gap.detach().to(student.dtype) * hellinger_distance(student, teacher, floor=PIXEL)


class BCKD(Loss):
    """Both terms on every branch of the head, divided by what the student's own assignment finds in a batch."""

    terms = ("bckd_cls", "bckd_box")
    head_terms = frozenset(terms)

    def __init__(self, config: BCKDConfig) -> None:
        self.config = config
        self.requires = Requirements(heads=True, classes=True, overlaps=config.box != 0)

    def maps(self, step: Step, parts: nn.ModuleDict, active: Collection[str]) -> dict[str, Tensor]:
        """Return the active ones of "bckd_cls" and "bckd_box", (B, A): map · B / N, weighted and summed over branches.

        N is the number of positives or the mass of the soft labels that a batch of this size holds on average over the
        run, or with `average: batch` what this batch holds; see `Branch.expected`.

        Raises:
            RunError: The step carries no branch that both heads have.
        """
        if not step.branches:
            raise RunError("the loss `bckd` needs the heads of student and teacher, but no branch of them was captured")
        maps: dict[str, Tensor] = {}
        for branch in step.branches:
            branch = branch if self.config.average == "run" else replace(branch, averages=None)
            scale = branch.weight * len(branch.student.logits) / branch.expected(self.config.normalizer)
            for term, values in self._branch(branch, active).items():
                maps[term] = maps[term] + scale * values if term in maps else scale * values
        return maps

    def _branch(self, branch: Branch, active: Collection[str]) -> dict[str, Tensor]:
        """Return the active maps of one branch as the public functions give them."""
        student, teacher, config = branch.student, branch.teacher, self.config
        maps = {}
        if "bckd_cls" in active:
            maps["bckd_cls"], gap = _cls_map_and_gap(student.logits, teacher.logits, config.beta, config.detach_weight)
        else:
            gap = score_gap(student.logits, teacher.logits)
        if "bckd_box" in active:
            maps["bckd_box"] = self._box_map(student, teacher, gap)
        return maps

    def _box_map(self, student: Head, teacher: Head, gap: Tensor) -> Tensor:
        """Return the box term, by rotated boxes where both heads have them, else by the upright ones."""
        if student.rotated is not None and teacher.rotated is not None:
            return bckd_rotated_map(student.rotated, teacher.rotated, gap)
        return bckd_box_map(student.boxes, teacher.boxes, gap, iou=self.config.iou)
