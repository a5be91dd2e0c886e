"""`student.init` in whole runs: what the student has before its first step, and what plan and records say of it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor

from tests.engine.conftest import Pair
from tests.engine.models import detector, save
from yolokd.engine.classes import match_classes
from yolokd.engine.inheritance import UnfitTeacherError, inherit
from yolokd.engine.plan import from_yaml
from yolokd.engine.run import resolve_recipe, start
from yolokd.engine.trainer import DistillTrainer
from yolokd.engine.weights import load_detector
from yolokd.errors import RecipeError, RunError

LAYER = "model.6.cv1.conv.weight"


def before_training(pair: Pair, monkeypatch: pytest.MonkeyPatch, *overrides: str) -> dict[str, Tensor]:
    """Start a run and break it off before its first step; return the student's weights."""
    seen: dict[str, Tensor] = {}

    def stop(self: DistillTrainer) -> None:
        seen.update({key: value.clone() for key, value in self.model.student_model.state_dict().items()})
        raise ValueError("stopped by the test")

    with monkeypatch.context() as patch:
        patch.setattr(DistillTrainer, "set_model_attributes", stop)
        with pytest.raises(RunError, match="stopped by the test"):
            start(pair.plan(overrides=overrides, epochs=1))
    return seen


def test_init__teacher_gives_a_fitted_part_of_its_weights(tiny_pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    random = before_training(tiny_pair, monkeypatch)
    fitted = before_training(tiny_pair, monkeypatch, "student.init=teacher")
    student, teacher = from_yaml(tiny_pair.student, 3), load_detector(tiny_pair.teacher)
    student.names = dict(teacher.names)
    inherit(student, teacher, match_classes(student.names, teacher.names, {}))
    selected = {key: value.clone() for key, value in student.state_dict().items()}
    student.load_state_dict(fitted)
    read = np.asarray(cv2.imread(str(tiny_pair.data.parent / "images/train/000.png")))
    picture = torch.from_numpy(read[..., ::-1].copy())
    pixels = picture.permute(2, 0, 1)[None].float() / 255
    ours, theirs = (model.float().eval().model[0](pixels) for model in (student, teacher))
    torch.testing.assert_close(ours, theirs[:, ::2], rtol=0.05, atol=0.05)  # nothing is missing at the first layer
    assert not torch.allclose(fitted[LAYER], random[LAYER])
    assert not torch.allclose(fitted[LAYER], selected[LAYER])  # least squares went over it
    assert all(torch.isfinite(value).all() for value in fitted.values())


def test_init__same_weights_whenever_it_is_done(tiny_pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = (before_training(tiny_pair, monkeypatch, "student.init=teacher") for _ in range(2))
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_init__a_trained_student_keeps_its_weights(
    tiny_pair: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair = replace(tiny_pair, student=save(detector("v8", seed=5), tmp_path / "trained.pt"))
    plan = pair.plan(overrides=["student.init=teacher"])
    assert plan.inherited is None
    assert any("keeps them; student.init is not used" in note for note in plan.notes)
    kept = before_training(pair, monkeypatch, "student.init=teacher")
    torch.testing.assert_close(kept[LAYER], load_detector(pair.student).float().state_dict()[LAYER])


def test_init__another_family_is_refused_and_auto_goes_on(
    tiny_pair: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair = replace(tiny_pair, teacher=save(detector("11", width=0.25), tmp_path / "other.pt"))
    with pytest.raises(UnfitTeacherError, match=r"layer 2 is C2f in the student and C3k2 in the teacher\. Take"):
        pair.plan(overrides=["student.init=teacher"])
    plan = pair.plan(overrides=["student.init=auto"])
    assert "the student starts from random weights: layer 2 is C2f" in " ".join(plan.notes)
    random, automatic = (before_training(pair, monkeypatch, *more) for more in ([], ["student.init=auto"]))
    assert all(torch.equal(random[key], automatic[key]) for key in random)


def test_init__is_recorded(tiny_pair: Pair) -> None:
    run = start(tiny_pair.plan(overrides=["student.init=auto"], epochs=1))
    provenance = json.loads((run / "provenance.json").read_text())
    assert provenance["student_initialisation"].startswith("a part of the teacher's weights")


def test_init__needs_a_loss() -> None:
    with pytest.raises(RecipeError, match=r"student\.init: needs a loss"):
        resolve_recipe("baseline", ["student.init=teacher"])
