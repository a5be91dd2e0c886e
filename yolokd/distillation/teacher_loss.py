"""The teacher's own detection loss at every anchor: how wrong the teacher is, here.

Source: the criterion of Ultralytics 8.4 (`utils/loss.py`, `utils/tal.py`): task-aligned assignment of the one-to-many
branch with the stock settings, cross-entropy against its soft labels, CIoU, DFL or, with `reg_max` 1, L1.
Differs: kept per anchor, neither multiplied by gains nor summed; only classes that the data label are judged. Of
rotated boxes the assignment and the box terms are those of Ultralytics' rotated loss (ProbIoU, distances along the
box's axes), without its term on the angles of nearly square boxes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from yolokd.backend.api import (
    DFLoss,
    RotatedTaskAlignedAssigner,
    TaskAlignedAssigner,
    bbox2dist,
    bbox_iou,
    rbox2dist,
    xywh2xyxy,
)
from yolokd.loaders.batch import COUNTS
from yolokd.losses.base import Grid, Head
from yolokd.losses.rotated import hellinger_distance, upright
from yolokd.losses.tensors import widen

FLOOR = 0.01  # square cells, that of Ultralytics' `RotatedBboxLoss`


@dataclass(frozen=True)
class Objects:
    """The ground truth, padded to G slots per image; in each image the smaller boxes come first."""

    boxes: Tensor  # (B, G, 4), xyxy in pixels of the batch's images
    labels: Tensor  # (B, G), place among the judged classes; 0 where the class is unknown or the slot is empty
    present: Tensor  # (B, G) bool: the slot holds an object
    known: Tensor  # (B, G) bool: and the teacher knows its class
    rotated: Tensor | None = None  # (B, G, 5) of rotated boxes, whose upright rectangles `boxes` are then


@dataclass(frozen=True)
class TeacherLoss:
    """The teacher's detection loss, each (B, A)."""

    cls: Tensor  # cross-entropy against the soft labels, summed over classes; off the foreground against "no object"
    box: Tensor  # (1 − CIoU) + DFL or L1, each averaged over the four sides; 0 off the foreground. Rotated: ProbIoU
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


def assigner(classes: int, grid: Grid, *, rotated: bool = False) -> TaskAlignedAssigner:
    """Return the task-aligned assigner with the settings that Ultralytics trains with, for anchors on a grid."""
    kind = RotatedTaskAlignedAssigner if rotated else TaskAlignedAssigner
    return kind(topk=10, num_classes=classes, alpha=0.5, beta=6.0, stride=list(grid.strides.values()))


def in_one_frame(head: Head, objects: Objects) -> tuple[Tensor, Tensor]:
    """Return the boxes of a head, (B, A, ·), and of objects, (B, G, ·): rotated if both are, else upright."""
    if head.rotated is None or objects.rotated is None:
        return head.boxes, objects.boxes
    return head.rotated, objects.rotated


def assign(head: Head, objects: Objects) -> tuple[Tensor, ...]:
    """Return what the teacher's own assignment gives to the anchors; objects of unknown classes take no part.

    Returns:
        As Ultralytics' assigner: labels (B, A), boxes (B, A, ·), soft labels (B, A, K), foreground (B, A) bool, slots
        (B, A).
    """
    points, _ = head.grid.centers(head.logits.device)
    boxes, goal = in_one_frame(head, objects)
    chosen = assigner(head.logits.shape[-1], head.grid, rotated=boxes.shape[-1] == 5)
    found: tuple[Tensor, ...] = chosen(
        head.logits.sigmoid(), boxes, points, objects.labels[..., None], goal, objects.known[..., None]
    )
    return found


def label_boxes(boxes: Tensor, size: Tensor) -> tuple[Tensor, Tensor | None]:
    """Return labels in pixels: xyxy, (N, 4), and if they are rotated, these, (N, 5), inside the former.

    Args:
        boxes: `bboxes` of a batch, (N, 4) xywh as shares of the sides, or (N, 5) with an angle in radians.
        size: From `image_size`.
    """
    if boxes.shape[-1] == 4:
        return xywh2xyxy(boxes) * size, None
    rotated = torch.cat((boxes[:, :4] * size, boxes[:, 4:]), 1)
    return upright(rotated), rotated


def pad_objects(batch: Mapping[str, Any], judged: Tensor, head: Head) -> Objects:
    """Return the batch's ground truth in slots, in the precision of the head.

    Args:
        batch: `batch_idx` (N,), `cls` (N, 1) and `bboxes` (N, 4), normalized xywh, or (N, 5) with an angle, as the
            trainer hands them over.
        judged: (number of the data's classes,): place of each among the judged classes, −1 for an unknown one.
        head: The teacher's head outputs over the judged classes.
    """
    image = batch["batch_idx"].long().flatten()
    boxes, rotated = label_boxes(batch["bboxes"].to(head.logits.dtype), image_size(head.grid, head.logits))
    sides = boxes[:, 2:] - boxes[:, :2] if rotated is None else rotated[:, 2:4]
    order = sides.prod(1).argsort(stable=True)
    order = order[image[order].argsort(stable=True)]  # by image, then from small to large
    image, boxes = image[order], boxes[order]
    labels = judged[batch["cls"].long().flatten()[order]]
    most = None if (counts := batch.get(COUNTS)) is None else max(counts, default=0)
    slot, present = slots(image, len(head.logits), most)
    padded = boxes.new_zeros(*present.shape, 4).index_put((image, slot), boxes)
    padded_labels = labels.new_full(present.shape, -1).index_put((image, slot), labels)
    if rotated is not None:
        rotated = boxes.new_zeros(*present.shape, 5).index_put((image, slot), rotated[order])
    return Objects(padded, padded_labels.clamp(min=0), present, padded_labels >= 0, rotated)


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
        objects: The ground truth; objects of unknown classes take no part. Rotated if the head's boxes are.
    """
    points, strides = head.grid.centers(head.logits.device)
    _, boxes, scores, foreground, slot = assign(head, objects)
    scores = scores.to(head.logits.dtype)
    cls = F.binary_cross_entropy_with_logits(head.logits, scores, reduction="none").sum(-1)
    where = foreground.nonzero(as_tuple=True)  # F places: the box terms are needed only there
    distances = distance_loss(
        widen(head.raw[where]), boxes[where], points[where[1]], strides[where[1]], image_size(head.grid, boxes)
    )
    box = apart(in_one_frame(head, objects)[0][where], boxes[where], strides[where[1]]) + distances
    return TeacherLoss(
        cls=cls,
        box=torch.zeros_like(cls).index_put(where, box),
        mass=scores.sum(-1),
        slot=slot.masked_fill(~foreground, -1),
    )


def apart(boxes: Tensor, others: Tensor, strides: Tensor) -> Tensor:
    """Return 1 − CIoU of boxes (F, 4) xyxy, or 1 − ProbIoU of rotated ones, (F, 5); (F,).

    Args:
        boxes: In pixels.
        others: The same shape.
        strides: Pixels per cell, (F, 1): as Ultralytics, a share of a cell is added to the variances of rotated boxes.
    """
    if boxes.shape[-1] == 4:
        return 1 - overlap(boxes, others)
    return hellinger_distance(in_cells(boxes, strides), in_cells(others, strides), floor=FLOOR)


def in_cells(boxes: Tensor, strides: Tensor) -> Tensor:
    """Return boxes, (F, 4) or with an angle (F, 5), in units of the cells of their anchors."""
    return torch.cat((boxes[:, :4] / strides, boxes[:, 4:]), 1)


def overlap(boxes: Tensor, others: Tensor) -> Tensor:
    """Return the CIoU of boxes (…, 4) xyxy, at most 1, as Ultralytics computes it."""
    ciou: Tensor = bbox_iou(boxes, others, xywh=False, CIoU=True)
    return ciou.squeeze(-1)


def distance_loss(raw: Tensor, boxes: Tensor, points: Tensor, strides: Tensor, size: Tensor) -> Tensor:
    """Return DFL, or with one bin the L1 distance in units of the image's sides, averaged over the four sides, (F,).

    Args:
        raw: What the head says at F anchors about the distances left, top, right, bottom, (F, 4·R).
        boxes: The box that each should give, (F, 4), xyxy in pixels, or a rotated one, (F, 5), along whose axes the
            distances are.
        points: Centers of the anchors in pixels, (F, 2).
        strides: Pixels per cell, (F, 1).
        size: Width, height, width, height of the images in pixels, (4,).
    """
    bins = raw.shape[-1] // 4
    if bins == 1:
        wanted = _wanted(points, boxes)
        distances: Tensor = (raw * strides - wanted).abs() / size
        return distances.mean(-1)
    wanted = _wanted(points / strides, in_cells(boxes, strides), bins - 1)
    loss: Tensor = DFLoss(bins)(raw.reshape(-1, bins), wanted)  # (F, 1)
    return loss.squeeze(-1)


def _wanted(points: Tensor, boxes: Tensor, limit: int | None = None) -> Tensor:
    """Return the distances of points, (F, 2), to the left, top, right and bottom of boxes, (F, 4 or 5), (F, 4)."""
    if boxes.shape[-1] == 4:
        wanted: Tensor = bbox2dist(points, boxes, limit)
    else:
        wanted = rbox2dist(boxes[:, :4], points, boxes[:, 4:], reg_max=limit)
    return wanted


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
