"""The loop of a comparison, driven by a fake executor: a stopped one ends like one that was not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tests.helpers.comparing import APS, FakeExecutor, files
from yolokd.comparison.execution import Event, execute, log_file
from yolokd.comparison.executors.protocol import Exit, Job
from yolokd.comparison.results import results
from yolokd.comparison.spec import Comparison, opened


def test_execute__each_run_once_and_finished_ones_never_again(plan: Comparison) -> None:
    executor, events = FakeExecutor(), list[Event]()
    with opened(plan) as comparison:
        assert execute(comparison, executor, report=events.append) == {}
        assert executor.submitted == ["teacher", *(run.name for run in plan.runs)]
        assert [(e.kind, e.name) for e in events][:2] == [("started", "teacher"), ("finished", "teacher")]
        before, events[:] = files(plan.folder), []
        assert execute(comparison, executor, report=events.append) == {}
    assert len(executor.submitted) == 5
    assert [(e.kind, e.AP) for e in events] == [("kept", APS[e.name]) for e in events]
    assert files(plan.folder) == before


@pytest.mark.parametrize("point", range(5))
def test_execute__stopped_anywhere_it_ends_with_the_same_table(plan: Comparison, point: int, tmp_path: Path) -> None:
    whole = replace(plan, folder=tmp_path / "whole" / "compare")
    with opened(whole) as comparison:
        execute(comparison, FakeExecutor())
    started: list[str] = []

    def stop(name: str) -> None:
        started.append(name)
        if len(started) == point + 1:
            raise KeyboardInterrupt

    executor = FakeExecutor(before=stop)
    with pytest.raises(KeyboardInterrupt), opened(plan) as comparison:
        execute(comparison, executor)
    assert len(executor.submitted) == point
    assert executor.running == {}
    with opened(plan) as comparison:
        execute(comparison, executor)
        assert results(comparison).to_dict(comparison) == results(whole).to_dict(whole)
    assert sorted(executor.submitted) == sorted(APS)


def test_execute__a_stop_ends_the_runs_at_work(plan: Comparison) -> None:
    def stop(event: Event) -> None:
        if event.name == "student/baseline-0":
            raise KeyboardInterrupt

    executor = FakeExecutor(["0", "1"])
    with pytest.raises(KeyboardInterrupt), opened(plan) as comparison:
        execute(comparison, executor, report=stop)
    assert executor.canceled == ["teacher", "student/baseline-0"]
    assert executor.running == {}


def test_execute__a_failed_run_does_not_stop_the_others(plan: Comparison) -> None:
    executor = FakeExecutor(codes={"student/bckd-0": 1, "student/bckd-1": -9})
    with opened(plan) as comparison:
        log = log_file(comparison, "student/bckd-0")
        log.parent.mkdir()
        log.write_text("Traceback\nThe term kd_bckd_cls is not finite.\n\n")
        failures = execute(comparison, executor)
    assert failures == {
        "student/bckd-0": "The term kd_bckd_cls is not finite.",
        "student/bckd-1": "terminated by the fake",
    }
    assert len(executor.submitted) == 5
    baseline, bckd = results(plan).arms
    assert baseline.spread["AP"].mean == pytest.approx(0.21)
    assert (bckd.spread, bckd.difference) == ({}, {})


@pytest.mark.parametrize("slots", [1, 2, 7])
def test_execute__submits_no_more_jobs_than_slots(plan: Comparison, slots: int) -> None:
    executor = FakeExecutor([None] * slots, epochs=2)
    with opened(plan) as comparison:
        execute(comparison, executor)
    assert executor.most == min(slots, 5)


def test_execute__reports_each_completed_epoch_once(plan: Comparison) -> None:
    events = list[Event]()
    with opened(replace(plan, teacher=None, seeds=(0,))) as comparison:
        execute(comparison, FakeExecutor(epochs=2), report=events.append)
    assert [(e.kind, e.epoch) for e in events[:4]] == [("started", 0), ("epoch", 1), ("epoch", 2), ("finished", 0)]
    assert {e.name for e in events[:4]} == {"student/baseline-0"}


@pytest.mark.parametrize("keep_epochs", [False, True])
def test_execute__the_job_says_what_to_do(plan: Comparison, keep_epochs: bool) -> None:
    jobs = list[Job]()

    class Recording(FakeExecutor):
        def submit(self, job: Job) -> None:
            jobs.append(job)
            super().submit(job)

    with opened(plan) as comparison:
        execute(comparison, Recording(), keep_epochs=keep_epochs)
    assert jobs[1] == Job(plan.folder, "student/baseline-0", plan.folder / "student/baseline-0.log", keep_epochs)
    assert jobs[1].command("0")[2:] == ["student/baseline-0", "0", "continue" if keep_epochs else "again"]


def test_execute__success_without_a_score_is_a_failure(plan: Comparison) -> None:
    class Forgetful(FakeExecutor):
        def poll(self, job: Job) -> Exit | None:
            del self.running[job.name]
            return Exit(0)

    with opened(replace(plan, teacher=None, seeds=(0,))) as comparison:
        failures = execute(comparison, Forgetful())
    assert failures == {"student/baseline-0": "exit code 0", "student/bckd-0": "exit code 0"}


class Closing:
    """Implements `Limit`: leaves out one job, and is over once another is at work."""

    def __init__(self, without: str, last: str) -> None:
        self.without, self.last = without, last
        self.notes: list[str] = []

    def starts(self, name: str) -> bool:
        self.notes.append(f"asked {name}")
        return name != self.without

    def finished(self, name: str) -> None:
        self.notes.append(f"finished {name}")

    def is_over(self) -> bool:
        return self.notes[-1] == f"asked {self.last}"

    def canceled(self, name: str) -> None:
        self.notes.append(f"canceled {name}")


def test_execute__leaves_out_and_cancels_as_its_limit_says(plan: Comparison) -> None:
    executor, events = FakeExecutor(epochs=2), list[Event]()
    limit = Closing("student/bckd-0", "student/bckd-1")
    with opened(replace(plan, teacher=None)) as comparison:
        assert execute(comparison, executor, limit=limit, report=events.append) == {}
    assert executor.submitted == ["student/baseline-0", "student/baseline-1", "student/bckd-1"]
    assert executor.canceled == ["student/bckd-1"]
    assert limit.notes == [
        "asked student/baseline-0",
        "finished student/baseline-0",
        "asked student/bckd-0",
        "asked student/baseline-1",
        "finished student/baseline-1",
        "asked student/bckd-1",
        "canceled student/bckd-1",
    ]
    assert events[-1] == Event("student/bckd-1", "canceled")
