"""Gathers what the losses look at in a step, and nothing that none of them needs."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

import torch
from torch import Tensor

from yolokd.backend.api import xywh2xyxy
from yolokd.backend.heads import as_head, split_branches, with_extras
from yolokd.backend.tasks import Reader, no_extras
from yolokd.distillation.assignment import Assigned
from yolokd.distillation.levels import Grids
from yolokd.distillation.positives import PositiveCounts
from yolokd.distillation.teacher_loss import image_size, label_boxes, slots
from yolokd.loaders.batch import Answers, counts_of
from yolokd.losses.base import Answered, Branch, Grid, Head, Loss, Step, requirements
from yolokd.losses.soft import soft_targets
from yolokd.losses.tensors import mean_over_ranks, widen
from yolokd.teachers.base import TeacherOutput

Readers = tuple[Reader, Reader]  # of student and teacher: `yolokd.backend.heads.HeadInfo.read`
CommonClasses = Callable[[torch.device], tuple[Tensor | None, Tensor | None]]


def gather(
    batch: Mapping[str, Any],
    raw: Mapping[str, Any],
    features: Mapping[str, Tensor],
    grids: Grids,
    taught: TeacherOutput,
    assigned: Mapping[str, Assigned],
    shares: Mapping[str, float],
    losses: Collection[Loss],
    classes: CommonClasses,
    counts: PositiveCounts | None = None,
    readers: Readers = (no_extras, no_extras),
) -> Step:
    """Return what some losses look at.

    Args:
        batch: As the loader makes it.
        raw: The student's raw outputs.
        features: Its neck features.
        grids: Where the anchors lie.
        taught: What the teacher says.
        assigned: The student's own assignment on the common levels, by branch.
        shares: Branch → its weight in the detection loss.
        losses: Those that act in this step.
        classes: Returns the indices of the common classes in student and teacher on a device.
        counts: Averages of the run, to which this step is added; None lets each step stand alone.
        readers: Read what the models give beside class scores and boxes; used where the losses compare it.
    """
    common, needs = grids.common.shapes, requirements(losses)
    readers = readers if needs.extras else (no_extras, no_extras)
    head = taught.raw or {}
    return Step(
        student={
            level: widen(x) if level in needs.levels else x for level, x in features.items() if level in common
        },  # once for all losses
        teacher=taught.features,
        grid=grids.common,
        branches=branches(raw, head, assigned, shares, grids, classes, counts, readers) if needs.heads and head else (),
        teacher_scores=grids.teacher.pick(teacher_scores(head), common) if needs.teacher_scores and head else None,
        boxes_xyxy_px=boxes_of(batch, len(next(iter(features.values())))) if needs.boxes else (),
    )


def answered(
    answers: Answers,
    raw: Mapping[str, Any],
    criteria: Mapping[str, tuple[Any, float]],
    grid: Grid,
    classes: CommonClasses,
    counts: PositiveCounts | None = None,
) -> tuple[Answered, ...]:
    """Return what stored answers ask of each branch of the student.

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
    pick, _ = classes(answers.boxes.device)
    found = []
    for name, (criterion, weight) in criteria.items():
        if name in own:
            head = as_head(own[name], grid, None)
            targets, goal, positive = assigned_answers(answers, head, criterion)
            if pick is not None:
                head, targets = as_head(own[name], grid, pick), targets[..., pick]
            mass = targets.sum()
            if counts is None:
                mass = mean_over_ranks(mass).clamp_min(1)
            else:
                mass = counts.update(f"soft_{name}", Assigned(positive, mass))["target_scores"] * len(targets)
            found.append(Answered(weight, head, targets, goal, mass))
    return tuple(found)


@torch.no_grad()
def assigned_answers(answers: Answers, head: Head, criterion: Any) -> tuple[Tensor, Tensor, Tensor]:
    """Return soft targets (B, A, K), boxes (B, A, 4) in pixels, and which anchors got a box, (B, A) bool.

    Args:
        answers: What the teacher saw in the batch.
        head: One branch of the student over all of its classes.
        criterion: That of the branch, whose assigner is asked.
    """
    head = Head(head.logits, head.raw, head.grid)  # one of its own, since it keeps boxes that have no gradient here
    boxes, chances, present = padded_answers(answers, head)
    points, _ = head.grid.centers(boxes.device)
    _, goal, scores, positive, slot = criterion.assigner(
        head.logits.sigmoid(),
        head.boxes,
        points,
        chances.argmax(-1, keepdim=True),
        boxes,
        present[..., None],
    )
    return soft_targets(scores.amax(-1) * positive, slot, chances), goal, positive.bool()


def padded_answers(answers: Answers, head: Head) -> tuple[Tensor, Tensor, Tensor]:
    """Return the answers in slots: boxes (B, M, 4) xyxy in pixels, probabilities (B, M, K), which slots are taken."""
    order = answers.images.argsort(stable=True)
    image = answers.images[order]
    slot, present = slots(image, len(head.logits), answers.most)
    corners = xywh2xyxy(answers.boxes[order].to(head.logits.dtype)) * image_size(head.grid, head.logits)
    chances = answers.probabilities[order].to(head.logits.dtype)
    boxes = corners.new_zeros(*present.shape, 4).index_put((image, slot), corners)
    padded = chances.new_zeros(*present.shape, chances.shape[1]).index_put((image, slot), chances)
    return boxes, padded, present


def branches(
    raw: Mapping[str, Any],
    taught: Mapping[str, Any],
    assigned: Mapping[str, Assigned],
    shares: Mapping[str, float],
    grids: Grids,
    classes: CommonClasses,
    counts: PositiveCounts | None = None,
    readers: Readers = (no_extras, no_extras),
) -> tuple[Branch, ...]:
    """Return the branches that both heads have, on common levels, with the common classes; arguments as `gather`'s."""
    common, own, other = grids.common.shapes, split_branches(raw), split_branches(taught)
    count = len(own["one2many"]["scores"])
    pick, pick_other = classes(own["one2many"]["scores"].device)
    read, read_other = readers
    return tuple(
        Branch(
            name=name,
            weight=weight,
            student=with_extras(as_head(own[name], grids.student, pick), own[name], read).at(common),
            teacher=with_extras(as_head(other[name], grids.teacher, pick_other), other[name], read_other).at(common),
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
    """Return the ground-truth boxes of each image, (N, 4) xyxy in pixels; none where images have no labels.

    Those of rotated labels are the upright rectangles around them.
    """
    height, width = batch["img"].shape[-2:]
    shares: Tensor = batch["bboxes"]
    boxes, _ = label_boxes(shares, torch.stack([shares.new_full((), side) for side in (width, height)] * 2))
    index: Tensor = batch["batch_idx"].long()
    return tuple(boxes[index.argsort(stable=True)].split_with_sizes(counts_of(batch, images)))
