"""`yolokd train` with several teachers, at another size, or with stored answers: the plan, and what is refused."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.helpers.calling import Run
from tests.helpers.models import detector, save
from tests.helpers.train_cli import refuses


def test_teacher__several_and_at_another_size_stand_in_the_plan(train: Run, train_files: Path, tmp_path: Path) -> None:
    teacher, other = str(train_files / "teacher.pt"), str(save(detector("26", seed=2), tmp_path / "other.pt"))
    cost = re.compile(r"about ([\d.]+) × plain")
    costs = []
    for options in ((), ("--teacher", other), ("--set", "teacher.scale=2")):
        code, out, error = train("--recipe", "bckd", "--teacher", teacher, *options)
        assert code == 0, error
        costs.append(float(cost.findall(out)[0]) - 1)
        assert len(re.findall(r"^ *teacher +/", out, re.MULTILINE)) == 1 + ("--teacher" in options)
        assert ("the teacher sees the images at 128 px" in out) == ("--set" in options)
        assert ("p4: layer" in out) == ("--set" in options)
    assert costs[1] > costs[0]
    assert costs[2] == pytest.approx(4 * costs[0], abs=0.03)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--teacher", "missing.pt"), ("no file 'missing.pt'",)),
        (("--teacher", "yolov8n.yaml"), ("'yolov8n.yaml' is a model description without weights",)),
        (("--teacher", "TEACHER"), ("is given twice",)),
        (("--teacher", "OTHER", "--recipe", "ld"), ("'ld' compares box distributions", "the teacher gives")),
        (("--teacher", "OTHER", "--recipe", "ikd"), ("attacks the teacher",)),
        (("--set", "teacher.models=[7]"), ("teacher.models[0]", "must be text")),
        (("--set", "teacher.scale=3"), ("teacher.scale: must be 1 or 2, got 3",)),
        (("--set", "teacher.scale=2", "--set", "train.rect=true"), ("teacher.scale is 2", "train.rect")),
        (("--set", "teacher.scale=2", "--set", "train.multi_scale=0.5"), ("teacher.scale is 2", "train.multi_scale")),
        (("--set", "teacher.scale=2", "--recipe", "ikd", "--set", "losses.fgd.levels=[p3, p4]"), ("attacks",)),
        (
            ("--set", "teacher.scale=2", "--recipe", "cwd", "--set", "losses.cwd.levels=[p4, p5]"),
            ("Leave p5 out (losses.cwd.levels)",),
        ),
    ],
)
def test_teacher__what_several_or_another_size_cannot_do(
    train: Run, train_files: Path, tmp_path: Path, options: tuple[str, ...], words: tuple[str, ...]
) -> None:
    names = {
        "TEACHER": str(train_files / "teacher.pt"),
        "OTHER": str(save(detector("26", seed=2), tmp_path / "other.pt")),
    }
    given = ("--teacher", names["TEACHER"], *(names.get(word, word) for word in options))
    recipe = () if "--recipe" in options else ("--recipe", "bckd")
    assert refuses(train(*given, *recipe), *words)


def test_teacher__stored_answers_have_a_size_of_their_own(train: Run, tmp_path: Path) -> None:
    text = "losses: {soft: {}}\nteacher: {answers: stored, scale: 2}\n"
    (tmp_path / "stored.yaml").write_text(text)
    assert refuses(train("--recipe", "stored.yaml"), "teacher.scale is 2", "stored answers")


def test_teacher__two_that_disagree_about_a_name(train: Run, train_files: Path, tmp_path: Path) -> None:
    other = detector("v8", seed=2)
    other.names = {0: "CLASS0", 1: "class1", 2: "class2"}
    path = save(other, tmp_path / "other.pt")
    assert refuses(
        train(
            *("--teacher", str(train_files / "teacher.pt"), "--teacher", str(path), "--allow-partial"),
            *("--set", "teacher.classes={class0: class0, CLASS0: class1}"),
        ),
        "The teachers disagree about the class 'CLASS0'",
    )
