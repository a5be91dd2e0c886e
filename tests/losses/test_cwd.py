from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from tests.helpers.pairs import build, check_maps, check_optimum, config, equal_step
from tests.helpers.steps import GRID, TEACHER_CHANNELS, make_step
from yolokd.errors import ShapeError
from yolokd.losses.cwd import CWD, cwd_map, mass_gap_map


def pair(*shape: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    student, teacher = torch.randn(2, *shape, generator=generator, dtype=torch.float64).unbind(0)
    return student, teacher


def test_cwd_map__two_cells_in_closed_form() -> None:
    teacher = torch.tensor([0, math.log(3)], dtype=torch.float64).view(1, 1, 1, 2)
    values = cwd_map(torch.zeros_like(teacher), teacher)
    expected = torch.tensor([0.25 * math.log(0.5), 0.75 * math.log(1.5)], dtype=torch.float64)
    torch.testing.assert_close(values[0, 0], expected, atol=1e-12, rtol=0)
    assert values.sum().item() == pytest.approx(0.130812, abs=1e-6)


@pytest.mark.parametrize("tau", [1.0, 4.0])
def test_cwd_map__sum_equals_torchs_kl_div(tau: float) -> None:
    student, teacher = pair(2, 3, 4, 5)
    log_s, t = (student.flatten(2) / tau).log_softmax(-1), (teacher.flatten(2) / tau).softmax(-1)
    expected = tau**2 * F.kl_div(log_s, t, reduction="sum") / (2 * 3)
    torch.testing.assert_close(cwd_map(student, teacher, tau=tau).sum((1, 2)).mean(), expected, atol=1e-12, rtol=0)


def test_cwd_map__equals_a_slow_loop() -> None:
    student, teacher = pair(1, 2, 2, 2)
    expected = torch.zeros(1, 2, 2, dtype=torch.float64)
    for c in range(2):
        shares = []
        for x in (student, teacher):
            powers = [[math.exp(x[0, c, i, j].item() / 2) for j in range(2)] for i in range(2)]
            total = sum(map(sum, powers))
            shares.append([[value / total for value in row] for row in powers])
        for i in range(2):
            for j in range(2):
                s, t = shares[0][i][j], shares[1][i][j]
                expected[0, i, j] += 4 * t * math.log(t / s) / 2
    torch.testing.assert_close(cwd_map(student, teacher, tau=2.0), expected, atol=1e-12, rtol=0)


def test_cwd_map__gradient() -> None:
    student, teacher = (x.requires_grad_() for x in pair(1, 2, 2, 2))
    assert torch.autograd.gradcheck(lambda s: cwd_map(s, teacher, tau=2.0), student)
    assert torch.autograd.gradcheck(lambda s: mass_gap_map(s, teacher, tau=2.0), student)
    torch.autograd.backward((cwd_map(student, teacher) + mass_gap_map(student, teacher)).square().sum())
    assert teacher.grad is None


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_cwd_map__half_precision_is_computed_in_float32(dtype: torch.dtype) -> None:
    student, teacher = (x.to(dtype) for x in pair(1, 2, 40, 40))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        values = cwd_map(student, teacher)
    assert values.dtype == torch.float32
    torch.testing.assert_close(values, cwd_map(student.double(), teacher.double()).float(), atol=1e-8, rtol=1e-4)


def test_cwd_map__names_what_is_wrong() -> None:
    with pytest.raises(ValueError, match=r"tau must be above 0, got 0\.0"):
        cwd_map(torch.zeros(1, 1, 2, 2), torch.zeros(1, 1, 2, 2), tau=0.0)
    with pytest.raises(ShapeError, match=r"\(1, 2, 3, 3\) and \(1, 1, 3, 3\)"):
        cwd_map(torch.zeros(1, 2, 3, 3), torch.zeros(1, 1, 3, 3))


def test_mass_gap_map__sums_to_zero_and_makes_cells_non_negative() -> None:
    student, teacher = pair(2, 3, 4, 5)
    gap = mass_gap_map(student, teacher, tau=2.0)
    torch.testing.assert_close(gap.sum((1, 2)), torch.zeros(2, dtype=torch.float64), atol=1e-12, rtol=0)
    values = cwd_map(student, teacher, tau=2.0)
    assert values.min() < 0
    assert (values + gap).min() >= 0


def test_cwd__value_and_gradient_are_those_of_the_published_sum() -> None:
    step, loss = make_step(), CWD(config(tau=2.0))
    parts = build(loss)
    ours = loss.maps(step, parts, ["cwd"])["cwd"].sum(1).mean(0)
    published = torch.stack(
        [cwd_map(parts[level](step.student[level]), step.teacher[level], tau=2.0).sum() / 2 for level in GRID.shapes]
    ).sum()
    torch.testing.assert_close(ours, published)
    for level in GRID.shapes:
        (one,) = torch.autograd.grad(ours, step.student[level], retain_graph=True)
        (other,) = torch.autograd.grad(published, step.student[level], retain_graph=True)
        torch.testing.assert_close(one, other)


def test_cwd__maps_and_optimum() -> None:
    loss = CWD(config(tau=1.0))
    assert check_maps(loss, make_step(), {"cwd": (2, GRID.anchors)})
    assert check_optimum(loss, equal_step(make_step()), build(loss, TEACHER_CHANNELS))


def test_cwd_map__alone_has_no_optimum_at_equality_under_weights() -> None:
    _, teacher = pair(1, 2, 3, 3)
    student = teacher.clone().requires_grad_()
    weight = torch.linspace(0.1, 1, 9, dtype=torch.float64).view(1, 3, 3)
    torch.autograd.backward((weight * cwd_map(student, teacher)).sum())
    assert student.grad is not None
    assert student.grad.abs().max() > 1e-2  # why the wired loss adds the gap of the shares
