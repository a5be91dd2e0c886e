"""`batch: -1` under a teacher: what is measured, and that measuring leaves no trace."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest
import torch
from torch import Tensor
from ultralytics.utils import autobatch

from tests.helpers.fixtures import Pair
from tests.helpers.models import detector
from tests.helpers.teacher_student import pair_of
from yolokd.backend.checkpoints import load
from yolokd.distillation.model import TeacherStudent
from yolokd.recipe import Recipe
from yolokd.training.auto_batch import StepProbe, whole_steps
from yolokd.training.run import start

RECIPES: dict[str, dict[str, Any]] = {
    "bckd_ssim": {"losses": {"bckd": {}, "ssim": {}}, "schedule": {"warmup": 1.0}},
    "early": {"losses": {"ssim": {}}, "schedule": {"until": 0.3}},
    "ikd": {"losses": {}, "augment": {"ikd": {}}},
    "unlabeled": {"losses": {"bckd": {}}, "train": {"unlabeled": "frames", "unlabeled_share": 0.5}},
    "soft": {"losses": {"soft": {}}, "teacher": {"answers": "stored"}},
    "pseudo": {
        "losses": {},
        "teacher": {"answers": "stored"},
        "train": {"pseudo_labels": 0.3, "unlabeled": "frames"},
    },
}


def pair(recipe: Recipe) -> TeacherStudent:
    return pair_of(recipe, detector("v8"), detector("v8", width=0.25, seed=1))


def state(model: TeacherStudent) -> dict[str, Tensor]:
    return {key: value.clone() for key, value in model.state_dict().items()}


@pytest.mark.parametrize("name", RECIPES)
def test_whole_steps__are_steps_and_leave_no_trace(name: str) -> None:
    recipe = Recipe.from_dict(RECIPES[name])
    model = pair(recipe)
    before, run = state(model), model.distillation
    assert run is not None
    run.epochs = 3
    counts = deepcopy(vars(run.counts))
    with whole_steps(model, recipe) as probe:
        losses = deepcopy(probe)(torch.zeros(2, 3, 64, 64))
        losses.sum().backward()
        assert losses.isfinite().all()
        assert any(p.grad is not None and p.grad.any() for p in model.student_model.parameters())
        if recipe.terms():
            assert (losses[3:].detach() > 0).any()  # the terms act, whatever their warm-up
    assert model.distillation is run
    assert getattr(model.student_model, "criterion", None) is None  # which takes class weights that come later
    assert vars(run.counts) == counts
    assert all(p.grad is None for p in model.parameters())
    after = state(model)
    assert after.keys() == before.keys()
    assert all(torch.equal(value, before[key]) for key, value in after.items())


def test_whole_steps__unlabeled_images_come_on_top() -> None:
    recipe = Recipe.from_dict(RECIPES["unlabeled"])
    model = pair(recipe)
    seen: list[int] = []
    model.student_model.register_forward_pre_hook(lambda _, inputs: seen.append(len(inputs[0])))
    with whole_steps(model, recipe) as probe:
        probe(torch.zeros(3, 3, 64, 64))
    assert seen == [6]


def test_auto_batch__measures_the_whole_step(tiny_pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    measured: list[Any] = []

    def check(model: Any, **options: Any) -> int:
        measured.append(model)
        if isinstance(model, StepProbe):
            assert model(torch.zeros(2, 3, 64, 64)).isfinite().all()
        return 4

    monkeypatch.setattr("ultralytics.engine.trainer.check_train_batch_size", check)
    run = start(tiny_pair.plan("bckd_ssim", epochs=1, batch=-1))
    (probe,) = measured
    assert isinstance(probe, StepProbe)
    assert load(run / "weights" / "last.pt")[1]["train_args"]["batch"] == 4
    start(tiny_pair.plan("baseline", epochs=1, batch=-1))
    assert not isinstance(measured[1], StepProbe)


def test_probe__is_what_ultralytics_profiles() -> None:
    """Names that its search reads from a model."""
    recipe = Recipe.from_dict(RECIPES["bckd_ssim"])
    with whole_steps(pair(recipe), recipe) as probe:
        assert autobatch.check_train_batch_size(probe, imgsz=64, amp=False, batch=-1) == 16  # on a CPU
        assert len(probe.stride) == 3
        assert len(probe.names) == 3
