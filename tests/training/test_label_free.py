"""Runs whose images the teacher labels first."""

from __future__ import annotations

import csv
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.calling import Run, call, fails
from tests.helpers.fixtures import Pair
from tests.helpers.unlabeled import state_of
from yolokd.backend.checkpoints import load_detector
from yolokd.errors import DataError, UserError
from yolokd.training.label_free import is_label_free, labels_first
from yolokd.training.run import resolve_recipe, train

BUDGET: dict[str, Any] = {"epochs": 1, "imgsz": 64, "batch": 4, "device": "cpu"}
LOW = ["train.plots=false", "train.pseudo_labels=0.1"]


def test_is_label_free__only_without_data() -> None:
    assert is_label_free(resolve_recipe("bckd", unlabeled="frames"))
    assert not is_label_free(resolve_recipe("bckd", unlabeled="frames", data="road.yaml"))
    assert not is_label_free(resolve_recipe("bckd"))


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["bckd", "soft", "pseudo"])
def test_train__labels_into_the_run_and_trains(
    tiny_pair: Pair, frames: Path, seeing_pt: Path, recipe: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    before = state_of(frames)
    run = train(seeing_pt, tiny_pair.student, recipe, overrides=LOW, unlabeled=str(frames), name="free", **BUDGET)
    assert run == tmp_path / "runs" / "free"
    assert state_of(frames) == before
    assert (run / "labeled" / "data.yaml").is_file()
    assert load_detector(run / "weights" / "last.pt").names == {0: "class0", 1: "class1", 2: "class2"}
    with (run / "results.csv").open() as file:
        (row,) = csv.DictReader(file)
    assert float(row["train/box_loss"]) > 0
    if recipe == "soft":
        assert float(row["train/kd_soft_cls"]) > 0


def test_labels_first__goes_again_if_the_block_fails(frames: Path, seeing_pt: Path, tmp_path: Path) -> None:
    recipe = resolve_recipe("bckd", LOW, unlabeled=str(frames), name="free", **BUDGET)

    def fail() -> None:
        with labels_first(seeing_pt, recipe, runs=tmp_path / "runs") as found:
            assert found.made.path.is_file()
            raise UserError("later")

    with pytest.raises(UserError, match="later"):
        fail()
    assert not (tmp_path / "runs" / "free").exists()


@pytest.mark.parametrize("same", [True, False])
def test_labels_first__the_set_of_an_earlier_run_stays(
    frames: Path, seeing_pt: Path, tmp_path: Path, same: bool
) -> None:
    recipe = resolve_recipe("bckd", [*LOW, "train.exist_ok=true"], unlabeled=str(frames), name="free", **BUDGET)
    with labels_first(seeing_pt, recipe, runs=tmp_path / "runs") as first:
        before = state_of(first.made.path.parent)
    classes = [] if same else ["class1"]
    with nullcontext() if same else pytest.raises(DataError, match="holds"):  # noqa: SIM117
        with labels_first(seeing_pt, recipe, classes=classes, runs=tmp_path / "runs", keep=False):
            pass
    assert state_of(first.made.path.parent) == before


def test_labels_first__renamed_classes_are_mapped(frames: Path, seeing_pt: Path, tmp_path: Path) -> None:
    recipe = resolve_recipe("bckd", LOW, unlabeled=str(frames), name="free", **BUDGET)
    with labels_first(seeing_pt, recipe, classes=["class0=car", "class1"], runs=tmp_path / "runs") as found:
        assert resolve_recipe("bckd", [*LOW, *found.changes]).teacher.classes == {"class0": "car"}


def test_labels_first__no_teacher(frames: Path, tmp_path: Path) -> None:
    recipe = resolve_recipe("baseline", unlabeled=str(frames), **BUDGET)
    with pytest.raises(UserError, match="--teacher"), labels_first(None, recipe, runs=tmp_path / "runs"):
        pytest.fail("labeled without a teacher")


@pytest.fixture
def label_free(
    tiny_pair: Pair,
    frames: Path,
    seeing_pt: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Run:
    """Calls `yolokd train` without data, in an empty folder but for the images and the teacher."""
    monkeypatch.chdir(tmp_path)
    line = ["train", "--student", str(tiny_pair.student), "--teacher", str(seeing_pt), "--unlabeled", str(frames)]
    return partial(call, capsys, *line, "--imgsz", "64", "--device", "cpu", "--recipe", "bckd")


def test_train__dry_run_plans_and_keeps_the_answers_alone(
    label_free: Run, frames: Path, seeing_pt: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, there = state_of(frames), sorted(tmp_path.iterdir())
    code, said, _ = label_free("--set", "train.pseudo_labels=0.1", "--dry-run")
    assert (code, sorted(tmp_path.iterdir()), state_of(frames)) == (0, there, before)
    assert "its answers are kept for the run" in said
    assert "kd_bckd_cls" in said

    def asked_again(*_: object, **__: object) -> None:
        pytest.fail("the teacher answered twice")

    monkeypatch.setattr("yolokd.teachers.answers.ask", asked_again)
    recipe = resolve_recipe("bckd", LOW, unlabeled=str(frames), name="free", **BUDGET)
    with labels_first(seeing_pt, recipe, runs=tmp_path / "runs") as found:
        assert found.made.is_new


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--classes", "tree"], "none of the classes that the teachers know"),
        (["--classes", "class0", "--data", "road.yaml"], "a data set has its own classes"),
        (["--set", "train.pseudo_labels=0.99"], "see no object"),
    ],
)
def test_train__bad_input_leaves_nothing(label_free: Run, tmp_path: Path, options: list[str], words: str) -> None:
    assert fails(label_free(*options), words)
    assert not list(tmp_path.glob("runs/*"))
