"""The teacher's own detection loss at every anchor: how wrong the teacher is, here.

Source: the criterion of Ultralytics 8.4 (`utils/loss.py`, `utils/tal.py`): task-aligned assignment of the one-to-many
branch with the stock settings, cross-entropy against its soft labels, CIoU, DFL or, with `reg_max` 1, L1.
Differs: kept per anchor, neither multiplied by gains nor summed; only classes that the data label are judged.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from yolokd.backend.api import DFLoss, TaskAlignedAssigner, bbox2dist, bbox_iou, xywh2xyxy
from yolokd.loaders.batch import COUNTS
from yolokd.losses.base import Grid, Head
from yolokd.losses.tensors import widen


@dataclass(frozen=True)
class Objects:
    """The ground truth, padded to G slots per image; in each image the smaller boxes come first."""

    boxes: Tensor  # (B, G, 4), xyxy in pixels of the batch's images
    labels: Tensor  # (B, G), place among the judged classes; 0 where the class is unknown or the slot is empty
    present: Tensor  # (B, G) bool: the slot holds an object
    known: Tensor  # (B, G) bool: and the teacher knows its class


@dataclass(frozen=True)
class TeacherLoss:
    """The teacher's detection loss, each (B, A)."""

    cls: Tensor  # cross-entropy against the soft labels, summed over classes; off the foreground against "no object"
    box: Tensor  # (1 − CIoU) + DFL or L1, each averaged over the four sides; 0 off the foreground
    mass: Tensor  # the soft label itself, by which Ultralytics weighs the box terms; 0 off the foreground
    slot: Tensor  # the object that the assignment gave the anchor to; −1 off the foreground

    def of_objects(self, objects: Objects, missed: Tensor) -> Tensor:
        """Return D of each object, (B, G): cls + box averaged over the anchors assigned to it.

        An object without anchors gets the largest D of its image, or `missed`, (B, G), if no object there has any.
        """
        column = self.slot + 1  # column 0 gathers the background
        empty = self.cls.new_zeros(len(self.cls), objects.known.shape[1] + 1)
        anchors = empty.scatter_add(1, column, torch.ones_like(self.cls))[:, 1:]
        total = empty.scatter_add(1, column, self.cls + self.box)[:, 1:]
        found = anchors > 0
        loss = total / anchors.clamp(min=1)
        worst = loss.masked_fill(~found, -torch.inf).amax(1, keepdim=True)  # (B, 1)
        return torch.where(found, loss, torch.where(worst.isfinite(), worst, missed))

    def of_levels(self, grid: Grid) -> Tensor:
        """Return the criterion's value per image and level, (B, L), by the image's own mass of soft labels.

        The sum over levels is the criterion, its gains set to 1, on that image alone.
        """
        loss = self.cls + self.box * self.mass
        levels = torch.stack([loss[:, grid.places(level)].sum(1) for level in grid.shapes], 1)
        return levels / self.mass.sum(1, keepdim=True).clamp(min=1)


def assigner(classes: int, grid: Grid) -> TaskAlignedAssigner:
    """Return the task-aligned assigner with the settings that Ultralytics trains with, for anchors on a grid."""
    strides = list(grid.strides.values())
    return TaskAlignedAssigner(topk=10, num_classes=classes, alpha=0.5, beta=6.0, stride=strides)


def pad_objects(batch: Mapping[str, Any], judged: Tensor, head: Head) -> Objects:
    """Return the batch's ground truth in slots, in the precision of the head.

    Args:
        batch: `batch_idx` (N,), `cls` (N, 1) and `bboxes` (N, 4), normalized xywh, as the trainer hands them over.
        judged: (number of the data's classes,): place of each among the judged classes, −1 for an unknown one.
        head: The teacher's head outputs over the judged classes.
    """
    image = batch["batch_idx"].long().flatten()
    boxes = xywh2xyxy(batch["bboxes"].to(head.logits.dtype)) * image_size(head.grid, head.logits)
    order = (boxes[:, 2:] - boxes[:, :2]).prod(1).argsort(stable=True)
    order = order[image[order].argsort(stable=True)]  # by image, then from small to large
    image, boxes = image[order], boxes[order]
    labels = judged[batch["cls"].long().flatten()[order]]
    most = None if (counts := batch.get(COUNTS)) is None else max(counts, default=0)
    slot, present = slots(image, len(head.logits), most)
    padded = boxes.new_zeros(*present.shape, 4).index_put((image, slot), boxes)
    padded_labels = labels.new_full(present.shape, -1).index_put((image, slot), labels)
    return Objects(padded, padded_labels.clamp(min=0), present, padded_labels >= 0)


def slots(image: Tensor, images: int, most: int | None = None) -> tuple[Tensor, Tensor]:
    """Return the slot of each of N boxes in its image, (N,), and which slots are taken, (B, G) bool, G at least 1.

    Args:
        image: The image of each box, (N,) long, in order.
        images: B.
        most: Largest number of boxes of an image; None reads it from the device, which the host waits for.
    """
    counts = (image[:, None] == torch.arange(images, device=image.device)).sum(0)  # (B,)
    slot = torch.arange(len(image), device=image.device) - (counts.cumsum(0) - counts)[image]
    width = max(int(counts.max()) if most is None else most, 1)
    return slot, torch.arange(width, device=image.device) < counts[:, None]


def teacher_loss(head: Head, objects: Objects) -> TeacherLoss:
    """Return the teacher's detection loss at each anchor, against its own assignment of the objects that it knows.

    Args:
        head: The teacher's head outputs over the judged classes.
        objects: The ground truth; objects of unknown classes take no part.
    """
    points, strides = head.grid.centers(head.logits.device)
    _, boxes, scores, foreground, slot = assigner(head.logits.shape[-1], head.grid)(
        head.logits.sigmoid(), head.boxes, points, objects.labels[..., None], objects.boxes, objects.known[..., None]
    )
    scores = scores.to(head.logits.dtype)
    cls = F.binary_cross_entropy_with_logits(head.logits, scores, reduction="none").sum(-1)
    where = foreground.nonzero(as_tuple=True)  # F places: the box terms are needed only there
    distances = distance_loss(
        widen(head.raw[where]), boxes[where], points[where[1]], strides[where[1]], image_size(head.grid, boxes)
    )
    box = 1 - overlap(head.boxes[where], boxes[where]) + distances
    return TeacherLoss(
        cls=cls,
        box=torch.zeros_like(cls).index_put(where, box),
        mass=scores.sum(-1),
        slot=slot.masked_fill(~foreground, -1),
    )


def overlap(boxes: Tensor, others: Tensor) -> Tensor:
    """Return the CIoU of boxes (…, 4) xyxy, at most 1, as Ultralytics computes it."""
    ciou: Tensor = bbox_iou(boxes, others, xywh=False, CIoU=True)
    return ciou.squeeze(-1)


def distance_loss(raw: Tensor, boxes: Tensor, points: Tensor, strides: Tensor, size: Tensor) -> Tensor:
    """Return DFL, or with one bin the L1 distance in units of the image's sides, averaged over the four sides, (F,).

    Args:
        raw: What the head says at F anchors about the distances left, top, right, bottom, (F, 4·R).
        boxes: The box that each should give, (F, 4), xyxy in pixels.
        points: Centers of the anchors in pixels, (F, 2).
        strides: Pixels per cell, (F, 1).
        size: Width, height, width, height of the images in pixels, (4,).
    """
    bins = raw.shape[-1] // 4
    if bins == 1:
        wanted = bbox2dist(points, boxes)
        distances: Tensor = (raw * strides - wanted).abs() / size
        return distances.mean(-1)
    wanted = bbox2dist(points / strides, boxes / strides, bins - 1)
    loss: Tensor = DFLoss(bins)(raw.reshape(-1, bins), wanted)  # (F, 1)
    return loss.squeeze(-1)


def missed_loss(head: Head, objects: Objects) -> Tensor:
    """Return a loss for objects that the assignment gives nothing to, (B, G).

    It is the cross-entropy of the cell at the object's center against the object, summed over classes, plus 1 for a box
    without overlap; of the levels' cells the one where it is least.
    """
    center = (objects.boxes[..., :2] + objects.boxes[..., 2:]) / 2
    target = F.one_hot(objects.labels, head.logits.shape[-1]).to(head.logits.dtype)  # (B, G, K)
    losses = []
    for level, (height, width) in head.grid.shapes.items():
        cell = (center / head.grid.strides[level]).long()
        column, row = cell[..., 0].clamp(0, width - 1), cell[..., 1].clamp(0, height - 1)
        place = head.grid.places(level).start + row * width + column  # (B, G)
        logits = head.logits.gather(1, place[..., None].expand_as(target))
        losses.append(F.binary_cross_entropy_with_logits(logits, target, reduction="none").sum(-1))
    return torch.stack(losses).amin(0) + 1


def image_size(grid: Grid, like: Tensor) -> Tensor:
    """Return width, height, width, height of the images in pixels, (4,)."""
    height, width = grid.image_size
    return torch.stack([like.new_full((), side) for side in (width, height)] * 2)
