"""Gradients that are taken at once are those of a common backward pass, and their graph is gone."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.helpers.models import batch, detector
from tests.helpers.teacher_student import pair_of
from yolokd.bench.timer import peak_bytes
from yolokd.distillation.loss_accumulator import LossAccumulator, settle
from yolokd.distillation.model import TeacherStudent
from yolokd.losses.base import Grid, Loss, Step
from yolokd.recipe import Recipe

GRID = Grid({"p3": (1, 2), "p4": (1, 1)}, {"p3": 8, "p4": 16})
FEATURES: dict[str, Any] = {
    "ssim": {},
    "samkd": {"gain": "auto", "ratio": 0.5},
    "fgd": {},
    "fbkd": {},
    "ultralytics": {},
    "bckd": {},
}


def leaf(*values: float) -> Tensor:
    return torch.tensor(values, requires_grad=True)


def gradient_of(x: Tensor) -> list[float]:
    assert x.grad is not None
    values: list[float] = x.grad.tolist()
    return values


def test_settle__values_and_gradients_are_those_of_the_graph() -> None:
    x, y = leaf(1.0, 2.0), leaf(3.0)
    values = {"first": (x**2).sum() * y[0], "second": (x * 5).sum()}
    settled = settle(values, [(x, x), (y, y)])
    assert {name: value.item() for name, value in settled.items()} == {"first": 15.0, "second": 15.0}
    (2 * settled["first"] + settled["second"]).backward()
    assert gradient_of(x) == [2 * 2 * 1 * 3 + 5, 2 * 2 * 2 * 3 + 5]
    assert gradient_of(y) == [2 * 5.0]


def test_settle__the_origin_gets_the_gradient_and_passes_it_on() -> None:
    x = leaf(3.0)
    origin = x**2
    cut = origin.detach().requires_grad_()
    settled = settle({"value": (7 * cut).sum()}, [(cut, origin)])["value"]
    first, second = (torch.autograd.grad(settled, x, retain_graph=True)[0] for _ in range(2))
    assert first.tolist() == second.tolist() == [7 * 2 * 3.0]
    assert cut.grad is None


def test_settle__what_needs_no_gradient_stays_as_it_is() -> None:
    x, fixed, other = leaf(2.0), torch.tensor([4.0]), leaf(9.0)
    settled = settle({"fixed": fixed.sum(), "value": (x * fixed).sum()}, [(x, x), (fixed, fixed), (other, other)])
    assert not settled["fixed"].requires_grad
    settled["value"].backward()
    assert gradient_of(x) == [4.0]
    assert other.grad is None  # not even zeros: nothing depends on it


def test_settle__a_value_that_depends_on_something_else_is_refused() -> None:
    x, other = leaf(2.0), leaf(3.0)
    with pytest.raises(ValueError, match="second depends on nothing"):
        settle({"first": x.sum(), "second": other.sum()}, [(x, x)])


def test_settle__held_gradients_are_gone_after_the_backward_pass() -> None:
    x = leaf(1.0, 2.0)
    settled = settle({"value": (x**2).sum()}, [(x, x)])["value"]
    node: Any = settled.grad_fn
    assert node.saved_tensors[0].tolist() == [2.0, 4.0]
    loss = 3 * settled  # which a trainer keeps until its next step
    loss.backward()
    with pytest.raises(RuntimeError, match="second time"):
        loss.backward()
    assert gradient_of(x) == [6.0, 12.0]
    with pytest.raises(RuntimeError, match="freed"):
        node.saved_tensors  # noqa: B018


def test_settle__frees_what_the_gradient_took() -> None:
    x = leaf(1.0, 2.0)
    between = x.exp()
    alive = weakref.ref(between)
    value = (between * between).sum()
    del between
    assert alive() is not None
    settled = settle({"value": value}, [(x, x)])
    del value
    gc.collect()
    assert alive() is None
    settled["value"].backward()
    torch.testing.assert_close(x.grad, 2 * (2 * x.detach()).exp())


def test_tally__adds_pieces_under_their_weights() -> None:
    class Weights:
        def of(self, ndim: int, *, head: bool) -> Tensor:
            places = torch.tensor([[1.0, 1.0, 3.0], [1.0, 1.0, 1.0]])
            return (2 if head else 1) * places[:, : 3 if ndim == 2 else 1].squeeze(1)

    weights: Any = Weights()
    x = leaf(1.0, 2.0, 4.0)
    accumulator = LossAccumulator(GRID, weights, {"head"})
    accumulator.add({"feature": torch.stack([x * torch.tensor([1.0, 1.0, 0.0])] * 2)}, [(x, x)])
    accumulator.add({"feature": torch.stack([x * torch.tensor([0.0, 0.0, 1.0])] * 2)}, [(x, x)])
    accumulator.add({"head": x.expand(2, 3)})
    accumulator.add({"adversarial example": x.expand(1, 3)})  # of the first image only
    assert accumulator.maps["feature"].tolist() == [[1.0, 2.0, 12.0], [1.0, 2.0, 4.0]]
    assert {t: v.item() for t, v in accumulator.values.items()} == {
        "feature": 11.0,
        "head": 22.0,
        "adversarial example": 15.0,
    }
    assert {t: m.tolist() for t, m in accumulator.levels.items()} == {
        "feature": [3.0, 8.0],
        "head": [6.0, 16.0],
        "adversarial example": [3.0, 12.0],
    }
    assert not any(m.requires_grad for m in (*accumulator.maps.values(), *accumulator.levels.values()))
    gradient = torch.autograd.grad(accumulator.values["feature"], x)[0]
    assert gradient.tolist() == [1.0, 1.0, 2.0]


def model_of(losses: Mapping[str, Any], *, family: str = "v8", **sections: Any) -> TeacherStudent:
    recipe = Recipe.from_dict({"losses": dict(losses), **sections})
    torch.manual_seed(0)  # of the parts that are trained
    return pair_of(recipe, detector(family), detector("v8", width=0.25, seed=1))


def together(
    self: TeacherStudent,
    step: Step,
    losses: Mapping[str, Loss],
    active: Mapping[str, float],
    accumulator: LossAccumulator,
) -> None:
    """Compare as if memory did not matter: all losses at once, in one graph."""
    modules: Any = self.projector
    for name, loss in losses.items():
        accumulator.add(loss.maps(step, modules[name], [term for term in loss.terms if term in active]))


def gradients(model: TeacherStudent) -> dict[str, Tensor | None]:
    model.zero_grad(set_to_none=True)
    model(batch())[0].sum().backward()
    return {name: p.grad for name, p in model.named_parameters() if p.requires_grad}


@pytest.mark.slow
@pytest.mark.parametrize("family", ["v8", "26"])
@pytest.mark.parametrize("sections", [{}, {"weighting": {"aid": {"alpha": 0.5}}}], ids=["plain", "aid"])
@pytest.mark.parametrize("frozen", [0, 12], ids=["trained", "frozen"])
def test_step__gradients_are_those_of_all_losses_together(
    family: str, sections: dict[str, Any], frozen: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def model() -> TeacherStudent:
        made = model_of(FEATURES, family=family, **sections)
        for layer in list(made.student_model.model)[:frozen]:
            layer.requires_grad_(False)
        return made

    found = gradients(model())
    monkeypatch.setattr(TeacherStudent, "_compare", together)
    expected = gradients(model())
    assert {name for name, g in found.items() if g is None} == {name for name, g in expected.items() if g is None}
    one, other = (torch.cat([g.flatten() for g in all_.values() if g is not None]) for all_ in (found, expected))
    assert (one - other).norm() < 1e-5 * other.norm()


@pytest.mark.slow
def test_step__losses_on_features_take_the_memory_of_the_largest(monkeypatch: pytest.MonkeyPatch) -> None:
    def peak(*names: str) -> int:
        model = model_of({name: {} for name in names})
        data = batch(4, imgsz=160)
        return peak_bytes(lambda: model(data)[0].sum().backward(), torch.device("cpu"))

    largest = max(peak(name) for name in ("ssim", "cwd", "pkd"))
    assert peak("ssim", "cwd", "pkd") < 1.02 * largest
    monkeypatch.setattr(TeacherStudent, "_compare", together)
    assert peak("ssim", "cwd", "pkd") > 1.1 * largest
