from __future__ import annotations

from dataclasses import replace
from math import log

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tests.helpers.steps import make_step
from yolokd.errors import RunError, ShapeError
from yolokd.losses.base import Answered, Head, Step
from yolokd.losses.soft import Soft, soft_targets
from yolokd.recipe import SoftConfig


def test_soft_targets__closed_form() -> None:
    alignment = torch.tensor([[0.0, 0.5, 1.0]])
    index = torch.tensor([[1, 1, 0]])
    chances = torch.tensor([[[0.8, 0.1], [0.4, 0.6]]])
    expected = torch.tensor([[[0.0, 0.0], [0.2, 0.3], [0.8, 0.1]]])
    torch.testing.assert_close(soft_targets(alignment, index, chances), expected)


def test_soft_targets__as_a_slow_loop_does() -> None:
    generator = torch.Generator().manual_seed(0)
    alignment = torch.rand(2, 7, generator=generator) * (torch.rand(2, 7, generator=generator) < 0.5)
    index = torch.randint(3, (2, 7), generator=generator)
    chances = torch.rand(2, 3, 4, generator=generator)
    found = soft_targets(alignment, index, chances)
    for b in range(2):
        for a in range(7):
            for k in range(4):
                wanted = float(alignment[b, a]) * float(chances[b, index[b, a], k]) if alignment[b, a] > 0 else 0.0
                assert float(found[b, a, k]) == pytest.approx(wanted)


def test_soft_targets__types_shapes_and_no_box_at_all() -> None:
    alignment, index = torch.zeros(1, 4, dtype=torch.float16), torch.full((1, 4), 99)
    found = soft_targets(alignment, index, torch.zeros(1, 0, 3, dtype=torch.float16))
    assert found.shape == (1, 4, 3)
    assert found.dtype == torch.float32
    assert not found.any()
    wide = soft_targets(alignment.double(), index, torch.rand(1, 2, 3, dtype=torch.float64))
    assert wide.dtype == torch.float64
    assert not soft_targets(alignment.float(), index, torch.rand(1, 2, 3, requires_grad=True)).requires_grad
    with pytest.raises(ShapeError, match=r"got \(1, 4\), \(1, 5\)"):
        soft_targets(alignment, torch.zeros(1, 5), torch.zeros(1, 2, 3))
    with pytest.raises(ShapeError, match="of 1 images, probabilities of 2"):
        soft_targets(alignment, index, torch.zeros(2, 2, 3))


def answered(step: Step, *, mass: float = 3.0) -> Step:
    """The step with targets at random places of each branch."""
    generator = torch.Generator().manual_seed(4)
    parts = []
    for branch in step.branches:
        logits = branch.student.logits
        here = torch.rand(logits.shape[:2], generator=generator) < 0.2
        targets = torch.rand(logits.shape, generator=generator, dtype=logits.dtype) * here[..., None]
        boxes = branch.student.boxes.detach() + 3.0
        parts.append(Answered(branch.weight, branch.student, targets, boxes, torch.tensor(mass)))
    return replace(step, answered=tuple(parts))


def maps(step: Step) -> dict[str, Tensor]:
    loss = Soft(SoftConfig())
    return loss.maps(step, loss.build({}, {}), list(loss.terms))


def test_soft__value_is_cross_entropy_and_weighted_overlap_over_the_mass() -> None:
    step = answered(make_step(weights=(0.7, 0.3)))
    found = maps(step)
    cls = box = 0.0
    for part in step.answered:
        entropy = F.binary_cross_entropy_with_logits(part.student.logits, part.targets, reduction="sum")
        cls += part.weight / 3 * float(entropy.detach())
        for b, a in part.targets.amax(-1).nonzero().tolist():
            weight = float(part.targets[b, a].max())
            box += part.weight / 3 * weight * (1 - ciou(part.student.boxes[b, a].tolist(), part.boxes[b, a].tolist()))
    assert found["soft_cls"].sum(1).mean().item() == pytest.approx(cls)
    assert found["soft_box"].sum(1).mean().item() == pytest.approx(box)


def ciou(one: list[float], other: list[float]) -> float:
    """Complete IoU of two boxes, by hand (Zheng et al., AAAI 2020)."""
    from math import atan, pi

    width = max(0.0, min(one[2], other[2]) - max(one[0], other[0]))
    height = max(0.0, min(one[3], other[3]) - max(one[1], other[1]))
    sizes = [(box[2] - box[0], box[3] - box[1]) for box in (one, other)]
    union = sum(w * h for w, h in sizes) - width * height
    iou = width * height / (union + 1e-7)
    diagonal = (max(one[2], other[2]) - min(one[0], other[0])) ** 2 + (
        max(one[3], other[3]) - min(one[1], other[1])
    ) ** 2
    apart = sum((one[i] + one[i + 2] - other[i] - other[i + 2]) ** 2 for i in (0, 1)) / 4
    v = 4 / pi**2 * (atan(sizes[1][0] / sizes[1][1]) - atan(sizes[0][0] / sizes[0][1])) ** 2
    return iou - apart / (diagonal + 1e-7) - v * v / (1 - iou + v + 1e-7)


def test_soft__is_least_where_the_scores_are_the_targets() -> None:
    step = answered(make_step(weights=(1.0,)))
    (part,) = step.answered
    targets = part.targets.clamp(1e-3, 1 - 1e-3)
    logits = (targets / (1 - targets)).log().requires_grad_()
    equal = Answered(1.0, Head(logits, part.student.raw, part.student.grid), targets, part.student.boxes, part.mass)
    found = maps(replace(step, answered=(equal,)))
    found["soft_cls"].sum().backward()
    assert logits.grad is not None
    assert float(logits.grad.abs().max()) < 1e-9
    assert found["soft_box"].abs().max().item() < 1e-6


def test_soft__one_anchor_by_hand() -> None:
    step = make_step(weights=(1.0,), batch=1, classes=1)
    student = step.branches[0].student
    head = Head(torch.zeros_like(student.logits), student.raw, student.grid)
    targets = torch.zeros_like(head.logits)
    part = Answered(1.0, head, targets, student.boxes.detach(), torch.tensor(2.0))
    found = maps(replace(step, answered=(part,)))
    torch.testing.assert_close(found["soft_cls"], torch.full_like(found["soft_cls"], log(2) / 2))
    assert not found["soft_box"].any()


def test_soft__without_answers_is_an_error() -> None:
    with pytest.raises(RunError, match="carries none"):
        maps(make_step())
