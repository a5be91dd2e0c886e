"""Runs of a comparison without any training: each leaves the files of a real one at once."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from tests.helpers.matching import leave_matches
from yolokd.backend.checkpoints import sha256
from yolokd.comparison.results import PEAK, SCORE, TEACHER
from yolokd.comparison.spec import Comparison

# A baseline of 20 and 22, and a recipe that gains 1 and 2 points.
APS = {
    "teacher": 0.30,
    "student/baseline-0": 0.20,
    "student/baseline-1": 0.22,
    "student/bckd-0": 0.21,
    "student/bckd-1": 0.24,
}


def leave_results(comparison: Comparison, name: str, ap: float) -> None:
    """Write what a finished run, or the teacher's scoring, leaves."""
    if name == TEACHER:
        score = {"sha256": comparison.teacher_sha256, "AP": ap, "AP50": ap + 0.1}
        (comparison.folder / "teacher.json").write_text(json.dumps(score))
        return
    folder = comparison.folder / name
    (folder / "weights").mkdir(parents=True, exist_ok=True)
    last = folder / "weights" / "last.pt"
    last.write_text(name)
    (folder / "results.csv").write_text("epoch,time\n1,3\n2,5\n3,7\n")
    (folder / PEAK).write_text(json.dumps({"bytes": 2**20 * len(name), "continued": False}))
    leave_matches(folder, sha256(last), ap)
    (folder / SCORE).write_text(json.dumps({"sha256": sha256(last), "AP": ap, "AP50": ap + 0.1}))


class Imitation:
    """Starts imitations of runs and remembers what was asked of it."""

    def __init__(
        self, *, codes: dict[str, int] | None = None, before: Callable[[str], None] = lambda name: None
    ) -> None:
        self.codes, self.before = codes or {}, before
        self.launched: list[str] = []
        self.devices: list[str | None] = []
        self.at_work: list[str | None] = []
        self.most = 0
        self.ended: list[str] = []

    def __call__(self, comparison: Comparison, name: str, device: str | None, keep_epochs: bool) -> _Imitated:
        self.before(name)
        self.launched.append(name)
        self.devices.append(device)
        self.at_work.append(device)
        self.most = max(self.most, len(self.at_work))
        return _Imitated(self, comparison, name, device)


class _Imitated:
    def __init__(self, owner: Imitation, comparison: Comparison, name: str, device: str | None) -> None:
        self.owner, self.comparison, self.name, self.device = owner, comparison, name, device

    def poll(self) -> int | None:
        code = self.owner.codes.get(self.name, 0)
        if code == 0:
            leave_results(self.comparison, self.name, APS[self.name])
        return code

    def end(self) -> None:
        self.owner.at_work.remove(self.device)
        self.owner.ended.append(self.name)


def files(folder: Path) -> dict[str, tuple[int, int]]:
    """Inode and time of change of every file below, to see what was written anew."""
    return {str(p): (p.stat().st_ino, p.stat().st_mtime_ns) for p in folder.rglob("*") if p.is_file()}
