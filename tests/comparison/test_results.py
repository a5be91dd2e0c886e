from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.comparing import APS, leave_results
from yolokd.comparison.results import results, run_score, seconds_per_epoch, sees_the_same
from yolokd.comparison.spec import Comparison


@pytest.mark.parametrize(
    ("teacher", "same"),
    [({}, True), ({"answers": "live", "scale": 1, "models": []}, True), ({"answers": "stored"}, False),
     ({"scale": 2}, False), ({"models": ["b.pt"]}, False)],
)  # fmt: skip
def test_sees_the_same__a_teacher_at_another_size_has_no_gap_to_close(teacher: dict[str, Any], same: bool) -> None:
    assert sees_the_same(teacher) is same


def test_results__hand_computed(plan: Comparison) -> None:
    plan.folder.mkdir()
    plan.save()
    for name, ap in APS.items():
        leave_results(plan.folder, name, ap)
    found = results(plan)
    assert found.teacher == {"AP": 0.30, "AP50": 0.40}
    baseline, bckd = found.arms
    assert (baseline.difference, baseline.gap_closed) == ({}, {})
    assert baseline.spread["AP"].std == pytest.approx(0.02 / 2**0.5)
    assert bckd.scores["AP50"] == pytest.approx({0: 0.31, 1: 0.34})
    difference = bckd.difference["AP"]
    assert difference.mean == pytest.approx(0.015)
    assert difference.high == pytest.approx(0.015 + 12.70620473617 * 0.005)
    assert bckd.gap_closed["AP"] == pytest.approx(0.015 / 0.09)
    assert bckd.seconds_per_epoch == 2
    assert bckd.peak_memory_bytes == 2**20 * len("student/bckd-0")
    plain = json.loads(json.dumps(found.to_dict(plan)))
    assert plain["arms"][1]["difference"]["AP"]["verdict"] == "undecided"


MASKS = {
    "teacher": 0.25,
    "student/baseline-0": 0.30,
    "student/baseline-1": 0.32,
    "student/bckd-0": 0.20,
    "student/bckd-1": 0.21,
}


def test_results__masks_are_judged_beside_boxes(plan: Comparison) -> None:
    segment = replace(plan, task="segment")
    plan.folder.mkdir()
    segment.save()
    for name, ap in APS.items():
        leave_results(plan.folder, name, ap, MASKS[name])
    found = results(segment)
    assert [metric.what for metric in found.metrics] == ["box AP", "mask AP"]
    assert found.teacher == pytest.approx({"AP": 0.30, "AP50": 0.40, "mask_AP": 0.25, "mask_AP50": 0.35})
    _, bckd = found.arms
    assert bckd.difference["AP"].mean == pytest.approx(0.015)
    masks = bckd.difference["mask_AP"]
    assert masks.mean == pytest.approx(-0.105)
    assert masks.images is not None
    assert masks.images.high == pytest.approx(-0.1, abs=0.05)  # of the draws of the masks, not of the boxes
    assert bckd.scores["mask_AP50"] == pytest.approx({0: 0.30, 1: 0.31})
    assert "AP" in bckd.gap_closed
    assert "mask_AP" not in bckd.gap_closed  # the teacher's masks are worse than the baseline's
    plain = json.loads(json.dumps(found.to_dict(segment)))
    assert plain["task"] == "segment"
    assert plain["arms"][1]["difference"]["mask_AP"]["verdict"] in {"loss", "undecided"}
    assert results(plan).arms[1].difference.keys() == {"AP", "AP50"}  # of detect students boxes alone


def test_results__a_score_of_masks_that_is_none_counts_as_missing(plan: Comparison) -> None:
    segment = replace(plan, task="segment")
    plan.folder.mkdir()
    segment.save()
    for name, ap in APS.items():
        leave_results(plan.folder, name, ap, MASKS[name])
    file = plan.folder / "student" / "bckd-0" / "score.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "mask_AP": "high"}))
    bckd = results(segment).arms[1]
    assert bckd.scores["mask_AP"].keys() == {1}
    assert bckd.difference["mask_AP"].verdict == "one seed"
    assert bckd.scores["AP"].keys() == {0, 1}


def test_run_score__belongs_to_one_checkpoint(plan: Comparison) -> None:
    leave_results(plan.folder, "student/bckd-0", 0.2)
    folder = plan.folder / "student" / "bckd-0"
    assert run_score(folder) is not None
    (folder / "weights" / "last.pt").write_text("another")
    assert run_score(folder) is None
    (folder / "score.json").write_text("{")
    assert run_score(folder) is None
    assert run_score(plan.folder / "missing") is None


@pytest.mark.parametrize(
    ("times", "median"),
    [("5", 5), ("5 7 9 12", 2.5), ("5 7 3 5", 2.5), ("", None), ("x", None)],  # the clock began again at 3
)
def test_seconds_per_epoch__median_of_the_steps(tmp_path: Path, times: str, median: float | None) -> None:
    rows = "".join(f"{n},{time}\n" for n, time in enumerate(times.split(), 1))
    (tmp_path / "results.csv").write_text(f"epoch,time\n{rows}")
    assert seconds_per_epoch(tmp_path) == median
    assert seconds_per_epoch(tmp_path / "missing") is None
