"""Stored answers and pseudo-labels in whole runs."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ultralytics import YOLO

from tests.helpers.fixtures import Pair
from tests.helpers.models import save
from tests.helpers.panels import seeing
from tests.helpers.unlabeled import make_images, state_of
from yolokd.distillation.pseudo_labels import PseudoLabels
from yolokd.errors import PairError, UserError
from yolokd.files import cache_folder
from yolokd.loaders.answers import AnswerTable
from yolokd.locks import locked
from yolokd.recipe import Recipe
from yolokd.teachers import answers as store
from yolokd.teachers import asking
from yolokd.training.answers import KEY, asked_size, learned_classes, thresholds
from yolokd.training.run import resume, start
from yolokd.training.trainer import LOCK, DistillTrainer

STORED = ("teacher.answers=stored", "teacher.flip=false")


@pytest.fixture
def seeing_pair(tiny_pair: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Pair:
    """The pair with a teacher that sees something, and a place of its own for answers."""
    model = seeing("v8", 3)
    model.names = dict(YOLO(tiny_pair.teacher).names)
    monkeypatch.setenv("YOLOKD_CACHE", str(tmp_path / "cache"))
    return Pair(save(model, tmp_path / "seeing.pt"), tiny_pair.student, tiny_pair.data, tiny_pair.runs)


@pytest.fixture
def free(tmp_path: Path) -> Path:
    return make_images(tmp_path / "free", 6)


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "results.csv").open() as stream:
        return [{key.strip(): value.strip() for key, value in row.items()} for row in csv.DictReader(stream)]


def soft(folder: Path) -> str:
    path = folder / "soft.yaml"
    path.write_text("losses: {soft: {}}\n")
    return str(path)


@pytest.mark.slow
@pytest.mark.parametrize("paired", [False, True])
def test_run__soft_and_pseudo_labels_from_stored_answers(
    seeing_pair: Pair, free: Path, tmp_path: Path, paired: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    batches: list[Any] = []
    original = DistillTrainer.preprocess_batch

    def peek(self: Any, batch: dict[str, Any]) -> dict[str, Any]:
        found = original(self, batch)
        batches.append(found)
        return found

    monkeypatch.setattr(DistillTrainer, "preprocess_batch", peek)
    before = state_of(free)
    overrides = [*STORED, "train.pseudo_labels=0.1", f"train.unlabeled={free}"]
    plan = seeing_pair.plan(soft(tmp_path), overrides, epochs=2)
    assert any("is asked once about" in note and "at 128 px" in note for note in plan.notes)
    assert plan.cost == 2.0  # unlabeled images double it; the teacher adds nothing
    folder = start(plan, paired=paired)
    assert state_of(free) == before
    assert all(float(row["train/kd_soft_cls"]) > 0 for row in rows(folder))
    assert all(len(b["pseudo"].images) for b in batches)
    assert all(b["answers"].most == int(b["answers"].images.bincount().max()) for b in batches)
    assert all(len(b["cls"]) == sum(b["objects_per_image"]) for b in batches)
    labeled = {int(image) < len(b["img"]) for b in batches for image in b["answers"].images}
    assert labeled == {True, False}
    assert all(float(b["cls"].max()) < 3 for b in batches if len(b["cls"]))
    model = torch.load(folder / "weights" / "best.pt", weights_only=False)
    assert type(model["model"]).__name__ == "DetectionModel"
    assert model["yolokd"]["state"][KEY] == [0.1, 0.1, 0.1]


@pytest.mark.slow
def test_run__a_batch_that_is_halved_for_memory_keeps_the_answers(
    seeing_pair: Pair, free: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    batches: list[Any] = []
    original = DistillTrainer.preprocess_batch

    def peek(self: Any, batch: dict[str, Any]) -> dict[str, Any]:
        batches.append(original(self, batch))
        if len(batches) == 1:
            raise RuntimeError("out of memory")
        return dict(batches[-1])

    monkeypatch.setattr(DistillTrainer, "preprocess_batch", peek)
    overrides = [*STORED, "train.pseudo_labels=0.1", f"train.unlabeled={free}"]
    start(seeing_pair.plan(soft(tmp_path), overrides, epochs=1))
    assert [len(b["img"]) for b in batches] == [8, 4, 4, 4, 4]
    assert all(len(b["pseudo"].images) for b in batches)
    labeled = [{int(image) < len(b["img"]) for image in b["answers"].images} for b in batches]
    assert labeled == [{True, False}] * 5


@pytest.mark.slow
def test_run__the_second_asks_nothing(seeing_pair: Pair, free: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    original = asking.ask

    def ask(panel: Any, files: Sequence[str], **options: Any) -> Any:
        with locked(cache_folder() / LOCK, wait=False):  # which other runs wait for, for minutes at most
            asked.extend(files)
        return original(panel, files, **options)

    monkeypatch.setattr(store, "ask", ask)
    overrides = [*STORED, "train.pseudo_labels=true", f"train.unlabeled={free}"]
    start(seeing_pair.plan("baseline", overrides, epochs=1))
    first = len(asked)
    assert first > 6  # the labeled ones too, for the thresholds
    start(seeing_pair.plan("baseline", overrides, epochs=1, name="again"))
    assert len(asked) == first


@pytest.mark.slow
def test_run__pseudo_labels_change_the_student_and_a_resume_keeps_the_thresholds(
    seeing_pair: Pair, free: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    overrides = [*STORED, "train.pseudo_labels=true", f"train.unlabeled={free}"]
    plan = seeing_pair.plan("baseline", overrides, epochs=2)
    seen: list[Any] = []

    def stop(self: Any) -> bool:
        saved = original(self)
        seen.append(self.state[KEY])
        if self.epoch == 0:
            raise KeyboardInterrupt
        return bool(saved)

    original = DistillTrainer.save_model
    with monkeypatch.context() as patch:
        patch.setattr(DistillTrainer, "save_model", stop)
        with pytest.raises(KeyboardInterrupt):
            start(plan)

    def never(*_: Any, **__: Any) -> Any:
        raise AssertionError("thresholds of the interrupted run hold")

    monkeypatch.setattr("yolokd.training.answers.best_thresholds", never)
    folder = resume(str(plan.folder))
    assert [row["epoch"] for row in rows(folder)] == ["1", "2"]
    final = torch.load(folder / "weights" / "last.pt", weights_only=False)["yolokd"]["state"][KEY]
    assert final == seen[0]


@pytest.mark.slow
@pytest.mark.parametrize("answers", [STORED, ()])
def test_run__classes_that_are_not_learned_get_no_pseudo_labels(
    seeing_pair: Pair, free: Path, answers: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    kinds: set[int] = set()
    original = PseudoLabels.apply

    def peek(self: Any, batch: Any, *others: Any) -> Any:
        found = original(self, batch, *others)
        kinds.update(found.labels["cls"].flatten().long().tolist())
        return found

    monkeypatch.setattr(PseudoLabels, "apply", peek)
    overrides = [*answers, "train.pseudo_labels=0.05", f"train.unlabeled={free}", "train.classes=[1]"]
    start(seeing_pair.plan("baseline", overrides, epochs=1))
    assert kinds == {1}


@pytest.mark.parametrize(("asked", "left"), [(None, {0, 1, 2}), (1, {1}), ([0, 2], {0, 2})])
def test_learned_classes(asked: Any, left: set[int]) -> None:
    assert learned_classes(asked, 3) == left


@pytest.mark.slow
def test_run__live_pseudo_labels(seeing_pair: Pair, free: Path) -> None:
    folder = start(seeing_pair.plan("baseline", ["train.pseudo_labels=0.09", f"train.unlabeled={free}"], epochs=1))
    plain = start(seeing_pair.plan("baseline", epochs=1, name="plain"))
    weights = [torch.load(f / "weights" / "last.pt", weights_only=False)["model"].state_dict() for f in (folder, plain)]
    assert any(not torch.equal(weights[0][key], weights[1][key]) for key in weights[0])


@pytest.mark.parametrize(
    ("recipe", "overrides", "text"),
    [
        ("baseline", ["train.pseudo_labels=true"], "give them with --unlabeled"),
        ("bckd", [*STORED], "no loss of the recipe takes stored answers"),
        ("ssim", [*STORED, "train.pseudo_labels=0.5", "FREE"], "gives stored answers only"),
        ("SOFT", [], "this one answers live"),
        ("SOFT", [*STORED, "weighting.aid={}"], "set teacher.answers to live"),
    ],
)
def test_plan__what_does_not_fit_is_named(
    seeing_pair: Pair, free: Path, tmp_path: Path, recipe: str, overrides: list[str], text: str
) -> None:
    asked = [o.replace("FREE", f"train.unlabeled={free}") for o in overrides]
    with pytest.raises((UserError, PairError), match=text):
        seeing_pair.plan(soft(tmp_path) if recipe == "SOFT" else recipe, asked)


def test_plan__a_threshold_for_an_unknown_class(seeing_pair: Pair, free: Path) -> None:
    name = str(YOLO(seeing_pair.teacher).names[0])
    overrides = [f"train.pseudo_labels={{{name}x: 0.4}}", f"train.unlabeled={free}"]
    with pytest.raises(UserError, match=f"no class '{name}x'; did you mean '{name}'"):
        seeing_pair.plan("baseline", overrides)


def test_plan__without_a_teacher(seeing_pair: Pair, free: Path) -> None:
    from yolokd.training.plan import make_plan
    from yolokd.training.run import resolve_recipe

    recipe = resolve_recipe(
        "baseline", ["train.pseudo_labels=true", f"train.unlabeled={free}"], data=str(seeing_pair.data)
    )
    with pytest.raises(UserError, match="takes a teacher's pseudo-labels and needs --teacher"):
        make_plan(None, seeing_pair.student, recipe, runs=seeing_pair.runs)


@pytest.mark.parametrize(
    ("teacher", "size"), [({}, 64), ({"answers": "stored"}, 128), ({"answers": "stored", "imgsz": 96}, 96)]
)
def test_asked_size__twice_the_training_size_unless_told(teacher: dict[str, Any], size: int) -> None:
    assert asked_size(Recipe.from_dict({"losses": {}, "teacher": teacher}), 64) == size


def test_thresholds__a_number_for_all_or_by_name() -> None:
    table = AnswerTable({}, {}, torch.zeros(0, 2))
    names = {0: "car", 1: "bus"}
    assert thresholds(0.4, table, (), names) == [0.4, 0.4]
    assert thresholds({"bus": 0.6}, table, (), names) == [0.3, 0.6]
    assert thresholds(True, table, (), names) == [0.3, 0.3]
    assert np.isfinite(thresholds(True, table, (), names)).all()
