"""How long runs take, from a few steps of their training: a process of its own that ends after seconds.

    python -m yolokd.comparison.measuring FOLDER DEVICE NAME...

`measure` starts that process on a copy of the comparison in a temporary folder, reads what it writes there and removes
the folder. The process trains each run as a worker would, with its loader, its optimizer and its teacher, until it has
seen enough steps or a whole epoch; one that takes too long is killed, and the next goes on with the other runs.
Validation that it has not seen is taken to cost a third of a training step per image, since a step costs about three
forward passes. Recipes with stored answers are not measured: they would ask the teacher about all images first.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from yolokd.comparison.executors.processes import FORKS
from yolokd.comparison.executors.processes import start as start_process
from yolokd.comparison.spec import Comparison, Run, read
from yolokd.comparison.worker import watch_stdin
from yolokd.errors import YolokdError
from yolokd.inputs import read_text
from yolokd.recipe.arguments import argument
from yolokd.training.plan import make_plan
from yolokd.training.run import start
from yolokd.training.trainer import DistillTrainer

EVENTS = "measured.jsonl"  # in the temporary folder, a line per event
START_LIMIT = 60.0  # seconds until the first run is checked, imports included
LIMIT = 20.0  # seconds of a run after its checks, setting up included
ENOUGH_SECONDS, ENOUGH_STEPS, FEWEST_STEPS = 6.0, 30, 4


@dataclass(frozen=True)
class Measured:
    """What a measurement found."""

    seconds: float | None  # of a whole run with its scoring; None if nothing was measured
    how: str  # "12 steps", "1 epoch", or why nothing was measured
    cost: float | None = None  # a step as a multiple of plain training, by floating-point operations
    parameters: int | None = None  # of the student


class _EnoughError(YolokdError):
    """Ends the training of a measurement."""


def measure(comparison: Comparison, runs: Sequence[Run], device: str | None) -> dict[Run, Measured]:
    """Return what each run takes by some seconds of its training; nothing of it is left, and no run is touched."""
    epochs = comparison.budget["epochs"]
    found: dict[Run, Measured] = {}
    while waiting := [run for run in runs if run not in found]:
        with tempfile.TemporaryDirectory(prefix="yolokd-", ignore_cleanup_errors=True) as name:
            folder = Path(name)
            replace(comparison, folder=folder).save()
            starting, reason = _trained(folder, device, waiting)
            starting = 0.0 if FORKS else starting  # a run is forked from a server that has started by then
            events = _events(folder / EVENTS)
        names = list(dict.fromkeys(event["name"] for event in events))
        for run in waiting[: max(len(names), 1)]:  # at least one, so that the loop ends
            own = [event for event in events if event["name"] == run.name]
            found[run] = summed_up(own, epochs, reason, starting=starting)
    return found


def summed_up(events: Sequence[dict[str, Any]], epochs: int, reason: str, *, starting: float = 0.0) -> Measured:
    """Return what the events of a measurement say about a run.

    Args:
        events: What `main` wrote, in order.
        epochs: Of a whole run.
        reason: Why there are no steps, if there are none.
        starting: Seconds that a process takes before it begins with a run.
    """
    first = {event["kind"]: event for event in reversed(events)}
    if "plan" not in first:
        return Measured(None, reason)
    plan = first["plan"]
    known = {"cost": plan["cost"], "parameters": plan["parameters"]}
    if plan["stored"]:
        return Measured(None, "not measured with stored answers", **known)
    steps = [event["at"] for event in events if event["kind"] == "step"]
    ends = [event["at"] for event in events if event["kind"] == "epoch"]
    if not steps:
        return Measured(None, reason, **known)
    begun = first["start"]["at"]
    later = len(steps) > 1  # the first step is slower than the others
    step = (steps[-1] - steps[0]) / (len(steps) - 1) if later and not ends else (steps[0] - begun)
    validation = step * plan["val"] / (3 * plan["batch"] * plan["cost"])
    if ends:
        epoch, how = (ends[-1] - begun) / len(ends), f"{len(ends)} epoch{'s' * (len(ends) > 1)}"
    else:
        epoch, how = step * first["start"]["steps"] + validation, f"{len(steps)} step{'s' * (len(steps) > 1)}"
    scoring = 2 * validation  # of last.pt, and of best.pt for its plots
    return Measured(starting + begun + epochs * epoch + scoring, how, **known)


def main(folder: str, device: str, *names: str) -> None:
    """Train runs until enough was seen of each, and write what happens when."""
    watch_stdin()
    comparison = read(Path(folder))
    for run in [run for run in comparison.runs if run.name in names]:
        _train(comparison, run, device or None)


def _train(comparison: Comparison, run: Run, device: str | None) -> None:
    """Train one run until enough was seen; times are in seconds since the start of its checks."""
    begun = time.monotonic()
    steps: list[float] = []

    def note(kind: str, **more: Any) -> float:
        now = time.monotonic() - begun
        with (comparison.folder / EVENTS).open("a", encoding="utf-8") as file:
            file.write(json.dumps({"name": run.name, "kind": kind, "at": now, **more}) + "\n")
        return now

    def on_start(trainer: DistillTrainer) -> None:
        note("start", steps=len(trainer.train_loader))

    def on_step(trainer: DistillTrainer) -> None:
        steps.append(note("step"))
        enough = steps[-1] - steps[0] >= ENOUGH_SECONDS and len(steps) >= FEWEST_STEPS
        if enough or len(steps) >= ENOUGH_STEPS:
            raise _EnoughError

    def on_epoch(trainer: DistillTrainer) -> None:
        if note("epoch") - steps[0] >= ENOUGH_SECONDS / 3:
            raise _EnoughError

    recipe = comparison.recipe_of(run, device)
    stored = recipe.distills and recipe.teacher.answers == "stored"
    teacher = comparison.teacher if recipe.needs_teacher else None
    student = comparison.students[run.student].spec
    plan = make_plan(teacher, student, recipe, allow_partial=comparison.allow_partial, runs=run.folder.parent)
    batch, val = int(argument(recipe.train, "batch")), plan.report.splits["val"].images
    note("plan", cost=plan.cost, parameters=plan.student.parameters, val=val, batch=batch, stored=stored)
    if not stored:
        callbacks = {"on_train_start": on_start, "on_train_batch_end": on_step, "on_fit_epoch_end": on_epoch}
        with suppress(_EnoughError):
            start(plan, paired=True, callbacks=callbacks)


def _trained(folder: Path, device: str | None, runs: Sequence[Run]) -> tuple[float, str]:
    """Run the process until it ends or a run takes too long.

    Returns:
        Seconds until it began with the first run, and why the last run may have no steps.
    """
    log, events = folder / "log", folder / EVENTS
    command = ["yolokd.comparison.measuring", str(folder), device or "", *(run.name for run in runs)]
    process = start_process(command, log)
    try:
        seen, since, limit, starting = 0, time.monotonic(), START_LIMIT, 0.0
        while process.poll() is None and time.monotonic() - since < limit:
            begun = [event["at"] for event in _events(events) if event["kind"] == "plan"]
            if len(begun) > seen:
                starting = starting if seen else max(time.monotonic() - since - begun[0], 0.0)
                seen, since, limit = len(begun), time.monotonic(), LIMIT
            time.sleep(0.05)
        ended = process.poll()
    finally:
        process.end()
    lines = [line.strip() for line in read_text(log, errors="replace").splitlines() if line.strip()]
    return starting, lines[-1] if ended and lines else "no step within the time of a measurement"


def _events(file: Path) -> list[dict[str, Any]]:
    """Return the events that are complete: the process may have been killed within a line."""
    found = []
    if file.is_file():
        for line in read_text(file).splitlines():
            with suppress(ValueError):
                found.append(json.loads(line))
    return found


if __name__ == "__main__":
    main(*sys.argv[1:])
