"""Masks of instances: what the teacher segments where it is confident, the student segments at the same anchors.

Instances are those of `yolokd.losses.instances`. Both models' masks of one are combined from their coefficients there
and their prototypes, and compared pixel by pixel inside the teacher's box, on the student's grid of prototypes.

Source: no published method. Masks as linear combinations of prototypes, cropped to boxes, are those of Bolya et al.,
"YOLACT: Real-time Instance Segmentation", ICCV 2019, which Ultralytics' segment heads follow; the dice coefficient with
squares in the denominator is that of Milletari et al., "V-Net", 3DV 2016. The cross-entropy is taken less the
teacher's own entropy, so that it is a Kullback-Leibler divergence, 0 for equal masks.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from yolokd.errors import ShapeError
from yolokd.losses.base import COEFFICIENTS, MASKS, PROTOTYPES, Branch, Head, Requirements
from yolokd.losses.instances import InstanceLoss, pick
from yolokd.losses.tensors import as_pair, same_shape, widen, without_autocast

if TYPE_CHECKING:
    from yolokd.recipe import MaskConfig

EPS = 1e-6  # smallest denominator of the dice coefficient, in pixels


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


class Mask(InstanceLoss):
    """Both terms at the teacher's confident anchors."""

    terms = ("mask_bce", "mask_dice")
    requires = Requirements(heads=True, classes=True, extras=(MASKS,))
    head_terms = frozenset(terms)

    def __init__(self, config: MaskConfig) -> None:
        self.config = config

    def values(self, branch: Branch, anchors: Tensor, active: Collection[str]) -> dict[str, Tensor]:
        """Return the active ones of "mask_bce" and "mask_dice", (B, N)."""
        student, teacher = branch.student, branch.teacher
        own, other = _logits(student, anchors), _logits(teacher, anchors).detach()
        grid = (own.shape[2], own.shape[3])
        if other.shape[2:] != own.shape[2:]:
            other = F.interpolate(other, grid, mode="bilinear", align_corners=False)
        inside = inside_boxes(pick(teacher.boxes.detach(), anchors), image_size=student.grid.image_size, grid=grid)
        compare = {"mask_bce": mask_bce_map, "mask_dice": mask_dice_map}
        return {term: compare[term](own, other, inside) for term in active}


def _logits(head: Head, anchors: Tensor) -> Tensor:
    return mask_logits(pick(head.extras[COEFFICIENTS], anchors), head.extras[PROTOTYPES])
