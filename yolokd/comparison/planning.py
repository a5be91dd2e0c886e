"""What a comparison is going to take, before it starts, and which of its runs fit in a time budget.

What a run takes is known from finished runs of the same student and recipe, or else measured
(`yolokd.comparison.measuring`); where that says nothing, it is the baseline's time multiplied by the recipe's cost in
floating-point operations.
"""

from __future__ import annotations

import heapq
import shutil
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from yolokd.comparison.measuring import Measured, measure
from yolokd.comparison.results import run_score, run_seconds, teacher_score
from yolokd.comparison.spec import BASELINE, Comparison, Run

MARGIN = 1.05  # a run starts only if this multiple of its estimate is left
ELSEWHERE = Measured(None, "not measured, since runs are executed on other machines")
HALF = 2  # bytes per parameter of a final checkpoint
CHECKPOINTS = 2  # of a run: best.pt and last.pt


@dataclass(frozen=True)
class Estimate:
    """What a run of one student under one recipe takes."""

    student: str
    recipe: str
    seconds: float | None  # None: not known
    source: str  # what the number comes from, or why there is none


@dataclass(frozen=True)
class Outlook:
    """What is to be done."""

    runs: int
    finished: int
    teacher: bool  # whether the teacher is still to be scored, for which there is no estimate
    estimates: tuple[Estimate, ...]  # of the students and recipes that have unfinished runs
    seconds: float | None  # until all is done, on all slots together; None if an estimate is missing
    size: int | None  # bytes that the unfinished runs will leave
    free: int  # bytes that the disk has left


def outlook(comparison: Comparison, slots: int, device: str | None, *, local: bool = True) -> Outlook:
    """Return what is to be done, and what it takes.

    Args:
        comparison: From `plan_comparison`; nothing is written to its folder.
        slots: How many runs are executed at a time.
        device: Where runs are measured.
        local: Whether runs are executed on this machine; if not, none is measured.
    """
    runs = comparison.runs
    open_runs = [run for run in runs if run_score(run.folder) is None]
    finished = [run for run in runs if run not in open_runs]
    first = {(run.student, run.recipe): run for run in reversed(open_runs)}
    arms = [(student, recipe) for student in comparison.students for recipe in comparison.recipes]
    known = {arm: seconds for arm in arms if (seconds := _finished_seconds(finished, arm))}
    unknown = [first[arm] for arm in arms if arm in first and arm not in known]
    each_unknown = measure(comparison, unknown, device) if local else dict.fromkeys(unknown, ELSEWHERE)
    measured = {(run.student, run.recipe): found for run, found in each_unknown.items()}
    estimates = {arm: _estimate(arm, known, measured) for arm in arms if arm in first}
    sizes = {student: _size(student, finished, measured) for student in comparison.students}
    each = [sizes[run.student] for run in open_runs]
    return Outlook(
        runs=len(runs),
        finished=len(finished),
        teacher=comparison.teacher is not None and teacher_score(comparison) is None,
        estimates=tuple(estimates.values()),
        seconds=on_slots([estimates[run.student, run.recipe].seconds for run in open_runs], slots),
        size=None if None in each else sum(size for size in each if size is not None),
        free=shutil.disk_usage(_existing(comparison.folder)).free,
    )


def on_slots(seconds: Sequence[float | None], slots: int) -> float | None:
    """Return the time that runs take in their order, each on the slot that is free first; None if one is not known.

    Example:
        >>> on_slots([3.0, 1.0, 1.0], slots=2)
        3.0
    """
    ends = [0.0] * slots
    for one in seconds:
        if one is None:
            return None
        heapq.heapreplace(ends, ends[0] + one)
    return max(ends)


class TimeBudget:
    """Implements `yolokd.comparison.execution.Limit`: starts only runs that would end in time.

    Runs come seed by seed. A seed of which a run does not fit is the last one: of its other runs those that fit are
    started, and none of later seeds, so that no time goes into pairs that stay incomplete. Estimates follow the runs
    that finish meanwhile; where none is known, a run is started.
    """

    def __init__(
        self,
        comparison: Comparison,
        estimates: Sequence[Estimate],
        seconds: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Begin now.

        Args:
            comparison: With all its runs.
            estimates: From `outlook`.
            seconds: How much time there is.
            clock: Returns the time in seconds.
        """
        self._clock, self._end = clock, clock() + seconds
        self._runs = {run.name: run for run in comparison.runs}
        self._places = {seed: place for place, seed in enumerate(comparison.seeds)}
        self._estimates = {(one.student, one.recipe): one.seconds for one in estimates}
        self._begun: dict[str, float] = {}
        self._taken: dict[tuple[str, str], list[float]] = {}
        self._last: int | None = None  # place of the seed of which a run did not fit
        self.held = False  # whether a run was not started or not finished

    def starts(self, name: str) -> bool:
        """Return whether a run, or the teacher's scoring, is to be started now."""
        now, run = self._clock(), self._runs.get(name)
        place = 0 if run is None else self._places[run.seed]
        closed = self._last is not None and place > self._last
        if closed or now + MARGIN * (self._seconds(run) or 0.0) >= self._end:
            self._last = place if self._last is None else min(self._last, place)
            self.held = True
            return False
        self._begun[name] = now
        return True

    def finished(self, name: str) -> None:
        """Note that a run has come to its end."""
        if (run := self._runs.get(name)) is not None:
            self._taken.setdefault((run.student, run.recipe), []).append(self._clock() - self._begun[name])

    def is_over(self) -> bool:
        """Return whether the time is over, so that no run may go on."""
        return self._clock() >= self._end

    def canceled(self, name: str) -> None:
        """Note that a run was canceled."""
        self.held = True

    def _seconds(self, run: Run | None) -> float | None:
        if run is None:
            return None
        arm = (run.student, run.recipe)
        return statistics.fmean(self._taken[arm]) if arm in self._taken else self._estimates.get(arm)


def _finished_seconds(finished: Sequence[Run], arm: tuple[str, str]) -> tuple[float, int] | None:
    """Return the mean time of an arm's finished runs, and how many have one."""
    own = [run for run in finished if (run.student, run.recipe) == arm]
    times = [seconds for run in own if (seconds := run_seconds(run.folder)) is not None]
    return (statistics.fmean(times), len(times)) if times else None


def _estimate(
    arm: tuple[str, str],
    known: dict[tuple[str, str], tuple[float, int]],
    measured: dict[tuple[str, str], Measured],
) -> Estimate:
    if arm in known:
        seconds, count = known[arm]
        return Estimate(*arm, seconds, f"from {count} finished run{'s' * (count > 1)}")
    found = measured[arm]
    if found.seconds is not None:
        return Estimate(*arm, found.seconds, f"measured, {found.how}")
    plain = (arm[0], BASELINE)
    base = known[plain][0] if plain in known else measured[plain].seconds if plain in measured else None
    if arm[1] != BASELINE and base is not None and found.cost is not None:
        return Estimate(*arm, base * found.cost, f"{found.cost:.2f} × {BASELINE} by operations; {found.how}")
    return Estimate(*arm, None, found.how)


def _size(student: str, finished: Sequence[Run], measured: dict[tuple[str, str], Measured]) -> int | None:
    """Return the bytes that a run of a student leaves: of its finished runs, or of its two checkpoints."""
    sizes = [_bytes_below(run.folder) for run in finished if run.student == student]
    if sizes:
        return round(statistics.fmean(sizes))
    counts = [found.parameters for (who, _), found in measured.items() if who == student]
    return next((CHECKPOINTS * HALF * count for count in counts if count is not None), None)


def _bytes_below(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _existing(folder: Path) -> Path:
    return next(place for place in (folder, *folder.parents) if place.exists())
