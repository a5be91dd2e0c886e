"""The table of `yolokd compare`, and the notes below it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from yolokd.comparison.metrics import Metric
    from yolokd.comparison.results import ArmResult, Results
    from yolokd.comparison.spec import Comparison
    from yolokd.comparison.statistics import Difference, Interval

NOTHING = "–"
COLUMNS = (
    "recipe", "seeds", "AP", "AP50", "Δ AP", "95 % interval,\nseeds", "95 % interval,\nimages\nand seeds", "",
    "gap\nclosed", "s/epoch", "memory\nMiB",
)  # fmt: skip
SEQUENCE = "95 % sequence,\nseeds"  # the title of that column where seeds are added until something is decided
COST = COLUMNS[-2:]  # of the first table of a student alone
WIDE = 120  # characters of a line that take all columns, in a file or a pipe too
LEFT_OUT = ("AP50", "s/epoch", "memory\nMiB")  # of narrow lines


def show_results(console: Console, comparison: Comparison, found: Results, more: Sequence[str] = ()) -> None:
    """Print a table per student and metric, and what the words in it mean.

    Args:
        console: Where.
        comparison: What was compared.
        found: What came out.
        more: Further notes, below the others.
    """
    from yolokd.evaluation.wording import NOTE, words_for

    budget = comparison.budget
    epochs = "1 epoch" if budget["epochs"] == 1 else f"{budget['epochs']} epochs"
    shape = f"{epochs}, {budget['imgsz']} px, batch {budget['batch']}"
    shown = [column for column in COLUMNS if console.width >= WIDE or column not in LEFT_OUT]
    words = words_for(comparison.data)
    tables = [(student, metric) for student in comparison.students for metric in found.metrics]
    for student, metric in tables:
        columns = [column for column in shown if metric is found.metrics[0] or column not in COST]
        judged = f"{words(metric.what)}: " if len(found.metrics) > 1 else ""
        title = f"{judged}{student} on {comparison.data}: {shape}; last.pt on val"
        table = Table(title=Text(title), title_justify="left", box=None, header_style="bold", padding=(0, 1, 0, 0))
        for column in columns:
            number = column not in {"recipe", ""}
            title = SEQUENCE if column == COLUMNS[5] and comparison.sequential else column
            table.add_column(
                words(title), justify="right" if number else "left", overflow="ellipsis" if number else "fold"
            )
        if set(metric.keys) <= found.teacher.keys():
            points = {"AP": _points(found.teacher[metric.AP]), "AP50": _points(found.teacher[metric.AP50])}
            row: dict[str, str] = {"recipe": "teacher", "seeds": NOTHING, **points}
            table.add_row(*(row.get(column, "") for column in columns))
        for arm in found.arms:
            if arm.student == student:
                row = _row(arm, metric, len(comparison.seeds), several=len(found.metrics) > 1)
                table.add_row(*(Text(row[column]) for column in columns))
        console.print(table)
    for note in (*_notes(found), *more):
        console.print(Text(note, style="yellow"), soft_wrap=True)
    if words is not str:
        console.print(Text(NOTE, style="yellow"), soft_wrap=True)
    if len(shown) < len(COLUMNS):
        console.print(
            Text(f"{words('AP50')}, time and memory: in --json, and here with {WIDE} columns."), soft_wrap=True
        )


def _points(value: float) -> str:
    return NOTHING if value < 0 else f"{100 * value:.1f}"


def _row(arm: ArmResult, metric: Metric, seeds: int, *, several: bool) -> dict[str, str]:
    """Column → cell of one metric; where there are several, the verdict names it."""
    count = len(arm.scores[metric.AP])
    row = {"recipe": arm.recipe, "seeds": str(count) if count == seeds else f"{count} of {seeds}"}
    for column, key in (("AP", metric.AP), ("AP50", metric.AP50)):
        spread = arm.spread.get(key)
        std = "" if spread is None or spread.std is None else f" ± {100 * spread.std:.1f}"
        row[column] = NOTHING if spread is None else f"{100 * spread.mean:.1f}{std}"
    gap, pace, memory = arm.gap_closed.get(metric.AP), arm.seconds_per_epoch, arm.peak_memory_bytes
    rest = (
        NOTHING if gap is None else f"{gap:.0%}",
        NOTHING if pace is None else f"{pace:.1f}",
        NOTHING if memory is None else f"{memory / 2**20:.0f}",
    )
    *cells, verdict = _cells(arm.difference.get(metric.AP))
    named = f"{verdict}, {metric.what}" if several and verdict else verdict
    return row | dict(zip(COLUMNS[4:], (*cells, named, *rest), strict=True))


def _cells(difference: Difference | None) -> list[str]:
    """Mean, both intervals and verdict; with one seed the second interval is that of the images alone."""
    if difference is None:
        return [NOTHING, NOTHING, NOTHING, ""]
    second = _interval(difference.images_and_seeds)
    if difference.seeds is None and difference.images is not None:
        second = f"images {_interval(difference.images)}"
    return [f"{100 * difference.mean:+.1f}", _interval(difference.seeds), second, difference.verdict]


def _interval(interval: Interval | None) -> str:
    return NOTHING if interval is None else f"[{100 * interval.low:+.1f}, {100 * interval.high:+.1f}]"


def _notes(found: Results) -> list[str]:
    keys = [metric.AP for metric in found.metrics]
    differences = [(arm.recipe, arm.difference[key]) for key in keys for arm in found.arms if key in arm.difference]
    verdicts = {difference.verdict for _, difference in differences}
    notes = []
    if "one seed" in verdicts:
        notes.append(
            "One seed proves nothing: its interval covers other images, but no other seeds. Give at least three, such "
            "as --seeds 0,1,2."
        )
    if "undecided" in verdicts:
        notes.append("undecided: an interval holds 0, so neither a gain nor a loss was shown.")
    if "seeds only" in verdicts:
        notes.append("seeds only: the interval over the seeds excludes 0; of new images nothing is known.")
    if unknown := [recipe for recipe, difference in differences if difference.images is None]:
        notes.append(
            f"No interval for new images of {', '.join(dict.fromkeys(unknown))}: some of the runs have no "
            f"matches.npz, since an earlier version scored them, or there is one image. Remove score.json of such runs "
            f"and start the same command again to score them anew; nothing is trained again."
        )
    for metric in found.metrics:
        open_arms = [arm for arm in found.arms if metric.AP in arm.difference and metric.AP not in arm.gap_closed]
        if metric.AP in found.teacher and open_arms:
            by = f" by {metric.what}" if len(found.metrics) > 1 else ""
            notes.append(f"The teacher scores no higher than the baseline{by}: there is no gap to close.")
        if found.teacher and metric.AP not in found.teacher:
            notes.append(f"The teacher has no {metric.what}.")
    if continued := [f"{arm.recipe} {seed}" for arm in found.arms for seed in arm.continued]:
        notes.append(f"Continued after an interruption, so not exactly paired: {', '.join(continued)}.")
    return notes
