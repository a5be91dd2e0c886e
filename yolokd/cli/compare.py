"""`yolokd compare`: recipes × seeds with one budget, and what each recipe gains over plain training."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn
from rich.table import Table
from rich.text import Text

from yolokd.cli.options import AllowPartial, Data, JsonFile, Teachers, TrustCheckpoint, write_json
from yolokd.cli.progress import image_bar
from yolokd.comparison.executors.table import EXECUTORS
from yolokd.errors import RunError, UserError
from yolokd.outputs import check_file
from yolokd.recipe.arguments import LARGEST_SEED

if TYPE_CHECKING:
    from yolokd.comparison.execution import Event
    from yolokd.comparison.executors.protocol import Executor
    from yolokd.comparison.results import ArmResult, Results
    from yolokd.comparison.spec import Comparison
    from yolokd.comparison.statistics import Difference, Interval

NOTHING = "–"
COLUMNS = (
    "recipe", "seeds", "AP", "AP50", "Δ AP", "95 % interval,\nseeds", "95 % interval,\nimages\nand seeds", "",
    "gap\nclosed", "s/epoch", "memory\nMiB",
)  # fmt: skip
WIDE = 120  # characters of a line that take all columns, in a file or a pipe too
LEFT_OUT = ("AP50", "s/epoch", "memory\nMiB")  # of narrow lines


def compare(
    student: Annotated[list[str], typer.Option(help="Model to train, as for 'yolokd train'; repeatable.")],
    recipes: Annotated[str, typer.Option(help="Names or files, with commas between; baseline is added if missing.")],
    teacher: Teachers = None,
    seeds: Annotated[str, typer.Option(help="Seeds, with commas between; each is a pair with the baseline.")] = "0,1,2",
    data: Data = None,
    epochs: Annotated[int | None, typer.Option(help="Passes over the training images, for every run.")] = None,
    imgsz: Annotated[int | None, typer.Option(help="Side of the input image in pixels, for every run.")] = None,
    batch: Annotated[int | None, typer.Option(help="Images per step, for every run.")] = None,
    device: Annotated[
        str | None, typer.Option(help="cpu, mps or a GPU (0); with several (0,1) a run on each at once.")
    ] = None,
    executor: Annotated[
        str,
        typer.Option(help=f"Where runs are executed: {', '.join(EXECUTORS)}.", hidden=len(EXECUTORS) == 1),
    ] = "local",
    unlabeled: Annotated[
        str | None, typer.Option(metavar="DIR", help="Images without labels, for every recipe that has losses.")
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="PATH=VALUE", help="train.* or teacher.* of every recipe; repeatable."),
    ] = None,
    name: Annotated[str | None, typer.Option(help="Name of the folder below runs/; default: compare-DATA.")] = None,
    json_file: JsonFile = None,
    keep_epochs: Annotated[
        bool,
        typer.Option(
            "--continue",
            help="Continue interrupted runs from their last epoch instead of starting them again; quicker, but such a "
            "run is no longer exactly paired.",
        ),
    ] = False,
    allow_partial: AllowPartial = False,
    trust_checkpoint: TrustCheckpoint = False,
) -> None:
    """Train recipes over several seeds, paired, and show what each gains over plain training.

    Finished runs are never repeated: the same command goes on where it was stopped, and more recipes and seeds can be
    added to it later.
    """
    os.environ.setdefault("YOLO_VERBOSE", "false")
    names, numbers = split_list(recipes, "--recipes"), _seeds(seeds)
    check_file(json_file, "--json")
    if executor not in EXECUTORS:
        raise UserError(f"--executor expects one of {', '.join(EXECUTORS)}, got '{executor}'.")
    devices: list[str | None] = [*split_list(device, "--device")] if device is not None else [None]
    from yolokd.comparison.checks import load_recipes, plan_comparison
    from yolokd.training.run import split_teachers

    first, further = split_teachers(teacher)
    options = {"data": data, "epochs": epochs, "imgsz": imgsz, "batch": batch, "unlabeled": unlabeled}
    loaded = load_recipes(names, [*(set_ or []), *further], **options)
    more: dict[str, Any] = {"devices": devices, "name": name, "allow_partial": allow_partial}
    with image_bar() as progress:
        asked = plan_comparison(first, student, loaded, numbers, progress=progress, **more)
    chosen = EXECUTORS[executor](devices)
    _execute(asked, chosen, added=len(loaded) > len(names), keep_epochs=keep_epochs, json_file=json_file)


def _execute(asked: Comparison, executor: Executor, *, added: bool, keep_epochs: bool, json_file: str | None) -> None:
    """Carry the comparison out and show what it found.

    Args:
        asked: From `plan_comparison`.
        executor: Where runs take place.
        added: Whether the baseline was added to the recipes.
        keep_epochs: Continue interrupted runs.
        json_file: Where the results go as JSON; - is stdout, None nowhere.
    """
    from yolokd.comparison.execution import execute
    from yolokd.comparison.results import results
    from yolokd.comparison.spec import BASELINE, opened

    notified = Console(stderr=True)
    if added:
        notified.print(Text(f"note: '{BASELINE}' was added, since every difference is taken to it", style="yellow"))
    with opened(asked) as comparison:
        for note in comparison.notes:
            notified.print(Text(f"note: {note}", style="yellow"), soft_wrap=True)
        with _Progress(comparison, notified) as bars:
            failures = execute(comparison, executor, keep_epochs=keep_epochs, report=bars.on_event)
        found = results(comparison)
        if json_file != "-":
            console = Console()
            show_results(console if console.is_terminal else Console(width=max(console.width, WIDE)), comparison, found)
        if json_file is not None:
            write_json(json_file, found.to_dict(comparison))
    if failures:
        raise RunError(_failed(failures, comparison))


def split_list(text: str, option: str) -> list[str]:
    """Return the words of an option that takes several, with commas between; `UserError` if one is empty."""
    words = [word.strip() for word in text.split(",")]
    if not all(words):
        raise UserError(f"{option} expects words with commas between, got '{text}'.")
    return words


def _seeds(text: str) -> list[int]:
    words = split_list(text, "--seeds")
    if wrong := [word for word in words if not (word.isascii() and word.isdigit() and len(word) < 20)]:
        raise UserError(f"--seeds expects whole numbers from 0 with commas between, such as 0,1,2, got '{wrong[0]}'.")
    if large := [word for word in words if int(word) > LARGEST_SEED]:
        raise UserError(f"--seeds expects numbers from 0 to {LARGEST_SEED}, got {large[0]}.")
    return [int(word) for word in words]


class _Progress:
    """One bar per run at work, one line per run done."""

    def __init__(self, comparison: Comparison, console: Console) -> None:
        from yolokd.comparison.execution import jobs
        from yolokd.evaluation.wording import words_for

        self.bars = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("epochs"),
            console=console,
            transient=True,
        )
        self.epochs: int = comparison.budget["epochs"]
        self.words = words_for(comparison.data)
        self.total, self.done = len(jobs(comparison)), 0
        self.tasks: dict[str, tuple[TaskID, float]] = {}

    def __enter__(self) -> _Progress:
        self.bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.bars.stop()

    def on_event(self, event: Event) -> None:
        """Show an event."""
        if event.kind == "started":
            self.tasks[event.name] = self.bars.add_task(event.name, total=self.epochs), time.monotonic()
            return
        if event.kind == "epoch":
            self.bars.update(self.tasks[event.name][0], completed=event.epoch)
            return
        self.done += 1
        how = "finished before"
        if event.kind != "kept":
            task, since = self.tasks.pop(event.name)
            self.bars.remove_task(task)
            minutes, seconds = divmod(round(time.monotonic() - since), 60)
            how = f"{minutes}:{seconds:02d} min"
        what = "failed" if event.kind == "failed" else self.words(f"AP {100 * (event.AP or 0):.1f}")
        line = f"[{self.done}/{self.total}] {event.name}: {what}, {how}"
        self.bars.console.print(Text(line, style="red" if event.kind == "failed" else ""), soft_wrap=True)


def show_results(console: Console, comparison: Comparison, found: Results) -> None:
    """Print a table per student, and what the words in it mean."""
    from yolokd.evaluation.wording import NOTE, words_for

    budget = comparison.budget
    epochs = "1 epoch" if budget["epochs"] == 1 else f"{budget['epochs']} epochs"
    shape = f"{epochs}, {budget['imgsz']} px, batch {budget['batch']}"
    columns = [column for column in COLUMNS if console.width >= WIDE or column not in LEFT_OUT]
    words = words_for(comparison.data)
    for student in comparison.students:
        title = f"{student} on {comparison.data}: {shape}; last.pt on val"
        table = Table(title=Text(title), title_justify="left", box=None, header_style="bold", padding=(0, 1, 0, 0))
        for column in columns:
            number = column not in {"recipe", ""}
            table.add_column(
                words(column), justify="right" if number else "left", overflow="ellipsis" if number else "fold"
            )
        if found.teacher:
            points = {metric: f"{100 * found.teacher[metric]:.1f}" for metric in ("AP", "AP50")}
            row: dict[str, str] = {"recipe": "teacher", "seeds": NOTHING, **points}
            table.add_row(*(row.get(column, "") for column in columns))
        for arm in found.arms:
            if arm.student == student:
                row = _row(arm, len(comparison.seeds))
                table.add_row(*(Text(row[column]) for column in columns))
        console.print(table)
    for note in _notes(found):
        console.print(Text(note, style="yellow"), soft_wrap=True)
    if words is not str:
        console.print(Text(NOTE, style="yellow"), soft_wrap=True)
    if len(columns) < len(COLUMNS):
        console.print(
            Text(f"{words('AP50')}, time and memory: in --json, and here with {WIDE} columns."), soft_wrap=True
        )


def _row(arm: ArmResult, seeds: int) -> dict[str, str]:
    """Column → cell."""
    count = len(arm.scores["AP"])
    row = {"recipe": arm.recipe, "seeds": str(count) if count == seeds else f"{count} of {seeds}"}
    for metric in ("AP", "AP50"):
        spread = arm.spread.get(metric)
        std = "" if spread is None or spread.std is None else f" ± {100 * spread.std:.1f}"
        row[metric] = NOTHING if spread is None else f"{100 * spread.mean:.1f}{std}"
    gap, pace, memory = arm.gap_closed.get("AP"), arm.seconds_per_epoch, arm.peak_memory_bytes
    rest = (
        NOTHING if gap is None else f"{gap:.0%}",
        NOTHING if pace is None else f"{pace:.1f}",
        NOTHING if memory is None else f"{memory / 2**20:.0f}",
    )
    return row | dict(zip(COLUMNS[4:], (*_cells(arm.difference.get("AP")), *rest), strict=True))


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
    differences = [(arm.recipe, arm.difference["AP"]) for arm in found.arms if "AP" in arm.difference]
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
    if found.teacher and any(arm.difference and "AP" not in arm.gap_closed for arm in found.arms):
        notes.append("The teacher scores no higher than the baseline: there is no gap to close.")
    if continued := [f"{arm.recipe} {seed}" for arm in found.arms for seed in arm.continued]:
        notes.append(f"Continued after an interruption, so not exactly paired: {', '.join(continued)}.")
    return notes


def _failed(failures: Mapping[str, str], comparison: Comparison) -> str:
    lines = [f"{name}: {reason}" for name, reason in failures.items()]
    return (
        f"{len(failures)} of the comparison's runs failed; the same command tries them again. Their logs are the .log "
        f"files in '{comparison.folder}'.\n  " + "\n  ".join(lines)
    )
