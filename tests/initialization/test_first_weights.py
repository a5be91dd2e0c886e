"""`student.init` in whole runs: what the student has before its first step, and what plan and records say of it."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor

from tests.helpers.fixtures import Pair
from tests.helpers.models import detector, save
from tests.helpers.runs import stop_after
from tests.helpers.unlabeled import make_images
from yolokd.backend.checkpoints import load, load_detector
from yolokd.backend.classes import match_classes
from yolokd.backend.descriptions import from_yaml
from yolokd.errors import PairError, RecipeError, RunError, UserError
from yolokd.initialization.class_transfer import ClassRows, transfer_class_rows
from yolokd.initialization.weight_selection import UnfitTeacherError, select_weights
from yolokd.training import trainer
from yolokd.training.plan import Plan, make_plan
from yolokd.training.run import resolve_recipe, resume, start
from yolokd.training.trainer import DistillTrainer

pytestmark = pytest.mark.slow  # whole runs

LAYER = "model.6.cv1.conv.weight"
OUTPUT = "model.22.cv3.0.2"  # class output of p3


def before_training(
    pair: Pair, monkeypatch: pytest.MonkeyPatch, *overrides: str, recipe: str = "bckd_ssim"
) -> dict[str, Tensor]:
    """Start a run of a recipe and break it off before its first step; return the student's weights."""
    return stopped(pair.plan(recipe, overrides=overrides, epochs=1), monkeypatch)


def stopped(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> dict[str, Tensor]:
    """Start a run and break it off before its first step; return the student's weights."""
    seen: dict[str, Tensor] = {}

    def stop(self: DistillTrainer) -> None:
        student = getattr(self.model, "student_model", self.model)
        seen.update({key: value.clone() for key, value in student.state_dict().items()})
        raise ValueError("stopped by the test")

    with monkeypatch.context() as patch:
        patch.setattr(DistillTrainer, "set_model_attributes", stop)
        with pytest.raises(RunError, match="stopped by the test"):
            start(plan)
    return seen


def test_init__teacher_gives_a_fitted_part_of_its_weights(tiny_pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    random = before_training(tiny_pair, monkeypatch)
    fitted = before_training(tiny_pair, monkeypatch, "student.init=teacher")
    student, teacher = from_yaml(tiny_pair.student, 3), load_detector(tiny_pair.teacher)
    student.names = dict(teacher.names)
    select_weights(student, teacher, match_classes(student.names, teacher.names, {}))
    selected = {key: value.clone() for key, value in student.state_dict().items()}
    student.load_state_dict(fitted)
    read = np.asarray(cv2.imread(str(tiny_pair.data.parent / "images/train/000.png")))
    image = torch.from_numpy(read[..., ::-1].copy())
    pixels = image.permute(2, 0, 1)[None].float() / 255
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
    assert plan.selected is None
    assert any("keeps them; student.init is not used, and for such" in note for note in plan.notes)
    unlabeled = pair.plan(overrides=["student.init=teacher", f"train.unlabeled={make_images(tmp_path / 'free', 2)}"])
    assert any(note.endswith("keeps them; student.init is not used") for note in unlabeled.notes)
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


def test_init__without_losses_begins_alike(tiny_pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    alone = before_training(tiny_pair, monkeypatch, recipe="init")
    beside = before_training(tiny_pair, monkeypatch, "student.init=auto")
    assert all(torch.equal(alone[key], beside[key]) for key in beside)
    plain = before_training(tiny_pair, monkeypatch, recipe="baseline")
    assert not torch.allclose(alone[LAYER], plain[LAYER])


def test_init__without_losses_trains_as_plain_training_does(tiny_pair: Pair) -> None:
    plan = tiny_pair.plan("init", epochs=2)
    assert plan.cost == 1
    run = start(plan)
    assert "kd_" not in (run / "results.csv").read_text()
    provenance = json.loads((run / "provenance.json").read_text())
    assert provenance["teacher"] == str(tiny_pair.teacher)
    assert provenance["student_initialisation"].startswith("a part of the teacher's weights")


def test_init__without_losses_goes_on_where_it_stopped(tiny_pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """A resumed run starts from the checkpoint, which holds 16 bits, bit by bit, and not from the teacher once more."""
    seen: dict[str, Tensor] = {}

    def stop(self: DistillTrainer) -> None:
        seen.update({key: value.clone() for key, value in self.model.state_dict().items()})
        if self.epoch == 1:
            raise ValueError("stopped by the test")

    with monkeypatch.context() as patch:
        patch.setattr(DistillTrainer, "_model_train", stop)
        with pytest.raises(RunError, match="stopped by the test"):
            start(tiny_pair.plan("init", epochs=2))
        run = tiny_pair.runs / "init"
        copy = shutil.copytree(run, tiny_pair.runs / "copy")
        saved = load(run / "weights" / "last.pt")[0].state_dict()
        with pytest.raises(RunError, match="stopped by the test"):
            resume(str(copy))
    assert saved.keys() == seen.keys()
    assert all(torch.equal(saved[key].to(value.dtype), value) for key, value in seen.items())
    first, second = (
        load_detector(resume(str(folder)) / "weights" / "last.pt").state_dict()
        for folder in (run, shutil.copytree(copy, tiny_pair.runs / "again"))
    )
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert not torch.equal(first[LAYER], saved[LAYER].to(first[LAYER].dtype))


def many_classes(pair: Pair, path: Path) -> Pair:
    """The pair with a trained student of 40 classes, whose class branch is wider than one for the data's three."""
    student = detector("v8", classes=40, seed=5)
    student.names = {**student.names, 2: "other", 7: "triangle"}
    return replace(pair, student=save(student, path))


def class_plan(pair: Pair, *overrides: str, teacher: Path | None = None, **options: Any) -> Plan:
    budget = {"data": str(pair.data), "epochs": 2, "imgsz": 64, "batch": 8, "device": "cpu", **options}
    recipe = resolve_recipe("baseline", ["train.plots=false", "student.init=classes", *overrides], **budget)
    return make_plan(teacher, pair.student, recipe, runs=pair.runs)


def test_classes__rows_come_from_the_checkpoint_and_the_rest_is_as_without(
    tiny_pair: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair = many_classes(tiny_pair, tmp_path / "trained.pt")
    plan = class_plan(pair, "student.classes={triangle: class2}")
    assert plan.class_rows == "class0, class1 from the checkpoint by name; class2 from the checkpoint's triangle"
    note = f"class rows: {plan.class_rows}; all 40 hidden channels of the checkpoint's class branch are kept"
    assert note in plan.notes
    plain = stopped(pair.plan("baseline"), monkeypatch)
    taken = stopped(plan, monkeypatch)
    trained = load_detector(pair.student).float().state_dict()
    assert torch.equal(taken[f"{OUTPUT}.weight"], trained[f"{OUTPUT}.weight"][[0, 1, 7]])
    assert torch.equal(taken[f"{OUTPUT}.bias"], trained[f"{OUTPUT}.bias"][[0, 1, 7]])
    changed = {key for key in plain if not torch.equal(plain[key], taken[key])}
    assert changed == {f"model.22.cv3.{level}.2.{name}" for level in range(3) for name in ("weight", "bias")}


def test_classes__a_row_that_the_checkpoint_lacks_comes_from_the_teacher_with_and_without_losses(
    tiny_pair: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair = many_classes(tiny_pair, tmp_path / "trained.pt")
    plan = class_plan(pair, teacher=pair.teacher)
    assert plan.class_rows == "class0, class1 from the checkpoint by name; class2 fitted to the teacher's class2"
    alone = stopped(plan, monkeypatch)
    beside = stopped(pair.plan("bckd", overrides=["student.init=classes"]), monkeypatch)
    assert all(torch.equal(alone[key], beside[key]) for key in alone)
    without = stopped(class_plan(pair), monkeypatch)
    assert not torch.allclose(alone[f"{OUTPUT}.weight"][2], without[f"{OUTPUT}.weight"][2])
    assert torch.equal(alone[f"{OUTPUT}.weight"][:2], without[f"{OUTPUT}.weight"][:2])


def test_classes__a_teacher_that_nothing_needs_is_not_used(tiny_pair: Pair, tmp_path: Path) -> None:
    pair = many_classes(tiny_pair, tmp_path / "trained.pt")
    plan = class_plan(pair, "student.classes={triangle: class2}", teacher=pair.teacher)
    assert plan.teacher is None
    assert plan.classes is None
    assert "no loss and no class row needs the teacher: it is not used" in plan.notes


def test_classes__joined_ones_are_fitted(tiny_pair: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pair = many_classes(tiny_pair, tmp_path / "trained.pt")
    plan = class_plan(pair, "train.single_cls=true")
    assert plan.class_rows == "item fitted to the checkpoint's class0 + class1"
    taken, plain = (
        stopped(each, monkeypatch) for each in (plan, pair.plan("baseline", overrides=["train.single_cls=true"]))
    )
    assert not torch.allclose(taken[f"{OUTPUT}.weight"], plain[f"{OUTPUT}.weight"])


def test_classes__not_asked_for_nothing_changes_and_the_plan_says_what_starts_at_random(
    tiny_pair: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair = many_classes(tiny_pair, tmp_path / "trained.pt")
    plan = pair.plan("baseline")
    assert plan.class_rows is None
    assert any(note.startswith("class rows of class2 start at random, since the student's") for note in plan.notes)
    first, automatic = (
        stopped(pair.plan("best", overrides=more), monkeypatch) for more in (["student.init=random"], [])
    )
    assert all(torch.equal(first[key], automatic[key]) for key in first)  # auto is for students from scratch


def test_classes__a_resumed_run_does_not_take_them_again(
    tiny_pair: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair = many_classes(tiny_pair, tmp_path / "trained.pt")
    calls: list[str] = []

    def counted(student: Any, checkpoint: Any, rows: ClassRows, **more: Any) -> None:
        calls.append(rows.describe())
        transfer_class_rows(student, checkpoint, rows, **more)

    monkeypatch.setattr(trainer, "transfer_class_rows", counted)
    plan = class_plan(pair, "student.classes={triangle: class2}")
    with monkeypatch.context() as patch:
        stop_after(patch, 1)
        with pytest.raises(KeyboardInterrupt):
            start(plan)
    run = resume(str(pair.runs / "baseline"))
    assert [call.rpartition("; ")[2] for call in calls] == ["class2 from the checkpoint's triangle"]
    provenance = json.loads((run / "provenance.json").read_text())
    assert provenance["student_initialisation"].endswith("; class2 from the checkpoint's triangle")
    assert load_detector(run / "weights" / "last.pt").model[-1].cv3[0][-1].in_channels == 40


def test_classes__what_cannot_be_is_refused(tiny_pair: Pair, tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"and this student starts from scratch\. Give a trained one \(--student yolov8n"
    ):
        class_plan(tiny_pair)
    pair = many_classes(tiny_pair, tmp_path / "trained.pt")
    with pytest.raises(UserError, match=r"by name, which train\.cls_remap: false forbids"):
        class_plan(pair, "train.cls_remap=false")
    with pytest.raises(UserError, match="starts from scratch"):
        class_plan(pair, "train.pretrained=false")
    with pytest.raises(RecipeError, match=r"student\.classes\.square: the student's checkpoint has no class 'square'"):
        class_plan(pair, "student.classes={square: class2}")
    wide = save(detector("v8", width=0.25), tmp_path / "wide.pt")
    with pytest.raises(
        PairError, match=r"wide\.pt', but inputs of its head are 64, 128, 256, the student's 32, 64, 128"
    ):
        class_plan(pair, f"train.pretrained={wide}")


def test_init__needs_a_teacher(tiny_pair: Pair) -> None:
    recipe = resolve_recipe("init", data=str(tiny_pair.data), imgsz=64, device="cpu")
    with pytest.raises(UserError, match=r"'init' starts from a teacher's weights and needs --teacher\."):
        make_plan(None, tiny_pair.student, recipe, runs=tiny_pair.runs)
