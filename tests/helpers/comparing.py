"""Runs of a comparison without any training: each leaves the files of a real one at once."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tests.helpers.matching import leave_matches
from yolokd.comparison.executors.protocol import Exit, Job
from yolokd.comparison.measuring import Measured
from yolokd.comparison.results import PEAK, SCORE, TEACHER
from yolokd.comparison.spec import Comparison, Run, read
from yolokd.files import sha256

BUDGET: dict[str, Any] = {"epochs": 3, "imgsz": 64, "batch": 8}
# A baseline of 20 and 22, and a recipe that gains 1 and 2 points.
APS = {
    "teacher": 0.30,
    "student/baseline-0": 0.20,
    "student/baseline-1": 0.22,
    "student/bckd-0": 0.21,
    "student/bckd-1": 0.24,
}


def leave_results(comparison: Path, name: str, ap: float, mask_ap: float | None = None) -> None:
    """Write what a finished run, or the teacher's scoring, leaves in the folder of a comparison."""
    masks = {} if mask_ap is None else {"mask_AP": mask_ap, "mask_AP50": mask_ap + 0.1}
    if name == TEACHER:
        score = {"sha256": read(comparison).teacher_sha256, "AP": ap, "AP50": ap + 0.1, **masks}
        (comparison / "teacher.json").write_text(json.dumps(score))
        return
    folder = comparison / name
    (folder / "weights").mkdir(parents=True, exist_ok=True)
    last = folder / "weights" / "last.pt"
    last.write_text(name)
    (folder / "results.csv").write_text("epoch,time\n1,3\n2,5\n3,7\n")
    (folder / PEAK).write_text(json.dumps({"bytes": 2**20 * len(name), "continued": False}))
    leave_matches(folder, sha256(last), ap)
    if mask_ap is not None:
        leave_matches(folder, sha256(last), mask_ap, "matches-mask.npz")
    (folder / SCORE).write_text(json.dumps({"sha256": sha256(last), "AP": ap, "AP50": ap + 0.1, **masks}))


class FakeExecutor:
    """Implements `Executor`: every job ends at the first poll, and what was asked is remembered.

    Args:
        devices: As of a real one.
        codes: Job → exit code; 0 where it is absent.
        before: Called with the name of a job that is submitted, before anything else.
        epochs: Number of polls that find a job still running, with one more completed epoch each time.
    """

    interval = 0.0
    local = True

    def __init__(
        self,
        devices: Sequence[str | None] = (None,),
        *,
        codes: dict[str, int] | None = None,
        before: Callable[[str], None] = lambda name: None,
        epochs: int = 0,
    ) -> None:
        self.devices = devices
        self.slots, self.codes, self.before, self.epochs = len(devices), codes or {}, before, epochs
        self.submitted: list[str] = []
        self.canceled: list[str] = []
        self.running: dict[str, int] = {}  # → polls
        self.most = 0

    def prepare(self, comparison: Comparison) -> Comparison:
        return comparison

    def submit(self, job: Job) -> None:
        self.before(job.name)
        self.submitted.append(job.name)
        self.running[job.name] = 0
        self.most = max(self.most, len(self.running))

    def poll(self, job: Job) -> Exit | None:
        if self.running[job.name] < self.epochs:
            self.running[job.name] += 1
            return None
        del self.running[job.name]
        code = self.codes.get(job.name, 0)
        if code == 0:
            leave_results(job.comparison, job.name, APS[job.name])
        return Exit(code, "terminated by the fake" if code < 0 else "")

    def progress(self, job: Job) -> int:
        return self.running[job.name]

    def cancel(self, job: Job) -> None:
        del self.running[job.name]
        self.canceled.append(job.name)


def an_hour_each(comparison: Comparison, runs: Sequence[Run], device: str | None) -> dict[Run, Measured]:
    """Stands for `measure`: every run takes an hour, at 1.5 times the operations of plain training."""
    return {run: Measured(3600.0, "12 steps", 1.5, 2**20) for run in runs}


def files(folder: Path) -> dict[str, tuple[int, int]]:
    """Inode and time of change of every file below, to see what was written anew."""
    return {str(p): (p.stat().st_ino, p.stat().st_mtime_ns) for p in folder.rglob("*") if p.is_file()}
