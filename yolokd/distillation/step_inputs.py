"""Gathers what the losses look at in a step, and nothing that none of them needs."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

import torch
from torch import Tensor

from yolokd.backend.api import xywh2xyxy
from yolokd.backend.heads import as_head, grid_of, neck_features, split_branches
from yolokd.distillation.assignment import Assigned
from yolokd.distillation.positives import PositiveCounts
from yolokd.distillation.teacher_loss import image_size
from yolokd.loaders.batch import Answers
from yolokd.losses.base import Branch, Grid, Head, Loss, Step, requirements
from yolokd.losses.soft import soft_targets
from yolokd.losses.tensors import mean_over_ranks, widen
from yolokd.teachers.base import TeacherOutput

CommonClasses = Callable[[torch.device], tuple[Tensor | None, Tensor | None]]


def gather(
    batch: Mapping[str, Any],
    raw: Mapping[str, Any],
    taught: TeacherOutput,
    assigned: Mapping[str, Assigned],
    shares: Mapping[str, float],
    losses: Collection[Loss],
    classes: CommonClasses,
    counts: PositiveCounts | None = None,
) -> Step:
    """Return what some losses look at.

    Args:
        batch: As the loader makes it.
        raw: The student's raw outputs.
        taught: What the teacher says.
        assigned: The student's own assignment, by branch.
        shares: Branch → its weight in the detection loss.
        losses: Those that act in this step.
        classes: Returns the indices of the common classes in student and teacher on a device.
        counts: Averages of the run, to which this step is added; None lets each step stand alone.
    """
    features = neck_features(raw)
    grid, needs = grid_of(features), requirements(losses)
    head = taught.raw or {}
    return Step(
        student={
            level: widen(x) if level in needs.levels else x for level, x in features.items()
        },  # once for all losses
        teacher=taught.features,
        grid=grid,
        branches=branches(raw, head, assigned, shares, grid, classes, counts) if needs.heads and head else (),
        teacher_scores=teacher_scores(head) if needs.teacher_scores and head else None,
        boxes_xyxy_px=boxes_of(batch, len(features["p3"])) if needs.boxes else (),
    )


@torch.no_grad()
def assigned_answers(
    answers: Answers,
    raw: Mapping[str, Any],
    criteria: Mapping[str, tuple[Any, float]],
    grid: Grid,
    classes: CommonClasses,
    counts: PositiveCounts | None = None,
) -> dict[str, tuple[Tensor, Tensor, Tensor]]:
    """Return for each branch of the student soft targets (B, A, K), boxes (B, A, 4) in pixels, and the mass ().

    The student's own assigner distributes the teacher's boxes, each under its most probable class.

    Args:
        answers: What the teacher saw in the batch.
        raw: The student's raw outputs.
        criteria: Branch → its criterion and its weight in the detection loss.
        grid: Where the anchors lie.
        classes: Returns the indices of the common classes in student and teacher on a device.
        counts: Averages of the run, to which this step is added; None lets each step stand alone.
    """
    own = split_branches(raw)
    found = {}
    for name, (criterion, _) in criteria.items():
        if name not in own:
            continue
        head = as_head(own[name], grid, None)
        boxes, chances, present = padded_answers(answers, head)
        points, _ = grid.centers(boxes.device)
        labels = chances.argmax(-1, keepdim=True)
        _, goal, scores, positive, slot = criterion.assigner(
            head.logits.sigmoid(), head.boxes, points, labels, boxes, present[..., None]
        )
        targets = soft_targets(scores.amax(-1) * positive, slot, chances)
        pick, _ = classes(boxes.device)
        targets = targets if pick is None else targets[..., pick]
        mass = targets.sum()
        if counts is None:
            mass = mean_over_ranks(mass).clamp_min(1)
        else:
            mass = counts.update(f"soft_{name}", Assigned(positive.bool(), mass))["target_scores"] * len(targets)
        found[name] = targets, goal, mass
    return found


def padded_answers(answers: Answers, head: Head) -> tuple[Tensor, Tensor, Tensor]:
    """Return the answers in slots: boxes (B, M, 4) xyxy in pixels, probabilities (B, M, K), which slots are taken."""
    count = len(head.logits)
    order = answers.images.argsort(stable=True)
    image = answers.images[order]
    counts = (image[:, None] == torch.arange(count, device=image.device)).sum(0)  # (B,)
    slot = torch.arange(len(image), device=image.device) - (counts.cumsum(0) - counts)[image]
    slots = count, max(int(counts.max()), 1)
    corners = xywh2xyxy(answers.boxes[order].to(head.logits.dtype)) * image_size(head.grid, head.logits)
    boxes = corners.new_zeros(*slots, 4).index_put((image, slot), corners)
    chances = answers.probabilities[order].to(head.logits.dtype)
    padded = chances.new_zeros(*slots, chances.shape[1]).index_put((image, slot), chances)
    return boxes, padded, torch.arange(slots[1], device=counts.device) < counts[:, None]


def branches(
    raw: Mapping[str, Any],
    taught: Mapping[str, Any],
    assigned: Mapping[str, Assigned],
    shares: Mapping[str, float],
    grid: Grid,
    classes: CommonClasses,
    counts: PositiveCounts | None = None,
) -> tuple[Branch, ...]:
    """Return the branches that both heads have, with the common classes only; arguments as `gather`'s."""
    own, other = split_branches(raw), split_branches(taught)
    count = len(own["one2many"]["scores"])
    pick, pick_other = classes(own["one2many"]["scores"].device)
    return tuple(
        Branch(
            name=name,
            weight=weight,
            student=as_head(own[name], grid, pick),
            teacher=as_head(other[name], grid, pick_other),
            positives=padded(assigned[name].positives, count),
            target_scores_sum=assigned[name].target_scores_sum,
            labeled=len(assigned[name].positives) / count,
            averages=None if counts is None else counts.update(name, assigned[name]),
        )
        for name, weight in shares.items()
        if name in own and name in other
    )


def padded(positives: Tensor, images: int) -> Tensor:
    """Return the positives with rows of False for the images without labels, which come last."""
    return torch.cat([positives, positives.new_zeros(images - len(positives), positives.shape[1])])


def teacher_scores(raw: Mapping[str, Any]) -> Tensor:
    """Return the teacher's largest score at each anchor, (B, A), over its own classes.

    A dual head's two branches are averaged before the sigmoid, as in Ultralytics' built-in distiller.
    """
    logits = [branch["scores"].float() for branch in split_branches(raw).values()]
    mean: Tensor = logits[0] if len(logits) == 1 else torch.stack(logits).mean(0)
    return mean.amax(1).sigmoid()


def boxes_of(batch: Mapping[str, Any], images: int) -> tuple[Tensor, ...]:
    """Return the ground-truth boxes of each image, (N, 4) xyxy in pixels; none where images have no labels."""
    height, width = batch["img"].shape[-2:]
    shares: Tensor = batch["bboxes"]
    boxes: Tensor = xywh2xyxy(shares) * torch.stack([shares.new_full((), side) for side in (width, height)] * 2)
    index: Tensor = batch["batch_idx"].long()
    counts = index.bincount(minlength=images).tolist()  # one wait for the device, not one per image
    return tuple(boxes[index.argsort(stable=True)].split_with_sizes(counts))
