from __future__ import annotations

import math
import statistics
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.making import Oracle, checkpoint, make_comparison, make_run
from yolokd.comparison.results import results
from yolokd.comparison.spec import read
from yolokd.report.arms import Arms, budget, gather
from yolokd.report.runs import read_run
from yolokd.report.scoring import Scores, open_images, score_study
from yolokd.report.study import open_study


def arms_of(folders: list[Path], data: Path, cache: Path) -> tuple[Arms, Scores]:
    study = open_study(folders)
    scores = score_study(study, open_images(str(data)), cache, progress=lambda name, share: None)
    return gather(study, scores), scores


@pytest.fixture
def sum_up(odd_data: Path, tmp_path: Path, oracle: Oracle) -> Any:
    return lambda *folders: arms_of(list(folders), odd_data, tmp_path / "cache")


def test_gather__runs_of_two_seeds_have_a_student_t_interval(runs: list[Path], sum_up: Any) -> None:
    arms, scores = sum_up(*runs)
    assert [arm.label for arm in arms.arms] == ["baseline", "bckd"]
    assert [arm.control for arm in arms.arms] == [True, False]
    first, second = (scores.runs[f"bckd-{seed}"].score.AP - scores.runs[f"plain-{seed}"].score.AP for seed in (0, 1))
    half = 12.7062047 * abs(first - second) / 2  # t(1) · s / √2, with s = |d| / √2
    difference = arms.arms[1].result.difference["AP"]
    assert difference.mean == pytest.approx((first + second) / 2)
    assert difference.low == pytest.approx(difference.mean - half)
    assert difference.pairs == 2
    assert difference.images_and_seeds is not None
    assert difference.images_and_seeds.low <= difference.low  # from the report's own scores
    plain = [scores.runs[f"plain-{seed}"].score.AP for seed in (0, 1)]
    master = next(iter(scores.teachers.values())).score.AP
    assert arms.teacher["AP"] == master
    floor = statistics.mean(plain)
    assert arms.arms[1].result.gap_closed["AP"] == pytest.approx(difference.mean / (master - floor))
    assert arms.arms[1].against == dict(enumerate(plain))
    assert arms.arms[1].result.seconds_per_epoch == 2
    assert arms.notes == ()


def test_gather__a_comparison_says_what_compare_said(
    tmp_path: Path, odd_data: Path, teacher: Path, sum_up: Any
) -> None:
    aps = {"baseline": (0.2, 0.3, 0.25), "bckd": (0.3, 0.4, 0.36), "ssim": (0.1, math.nan, 0.2)}
    folder = make_comparison(tmp_path / "c", odd_data, teacher, aps)
    arms, _ = sum_up(folder)
    assert tuple(arm.result for arm in arms.arms) == results(read(folder)).arms
    assert [arm.result.difference["AP"].verdict for arm in arms.arms[1:]] == ["gain", "undecided"]
    assert arms.teacher == {"AP": 0.8, "AP50": 0.9}
    assert arms.arms[1].against == {0: 0.2, 1: 0.3, 2: 0.25}
    assert list(arms.arms[2].runs) == ["student/ssim-0", "student/ssim-2"]


def test_gather__different_budgets_are_named_and_never_compared(
    tmp_path: Path, odd_data: Path, teacher: Path, runs: list[Path], sum_up: Any
) -> None:
    longer = make_run(tmp_path / "longer", odd_data, "bckd", 0, teacher=teacher, epochs=9, workers=5)
    arms, _ = sum_up(runs[0], longer)
    assert arms.arms[1].result.difference == {}
    assert arms.notes == (
        "bckd and plain training had different budgets, so no difference is taken: epochs 9 against 3.",
    )
    assert budget(read_run(longer)) == {"epochs": 9, "imgsz": 64, "batch": 8}


def test_gather__without_plain_training_or_a_common_seed_nothing_is_compared(runs: list[Path], sum_up: Any) -> None:
    arms, _ = sum_up(*runs[2:])
    assert "no plain training of 'student.yaml'" in arms.notes[0]
    arms, _ = sum_up(runs[0], runs[3])
    assert arms.arms[1].result.difference == {}
    assert arms.notes == ("bckd and plain training have no scored seed in common, so no difference is taken.",)


def test_gather__a_recipe_changed_by_hand_is_another_arm(
    tmp_path: Path, odd_data: Path, teacher: Path, runs: list[Path], sum_up: Any
) -> None:
    changed = make_run(tmp_path / "mine", odd_data, "bckd", 1, teacher=teacher)
    text = (changed / "recipe.yaml").read_text()
    (changed / "recipe.yaml").write_text(text.replace("box: 32.0", "box: 8.0"))
    arms, _ = sum_up(*runs, changed)
    assert [arm.label for arm in arms.arms] == ["baseline", "bckd (bckd-0)", "bckd (mine)"]
    (changed / "recipe.yaml").write_text("losses: {bckd: {cls: 8.0, box: 32.0}}\n")  # the same, without defaults
    (runs[3] / "provenance.json").unlink()
    arms, _ = sum_up(runs[0], runs[1], runs[2], changed)
    assert [list(arm.runs) for arm in arms.arms] == [["plain-0", "plain-1"], ["bckd-0", "mine"]]


def test_gather__the_same_seed_twice_cannot_be_paired(
    tmp_path: Path, odd_data: Path, runs: list[Path], sum_up: Any
) -> None:
    again = make_run(tmp_path / "again", odd_data, seed=0)
    arms, _ = sum_up(runs[0], again, runs[2])
    assert [arm.label for arm in arms.arms] == ["baseline (plain-0)", "baseline (again)", "bckd"]
    assert arms.arms[2].result.difference == {}
    assert "several plain trainings to be compared with (plain-0 and again)" in arms.notes[0]


def test_gather__an_unfinished_run_counts_in_no_mean(
    tmp_path: Path, odd_data: Path, runs: list[Path], sum_up: Any
) -> None:
    checkpoint(runs[1] / "weights" / "last.pt", "half", epoch=1)
    arms, scores = sum_up(*runs)
    assert "plain-1" in scores.runs
    assert list(arms.arms[0].result.scores["AP"]) == [0]
    assert arms.arms[1].result.difference["AP"].verdict == "one seed"


def test_gather__the_run_that_made_the_teacher_is_no_arm(
    tmp_path: Path, odd_data: Path, oracle: Oracle, sum_up: Any
) -> None:
    own = make_run(tmp_path / "large", odd_data, imgsz=96)
    kd = make_run(tmp_path / "kd", odd_data, "bckd", teacher=own / "weights" / "last.pt")
    arms, scores = sum_up(own, kd)
    assert [arm.label for arm in arms.arms] == ["bckd"]
    assert set(scores.runs) == {"large", "kd"}
    assert len(scores.teachers) == 1
