"""Masks of instances: what the teacher segments where it is confident, the student segments at the same anchors.

An instance is an anchor at which the teacher's largest class score reaches a limit and no more confident anchor's box
covers its own. Both models' masks of it are combined from their coefficients there and their prototypes, and compared
pixel by pixel inside the teacher's box, on the student's grid of prototypes.

Source: no published method. Masks as linear combinations of prototypes, cropped to boxes, and the parallel ("fast") NMS
are those of Bolya et al., "YOLACT: Real-time Instance Segmentation", ICCV 2019, which Ultralytics' segment heads
follow; the dice coefficient with squares in the denominator is that of Milletari et al., "V-Net", 3DV 2016. The
cross-entropy is taken less the teacher's own entropy, so that it is a Kullback-Leibler divergence, 0 for equal masks.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from yolokd.errors import RunError, ShapeError
from yolokd.losses.base import COEFFICIENTS, MASKS, PROTOTYPES, Branch, Head, Loss, Requirements, Step, add
from yolokd.losses.tensors import as_pair, same_shape, widen, without_autocast

if TYPE_CHECKING:
    from yolokd.recipe import MaskConfig

CANDIDATES = 16  # anchors per instance, the most confident of an image, among which the instances are sought
EPS = 1e-6  # smallest denominator of the dice coefficient, in pixels


@torch.no_grad()
@without_autocast
def confident_anchors(
    scores: Tensor, boxes: Tensor, *, confidence: float = 0.25, iou: float = 0.7, most: int = 32
) -> tuple[Tensor, Tensor]:
    """Return the anchors that stand for an instance, (B, N) long, and which of these slots are taken, (B, N) bool.

    Anchors of one image are distinct, from the most confident on; N is `most`, or A if that is less. An anchor whose
    box overlaps that of a more confident one counts as the same instance, whether or not that one is kept itself.
    They are sought among the 16 · N most confident anchors. No step waits for a GPU.

    Args:
        scores: Largest class probability at each anchor, (B, A).
        boxes: (B, A, 4) xyxy in any unit.
        confidence: Least score of an instance.
        iou: Largest overlap with a more confident anchor's box; 1 keeps all.
        most: Largest number of instances of an image, at least 1.

    Raises:
        ShapeError: Scores and boxes do not fit each other.
        ValueError: `most` is below 1.

    Example:
        >>> import torch
        >>> boxes = torch.tensor([[[0.0, 0.0, 4.0, 4.0], [0.0, 0.0, 4.0, 3.9], [8.0, 8.0, 9.0, 9.0]]])
        >>> anchors, taken = confident_anchors(torch.tensor([[0.8, 0.9, 0.1]]), boxes, most=2)
        >>> anchors[taken].tolist()
        [1]
    """
    if most < 1:
        raise ValueError(f"most must be at least 1, got {most}")
    if boxes.shape != (*scores.shape, 4) or scores.ndim != 2:
        raise ShapeError(f"scores must be (B, A), boxes (B, A, 4), got {tuple(scores.shape)} and {tuple(boxes.shape)}")
    top, index = widen(scores).topk(min(CANDIDATES * most, scores.shape[1]))  # (B, C), falling
    overlap = pairwise_iou(_pick(widen(boxes), index))
    covered = (overlap.triu(diagonal=1) > iou).any(1)  # (B, C)
    taken = (top >= confidence) & ~covered
    first, place = top.masked_fill(~taken, -torch.inf).topk(min(most, scores.shape[1]))
    return index.gather(1, place), first > -torch.inf


def pairwise_iou(boxes: Tensor) -> Tensor:
    """Return the IoU of every two boxes of an image, (B, C, C), of boxes (B, C, 4) xyxy; 0 for boxes without area."""
    low = torch.maximum(boxes[:, :, None, :2], boxes[:, None, :, :2])
    high = torch.minimum(boxes[:, :, None, 2:], boxes[:, None, :, 2:])
    overlap = (high - low).clamp_min(0).prod(-1)  # (B, C, C)
    area = (boxes[..., 2:] - boxes[..., :2]).clamp_min(0).prod(-1)  # (B, C)
    return overlap / (area[:, :, None] + area[:, None] - overlap).clamp_min(torch.finfo(boxes.dtype).tiny)


@without_autocast
def mask_logits(coefficients: Tensor, prototypes: Tensor) -> Tensor:
    """Return the logits of masks, (B, N, H, W): linear combinations of an image's prototypes.

    Args:
        coefficients: (B, N, M).
        prototypes: (B, M, H, W).

    Raises:
        ShapeError: Batch or number of prototypes differ, or the ranks are others.
    """
    if coefficients.ndim != 3 or prototypes.ndim != 4 or coefficients.shape[::2] != prototypes.shape[:2]:
        raise ShapeError(
            f"coefficients must be (B, N, M), prototypes (B, M, H, W), got {tuple(coefficients.shape)} and "
            f"{tuple(prototypes.shape)}"
        )
    flat = widen(coefficients) @ widen(prototypes).flatten(2)  # (B, N, H·W)
    return flat.view(*flat.shape[:2], *prototypes.shape[2:])


def inside_boxes(boxes_xyxy_px: Tensor, *, image_size: tuple[int, int], grid: tuple[int, int]) -> Tensor:
    """Return which pixels of a grid over the image have their center in a box, (B, N, H, W) float of 0 and 1.

    Args:
        boxes_xyxy_px: (B, N, 4), in pixels of the image.
        image_size: Its height and width in pixels.
        grid: H and W.

    Example:
        >>> import torch
        >>> inside_boxes(torch.tensor([[[0.0, 0.0, 8.0, 4.0]]]), image_size=(8, 8), grid=(2, 2))[0, 0].tolist()
        [[1.0, 1.0], [0.0, 0.0]]
    """
    sides = []
    for axis in (0, 1):  # x, y
        size, cells = image_size[1 - axis], grid[1 - axis]
        centers = (torch.arange(cells, device=boxes_xyxy_px.device, dtype=boxes_xyxy_px.dtype) + 0.5) * size / cells
        low, high = boxes_xyxy_px[..., axis, None], boxes_xyxy_px[..., axis + 2, None]  # (B, N, 1)
        sides.append((centers >= low) & (centers < high))
    columns, rows = sides
    return (rows[..., None] & columns[..., None, :]).to(boxes_xyxy_px.dtype)


@without_autocast
def mask_bce_map(student_logits: Tensor, teacher_logits: Tensor, inside: Tensor) -> Tensor:
    """Return the mean over an instance's pixels of BCE(p_s, p_t) less the entropy of p_t, (B, N), at least 0.

    Args:
        student_logits: Of the masks, (B, N, H, W).
        teacher_logits: The same shape; no gradient flows into them.
        inside: 1 for the pixels of the instance, else 0, the same shape; without any the value is 0.

    Raises:
        ShapeError: The shapes differ, or are not 4D.

    Example:
        >>> import torch
        >>> student = torch.full((1, 1, 1, 1), 3.0).log()  # p = 3/4
        >>> round(mask_bce_map(student, torch.zeros(1, 1, 1, 1), torch.ones(1, 1, 1, 1)).item(), 4)
        0.1438
    """
    student, teacher, inside = _masks(student_logits, teacher_logits, inside)
    target = teacher.sigmoid()
    divergence = (F.softplus(student) - student * target) - (F.softplus(teacher) - teacher * target)
    return (divergence * inside).sum((2, 3)) / inside.sum((2, 3)).clamp_min(1)


@without_autocast
def mask_dice_map(student_logits: Tensor, teacher_logits: Tensor, inside: Tensor) -> Tensor:
    """Return 1 − 2 Σ p_s p_t / (Σ p_s² + Σ p_t²) over an instance's pixels, (B, N) in [0, 1].

    Arguments and errors are those of `mask_bce_map`.

    Example:
        >>> import torch
        >>> student = torch.full((1, 1, 1, 1), 3.0).log()  # p = 3/4
        >>> round(mask_dice_map(student, torch.zeros(1, 1, 1, 1), torch.ones(1, 1, 1, 1)).item(), 4)
        0.0769
    """
    student, teacher, inside = _masks(student_logits, teacher_logits, inside)
    own, target = student.sigmoid(), teacher.sigmoid()
    gap = ((own - target).square() * inside).sum((2, 3))  # (B, N)
    both = ((own.square() + target.square()) * inside).sum((2, 3))
    return gap / both.clamp_min(EPS)


def _masks(student: Tensor, teacher: Tensor, inside: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    student, teacher = as_pair(student, teacher, rank=4)
    same_shape(student, inside, what="the masks' logits and inside")
    return student, teacher, inside.to(student.dtype)


def _pick(values: Tensor, index: Tensor) -> Tensor:
    """Return the rows of some anchors, (B, N, C), of values (B, A, C); the index is (B, N)."""
    return values.gather(1, index[..., None].expand(-1, -1, values.shape[-1]))


class Mask(Loss):
    """Both terms at the teacher's confident anchors; an image counts by the mean over its instances."""

    terms = ("mask_bce", "mask_dice")
    requires = Requirements(heads=True, classes=True, extras=(MASKS,))
    head_terms = frozenset(terms)

    def __init__(self, config: MaskConfig) -> None:
        self.config = config

    @without_autocast
    def maps(self, step: Step, parts: nn.ModuleDict, active: Collection[str]) -> dict[str, Tensor]:
        """Return the active ones of "mask_bce" and "mask_dice", (B, A): an instance's value at its anchor.

        Divided by the number of the image's instances, so that a map's sum is their mean; weighted and summed over
        branches.

        Raises:
            RunError: The step carries no branch that both heads have.
        """
        if not step.branches:
            raise RunError("the loss `mask` needs the heads of student and teacher, but no branch of them was captured")
        maps: dict[str, Tensor] = {}
        for branch in step.branches:
            add(maps, {term: branch.weight * values for term, values in self._branch(branch, active).items()})
        return maps

    def _branch(self, branch: Branch, active: Collection[str]) -> dict[str, Tensor]:
        student, teacher, config = branch.student, branch.teacher, self.config
        scores, boxes = teacher.logits.detach().sigmoid().amax(-1), teacher.boxes.detach()
        anchors, taken = confident_anchors(
            scores, boxes, confidence=config.confidence, iou=config.iou, most=config.instances
        )
        own, other = _logits(student, anchors), _logits(teacher, anchors).detach()
        grid = (own.shape[2], own.shape[3])
        if other.shape[2:] != own.shape[2:]:
            other = F.interpolate(other, grid, mode="bilinear", align_corners=False)
        inside = inside_boxes(_pick(boxes, anchors), image_size=student.grid.image_size, grid=grid)
        count = taken.sum(1, keepdim=True).clamp_min(1)  # (B, 1)
        compare = {"mask_bce": mask_bce_map, "mask_dice": mask_dice_map}
        maps = {}
        for term in active:
            values = compare[term](own, other, inside)
            values = torch.where(taken, values / count, torch.zeros_like(values))  # (B, N)
            maps[term] = values.new_zeros(scores.shape).scatter(1, anchors, values)  # (B, A)
        return maps


def _logits(head: Head, anchors: Tensor) -> Tensor:
    return mask_logits(_pick(head.extras[COEFFICIENTS], anchors), head.extras[PROTOTYPES])
