"""Carrying out a comparison: a process per run, as many at once as there are devices, finished ones never repeated."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from yolokd.comparison.results import TEACHER, run_score, teacher_score
from yolokd.comparison.spec import Comparison
from yolokd.inputs import read_text

WORKER = "yolokd.comparison.worker"
PAUSE = 0.2  # seconds between two looks at the processes


@dataclass(frozen=True)
class Event:
    """Something that happened to a run, or to the scoring of the teacher."""

    name: str
    kind: Literal["kept", "started", "epoch", "finished", "failed"]
    epoch: int = 0
    AP: float | None = None
    reason: str = ""


class Process(Protocol):
    """A run at work."""

    def poll(self) -> int | None:
        """The exit code, negative for a signal, or None while it runs."""

    def end(self) -> None:
        """End it if it still runs, and let go of it."""


class Child:
    """A process of `yolokd.comparison.worker`; all that it prints goes to the log."""

    def __init__(self, words: Sequence[str], log: Path) -> None:
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("a", encoding="utf-8") as file:  # stdin: the child ends when this process does
            self.process = subprocess.Popen(
                [sys.executable, "-m", WORKER, *words], stdin=subprocess.PIPE, stdout=file, stderr=subprocess.STDOUT
            )

    def poll(self) -> int | None:
        """The exit code, negative for a signal, or None while it runs."""
        return self.process.poll()

    def end(self) -> None:
        """End it if it still runs, and let go of it."""
        self.process.kill()
        self.process.communicate()


Launch = Callable[[Comparison, str, str | None, bool], Process]
Report = Callable[[Event], None]


def launch(comparison: Comparison, name: str, device: str | None, keep_epochs: bool) -> Process:
    """Start the process of one run."""
    words = [str(comparison.folder), name, device or "", "continue" if keep_epochs else "again"]
    return Child(words, log_file(comparison, name))


def execute(
    comparison: Comparison,
    devices: Sequence[str | None] = (None,),
    *,
    keep_epochs: bool = False,
    report: Report = lambda event: None,
    launch: Launch = launch,
) -> dict[str, str]:
    """Run what is not finished yet, the teacher's score included, and return why some failed, by name.

    A run that fails does not stop the others. The call may be killed at any point and repeated.

    Args:
        comparison: From `yolokd.comparison.spec.opened`, within its context.
        devices: One run at a time on each entry; the same device may stand there twice.
        keep_epochs: Continue interrupted runs from their last epoch instead of starting them again.
        report: Told what happens.
        launch: Starts the process of one run.
    """
    waiting = []
    for name in jobs(comparison):
        if (ap := _ap(comparison, name)) is None:
            waiting.append(name)
        else:
            report(Event(name, "kept", AP=ap))
    free = list(devices)
    running: dict[str, tuple[Process, str | None]] = {}
    epochs: dict[str, int] = {}
    failures: dict[str, str] = {}
    try:
        while waiting or running:
            while waiting and free:
                name, device = waiting.pop(0), free.pop(0)
                running[name] = launch(comparison, name, device, keep_epochs), device
                report(Event(name, "started"))
            time.sleep(PAUSE)
            for name, (process, device) in list(running.items()):
                code = process.poll()
                if code is None:
                    if (epoch := _epochs(comparison.folder / name)) != epochs.get(name, 0):
                        epochs[name] = epoch
                        report(Event(name, "epoch", epoch=epoch))
                    continue
                del running[name]
                process.end()
                free.append(device)
                event = _ended(comparison, name, code)
                if event.kind == "failed":
                    failures[name] = event.reason
                report(event)
    finally:
        for process, _ in running.values():
            process.end()
    return failures


def log_file(comparison: Comparison, name: str) -> Path:
    """Where the output of a run's process goes: beside the run's folder, which is made anew when it starts again."""
    return comparison.folder / f"{name}.log"


def jobs(comparison: Comparison) -> list[str]:
    """Names of all that has to be done, in the order of work."""
    runs = [run.name for run in comparison.runs]
    return runs if comparison.teacher is None else [TEACHER, *runs]


def _ap(comparison: Comparison, name: str) -> float | None:
    if name == TEACHER:
        return (teacher_score(comparison) or {}).get("AP")
    return (run_score(comparison.folder / name) or {}).get("AP")


def _ended(comparison: Comparison, name: str, code: int) -> Event:
    if code == 0 and (ap := _ap(comparison, name)) is not None:
        return Event(name, "finished", AP=ap)
    if code < 0:
        return Event(name, "failed", reason=f"killed by {signal.Signals(-code).name}")
    return Event(name, "failed", reason=_last_line(log_file(comparison, name)) or f"exit code {code}")


def _last_line(log: Path) -> str:
    try:
        lines = [line.strip() for line in read_text(log, errors="replace").splitlines()]
    except OSError:
        return ""
    return next((line for line in reversed(lines) if line), "")


def _epochs(folder: Path) -> int:
    try:
        with (folder / "results.csv").open(encoding="utf-8") as file:
            return max(sum(1 for _ in file) - 1, 0)
    except OSError:
        return 0
