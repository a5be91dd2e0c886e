"""What the comparison loop requires of an executor; it does not know where and how a run is executed.

When a job has ended, its results are in the comparison's folder and its output is in `Job.log`, wherever it ran.
"""

from __future__ import annotations

import signal
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from yolokd.comparison.spec import Comparison

WORKER = "yolokd.comparison.worker"
END_WITH_STDIN = "--end-with-stdin"  # further argument of a job's command: end with the process that holds stdin


@dataclass(frozen=True)
class Job:
    """One run, or the scoring of the teacher."""

    comparison: Path  # folder with compare.json
    name: str  # below that folder
    log: Path  # receives all that the job prints
    keep_epochs: bool = False  # continue an interrupted run from its last epoch

    def command(self, device: str | None) -> list[str]:
        """Return the arguments of `python -m` that execute the job."""
        return [WORKER, str(self.comparison), self.name, device or "", "continue" if self.keep_epochs else "again"]


@dataclass(frozen=True)
class Exit:
    """How a job ended."""

    code: int  # 0: success
    reason: str = ""  # why it failed, if the executor knows more than the last line of the log

    @classmethod
    def of(cls, code: int) -> Exit:
        """Return how a process ended by its exit code, which is negative for a signal that killed it."""
        return cls(code, f"killed by {signal.Signals(-code).name}" if code < 0 else "")


@dataclass(frozen=True)
class Place:
    """Where runs are to be executed, from the options of `yolokd compare`; an executor takes of it what it needs."""

    devices: Sequence[str | None] = (None,)  # of this machine; None leaves the choice to Ultralytics
    address: str | None = None  # of a cluster
    gpus_per_run: float | None = None  # of a node; None: 1 where the cluster has any
    cpus_per_run: int | None = None
    slurm: str | None = None  # what a job asks of SLURM: key=value,…


class Executor(Protocol):
    """Executes jobs; each is submitted once and is named by itself afterwards."""

    @property
    def devices(self) -> Sequence[str | None]:
        """Devices of this machine with which a comparison is planned."""

    @property
    def local(self) -> bool:
        """Whether runs are executed on this machine, so that what is measured here tells how long they take."""

    def prepare(self, comparison: Comparison) -> Comparison:
        """Check whether the runs can be executed there, and return the comparison as it will be; `UserError` if not."""

    @property
    def slots(self) -> int:
        """Number of jobs that may be submitted and not ended at the same time."""

    @property
    def interval(self) -> float:
        """Seconds between two polls of all jobs."""

    def submit(self, job: Job) -> None:
        """Start a job, or queue it; choose its device."""

    def poll(self, job: Job) -> Exit | None:
        """Return how a job ended, its resources released, or None while it is queued or runs."""

    def progress(self, job: Job) -> int:
        """Return the number of completed epochs of a job that has not ended."""

    def cancel(self, job: Job) -> None:
        """Terminate a job that has not ended, wait until it is gone and release its resources."""


class MakeExecutor(Protocol):
    """An entry of the table."""

    def __call__(self, place: Place) -> Executor:
        """Return an executor; `UserError` if there is none at that place."""


def completed_epochs(job: Job) -> int:
    """Return the number of epochs in a run's `results.csv`: the progress where its folder is visible from here."""
    try:
        with (job.comparison / job.name / "results.csv").open(encoding="utf-8") as file:
            return max(sum(1 for _ in file) - 1, 0)
    except OSError:
        return 0
