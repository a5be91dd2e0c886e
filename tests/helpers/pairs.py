"""What holds for every wired loss, for the tests of each of them."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from tests.helpers.steps import GRID, STUDENT_CHANNELS, TEACHER_CHANNELS, make_step
from yolokd.losses.base import Branch, Head, Loss, Step

LEVELS = tuple(GRID.shapes)
SIZE = (64, 96)  # of the images, in pixels
BOXES = (
    torch.tensor([[3.0, 5.0, 41.0, 30.0], [20.0, 10.0, 95.0, 63.0]], dtype=torch.float64),
    torch.zeros(0, 4, dtype=torch.float64),
)


def config(**values: Any) -> Any:
    """Return a stand-in for a recipe's configuration."""
    return SimpleNamespace(levels=LEVELS, **values)


def step_with_boxes(**options: Any) -> Step:
    """Return the shared step with one image that has objects and one that has none."""
    return replace(make_step(**options), boxes_xyxy_px=BOXES)


def equal_step(step: Step, *, positive: bool = False) -> Step:
    """Return the step with a student that says what the teacher says; `positive` makes all features so."""
    teacher = {level: x.detach().abs() if positive else x.detach() for level, x in step.teacher.items()}

    def equal(branch: Branch) -> Branch:
        head = branch.teacher
        logits, raw = (x.detach().clone().requires_grad_() for x in (head.logits, head.raw))
        extras = {name: x.detach().clone().requires_grad_() for name, x in head.extras.items()}
        return replace(branch, student=Head(logits, raw, head.grid, extras))

    return replace(
        step,
        student={level: x.clone().requires_grad_() for level, x in teacher.items()},
        teacher=teacher,
        branches=tuple(equal(branch) for branch in step.branches),
    )


def build(loss: Loss, student: dict[str, int] = STUDENT_CHANNELS) -> nn.ModuleDict:
    """Return the loss's parts in float64."""
    torch.manual_seed(0)
    return loss.build(student, TEACHER_CHANNELS).double()


def leaves(step: Step) -> list[Tensor]:
    """Return the student's tensors of a step."""
    heads = [branch.student for branch in step.branches]
    return [*step.student.values(), *(x for h in heads for x in (h.logits, h.raw, *h.extras.values()))]


def check_maps(loss: Loss, step: Step, expected: dict[str, tuple[int, ...]]) -> dict[str, Tensor]:
    """Check names and shapes, that each term comes alone too, and that no gradient reaches the teacher.

    Returns:
        The maps of all terms.
    """
    parts = build(loss)
    assert tuple(expected) == loss.terms
    maps = {}
    for term, shape in expected.items():
        alone = loss.maps(step, parts, [term])
        assert list(alone) == [term]
        maps[term] = alone[term]
        assert maps[term].shape == shape
        assert maps[term].dtype == torch.float64
        assert maps[term].isfinite().all()
    assert set(loss.maps(step, parts, loss.terms)) == set(expected)
    torch.autograd.backward([m.sum() for m in maps.values()])
    assert all(x.grad is None for x in step.teacher.values())
    assert all(x.grad is None for b in step.branches for x in (b.teacher.logits, b.teacher.raw))
    assert any(x.grad is not None and x.grad.abs().sum() > 0 for x in leaves(step))
    return maps


def check_optimum(loss: Loss, step: Step, parts: nn.ModuleDict) -> bool:
    """Check that a student equal to its teacher has loss and gradient 0, whatever positive weight each place has.

    Returns:
        True; else an assertion has failed.
    """
    generator = torch.Generator().manual_seed(5)
    for term, values in loss.maps(step, parts, loss.terms).items():
        torch.testing.assert_close(values, torch.zeros_like(values), atol=1e-12, rtol=0)
        weight = torch.rand(values.shape, generator=generator, dtype=torch.float64) + 0.1
        gradients = torch.autograd.grad((weight * values).sum(), leaves(step), allow_unused=True, retain_graph=True)
        reached = [g for g in gradients if g is not None]
        assert reached, term
        for gradient in reached:
            torch.testing.assert_close(gradient, torch.zeros_like(gradient), atol=1e-12, rtol=0)
    return True


def identity_generators(parts: nn.ModuleDict, *names: str) -> None:
    """Make both convolutions pass on what they get, so that positive features come out unchanged."""
    for name in names:
        for level in LEVELS:
            for parameter in parts.get_submodule(f"{name}.{level}").parameters():
                nn.init.dirac_(parameter) if parameter.ndim > 1 else nn.init.zeros_(parameter)
