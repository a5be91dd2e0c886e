"""The loop of a comparison: submits each run that is not finished to an executor and reports what happens to it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from yolokd.comparison.executors.protocol import Executor, Exit, Job
from yolokd.comparison.results import TEACHER, run_score, teacher_score
from yolokd.comparison.spec import Comparison
from yolokd.inputs import read_text


@dataclass(frozen=True)
class Event:
    """Something that happened to a run, or to the scoring of the teacher."""

    name: str
    kind: Literal["kept", "started", "epoch", "finished", "failed", "canceled"]
    epoch: int = 0
    AP: float | None = None
    reason: str = ""


Report = Callable[[Event], None]


class Limit(Protocol):
    """Decides which jobs are started, and when all are over."""

    def starts(self, name: str) -> bool:
        """Return whether a job is to be started now; one that is not is left out."""

    def finished(self, name: str) -> None:
        """Note that a started job has succeeded."""

    def is_over(self) -> bool:
        """Return whether the jobs at work are to be canceled."""

    def canceled(self, name: str) -> None:
        """Note that a job was canceled for that."""


class Unlimited:
    """Implements `Limit`: every job is started and ends by itself."""

    def starts(self, name: str) -> bool:
        """Return True."""
        return True

    def finished(self, name: str) -> None:
        """Note nothing."""

    def is_over(self) -> bool:
        """Return False."""
        return False

    def canceled(self, name: str) -> None:
        """Note nothing."""


def execute(
    comparison: Comparison,
    executor: Executor,
    *,
    keep_epochs: bool = False,
    limit: Limit | None = None,
    report: Report = lambda event: None,
) -> dict[str, str]:
    """Run what is not finished yet, the teacher's score included, and return why some failed, by name.

    A run that fails does not stop the others. The call may be killed at any point and repeated.

    Args:
        comparison: From `yolokd.comparison.spec.opened`, within its context.
        executor: Where the runs are executed, from `yolokd.comparison.executors.table`.
        keep_epochs: Continue interrupted runs from their last epoch instead of starting them again.
        limit: Which runs are started, and when those at work are canceled; None: all, and never.
        report: Called with every event.
    """
    limit = limit or Unlimited()
    waiting = []
    for name in jobs(comparison):
        if (ap := _ap(comparison, name)) is None:
            waiting.append(Job(comparison.folder, name, log_file(comparison, name), keep_epochs))
        else:
            report(Event(name, "kept", AP=ap))
    running: dict[Job, int] = {}  # → completed epochs
    failures: dict[str, str] = {}
    try:
        while waiting or running:
            while waiting and len(running) < executor.slots:
                job = waiting.pop(0)
                if limit.starts(job.name):
                    executor.submit(job)
                    running[job] = 0
                    report(Event(job.name, "started"))
            time.sleep(executor.interval if running else 0)
            for event in _polled(comparison, executor, running):
                if event.kind == "failed":
                    failures[event.name] = event.reason
                if event.kind == "finished":
                    limit.finished(event.name)
                report(event)
            while running and limit.is_over():
                job = next(iter(running))
                executor.cancel(job)
                del running[job]
                limit.canceled(job.name)
                report(Event(job.name, "canceled"))
    finally:
        for job in running:
            executor.cancel(job)
    return failures


def _polled(comparison: Comparison, executor: Executor, running: dict[Job, int]) -> Iterator[Event]:
    """Yield what has happened to the jobs at work; those that have ended are removed."""
    for job in list(running):
        ended = executor.poll(job)
        if ended is None:
            if (epoch := executor.progress(job)) != running[job]:
                running[job] = epoch
                yield Event(job.name, "epoch", epoch=epoch)
            continue
        del running[job]
        yield _ended(comparison, job, ended)


def log_file(comparison: Comparison, name: str) -> Path:
    """Return where the output of a run goes: beside the run's folder, which is made anew when it starts again."""
    return comparison.folder / f"{name}.log"


def jobs(comparison: Comparison) -> list[str]:
    """Return the names of all that has to be done, in the order of work."""
    runs = [run.name for run in comparison.runs]
    return runs if comparison.teacher is None else [TEACHER, *runs]


def _ap(comparison: Comparison, name: str) -> float | None:
    if name == TEACHER:
        return (teacher_score(comparison) or {}).get("AP")
    return (run_score(comparison.folder / name) or {}).get("AP")


def _ended(comparison: Comparison, job: Job, ended: Exit) -> Event:
    if ended.code == 0 and (ap := _ap(comparison, job.name)) is not None:
        return Event(job.name, "finished", AP=ap)
    reason = ended.reason or _last_line(job.log) or f"exit code {ended.code}"
    return Event(job.name, "failed", reason=reason)


def _last_line(log: Path) -> str:
    try:
        lines = [line.strip() for line in read_text(log, errors="replace").splitlines()]
    except OSError:
        return ""
    return next((line for line in reversed(lines) if line), "")
