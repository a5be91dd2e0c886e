"""The regime of a run: in its plan, its files, when it is resumed, and where no run is planned."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.fixtures import Pair
from tests.helpers.models import detector, save
from tests.helpers.runs import stop_after
from tests.helpers.unlabeled import make_images
from yolokd.errors import UserError
from yolokd.recipe import load_recipe
from yolokd.training.regime import as_started, in_its_regime, with_losses
from yolokd.training.resume import check_same, read_interrupted
from yolokd.training.run import resolve_recipe, resume, start


@pytest.fixture
def trained(tiny_pair: Pair, tmp_path: Path) -> Pair:
    """The pair with a student that has trained weights."""
    return replace(tiny_pair, student=save(detector("v8"), tmp_path / "student.pt"))


def test_in_its_regime__a_recipe_without_regimes_stays_what_it_is() -> None:
    recipe = load_recipe("bckd")
    assert in_its_regime(recipe, "student.pt") == (recipe, [])


@pytest.mark.parametrize(
    ("student", "overrides", "words"),
    [
        ("s.yaml", [], "best for a student from scratch: BCKD, and first weights"),
        ("s.pt", ["train.pretrained=false"], "best for a student from scratch: "),
        ("s.yaml", ["train.pretrained=s.pt"], "best for a student that starts from trained weights, with all images"),
        ("s.yaml", ["train.unlabeled=free"], "best for a student from scratch: "),
        ("yolov8n", [], "best for a student that starts from trained weights, with all images labeled: plain training"),
        ("yolov8n", ["train.unlabeled=free"], "trained weights, with images without labels: pseudo-labels"),
    ],
)
def test_in_its_regime__says_which(student: str, overrides: list[str], words: str) -> None:
    recipe, (note,) = in_its_regime(load_recipe("best", overrides), student)
    assert words in note
    assert not recipe.regimes


def test_in_its_regime__none_fits(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("losses: {pkd: {}}\nregimes: [{when: {student: scratch}, losses: {pkd: null}}]")
    recipe, notes = in_its_regime(load_recipe(file), "s.pt")
    assert recipe.terms() == {"pkd": 10.0}
    assert notes == ["mine: none of its regimes fits, so it is as written without them"]
    recipe, notes = in_its_regime(load_recipe(file), "s.yaml")
    assert recipe.terms() == {}
    assert notes == ["mine for a student from scratch: no note in the recipe"]


def test_with_losses__of_the_student_or_else_of_the_first_regime_that_has_some() -> None:
    own, (note,) = with_losses(load_recipe("best"), "s.yaml")
    other, notes = with_losses(load_recipe("best"), "last.pt")
    assert own == other
    assert own.terms() == {"bckd_cls": 8.0, "bckd_box": 32.0}
    assert "from scratch" in note
    assert notes[-1] == "there it has no losses, so these are its losses for a student from scratch"
    none, notes = with_losses(load_recipe("best", ["losses.bckd=null"]), "last.pt")
    assert (none.terms(), len(notes)) == ({}, 1)


def test_make_plan__pseudo_labels_for_trained_weights_and_images_without_labels(trained: Pair, tmp_path: Path) -> None:
    plan = trained.plan("best", unlabeled=str(make_images(tmp_path / "free")))
    assert (plan.recipe.name, plan.recipe.regimes, plan.folder.name) == ("best", (), "best")
    assert plan.recipe.pseudo_labels
    assert plan.recipe.terms() == {}
    assert plan.teacher is not None
    assert plan.unlabeled is not None
    assert plan.notes[0].startswith("best for a student that starts from trained weights, with images without labels: ")


def test_start__trains_plainly_bit_for_bit_and_keeps_its_name(trained: Pair) -> None:
    run, plain = start(trained.plan("best", epochs=1)), start(trained.plan("baseline", epochs=1))
    columns = [(folder / "results.csv").read_text().splitlines() for folder in (run, plain)]
    assert columns[0][0] == columns[1][0]
    ours, theirs = (line[1].split(",") for line in columns)
    time = columns[0][0].split(",").index("time")
    assert ours[:time] + ours[time + 1 :] == theirs[:time] + theirs[time + 1 :]
    provenance = json.loads((run / "provenance.json").read_text())
    assert (provenance["recipe"], provenance["teacher"]) == ("best", None)
    written = load_recipe(run / "recipe.yaml")
    assert (written.regimes, written.terms(), written.student.init) == ((), {}, "random")


# Resuming


def test_resume__under_best_as_it_was_started(tiny_pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = tiny_pair.plan("best", epochs=2)
    with monkeypatch.context() as patch:
        stop_after(patch, 1)
        with pytest.raises(KeyboardInterrupt):
            start(plan)
    with pytest.raises(UserError, match=r"another recipe: losses.bckd.cls: 4.0 here, 8.0 there"):
        resume(str(plan.folder), recipe=resolve_recipe("best", ["losses.bckd.cls=4"]))
    assert resume(str(plan.folder), recipe=resolve_recipe("best")) == plan.folder
    assert len((plan.folder / "results.csv").read_text().splitlines()) == 3


def test_resume__a_run_that_an_earlier_best_started(trained: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = trained.plan("bckd", ["student.init=auto"], name="best", epochs=2)  # what best was for every student
    plan.recipe._name = "best"
    with monkeypatch.context() as patch:
        stop_after(patch, 1)
        with pytest.raises(KeyboardInterrupt):
            start(plan)
    asked: Any = as_started(load_recipe("best"), plan.recipe, str(trained.student))
    with pytest.raises(UserError, match=r"another recipe: losses.bckd: absent here"):
        check_same(read_interrupted(str(plan.folder)), asked, None, [])
    assert resume(str(plan.folder)) == plan.folder
    written = load_recipe(plan.folder / "recipe.yaml")
    assert (written.terms(), written.student.init) == ({"bckd_cls": 8.0, "bckd_box": 32.0}, "auto")


@pytest.mark.parametrize(
    ("student", "overrides", "terms", "pseudo"),
    [
        ("s.yaml", [], {"bckd_cls": 8.0, "bckd_box": 32.0}, False),
        ("s.pt", [], {}, False),
        ("s.pt", ["train.unlabeled=free"], {}, True),
        ("s.pt", ["train.pretrained=false"], {"bckd_cls": 8.0, "bckd_box": 32.0}, False),
    ],
)
def test_as_started__by_the_runs_own_arguments(
    student: str, overrides: list[str], terms: dict[str, float], pseudo: bool
) -> None:
    started = load_recipe("baseline", overrides)
    recipe = as_started(load_recipe("best"), started, student)
    assert (recipe.terms(), recipe.pseudo_labels) == (terms, pseudo)
