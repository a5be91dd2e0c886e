"""`yolokd compare`: recipes × seeds with one budget, and what each recipe gains over plain training."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn
from rich.table import Table
from rich.text import Text

from yolokd.cli.evaluate import write_json
from yolokd.cli.opening import image_bar
from yolokd.errors import RunError, UserError
from yolokd.outputs import check_file
from yolokd.recipe.arguments import LARGEST_SEED

if TYPE_CHECKING:
    from yolokd.comparison.executor import Event
    from yolokd.comparison.results import ArmResult, Results
    from yolokd.comparison.spec import Comparison

NOTHING = "–"


def compare(
    student: Annotated[list[str], typer.Option(help="Model to train, as for 'yolokd train'; repeatable.")],
    recipes: Annotated[str, typer.Option(help="Names or files, with commas between; baseline is added if missing.")],
    teacher: Annotated[
        list[str] | None, typer.Option(help="Trained detector to learn from: a .pt or a name; repeatable.")
    ] = None,
    seeds: Annotated[str, typer.Option(help="Seeds, with commas between; each is a pair with the baseline.")] = "0,1,2",
    data: Annotated[str | None, typer.Option(help="Data YAML, a name that Ultralytics packages, or 'streets'.")] = None,
    epochs: Annotated[int | None, typer.Option(help="Passes over the training images, for every run.")] = None,
    imgsz: Annotated[int | None, typer.Option(help="Side of the input image in pixels, for every run.")] = None,
    batch: Annotated[int | None, typer.Option(help="Images per step, for every run.")] = None,
    device: Annotated[
        str | None, typer.Option(help="cpu, mps or a GPU (0); with several (0,1) a run on each at once.")
    ] = None,
    unlabeled: Annotated[
        str | None, typer.Option(metavar="DIR", help="Images without labels, for every recipe that has losses.")
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="PATH=VALUE", help="train.* or teacher.* of every recipe; repeatable."),
    ] = None,
    name: Annotated[str | None, typer.Option(help="Name of the folder below runs/; default: compare-DATA.")] = None,
    json_file: Annotated[
        str | None, typer.Option("--json", metavar="FILE", help="Write the results as JSON; - is stdout.")
    ] = None,
    keep_epochs: Annotated[
        bool,
        typer.Option(
            "--continue",
            help="Continue interrupted runs from their last epoch instead of starting them again; quicker, but such a "
            "run is no longer exactly paired.",
        ),
    ] = False,
    allow_partial: Annotated[
        bool, typer.Option("--allow-partial", help="Distill the common classes where the teacher lacks some.")
    ] = False,
    trust_checkpoint: Annotated[
        bool, typer.Option("--trust-checkpoint", help="Load checkpoints that may run code. Only for files you trust.")
    ] = False,
) -> None:
    """Train recipes over several seeds, paired, and show what each gains over plain training.

    Finished runs are never repeated: the same command goes on where it was stopped, and more recipes and seeds can be
    added to it later.
    """
    os.environ.setdefault("YOLO_VERBOSE", "false")
    names, numbers = split_list(recipes, "--recipes"), _seeds(seeds)
    check_file(json_file, "--json")
    places: list[str | None] = [*split_list(device, "--device")] if device is not None else [None]
    from yolokd.comparison.checks import load_recipes, plan_comparison
    from yolokd.comparison.executor import execute
    from yolokd.comparison.results import results
    from yolokd.comparison.spec import BASELINE, opened
    from yolokd.training.run import split_teachers

    notified = Console(stderr=True)
    options = {"data": data, "epochs": epochs, "imgsz": imgsz, "batch": batch, "unlabeled": unlabeled}
    first, further = split_teachers(teacher)
    loaded = load_recipes(names, [*(set_ or []), *further], **options)
    with image_bar() as progress:
        asked = plan_comparison(
            first,
            student,
            loaded,
            numbers,
            devices=places,
            name=name,
            allow_partial=allow_partial,
            progress=progress,
        )
    if len(loaded) > len(names):
        notified.print(Text(f"note: '{BASELINE}' was added, since every difference is taken to it", style="yellow"))
    with opened(asked) as comparison:
        for note in comparison.notes:
            notified.print(Text(f"note: {note}", style="yellow"), soft_wrap=True)
        with _Progress(comparison, notified) as bars:
            failures = execute(comparison, places, keep_epochs=keep_epochs, report=bars.on_event)
        found = results(comparison)
        if json_file != "-":
            show_results(Console(), comparison, found)
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
        from yolokd.comparison.executor import jobs

        self.bars = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("epochs"),
            console=console,
            transient=True,
        )
        self.epochs: int = comparison.budget["epochs"]
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
        what = "failed" if event.kind == "failed" else f"AP {100 * (event.AP or 0):.1f}"
        line = f"[{self.done}/{self.total}] {event.name}: {what}, {how}"
        self.bars.console.print(Text(line, style="red" if event.kind == "failed" else ""), soft_wrap=True)


def show_results(console: Console, comparison: Comparison, found: Results) -> None:
    """Print a table per student, and what the words in it mean."""
    budget = comparison.budget
    epochs = "1 epoch" if budget["epochs"] == 1 else f"{budget['epochs']} epochs"
    shape = f"{epochs}, {budget['imgsz']} px, batch {budget['batch']}"
    for student in comparison.students:
        title = f"{student} on {comparison.data}: {shape}; last.pt on val"
        table = Table(title=Text(title), title_justify="left", box=None, header_style="bold", padding=(0, 2, 0, 0))
        table.add_column("recipe", overflow="fold")
        for column in ("seeds", "AP", "AP50", "difference in AP", "95 % interval"):
            table.add_column(column, justify="right", no_wrap=True)
        table.add_column("")
        for column in ("gap closed", "s/epoch", "memory MiB"):
            table.add_column(column, justify="right", no_wrap=True)
        if found.teacher:
            points = [f"{100 * found.teacher[metric]:.1f}" for metric in ("AP", "AP50")]
            table.add_row("teacher", NOTHING, *points, *[""] * 6)
        for arm in found.arms:
            if arm.student == student:
                table.add_row(*map(Text, _row(arm, len(comparison.seeds))))
        console.print(table)
    for note in _notes(found):
        console.print(Text(note, style="yellow"), soft_wrap=True)


def _row(arm: ArmResult, seeds: int) -> list[str]:
    count = len(arm.scores["AP"])
    row = [arm.recipe, str(count) if count == seeds else f"{count} of {seeds}"]
    for metric in ("AP", "AP50"):
        spread = arm.spread.get(metric)
        std = "" if spread is None or spread.std is None else f" ± {100 * spread.std:.1f}"
        row.append(NOTHING if spread is None else f"{100 * spread.mean:.1f}{std}")
    difference = arm.difference.get("AP")
    if difference is None:
        row += [NOTHING, NOTHING, ""]
    else:
        ends = (difference.low, difference.high)
        interval = ", ".join(f"{100 * end:+.1f}" for end in ends if end is not None)
        row += [f"{100 * difference.mean:+.1f}", f"[{interval}]" if interval else NOTHING, difference.verdict]
    gap, pace, memory = arm.gap_closed.get("AP"), arm.seconds_per_epoch, arm.peak_memory_bytes
    row.append(NOTHING if gap is None else f"{gap:.0%}")
    row.append(NOTHING if pace is None else f"{pace:.1f}")
    row.append(NOTHING if memory is None else f"{memory / 2**20:.0f}")
    return row


def _notes(found: Results) -> list[str]:
    verdicts = {arm.difference["AP"].verdict for arm in found.arms if "AP" in arm.difference}
    notes = []
    if "one seed" in verdicts:
        notes.append("One seed proves nothing: give at least three, such as --seeds 0,1,2.")
    if "undecided" in verdicts:
        notes.append("undecided: the interval holds 0, so neither a gain nor a loss was shown.")
    if found.teacher and any("AP" in arm.difference and "AP" not in arm.gap_closed for arm in found.arms):
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
