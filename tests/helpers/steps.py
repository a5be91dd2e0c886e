"""A small training step for the tests of wired losses: three levels, random features and heads, float64."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from yolokd.losses.base import COEFFICIENTS, OFFSETS, PROTOTYPES, VISIBILITY, Branch, Grid, Head, Step

STRIDES = {"p3": 8, "p4": 16, "p5": 32}
GRID = Grid(shapes={"p3": (8, 12), "p4": (4, 6), "p5": (2, 3)}, strides=STRIDES)
STUDENT_CHANNELS = {"p3": 2, "p4": 3, "p5": 4}
TEACHER_CHANNELS = {"p3": 5, "p4": 3, "p5": 6}


def make_step(
    *, batch: int = 2, classes: int = 3, bins: int = 4, grid: Grid = GRID, weights: tuple[float, ...] = (1.0,)
) -> Step:
    """Return a step with one branch per weight; every tensor of teacher and student asks for a gradient."""
    generator = torch.Generator().manual_seed(len(weights))

    def random(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64).requires_grad_()

    extra, points = torch.Generator().manual_seed(7), torch.Generator().manual_seed(8)

    def head() -> Head:
        """A head of masks on a grid of half the stride of p3, and of four keypoints."""
        (height, width), anchors = grid.shapes["p3"], grid.anchors
        shapes = {COEFFICIENTS: (batch, anchors, 3), PROTOTYPES: (batch, 3, 2 * height, 2 * width)}
        extras = {
            name: torch.randn(shape, generator=extra, dtype=torch.float64).requires_grad_()
            for name, shape in shapes.items()
        }
        for name, width in {OFFSETS: 8, VISIBILITY: 4}.items():
            values = torch.randn(batch, anchors, width, generator=points, dtype=torch.float64)
            extras[name] = values.requires_grad_()
        return Head(random(batch, anchors, classes), random(batch, anchors, 4 * bins), grid, extras)

    def features(channels: dict[str, int]) -> dict[str, Tensor]:
        return {level: random(batch, channels[level], *shape) for level, shape in grid.shapes.items()}

    return Step(
        student=features(STUDENT_CHANNELS),
        teacher=features(TEACHER_CHANNELS),
        grid=grid,
        branches=tuple(
            Branch(
                name=name,
                weight=weight,
                student=head(),
                teacher=head(),
                positives=torch.rand(batch, grid.anchors, generator=generator) < 0.1,
                target_scores_sum=torch.tensor(4.5),
            )
            for name, weight in zip(("one2many", "one2one"), weights, strict=False)
        ),
        teacher_scores=random(batch, grid.anchors).sigmoid(),
    )


def doubled(step: Step) -> Step:
    """Return the step with its batch repeated."""

    def twice(x: Tensor) -> Tensor:
        return torch.cat((x, x))

    def head(one: Head) -> Head:
        return Head(twice(one.logits), twice(one.raw), one.grid, {name: twice(x) for name, x in one.extras.items()})

    return Step(
        student={level: twice(x) for level, x in step.student.items()},
        teacher={level: twice(x) for level, x in step.teacher.items()},
        grid=step.grid,
        branches=tuple(
            Branch(b.name, b.weight, head(b.student), head(b.teacher), twice(b.positives), 2 * b.target_scores_sum)
            for b in step.branches
        ),
        teacher_scores=None if step.teacher_scores is None else twice(step.teacher_scores),
    )


def cast(step: Step, dtype: torch.dtype) -> Step:
    """Return the step with detached features of another dtype."""
    student, teacher = (
        {level: x.detach().to(dtype) for level, x in side.items()} for side in (step.student, step.teacher)
    )
    return replace(step, student=student, teacher=teacher)


def gradient(values: Tensor, x: Tensor) -> Tensor:
    """Return the gradient of the sum of `values` by `x`, which must take part in it."""
    return torch.autograd.grad(values.sum(), x, retain_graph=True)[0]


def moves(values: Tensor, x: Tensor) -> bool:
    """Say whether any gradient flows from `values` to `x`."""
    assert x.requires_grad
    found = torch.autograd.grad(values.sum(), x, retain_graph=True, allow_unused=True)[0]
    return found is not None and bool(found.any())


def images(step: Step, part: slice) -> Step:
    """Return the step of some images of the batch, with leaves of its own; masses of soft labels stay."""

    def leaf(x: Tensor) -> Tensor:
        return x.detach()[part].clone().requires_grad_()

    def head(one: Head) -> Head:
        return Head(leaf(one.logits), leaf(one.raw), one.grid, {name: leaf(x) for name, x in one.extras.items()})

    return replace(
        step,
        student={level: leaf(x) for level, x in step.student.items()},
        teacher={level: leaf(x) for level, x in step.teacher.items()},
        branches=tuple(
            replace(b, student=head(b.student), teacher=head(b.teacher), positives=b.positives[part])
            for b in step.branches
        ),
        teacher_scores=None if step.teacher_scores is None else leaf(step.teacher_scores),
        boxes_xyxy_px=step.boxes_xyxy_px[part],
    )
