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
from yolokd.loaders.batch import Answers, PseudoBoxes, TrainingBatch
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
    def choose(self, answers: Answers, labeled: int) -> PseudoBoxes:
        """Return the confident and the doubtful boxes of unlabeled images.

        Args:
            answers: What the teacher saw in all images of a step, or in the unlabeled ones. On a GPU the host waits for
                the number of boxes; stored answers are on the CPU before a step.
            labeled: B, the number of labeled images, which come first.
        """
        later = answers.images >= labeled
        images, boxes, chances = answers.images[later], answers.boxes[later], answers.probabilities[later].float()
        self.thresholds = self.thresholds.to(chances.device)
        scores, classes = chances.amax(1), chances.argmax(1)
        sure = scores >= self.thresholds[classes]
        possible = (chances >= DOUBT) & ~sure[:, None]  # (N, K)
        box, kind = possible.nonzero(as_tuple=True)
        return PseudoBoxes(images[sure], boxes[sure], classes[sure], images[box], boxes[box], kind)

    @torch.no_grad()
    def apply(self, batch: TrainingBatch, chosen: PseudoBoxes, grid: Grid) -> PseudoLabeled:
        """Return the batch with pseudo-labels on its unlabeled images; the host does not wait for a GPU.

        Args:
            batch: With unlabeled images.
            chosen: From `choose`, where the images are.
            grid: Where the student's anchors lie.
        """
        labeled = batch.labeled
        added = {"batch_idx": chosen.images, "cls": chosen.classes[:, None], "bboxes": chosen.boxes}
        labels = {key: torch.cat((labeled[key], added[key].to(labeled[key].dtype))) for key in added}
        doubtful = self._doubtful(len(batch.images), chosen, grid)
        return PseudoLabeled({**labeled, **labels, "img": batch.images}, doubtful)

    def _doubtful(self, count: int, chosen: PseudoBoxes, grid: Grid) -> Tensor:
        classes, places = len(self.thresholds), chosen.doubtful_images * len(self.thresholds)
        sure, doubt = inside(chosen.boxes, grid), inside(chosen.doubtful_boxes, grid)
        covered = sure.new_zeros(count, sure.shape[1]).index_add_(0, chosen.images, sure) > 0
        flat = doubt.new_zeros(count * classes, doubt.shape[1])
        flat.index_add_(0, places + chosen.doubtful_classes, doubt)
        found: Tensor = (flat.view(count, classes, -1) > 0) & ~covered[:, None]
        return found


def inside(boxes: Tensor, grid: Grid) -> Tensor:
    """Return 1 for the anchors whose centers lie in a box, (N, A), 0 for others, float32.

    Args:
        boxes: (N, 4), shares of the sides, middle, width, height.
        grid: Where the anchors lie.
    """
    points, _ = grid.centers(boxes.device)
    corners = box_convert(boxes, "cxcywh", "xyxy") * image_size(grid, boxes)
    left_top, right_bottom = corners[:, None].chunk(2, -1)
    found: Tensor = ((points > left_top) & (points < right_bottom)).all(-1)
    return found.float()


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
    images = [torch.full((len(boxes),), i, device=scores.device) for i, (boxes, _) in enumerate(found)]
    corners = torch.cat([boxes for boxes, _ in found]).clamp(min=0).minimum(size)
    return Answers(
        images=torch.cat(images),
        boxes=box_convert(corners / size, "xyxy", "cxcywh"),
        probabilities=torch.cat([chances for _, chances in found]),
    )
