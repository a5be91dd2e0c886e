"""Keypoints of instances: where the teacher is confident, the student's keypoints are compared with the teacher's.

Instances are those of `yolokd.losses.instances`. At the anchor of each, both models decode their keypoints to pixels.
Their distance is one minus the object keypoint similarity (OKS) of each keypoint, in which the teacher's box stands for
the object and the teacher's confidence in a keypoint for its visibility.

Source: no published distillation method. OKS and its constants are COCO's, `computeOks` of pycocotools; as a loss, OKS
is that of Maji et al., "YOLO-Pose: Enhancing YOLO for Multi Person Pose Estimation Using Object Keypoint Similarity
Loss", CVPR Workshops 2022, which Ultralytics' pose models train with. The cross-entropy of the visibility is taken less
the teacher's own entropy, so that it is 0 for equal ones.
Differs: COCO's area is that of the object's mask, here the teacher's box, as in Ultralytics' loss. Visibility is the
teacher's probability instead of a flag, and the weights add up to 1 only where they exceed 1 together, so that an
instance of which the teacher sees no keypoint does not count.
"""

from __future__ import annotations

from collections.abc import Collection
from functools import lru_cache
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from yolokd.errors import ShapeError
from yolokd.losses.base import KEYPOINTS, OFFSETS, VISIBILITY, Branch, Head, Requirements
from yolokd.losses.instances import InstanceLoss, pick
from yolokd.losses.tensors import as_pair, widen, without_autocast

if TYPE_CHECKING:
    from yolokd.recipe import KeypointConfig

# COCO's standard deviations of its 17 keypoints, in units of √area: nose, eyes, ears, shoulders, elbows, wrists, hips,
# knees, ankles; left and right are alike
COCO_SIGMAS = (
    *(0.026, 0.025, 0.025, 0.035, 0.035),
    *(0.079, 0.079, 0.072, 0.072, 0.062, 0.062),
    *(0.107, 0.107, 0.087, 0.087, 0.089, 0.089),
)
LEAST_AREA = 1.0  # of the teacher's boxes, in pixels², so that boxes without one divide nothing by 0


def sigmas_of(count: int) -> tuple[float, ...]:
    """Return the OKS constant of each of so many keypoints: COCO's of 17, else 1 / count, as Ultralytics does.

    Example:
        >>> sigmas_of(4)
        (0.25, 0.25, 0.25, 0.25)
    """
    return COCO_SIGMAS if count == len(COCO_SIGMAS) else (1 / count,) * count


@without_autocast
def oks_distance_map(
    student_px: Tensor, teacher_px: Tensor, visibility: Tensor, area_px: Tensor, sigmas: Tensor
) -> Tensor:
    """Return the mean of 1 − exp(−d² / (2 · area · (2σ)²)) over an instance's keypoints, (B, N) in [0, 1].

    d is the distance of a keypoint between student and teacher; keypoints count by their visibility. The denominator
    of the mean is the sum of the visibilities, at least 1.

    Args:
        student_px: x and y of keypoints in pixels, (B, N, K, 2).
        teacher_px: The same shape; no gradient flows into them.
        visibility: Weights of the keypoints in [0, 1], (B, N, K).
        area_px: Of the instances, in pixels², (B, N); at least 1 counts.
        sigmas: Constant of each keypoint, (K,), above 0.

    Raises:
        ShapeError: The shapes do not fit each other.

    Example:
        >>> import torch
        >>> student = torch.tensor([[[[3.0, 4.0], [0.0, 0.0]]]])  # d = 5 and 0
        >>> sigmas, area = torch.tensor([0.25, 0.25]), torch.tensor([[50.0]])  # 2 · area · (2σ)² = 25
        >>> found = oks_distance_map(student, torch.zeros(1, 1, 2, 2), torch.ones(1, 1, 2), area, sigmas)
        >>> round(found.item(), 4)  # (1 − 1/e + 0) / 2
        0.3161
    """
    student, teacher = as_pair(student_px, teacher_px, rank=4)
    if student.shape[:3] != visibility.shape or student.shape[:2] != area_px.shape or len(sigmas) != student.shape[2]:
        raise ShapeError(
            f"keypoints must be (B, N, K, 2), visibility (B, N, K), area (B, N), sigmas (K,), got "
            f"{tuple(student.shape)}, {tuple(visibility.shape)}, {tuple(area_px.shape)} and {tuple(sigmas.shape)}"
        )
    scale = 2 * area_px.to(student.dtype).clamp_min(LEAST_AREA)[..., None] * (2 * sigmas.to(student)).square()
    distance = -torch.expm1(-(student - teacher).square().sum(-1) / scale)  # (B, N, K)
    weight = visibility.to(student.dtype)
    return (weight * distance).sum(-1) / weight.sum(-1).clamp_min(1)


@without_autocast
def visibility_bce_map(student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
    """Return the mean over an instance's keypoints of BCE(p_s, p_t) less the entropy of p_t, (B, N), at least 0.

    Args:
        student_logits: Of the visibility of keypoints, (B, N, K).
        teacher_logits: The same shape; no gradient flows into them.

    Raises:
        ShapeError: The shapes differ, or are not 3D.

    Example:
        >>> import torch
        >>> student = torch.full((1, 1, 1), 3.0).log()  # p = 3/4
        >>> round(visibility_bce_map(student, torch.zeros(1, 1, 1)).item(), 4)
        0.1438
    """
    student, teacher = as_pair(student_logits, teacher_logits, rank=3)
    target = teacher.sigmoid()
    return ((F.softplus(student) - student * target) - (F.softplus(teacher) - teacher * target)).mean(-1)


def keypoints_px(head: Head, anchors: Tensor) -> Tensor:
    """Return the keypoints of a head at some anchors, x and y in pixels of the input image, (B, N, K, 2).

    Args:
        head: Its extras hold `OFFSETS`.
        anchors: (B, N) long.
    """
    centers, strides = head.grid.centers(anchors.device)
    offsets = widen(pick(head.extras[OFFSETS], anchors))
    cells = offsets.view(*anchors.shape, -1, 2)  # (B, N, K, 2)
    return centers[anchors][:, :, None] + cells * strides[anchors][:, :, None]


class Keypoint(InstanceLoss):
    """Both terms at the teacher's confident anchors."""

    terms = ("keypoint_oks", "keypoint_visibility")
    head_terms = frozenset(terms)

    def __init__(self, config: KeypointConfig) -> None:
        self.config = config
        self.requires = Requirements(heads=True, classes=True, extras=(KEYPOINTS,), visibility=config.visibility != 0)

    def values(self, branch: Branch, anchors: Tensor, active: Collection[str]) -> dict[str, Tensor]:
        """Return the active ones of "keypoint_oks" and "keypoint_visibility", (B, N)."""
        student, teacher = branch.student, branch.teacher
        found: dict[str, Tensor] = {}
        if "keypoint_oks" in active:
            found["keypoint_oks"] = _oks_distance(student, teacher, anchors)
        if "keypoint_visibility" in active:
            own, other = (pick(head.extras[VISIBILITY], anchors) for head in (student, teacher))
            found["keypoint_visibility"] = visibility_bce_map(own, other)
        return found


def _oks_distance(student: Head, teacher: Head, anchors: Tensor) -> Tensor:
    own, other = keypoints_px(student, anchors), keypoints_px(teacher, anchors).detach()
    left_top, right_bottom = pick(teacher.boxes.detach(), anchors).chunk(2, -1)
    area = (right_bottom - left_top).clamp_min(0).prod(-1)  # (B, N)
    weight = torch.ones_like(other[..., 0])
    if VISIBILITY in teacher.extras:
        weight = widen(pick(teacher.extras[VISIBILITY], anchors).detach()).sigmoid()
    return oks_distance_map(own, other, weight, area, _sigmas(other.shape[2], other.device))


@lru_cache(maxsize=16)
def _sigmas(count: int, device: torch.device) -> Tensor:
    """The constants on a device, to which they are copied once: each copy waits for a GPU."""
    return torch.tensor(sigmas_of(count), dtype=torch.float64 if device.type == "cpu" else torch.float32, device=device)
