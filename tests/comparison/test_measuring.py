"""What a measurement says about a run: by its events, and once with a real training."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.comparing import files
from yolokd.comparison.measuring import Measured, measure, summed_up
from yolokd.comparison.spec import Comparison

PLAN: dict[str, Any] = {"kind": "plan", "at": 1.0, "cost": 2.0, "parameters": 7, "val": 24, "batch": 4, "stored": False}


def events(kind: str, *times: float, **more: Any) -> list[dict[str, Any]]:
    return [{"kind": kind, "at": at, **more} for at in times]


def test_summed_up__steps_without_the_first_and_validation_by_their_cost() -> None:
    """Set up in 3 s; 20 steps of 0.5 s an epoch, and 24 images for validation at 0.5 / 4 / 2 / 3 s each."""
    found = summed_up([PLAN, *events("start", 3, steps=20), *events("step", 5, 5.5, 6, 6.5)], 10, "", starting=7)
    validation = 24 * 0.5 / 4 / 2 / 3
    assert found.seconds == pytest.approx(7 + 3 + 10 * (20 * 0.5 + validation) + 2 * validation)
    assert (found.how, found.cost, found.parameters) == ("4 steps", 2.0, 7)


def test_summed_up__whole_epochs_where_there_are_any() -> None:
    seen = [
        *events("start", 3, steps=1),
        *events("step", 4),
        *events("epoch", 5),
        *events("step", 6),
        *events("epoch", 9),
    ]
    found = summed_up([PLAN, *seen], 10, "")
    assert found.seconds == pytest.approx(3 + 10 * 3 + 2 * 24 * 1 / 4 / 2 / 3)
    assert found.how == "2 epochs"


def test_summed_up__one_step_is_better_than_none() -> None:
    found = summed_up([PLAN, *events("start", 3, steps=20), *events("step", 5)], 1, "")
    assert found.seconds == pytest.approx(3 + 20 * 2 + 3 * 24 * 2 / 4 / 2 / 3)
    assert found.how == "1 step"


def test_summed_up__says_why_there_is_nothing() -> None:
    assert summed_up([], 3, "out of memory") == Measured(None, "out of memory")
    assert summed_up([PLAN], 3, "no step") == Measured(None, "no step", 2.0, 7)
    stored = summed_up([{**PLAN, "stored": True}], 3, "")
    assert stored == Measured(None, "not measured with stored answers", 2.0, 7)


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_measure__trains_some_steps_and_leaves_nothing(
    plan: Comparison, tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "temporary"
    place.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(place))
    before = files(tiny_data.parent)
    found = measure(plan, plan.runs[:2], "cpu")
    assert {run.name for run in found} == {"student/baseline-0", "student/bckd-0"}
    for one in found.values():
        assert one.seconds is not None, one.how
        assert one.seconds > 0
    assert [path for path in place.iterdir() if not path.name.startswith("pymp-")] == []  # of the fork server
    assert files(tiny_data.parent) == before
    assert not plan.folder.exists()
    gone = replace(plan, data=str(tmp_path / "gone.yaml"))
    (failed,) = measure(gone, plan.runs[:1], "cpu").values()
    assert failed.seconds is None
    assert "gone.yaml" in failed.how
