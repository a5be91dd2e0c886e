"""Adaptive instance distillation in a run: from the teacher's own mistakes to the weights of all losses.

Source: Lan and Tian, "Adaptive Instance Distillation for Object Detection in Autonomous Driving", ICPR 2022
(arXiv:2201.11097): the weight exp(−α · D). No code was published, and no source says what an instance is.
Differs: by default an instance is an object, and D the mean of the teacher's detection loss over the anchors that the
teacher's own assignment gives to it, on all of the teacher's levels. `image` and `level` take the criterion of a whole
image, or of one level of it; there, too, Ultralytics' gains stay out, so that α means the same in all three. Weights
are never renormalized. Unlabeled images are background throughout, in `image` and `level` by the mean over the places,
and no instances.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from yolokd.backend.classes import ClassMatch
from yolokd.backend.heads import as_head, split_branches
from yolokd.distillation.teacher_loss import (
    Objects,
    TeacherLoss,
    missed_loss,
    pad_objects,
    teacher_loss,
)
from yolokd.errors import PairError
from yolokd.losses.aid import aid_weight
from yolokd.losses.base import Grid
from yolokd.losses.rotated import inside_rotated
from yolokd.losses.tensors import known

SCOPES = ("instance", "image", "level")
NORMALIZATIONS = ("raw", "mean")


@dataclass(frozen=True)
class Instances:
    """What a weight belongs to, (B, G): G slots for objects (instance), 1 (image), or one per level (level)."""

    weight: Tensor
    loss: Tensor  # D, before it is normalized
    counted: Tensor  # bool: False for empty slots and objects of classes that the teacher does not know


@dataclass(frozen=True)
class Weights:
    """The weights of one batch, in [0, 1], without gradient."""

    head: Tensor  # (B, A), for losses on head outputs
    features: Tensor  # (B, A), for losses on neck features
    image: Tensor  # (B,), for losses without a place
    instances: Instances

    def of(self, dimensions: int, *, head: bool) -> Tensor:
        """Return the weights of a loss map: (B, A) for 2 dimensions, of a head or a feature loss; (B,) for 1."""
        if dimensions == 1:
            return self.image
        return self.head if head else self.features

    def at(self, levels: Collection[str], grid: Grid) -> Weights:
        """Return the weights of the anchors of some levels.

        Args:
            levels: Those that are kept.
            grid: Of the weights as they are.
        """
        return replace(self, head=grid.pick(self.head, levels), features=grid.pick(self.features, levels))


class InstanceWeighting:
    """Weighs each place of a batch by how well the teacher does there.

    A place belongs to the object that the teacher's assignment gives it to, else to the smallest object whose box,
    rotated where labels are, its center lies in, else to the background. An object's places weigh exp(−α · D); a place
    of the background weighs exp(−α · cross-entropy of the teacher there against "no object"), so that confident false
    positives are not taught. Objects of a class that the teacher does not know weigh 0 in head losses and 1 in feature
    losses.
    """

    def __init__(self, config: Any, classes: ClassMatch) -> None:
        """Prepare for one pair.

        Args:
            config: `alpha`, at least 0; `scope`, one of `SCOPES`; `normalize`, one of `NORMALIZATIONS`: "mean" divides
                every D, the background's too, by the batch's mean D over instances (of this process's batch; 1 without
                instances).
            classes: Which class of the data is which of the teacher's. Only classes with a partner are judged, since
                the data say nothing about the others.

        Raises:
            PairError: The teacher knows none of the data's classes.
            ValueError: An unknown scope or normalization.
        """
        known(config.scope, SCOPES, "scope")
        known(config.normalize, NORMALIZATIONS, "normalize")
        if not classes.student:
            raise PairError(
                "weighting.aid judges the teacher by the data's labels, but the teacher knows none of the data's "
                f"classes by name:\n{classes.table()}\nMap names in the recipe (teacher.classes), or take "
                "weighting.aid out of it."
            )
        self.alpha, self.scope, self.normalize = config.alpha, config.scope, config.normalize
        self.labels = torch.tensor(classes.places)
        self.picked = None if classes.identical else torch.tensor(classes.columns)

    @torch.no_grad()
    def __call__(self, taught_raw: Mapping[str, Any], batch: Mapping[str, Any], grid: Grid) -> Weights:
        """Return the weights of one batch, in float32 or wider.

        Args:
            taught_raw: The teacher's raw head output; of a dual head the one-to-many branch is judged.
            batch: Ground truth as the trainer hands it over; rows of the output beyond its images are of unlabeled
                ones.
            grid: Where the teacher's anchors lie.
        """
        raw = split_branches(taught_raw)["one2many"]
        device = raw["scores"].device
        self.labels = self.labels.to(device)  # it stays there: only the first step waits for the copy
        self.picked = None if self.picked is None else self.picked.to(device)
        head = as_head(raw, grid, self.picked)
        objects = pad_objects(batch, self.labels, head)
        loss = teacher_loss(head, objects)
        if self.scope == "instance":
            return self._by_object(objects, loss, loss.of_objects(objects, missed_loss(head, objects)), grid)
        return self._by_image(loss, len(batch["img"]), grid)

    def _by_object(self, objects: Objects, loss: TeacherLoss, of_objects: Tensor, grid: Grid) -> Weights:
        owner = owners(objects, loss.slot, grid)
        background, slot = owner < 0, owner.clamp(min=0)
        of_places = torch.where(background, loss.cls, of_objects.gather(1, slot))
        of_images = torch.where(
            objects.known.any(1), masked_mean(of_objects, objects.known), masked_mean(loss.cls, background)
        )
        scale = self._scale(of_objects, objects.known)
        weight = self._weight(of_places, scale)
        unknown = ~background & ~objects.known.gather(1, slot)
        return Weights(
            head=weight.masked_fill(unknown, 0),
            features=weight.masked_fill(unknown, 1),
            image=self._weight(of_images, scale),
            instances=Instances(self._weight(of_objects, scale), of_objects, objects.known),
        )

    def _by_image(self, loss: TeacherLoss, labeled: int, grid: Grid) -> Weights:
        of_levels = loss.of_levels(grid)
        places = [grid.places(level) for level in grid.shapes] if self.scope == "level" else [slice(None)]
        losses = of_levels if self.scope == "level" else of_levels.sum(1, keepdim=True)
        background = torch.stack([loss.cls[labeled:, place].mean(1) for place in places], 1)
        losses = torch.cat([losses[:labeled], background])
        counted = (torch.arange(len(losses), device=losses.device) < labeled)[:, None].expand_as(losses)
        scale = self._scale(losses, counted)
        weight = self._weight(losses, scale)
        sizes = [height * width for height, width in grid.shapes.values()]
        columns = weight.expand(-1, len(sizes)).unbind(1)
        spread = torch.cat([w[:, None].expand(-1, size) for w, size in zip(columns, sizes, strict=True)], 1)  # (B, A)
        return Weights(spread, spread, self._weight(losses.mean(1), scale), Instances(weight, losses, counted))

    def _weight(self, loss: Tensor, scale: Tensor) -> Tensor:
        return aid_weight(loss / scale, alpha=self.alpha)

    def _scale(self, losses: Tensor, counted: Tensor) -> Tensor:
        one = losses.new_ones(())
        if self.normalize == "raw":
            return one
        mean = masked_mean(losses.flatten()[None], counted.flatten()[None])[0]
        return torch.where(mean > 0, mean, one)


def owners(objects: Objects, assigned: Tensor, grid: Grid) -> Tensor:
    """Return the slot of the object that each place belongs to, (B, A); −1 for the background.

    Args:
        objects: The ground truth; its slots are ordered from small to large.
        assigned: The teacher's assignment, (B, A), −1 where there is none; it goes before boxes.
        grid: Where the anchors lie.
    """
    points = grid.centers(assigned.device)[0]  # (A, 2)
    if objects.rotated is None:
        x, y = points.unbind(1)  # (A,) each
        left, top, right, bottom = objects.boxes[..., None].unbind(2)  # (B, G, 1) each
        inside = (x > left) & (x < right) & (y > top) & (y < bottom)
    else:
        inside = inside_rotated(points, objects.rotated)
    inside = inside & objects.present[..., None]  # (B, G, A)
    hit, first = inside.byte().max(1)  # (B, A); of several the first slot, which is the smallest box
    return torch.where(assigned >= 0, assigned, first.masked_fill(hit == 0, -1))


def masked_mean(x: Tensor, mask: Tensor) -> Tensor:
    """Return the mean of each row over the places where the mask is True; 0 where there are none."""
    return x.masked_fill(~mask, 0).sum(1) / mask.sum(1).clamp(min=1)
