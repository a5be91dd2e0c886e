"""What a comparison will take, and the time budget, with a clock that only moves when told."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace

import pytest

from tests.helpers.comparing import FakeExecutor, leave_results
from yolokd.comparison import planning
from yolokd.comparison.execution import Event, execute
from yolokd.comparison.executors.protocol import Job
from yolokd.comparison.measuring import Measured
from yolokd.comparison.planning import Estimate, TimeBudget, on_slots, outlook
from yolokd.comparison.spec import Comparison, Run, opened


@pytest.mark.parametrize(("slots", "seconds"), [(1, 7.0), (2, 4.0), (3, 3.0), (9, 3.0)])
def test_on_slots__each_run_takes_the_slot_that_is_free_first(slots: int, seconds: float) -> None:
    assert on_slots([1.0, 2.0, 3.0, 1.0], slots) == seconds
    assert on_slots([1.0, None], slots) is None
    assert on_slots([], slots) == 0


def measures(monkeypatch: pytest.MonkeyPatch, **found: Measured) -> list[str]:
    """Let these be measured by recipe; returns the names of the runs that were asked about."""
    asked: list[str] = []

    def fake(comparison: Comparison, runs: Sequence[Run], device: str | None) -> dict[Run, Measured]:
        asked.extend(run.name for run in runs)
        return {run: found[run.recipe] for run in runs}

    monkeypatch.setattr(planning, "measure", fake)
    return asked


def test_outlook__measures_a_run_of_each_recipe(plan: Comparison, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = measures(
        monkeypatch, baseline=Measured(60.0, "9 steps", 1.0, 10**6), bckd=Measured(90.0, "1 epoch", 1.5, 10**6)
    )
    found = outlook(plan, 1, "cpu")
    assert asked == ["student/baseline-0", "student/bckd-0"]
    assert found.estimates == (
        Estimate("student", "baseline", 60.0, "measured, 9 steps"),
        Estimate("student", "bckd", 90.0, "measured, 1 epoch"),
    )
    assert (found.runs, found.finished, found.teacher, found.seconds) == (4, 0, True, 300.0)
    assert found.size == 4 * 4 * 10**6  # two checkpoints of two bytes per parameter
    assert found.free > 0
    assert not plan.folder.exists()


def test_outlook__what_cannot_be_measured_costs_its_operations(
    plan: Comparison, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = Measured(None, "not measured with stored answers", 1.25, 10**6)
    measures(monkeypatch, baseline=Measured(60.0, "9 steps", 1.0, 10**6), bckd=stored)
    found = outlook(plan, 1, None).estimates[1]
    assert found.seconds == 75.0
    assert found.source == "1.25 × baseline by operations; not measured with stored answers"
    measures(monkeypatch, baseline=Measured(None, "out of memory"), bckd=stored)
    unknown = outlook(plan, 1, None)
    assert [one.seconds for one in unknown.estimates] == [None, None]
    assert unknown.estimates[0].source == "out of memory"
    assert unknown.seconds is None


def test_outlook__finished_runs_say_what_they_took(plan: Comparison, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = measures(monkeypatch, bckd=Measured(90.0, "1 epoch", 1.5, 10**6))
    with opened(plan):
        leave_results(plan.folder, "student/baseline-0", 0.2)  # 7 s by its results.csv
    found = outlook(plan, 2, None)
    assert asked == ["student/bckd-0"]
    assert found.estimates[0] == Estimate("student", "baseline", 7.0, "from 1 finished run")
    assert (found.finished, found.seconds) == (1, 97.0)  # bckd, then baseline on one slot before bckd on the other
    folder = plan.folder / "student/baseline-0"
    score = json.loads((folder / "score.json").read_text())
    (folder / "score.json").write_text(json.dumps({**score, "seconds": 9}))  # with start and scoring
    found = outlook(plan, 2, None)
    assert found.estimates[0].seconds == 9.0
    assert found.size == 3 * sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


class Clock:
    """Moves on by a run's time when that run is polled to its end."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Timed(FakeExecutor):
    """Each job takes some seconds by the clock, one after the other."""

    def __init__(self, clock: Clock, seconds: float) -> None:
        super().__init__(epochs=1)
        self.clock, self.seconds = clock, seconds

    def progress(self, job: Job) -> int:
        self.clock.now += self.seconds  # between start and end
        return super().progress(job)


def worked(
    plan: Comparison, estimate: float | None, seconds: float, budget: float
) -> tuple[Timed, TimeBudget, list[Event]]:
    """Execute a plan without a teacher under a budget; runs were said to take `estimate`, and take `seconds`."""
    clock, events = Clock(), list[Event]()
    executor = Timed(clock, seconds)
    estimates = [Estimate("student", recipe, estimate, "") for recipe in plan.recipes]
    with opened(replace(plan, teacher=None)) as comparison:
        limit = TimeBudget(comparison, estimates, budget, clock)
        assert execute(comparison, executor, limit=limit, report=events.append) == {}
    return executor, limit, events


@pytest.mark.parametrize(
    ("budget", "names"),
    [
        (9, []),
        (11, ["baseline-0"]),
        (20, ["baseline-0"]),  # 10 s are left, and an estimate of 10 s needs a margin
        (21, ["baseline-0", "bckd-0"]),
        (41, ["baseline-0", "bckd-0", "baseline-1", "bckd-1"]),
    ],
)
def test_time_budget__starts_what_will_end_in_time(plan: Comparison, budget: float, names: list[str]) -> None:
    executor, limit, _ = worked(plan, 10.0, 10.0, budget)
    assert executor.submitted == [f"student/{name}" for name in names]
    assert executor.canceled == []
    assert limit.held is (len(names) < 4)


def test_time_budget__learns_from_runs_that_finish(plan: Comparison) -> None:
    assert len(worked(plan, 10.0, 1.0, 13.0)[0].submitted) == 4  # the first one fits, and the others take less
    assert worked(replace(plan, folder=plan.folder / "b"), 1.0, 10.0, 25.0)[0].submitted == [
        "student/baseline-0",
        "student/bckd-0",  # whose estimate is still wrong
    ]


def test_time_budget__cancels_what_is_at_work_when_the_time_is_over(plan: Comparison) -> None:
    executor, limit, events = worked(plan, None, 30.0, 20.0)
    assert executor.submitted == executor.canceled == ["student/baseline-0"]
    assert limit.held
    assert [event.kind for event in events] == ["started", "epoch", "canceled"]


def test_time_budget__no_later_seed_once_a_run_did_not_fit(plan: Comparison) -> None:
    estimates = [Estimate("student", "baseline", 10.0, ""), Estimate("student", "bckd", 100.0, "")]
    limit = TimeBudget(plan, estimates, 50.0, Clock())
    assert limit.starts("teacher")
    assert limit.starts("student/baseline-0")
    assert not limit.held
    assert not limit.starts("student/bckd-0")
    assert not limit.starts("student/baseline-1")  # it would end in time, but its pair would not
    assert limit.held
