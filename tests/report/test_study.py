from __future__ import annotations

import math
import shutil
from pathlib import Path

import pytest

from tests.helpers.making import make_comparison, make_run
from yolokd.errors import UserError
from yolokd.report.study import open_study, read_log
from yolokd.training.events import Event, write_event


def test_open_study__runs_keep_their_order_and_get_short_names(runs: list[Path]) -> None:
    study = open_study([runs[2], runs[0], runs[2]])
    assert list(study.runs) == ["bckd-0", "plain-0"]
    assert study.comparison is None


def test_open_study__a_comparison_with_runs_that_have_not_begun(tmp_path: Path, odd_data: Path, teacher: Path) -> None:
    folder = make_comparison(tmp_path / "c", odd_data, teacher, {"baseline": (0.1, 0.2), "bckd": (0.2, math.nan)})
    study = open_study([folder])
    assert list(study.runs) == ["student/baseline-0", "student/bckd-0", "student/baseline-1"]
    assert study.absent == ("student/bckd-1",)
    assert study.data == str(odd_data)


def test_open_study__refusals(tmp_path: Path, odd_data: Path, teacher: Path, runs: list[Path]) -> None:
    folder = make_comparison(tmp_path / "c", odd_data, teacher, {"baseline": (0.1,)})
    with pytest.raises(UserError, match="Name the runs"):
        open_study([])
    with pytest.raises(UserError, match="is a comparison, which is reported by itself"):
        open_study([runs[0], folder])
    shutil.rmtree(folder / "student")
    with pytest.raises(UserError, match="has not trained anything yet"):
        open_study([folder])
    (folder / "compare.json").write_text("{}")
    with pytest.raises(UserError, match="holds no comparison that can be read"):
        open_study([folder])


def test_open_study__runs_of_other_tasks_are_refused(tmp_path: Path, odd_data: Path) -> None:
    detect, segment = make_run(tmp_path / "one", odd_data), make_run(tmp_path / "masks", odd_data, task="segment")
    assert list(open_study([detect]).runs) == ["one"]
    with pytest.raises(UserError, match="report scores the boxes of detect models, and the task of the run 'masks' is"):
        open_study([detect, segment])


def test_open_study__runs_on_other_data_are_refused_by_fingerprint(tmp_path: Path) -> None:
    here, there = Path("a/data.yaml"), Path("b/data.yaml")
    one, moved = make_run(tmp_path / "one", here), make_run(tmp_path / "moved", there)
    assert len(open_study([one, moved]).runs) == 2
    changed = make_run(tmp_path / "changed", here, digest="g")
    with pytest.raises(UserError, match=r"one: a/data\.yaml; changed: a/data\.yaml \(the same path"):
        open_study([one, changed])
    unknown = make_run(tmp_path / "unknown", there, digest="")
    with pytest.raises(UserError, match=r"one: a/data\.yaml; unknown: b/data\.yaml\. Report"):
        open_study([one, unknown])


def test_read_log__events_and_the_end_of_a_run_that_failed(tmp_path: Path, runs: list[Path]) -> None:
    log = tmp_path / "a.log"
    log.write_text("0%\r50%\rbar\n\x1b[31mno space left\x1b[0m\n\n")
    assert read_log(log, "a", None) == ["a is not finished; its log ends with: no space left"]
    event = Event("gradient_ratio", "pkd", 3, 12.4)
    write_event(runs[0], event)
    done = open_study(runs[:1]).runs["plain-0"]
    (found,) = read_log(log, "a", done)
    assert found.startswith("a: kd_pkd has 12 times the detection loss's gradient at the neck (epoch 3)")
    assert read_log(tmp_path / "gone.log", "a", None) == []
