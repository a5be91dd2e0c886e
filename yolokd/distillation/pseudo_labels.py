"""The teacher's boxes as labels on unlabeled images: confident ones are objects, doubtful ones take no part.

Source: the two thresholds of semi-supervised detection, as in Xu et al., "Efficient Teacher", 2023.
Differs: at a doubtful box no soft label acts; the student's score for its class is left out of the detection loss where
no confident box lies.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torchvision.ops import box_convert

from yolokd.backend.heads import as_head, split_branches
from yolokd.distillation.teacher_loss import image_size
from yolokd.loaders.batch import Answers, TrainingBatch
from yolokd.losses.base import Grid
from yolokd.teachers.asking import detections

DOUBT = 0.1  # a box below this score is background
SILENT = -30.0  # logit of a score that has no loss and no gradient as background


@dataclass(frozen=True)
class PseudoLabeled:
    """A batch whose unlabeled images have the teacher's boxes as labels.

    Attributes:
        labels: All images and labels as Ultralytics' criterion takes them.
        doubtful: (B + U, K, A) bool: scores that take no part.
    """

    labels: dict[str, Any]
    doubtful: Tensor

    def without_doubt(self, raw: Mapping[str, Any]) -> dict[str, Any]:
        """Return the student's raw output with the doubtful scores silenced, on every branch."""
        parts = {
            name: {**branch, "scores": branch["scores"].masked_fill(self.doubtful, SILENT)}
            for name, branch in split_branches(raw).items()
        }
        return {**raw, **parts} if "one2many" in raw else parts["one2many"]


class PseudoLabels:
    """Chooses among the teacher's boxes.

    Args:
        thresholds: Score from which on a box of a class is an object, (K,).
    """

    def __init__(self, thresholds: Tensor) -> None:
        self.thresholds = thresholds

    @torch.no_grad()
    def apply(self, batch: TrainingBatch, answers: Answers, grid: Grid) -> PseudoLabeled:
        """Return the batch with pseudo-labels on its unlabeled images.

        Args:
            batch: With unlabeled images.
            answers: What the teacher saw in all of its images, or in the unlabeled ones.
            grid: Where the student's anchors lie.
        """
        later = answers.images >= len(batch)
        images, boxes, chances = answers.images[later], answers.boxes[later], answers.probabilities[later].float()
        self.thresholds = self.thresholds.to(chances.device)
        scores, classes = chances.amax(1), chances.argmax(1)
        sure = scores >= self.thresholds[classes]
        labeled = batch.labeled
        added = {"batch_idx": images[sure].float(), "cls": classes[sure, None].float(), "bboxes": boxes[sure]}
        labels = {key: torch.cat((labeled[key], added[key].to(labeled[key].dtype))) for key in added}
        doubtful = self._doubtful(len(batch.images), images, boxes, chances, sure, grid)
        return PseudoLabeled({**labeled, **labels, "img": batch.images}, doubtful)

    def _doubtful(self, count: int, images: Tensor, boxes: Tensor, chances: Tensor, sure: Tensor, grid: Grid) -> Tensor:
        points, _ = grid.centers(boxes.device)
        corners = box_convert(boxes, "cxcywh", "xyxy") * image_size(grid, boxes)
        left_top, right_bottom = corners[:, None].chunk(2, -1)
        inside = ((points > left_top) & (points < right_bottom)).all(-1).to(chances.dtype)  # (N, A)
        covered = inside.new_zeros(count, len(points)).index_add_(0, images[sure], inside[sure]) > 0
        possible = (chances >= DOUBT) & ~sure[:, None]  # (N, K)
        box, kind = possible.nonzero(as_tuple=True)
        flat = inside.new_zeros(count * chances.shape[1], len(points))
        flat.index_add_(0, images[box] * chances.shape[1] + kind, inside[box])
        found: Tensor = (flat.view(count, chances.shape[1], -1) > 0) & ~covered[:, None]
        return found


@torch.no_grad()
def live_answers(
    raw: Mapping[str, Any], grid: Grid, own: Tensor | None, picked: Tensor | None, classes: int
) -> Answers:
    """Return what a live teacher sees in a batch.

    Args:
        raw: Its raw head output for all images.
        grid: Where the anchors lie.
        own: Indices of the common classes among the data's; None for all.
        picked: The teacher's, as `as_head` takes them.
        classes: Number of the data's classes.
    """
    head = as_head(split_branches(raw)["one2many"], grid, picked)
    scores = head.logits.sigmoid()
    if own is not None:
        scores = scores.new_zeros(*scores.shape[:2], classes).index_copy(2, own, scores)
    found = detections(scores, head.boxes)
    size = image_size(grid, scores)
    counts = torch.tensor([len(boxes) for boxes, _ in found], device=scores.device)
    corners = torch.cat([boxes for boxes, _ in found]).clamp(min=0).minimum(size)
    return Answers(
        images=torch.arange(len(found), device=scores.device).repeat_interleave(counts),
        boxes=box_convert(corners / size, "xyxy", "cxcywh"),
        probabilities=torch.cat([chances for _, chances in found]),
    )
