from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from tests.helpers.pairs import check_maps, check_optimum, config, equal_step
from tests.helpers.steps import GRID, make_step
from yolokd.errors import PairError, RunError, ShapeError
from yolokd.losses.base import Requirements
from yolokd.losses.ld import LD, ld_map

NONE = torch.nn.ModuleDict()


def ld(temperature: float = 10.0, average: str = "run") -> LD:
    return LD(config(temperature=temperature, average=average))


def four(bins: list[float]) -> torch.Tensor:
    """One anchor whose four sides have the same logits."""
    return torch.tensor(bins, dtype=torch.float64).expand(1, 1, 4, len(bins))


def pair(*shape: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    student, teacher = torch.randn(2, *shape, generator=generator, dtype=torch.float64).unbind(0)
    return student, teacher


def test_ld_map__sixteen_bins_in_closed_form() -> None:
    student = four([10 * math.log(2), *[0.0] * 15])
    value = ld_map(student, torch.zeros_like(student)).item()
    assert value == pytest.approx(100 * (math.log(17) - math.log(2) / 16 - math.log(16)) / 16, abs=1e-12)
    assert value == pytest.approx(0.108143, abs=1e-6)
    assert 16 * value == pytest.approx(1.730290, abs=1e-5)


def test_ld_map__two_bins_in_closed_form() -> None:
    value = ld_map(four([0, 0]), four([0, math.log(3)]), temperature=1.0).item()
    assert value == pytest.approx(0.065406, abs=1e-6)
    assert 2 * value == pytest.approx(0.130812, abs=1e-6)


def test_ld_map__equals_torchs_kl_div() -> None:
    student, teacher = pair(2, 5, 4, 16)
    terms = F.kl_div((student / 3).log_softmax(-1), (teacher / 3).softmax(-1), reduction="none")
    torch.testing.assert_close(ld_map(student, teacher, temperature=3.0), 9 * terms.mean((2, 3)), atol=1e-12, rtol=0)


def test_ld_map__gradient_reaches_the_student_only() -> None:
    student, teacher = (x.requires_grad_() for x in pair(1, 2, 4, 3))
    assert torch.autograd.gradcheck(lambda s: ld_map(s, teacher), student)
    torch.autograd.backward(ld_map(student, teacher).sum())
    assert teacher.grad is None


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_ld_map__half_precision_is_computed_in_float32(dtype: torch.dtype) -> None:
    student, teacher = (x.to(dtype) for x in pair(1, 5, 4, 16))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        values = ld_map(student, teacher)
    assert values.dtype == torch.float32
    torch.testing.assert_close(values, ld_map(student.double(), teacher.double()).float(), atol=1e-5, rtol=1e-4)


def test_ld_map__names_what_is_wrong() -> None:
    with pytest.raises(ValueError, match=r"temperature must be above 0, got -1\.0"):
        ld_map(four([0, 1]), four([0, 1]), temperature=-1.0)
    with pytest.raises(ShapeError, match=r"\(B, A, 4, R\) with R at least 2, got \(1, 1, 4, 1\)"):
        ld_map(four([0]), four([0]))
    with pytest.raises(ShapeError, match=r"got \(1, 1, 2, 3\)"):
        ld_map(torch.zeros(1, 1, 2, 3), torch.zeros(1, 1, 2, 3))
    with pytest.raises(ShapeError, match=r"\(1, 1, 4, 2\) and \(1, 1, 4, 3\)"):
        ld_map(four([0, 1]), four([0, 1, 2]))


def test_ld__value_is_the_weighted_mean_over_positives() -> None:
    step = make_step(batch=3, weights=(0.8, 0.2))
    values = ld(3.0).maps(step, torch.nn.ModuleDict(), ["ld"])["ld"]
    expected = 0.0
    for branch in step.branches:
        top = total = 0.0
        error = ld_map(branch.student.distribution, branch.teacher.distribution, temperature=3.0)
        for image, anchor in branch.positives.nonzero().tolist():
            score = branch.student.logits[image, anchor].sigmoid().max().item()
            top += score * error[image, anchor].item()
            total += score
        expected += branch.weight * top / total
    assert values.sum(1).mean(0).item() == pytest.approx(expected, abs=1e-12)
    assert values[~(step.branches[0].positives | step.branches[1].positives)].eq(0).all()


def test_ld__no_positives_give_zero_and_a_zero_gradient() -> None:
    step = make_step()
    (branch,) = step.branches
    step = replace(step, branches=(replace(branch, positives=torch.zeros_like(branch.positives)),))
    values = ld().maps(step, torch.nn.ModuleDict(), ["ld"])["ld"]
    torch.autograd.backward(values.sum())
    assert values.eq(0).all()
    assert branch.student.raw.grad is not None
    assert branch.student.raw.grad.eq(0).all()


def test_ld__the_weight_carries_no_gradient() -> None:
    step = make_step()
    torch.autograd.backward(ld().maps(step, torch.nn.ModuleDict(), ["ld"])["ld"].sum())
    assert step.branches[0].student.logits.grad is None


def test_ld__maps_and_optimum() -> None:
    assert check_maps(ld(), make_step(), {"ld": (2, GRID.anchors)})
    assert check_optimum(ld(), equal_step(make_step(weights=(0.7, 0.3))), torch.nn.ModuleDict())


def test_ld__refuses_heads_without_a_distribution() -> None:
    with pytest.raises(PairError, match="student's head has 1 bins per side and the teacher's 1"):
        ld().maps(make_step(bins=1), torch.nn.ModuleDict(), ["ld"])
    step = make_step()
    other = make_step(bins=3).branches[0].teacher
    step = replace(step, branches=(replace(step.branches[0], teacher=other),))
    with pytest.raises(PairError, match="4 bins per side and the teacher's 3"):
        ld().maps(step, torch.nn.ModuleDict(), ["ld"])


def test_ld__refuses_a_step_without_heads() -> None:
    with pytest.raises(RunError, match="`ld` needs the heads"):
        ld().maps(replace(make_step(), branches=()), torch.nn.ModuleDict(), ["ld"])
    assert LD.requires == Requirements(heads=True, distributions=True, objects=True)


@pytest.mark.parametrize("average", ["run", "batch"])
def test_ld__a_batch_with_few_objects_counts_by_the_runs_average(average: str) -> None:
    step = make_step()
    (branch,) = step.branches
    few = torch.zeros_like(branch.positives)
    few[0, :3] = True
    mean = torch.tensor(12.0, dtype=torch.float64)
    known = replace(branch, positives=few, averages={"positives": mean, "target_scores": mean})
    alone = ld().maps(replace(step, branches=(replace(known, averages=None),)), NONE, ("ld",))["ld"]
    found = ld(average=average).maps(replace(step, branches=(known,)), NONE, ("ld",))["ld"]
    share = 3 / (12 * len(few)) if average == "run" else 1.0
    torch.testing.assert_close(found, alone * share)
