"""`yolokd compare`: recipes × seeds with one budget, and what each recipe gains over plain training."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn
from rich.text import Text

from yolokd.cli.compare_place import CompareDevice, CpusPerRun, ExecutorName, GpusPerRun, Ray, Slurm, open_executor
from yolokd.cli.compare_plan import (
    Budget,
    DryRun,
    Precision,
    Seeds,
    Stopping,
    UntilDecided,
    parse_seeds,
    parse_stopping,
    show_outlook,
    stop_notes,
)
from yolokd.cli.compare_table import WIDE, show_results
from yolokd.cli.options import AllowPartial, Data, JsonFile, Teachers, TrustCheckpoint, split_list, write_json
from yolokd.cli.progress import image_bar
from yolokd.errors import RunError, UserError
from yolokd.outputs import check_file

if TYPE_CHECKING:
    from yolokd.comparison.execution import Event
    from yolokd.comparison.executors.protocol import Executor
    from yolokd.comparison.planning import Outlook, TimeBudget
    from yolokd.comparison.spec import Comparison

Continue = Annotated[
    bool,
    typer.Option(
        "--continue",
        help="Continue interrupted runs from their last epoch instead of starting them again; quicker, but such a run "
        "is no longer exactly paired.",
    ),
]


def compare(
    student: Annotated[list[str], typer.Option(help="Model to train, as for 'yolokd train'; repeatable.")],
    recipes: Annotated[str, typer.Option(help="Names or files, with commas between; baseline is added if missing.")],
    teacher: Teachers = None,
    seeds: Seeds = None,
    budget: Budget = None,
    until_decided: UntilDecided = False,
    precision: Precision = None,
    data: Data = None,
    epochs: Annotated[int | None, typer.Option(help="Passes over the training images, for every run.")] = None,
    imgsz: Annotated[int | None, typer.Option(help="Side of the input image in pixels, for every run.")] = None,
    batch: Annotated[int | None, typer.Option(help="Images per step, for every run.")] = None,
    device: CompareDevice = None,
    executor: ExecutorName = "local",
    ray: Ray = None,
    gpus_per_run: GpusPerRun = None,
    cpus_per_run: CpusPerRun = None,
    slurm: Slurm = None,
    unlabeled: Annotated[
        str | None, typer.Option(metavar="DIR", help="Images without labels, for every recipe that has losses.")
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="PATH=VALUE", help="train.* or teacher.* of every recipe; repeatable."),
    ] = None,
    name: Annotated[str | None, typer.Option(help="Name of the folder below runs/; default: compare-DATA.")] = None,
    json_file: JsonFile = None,
    keep_epochs: Continue = False,
    allow_partial: AllowPartial = False,
    dry_run: DryRun = False,
    trust_checkpoint: TrustCheckpoint = False,
) -> None:
    """Train recipes over several seeds, paired, and show what each gains over plain training.

    Finished runs are never repeated: the same command goes on where it was stopped, and more recipes and seeds can be
    added to it later.
    """
    os.environ.setdefault("YOLO_VERBOSE", "false")
    begun = time.monotonic()
    names, numbers = split_list(recipes, "--recipes"), parse_seeds(seeds, until_decided=until_decided)
    stopping = parse_stopping(budget, precision, until_decided=until_decided)
    _check_outputs(json_file, dry_run=dry_run)
    place = (executor, device, ray, gpus_per_run, cpus_per_run)
    chosen = open_executor(*place, slurm=slurm, keep_epochs=keep_epochs)
    from yolokd.comparison.checks import load_recipes, plan_comparison
    from yolokd.training.run import split_teachers

    first, further = split_teachers(teacher)
    options = {"data": data, "epochs": epochs, "imgsz": imgsz, "batch": batch, "unlabeled": unlabeled}
    loaded = load_recipes(names, [*(set_ or []), *further], **options)
    more: dict[str, Any] = {"devices": chosen.devices, "name": name, "allow_partial": allow_partial}
    with image_bar() as progress:
        asked = plan_comparison(first, student, loaded, numbers, progress=progress, **more)
    asked = chosen.prepare(replace(asked, sequential=until_decided))
    console = Console() if dry_run else Console(stderr=True)
    found = _outlook(console, asked, chosen, stopping, added=len(loaded) > len(names))
    if not dry_run:
        limit = _limit(asked, found, stopping, begun)
        _execute(asked, chosen, stopping, limit, keep_epochs=keep_epochs, json_file=json_file)


def _check_outputs(json_file: str | None, *, dry_run: bool) -> None:
    check_file(json_file, "--json")
    if dry_run and json_file is not None:
        raise UserError("--json writes results, and --dry-run has none; leave one of them out.")


def _outlook(console: Console, asked: Comparison, executor: Executor, stopping: Stopping, *, added: bool) -> Outlook:
    """Show what is to be done and what it takes, and return it."""
    from yolokd.comparison.planning import outlook
    from yolokd.comparison.spec import BASELINE, stored_alike

    notes = [f"'{BASELINE}' was added, since every difference is taken to it"] if added else []
    stored_alike(asked)
    for note in (*notes, *asked.notes):
        console.print(Text(f"note: {note}", style="yellow"), soft_wrap=True)
    with console.status("Measuring some steps of each recipe, where no run has finished"):
        found = outlook(asked, executor.slots, executor.devices[0], local=executor.local)
    show_outlook(console, asked, found, executor.slots, until_decided=stopping.until_decided)
    return found


def _limit(asked: Comparison, found: Outlook, stopping: Stopping, begun: float) -> TimeBudget | None:
    """Return the time budget, of which the checks and measurements since `begun` have taken their part."""
    from yolokd.comparison.planning import TimeBudget

    if stopping.seconds is None:
        return None
    return TimeBudget(asked, found.estimates, stopping.seconds - (time.monotonic() - begun))


def _execute(
    asked: Comparison,
    executor: Executor,
    stopping: Stopping,
    limit: TimeBudget | None,
    *,
    keep_epochs: bool,
    json_file: str | None,
) -> None:
    """Carry the comparison out and show what it found.

    Args:
        asked: From `plan_comparison`, with all seeds that may be used.
        executor: Where runs take place.
        stopping: When to end.
        limit: Which runs are started; None: all.
        keep_epochs: Continue interrupted runs.
        json_file: Where the results go as JSON; - is stdout, None nowhere.
    """
    from yolokd.comparison.execution import execute
    from yolokd.comparison.results import results
    from yolokd.comparison.spec import opened
    from yolokd.comparison.stopping import looks, undecided

    notified = Console(stderr=True)
    with _Progress(asked, notified) as bars:
        for look in looks(asked) if stopping.until_decided else [asked]:
            with opened(look) as comparison:
                bars.show_notes([note for note in comparison.notes if note not in asked.notes])
                failures = execute(comparison, executor, keep_epochs=keep_epochs, limit=limit, report=bars.on_event)
                found = results(comparison)
            held = limit is not None and limit.held
            if failures or held or not undecided(found, stopping.precision):
                break
    if json_file != "-":
        console = Console()
        wide = console if console.is_terminal else Console(width=max(console.width, WIDE))
        show_results(wide, comparison, found, stop_notes(comparison, found, stopping, most=len(asked.seeds), held=held))
    if json_file is not None:
        write_json(json_file, found.to_dict(comparison))
    if failures:
        raise RunError(_failed(failures, comparison))


class _Progress:
    """One bar per run at work, one line per run done."""

    def __init__(self, comparison: Comparison, console: Console) -> None:
        from yolokd.comparison.execution import jobs
        from yolokd.comparison.metrics import metrics_of
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
        self.words, self.what = words_for(comparison.data), metrics_of(comparison.task)[0].what
        self.total, self.done = len(jobs(comparison)), 0
        self.tasks: dict[str, tuple[TaskID, float]] = {}
        self.shown: set[str] = set()  # runs and notes that have a line already

    def __enter__(self) -> _Progress:
        self.bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.bars.stop()

    def show_notes(self, notes: Sequence[str]) -> None:
        """Show notes that were not shown before."""
        for note in notes:
            if note not in self.shown:
                self.shown.add(note)
                self.bars.console.print(Text(f"note: {note}", style="yellow"), soft_wrap=True)

    def on_event(self, event: Event) -> None:
        """Show an event; a run that is met again, when a seed is added, has its line already."""
        if event.kind == "kept" and event.name in self.shown:
            return
        if event.kind == "started":
            self.tasks[event.name] = self.bars.add_task(event.name, total=self.epochs), time.monotonic()
            return
        if event.kind == "epoch":
            self.bars.update(self.tasks[event.name][0], completed=event.epoch)
            return
        self.done += 1
        self.shown.add(event.name)
        how = "finished before"
        if event.kind != "kept":
            task, since = self.tasks.pop(event.name)
            self.bars.remove_task(task)
            minutes, seconds = divmod(round(time.monotonic() - since), 60)
            how = f"{minutes}:{seconds:02d} min"
        ended = event.kind in {"failed", "canceled"}
        what = event.kind if ended else self.words(f"{self.what} {100 * (event.AP or 0):.1f}")
        line = f"[{self.done}/{self.total}] {event.name}: {what}, {how}"
        self.bars.console.print(Text(line, style="red" if event.kind == "failed" else ""), soft_wrap=True)


def _failed(failures: Mapping[str, str], comparison: Comparison) -> str:
    lines = [f"{name}: {reason}" for name, reason in failures.items()]
    return (
        f"{len(failures)} of the comparison's runs failed; the same command tries them again. Their logs are the .log "
        f"files in '{comparison.folder}'.\n  " + "\n  ".join(lines)
    )
