"""What `yolokd compare` says before it starts, its options for stopping, and what it says when it stops by them."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.text import Text

from yolokd.cli.options import split_list
from yolokd.errors import UserError
from yolokd.recipe.arguments import LARGEST_SEED

if TYPE_CHECKING:
    from yolokd.comparison.planning import Outlook
    from yolokd.comparison.results import Results
    from yolokd.comparison.spec import Comparison

SEEDS, MOST_SEEDS = "0,1,2", "0,1,2,3,4,5,6,7,8,9"  # without --seeds; the latter with --until-decided
DURATION = re.compile(r"(?:(\d{1,4}(?:\.\d{1,3})?)h)?(?:(\d{1,6}(?:\.\d{1,3})?)m)?(?:(\d{1,8}(?:\.\d{1,3})?)s)?")

UNITS = (3600, 60, 1)  # seconds

Seeds = Annotated[
    str | None,
    typer.Option(
        help=f"Seeds, with commas between; each is a pair with the baseline. Default: {SEEDS}; with --until-decided, 0 "
        f"to 9, of which only as many are used as are needed."
    ),
]
Budget = Annotated[
    str | None,
    typer.Option(metavar="TIME", help="Stop in time: 8h, 90m, 30s or 1h30m. The same command goes on later."),
]
UntilDecided = Annotated[
    bool,
    typer.Option(
        "--until-decided",
        help="Add one seed after the other until each recipe's interval over the seeds excludes 0. The intervals are "
        "wider, so that they hold at each of these looks.",
    ),
]
Precision = Annotated[
    float | None,
    typer.Option(
        metavar="POINTS", help="With --until-decided: an interval also decides if its half width is below, such as 0.5."
    ),
]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Check everything, say what there is to do and how long it takes, stop.")
]


@dataclass(frozen=True)
class Stopping:
    """When a comparison ends before all its runs are finished; with the defaults never."""

    until_decided: bool = False
    precision: float | None = None  # half width in AP in [0, 1] that decides too
    budget: str | None = None  # as given
    seconds: float | None = None  # what it says


def parse_seeds(text: str | None, *, until_decided: bool) -> list[int]:
    """Return the seeds that may be used; `UserError` for other words, or for fewer than two to choose from."""
    text = text if text is not None else MOST_SEEDS if until_decided else SEEDS
    words = split_list(text, "--seeds")
    if wrong := [word for word in words if not (word.isascii() and word.isdigit() and len(word) < 20)]:
        raise UserError(f"--seeds expects whole numbers from 0 with commas between, such as 0,1,2, got '{wrong[0]}'.")
    if large := [word for word in words if int(word) > LARGEST_SEED]:
        raise UserError(f"--seeds expects numbers from 0 to {LARGEST_SEED}, got {large[0]}.")
    if until_decided and len(words) < 2:
        raise UserError(
            f"--until-decided adds seeds one by one and needs at least two that it may use, got --seeds {text}. Leave "
            f"--seeds out for 0 to 9."
        )
    return [int(word) for word in words]


def parse_stopping(budget: str | None, precision: float | None, *, until_decided: bool) -> Stopping:
    """Return when to stop, from the options; `UserError` for what makes no sense."""
    share = check_precision(precision, until_decided=until_decided)
    return Stopping(until_decided, share, budget, parse_budget(budget))


def parse_budget(text: str | None) -> float | None:
    """Return a time in seconds; `UserError` for what is none."""
    if text is None:
        return None
    found = DURATION.fullmatch(text.strip()) if text.isascii() else None
    seconds = 0.0 if found is None else sum(float(n or 0) * unit for n, unit in zip(found.groups(), UNITS, strict=True))
    if seconds <= 0:
        raise UserError(f"--budget expects a time above 0, such as 8h, 90m, 30s or 1h30m, got '{text}'.")
    return seconds


def check_precision(points: float | None, *, until_decided: bool) -> float | None:
    """Return the precision in AP in [0, 1]; `UserError` for one that is not positive or says nothing."""
    if points is None:
        return None
    if not until_decided:
        raise UserError("--precision says when --until-decided has seen enough; give both, or leave it out.")
    if not (math.isfinite(points) and points > 0):
        raise UserError(f"--precision expects AP points above 0, such as 0.5, got {points:g}.")
    return points / 100


def duration(seconds: float) -> str:
    """Return a time in words: 41 s, 12 min, 2 h 05 min.

    Example:
        >>> duration(7500)
        '2 h 05 min'
    """
    if seconds < 99.5:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60:02d} min"


def show_outlook(console: Console, comparison: Comparison, found: Outlook, slots: int, *, until_decided: bool) -> None:
    """Print what is to be done and what it takes.

    Args:
        console: Where.
        comparison: With all seeds that may be used.
        found: Its outlook.
        slots: How many runs are executed at a time.
        until_decided: Whether it may end with fewer seeds.
    """
    shape = [
        (len(comparison.recipes), "recipe"),
        (len(comparison.seeds), "seed"),
        (len(comparison.students), "student"),
    ]
    product = " × ".join(f"{count} {word}{'s' * (count != 1)}" for count, word in shape)
    most, at_most = (" at most", "at most ") if until_decided else ("", "")
    teacher = ", and the teacher is to be scored" if found.teacher else ""
    lines = [f"plan      {found.runs} runs{most}: {product}; {found.finished} finished before{teacher}"]
    for one in found.estimates:
        takes = "time not known" if one.seconds is None else f"about {duration(one.seconds)} a run"
        name = f"{one.student} {one.recipe}" if len(comparison.students) > 1 else one.recipe
        lines.append(f"          {name}: {takes} ({one.source})")
    if found.runs > found.finished:
        total = "not known" if found.seconds is None else f"{at_most}about {duration(found.seconds)}"
        lines.append(f"total     {total}, {slots} run{'s' * (slots != 1)} at a time")
        size = "not known" if found.size is None else f"{at_most}about {_size(found.size)}"
        lines.append(f"disk      {size} for the runs to do; {_size(found.free)} are free")
    for line in lines:
        console.print(Text(line), soft_wrap=True)
    if found.size is not None and found.size > found.free:
        console.print(Text("note: the disk has less space than these runs need", style="yellow"), soft_wrap=True)


def stop_notes(comparison: Comparison, found: Results, stopping: Stopping, *, most: int, held: bool) -> list[str]:
    """Return what the intervals are and why the comparison ended where it did.

    Args:
        comparison: Over the seeds that were used.
        found: Its results.
        stopping: When it was to end.
        most: Number of seeds that might be used.
        held: Whether the time budget kept runs from starting or ending.
    """
    from yolokd.comparison.stopping import missing_pairs, undecided

    def named(student: str, recipe: str) -> str:
        return f"{student} {recipe}" if len(comparison.students) > 1 else recipe

    notes = []
    if comparison.sequential:
        notes.append(
            "The intervals over seeds hold at every number of seeds at once, since seeds are added until something is "
            "decided; so they are wider than for a number of seeds that is fixed beforehand."
        )
    if held:
        missing = missing_pairs(comparison, found).items()
        each = "; ".join(f"{named(*arm)} {', '.join(map(str, seeds))}" for arm, seeds in missing)
        notes.append(f"The time of --budget {stopping.budget} is over. Without a pair, by seed: {each}.")
        notes.append("The same command goes on from here.")
    if stopping.until_decided:
        used = f"{len(comparison.seeds)} of {most} seeds"
        if left := undecided(found, stopping.precision):
            notes.append(f"Not decided after {used}: {', '.join(named(*arm) for arm in left)}.")
        else:
            narrow = "" if stopping.precision is None else f" or is within ± {100 * stopping.precision:g}"
            several = f", of {' and of '.join(metric.what for metric in found.metrics)}," if found.metrics[1:] else ""
            notes.append(f"Decided after {used}: each interval over the seeds{several} excludes 0{narrow}.")
    return notes


def _size(count: int) -> str:
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 else f"{max(count / 2**20, 1):.0f} MiB"
