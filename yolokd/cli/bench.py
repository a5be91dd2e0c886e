"""`yolokd bench`: what a recipe costs, against plain training and against the built-in distiller."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from yolokd.cli.compare import split_list
from yolokd.cli.options import Device, JsonFile, Overrides, TrustCheckpoint, one_teacher, write_json
from yolokd.errors import UserError
from yolokd.outputs import check_file, write_file

if TYPE_CHECKING:
    from yolokd.bench.results import Cost, RecipeCost, Report
    from yolokd.recipe import Recipe


def bench(
    teachers: Annotated[
        list[str] | None,
        typer.Option("--teacher", help="The large model: a .pt, a name, or a YAML (random weights)."),
    ] = None,
    student: Annotated[
        str | None, typer.Option(help="The small model: a .pt, a name, or a YAML (random weights).")
    ] = None,
    recipe: Annotated[
        str | None, typer.Option(help="Name or file of a recipe, or several with commas between.")
    ] = None,
    imgsz: Annotated[
        int | None, typer.Option(min=32, max=16384, help="Side of the input in pixels; default: the recipe's.")
    ] = None,
    batch: Annotated[int | None, typer.Option(min=1, help="Images per step; default: the recipe's.")] = None,
    device: Device = None,
    rounds: Annotated[int, typer.Option(min=1, help="How often everything is timed.")] = 15,
    set_: Overrides = None,
    json_file: JsonFile = None,
    plot: Annotated[str | None, typer.Option(metavar="FILE.png", help="Draw the parts of a step as bars.")] = None,
    trust_checkpoint: TrustCheckpoint = False,
) -> None:
    """Time a training step under a recipe and its parts, plain training, and the built-in distiller.

    Images and boxes are random; no data are needed. A step is forward pass, losses and backward pass; optimizer,
    clipping, moving average and the loading of images are left out everywhere. Floor: plain step + teacher's pass.
    """
    teacher = one_teacher(teachers, "bench")
    for option, value in (("--teacher", teacher), ("--student", student), ("--recipe", recipe)):
        if value is None:
            raise UserError(f"Give {option}: bench times a student's training under a teacher with a recipe.")
    check_file(json_file, "--json")
    check_file(plot, "--plot")
    if plot is not None and Path(plot).suffix.lower() != ".png":
        raise UserError(f"--plot writes a PNG image; the name '{plot}' must end in .png.")
    os.environ.setdefault("YOLO_VERBOSE", "false")
    from yolokd.bench.measure import bench as run
    from yolokd.bench.models import open_models, read_setting
    from yolokd.training.regime import with_losses

    chosen = [
        with_losses(one, str(student))
        for one in load_recipes(str(recipe), set_ or [], imgsz=imgsz, batch=batch, device=device)
    ]
    recipes = [one for one, _ in chosen]
    setting = read_setting(recipes)
    models = open_models(str(teacher), str(student))
    with _Progress() as progress:
        report = run(models, setting, recipes, rounds=rounds, report=progress.on_event)
    console = Console(stderr=json_file == "-")
    if json_file != "-":
        show(console, report)
    for note in (note for _, notes in chosen for note in notes):
        console.print(Text(note, style="yellow"), soft_wrap=True)
    if json_file is not None:
        write_json(json_file, report.to_dict())
    if plot is not None:
        write_plot(plot, report)


class _Progress:
    """A bar that shows once there is progress; without a thread, whose work would count as processor time."""

    def __init__(self) -> None:
        columns = TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn()
        self.bar = Progress(*columns, console=Console(stderr=True), auto_refresh=False, transient=True)
        self.task = self.bar.add_task("Timing", total=1.0)

    def __enter__(self) -> _Progress:
        return self

    def __exit__(self, *_: object) -> None:
        if self.bar.live.is_started:
            self.bar.stop()

    def on_event(self, share: float) -> None:
        """Show the share that is done."""
        if not self.bar.live.is_started:
            self.bar.start()
        self.bar.update(self.task, completed=share, refresh=True)


def load_recipes(
    names: str, overrides: Sequence[str], *, imgsz: int | None, batch: int | None, device: str | None
) -> list[Recipe]:
    """Load the recipes that are named with commas between; a single one takes any override. Errors: `load_alike`."""
    from yolokd.comparison.checks import load_alike
    from yolokd.training.run import resolve_recipe

    words = split_list(names, "--recipe")
    options = {"imgsz": imgsz, "batch": batch, "device": device}
    if len(words) == 1:
        return [resolve_recipe(words[0], overrides, **options)]
    return load_alike(words, overrides, **options)


def write_plot(file: str, report: Report) -> None:
    """Draw the image; errors as `yolokd.outputs.write_file`."""
    from yolokd.bench.plot import draw

    with tempfile.TemporaryDirectory() as temporary:
        drawn = Path(temporary) / "plot.png"
        draw(report, drawn)
        write_file(file, drawn.read_bytes(), "--plot")


def show(console: Console, report: Report) -> None:
    """Print what a step takes and of what, then what is worth knowing about the figures."""
    from yolokd.bench.plot import title_of

    for line in title_of(report):
        console.print(Text(line), soft_wrap=True)
    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("", overflow="fold")
    for column in ("ms", "quartiles", "CPU ms", "× plain", "× floor", "× built-in", "MiB"):
        table.add_column(column, justify="right", no_wrap=True)
    plain, built_in = report.plain.wall.median, report.built_in.wall.median
    table.add_row("plain training", *_times(report.plain), "1.00", "", "", _mib(report.memory_plain))
    ratios = f"{built_in / plain:.2f}", "", "1.00"
    table.add_row("built-in distiller", *_times(report.built_in), *ratios, _mib(report.memory_built_in))
    table.add_row("  teacher's pass", *_times(report.unfused))
    for recipe in report.recipes:
        _add_recipe(table, report, recipe)
    console.print(table)
    for note in _notes(report):
        console.print(Text(note, style="yellow"), soft_wrap=True)


def _add_recipe(table: Table, report: Report, recipe: RecipeCost) -> None:
    floor, step = report.floor(recipe, "wall"), recipe.step.wall.median
    references = report.plain.wall.median, floor, report.built_in.wall.median
    ratios = [f"{step / reference:.2f}" for reference in references]
    table.add_row(Text(recipe.name, style="bold"), *_times(recipe.step), *ratios, _mib(recipe.memory))
    table.add_row("  teacher's pass", *_times(recipe.teacher))
    for part in recipe.parts:
        seldom = "" if part.share == 1 else f" (1 in {1 / part.share:g})"
        if part.backward is None:
            table.add_row(f"  {part.name}{seldom}", *_times(part.forward))
            continue
        table.add_row(f"  {part.name} forward{seldom}", *_times(part.forward))
        table.add_row(f"  {part.name} backward", *_times(part.backward))
    rest = [f"{report.rest(recipe, kind):.1f}" for kind in ("wall", "cpu")]
    table.add_row("  everything else", rest[0], "", rest[1])
    cpu_floor = report.floor(recipe, "cpu")
    table.add_row("  floor", f"{floor:.1f}", "", f"{cpu_floor:.1f}", f"{floor / references[0]:.2f}", "1.00")


def _times(cost: Cost) -> tuple[str, str, str]:
    wall = cost.wall
    return f"{wall.median:.1f}", f"{wall.low:.1f}–{wall.high:.1f}", f"{cost.cpu.median:.1f}"


def _mib(size: int) -> str:
    return f"{size / 2**20:.0f}"


def _notes(report: Report) -> list[str]:
    here = report.conditions
    notes = []
    if here.scratch:
        notes.append(f"Random weights: {' and '.join(here.scratch)}. Times hold for trained ones too, losses do not.")
    if here.device == "cpu":
        by_cpu = [
            f"{r.name} {r.step.cpu.median / report.floor(r, 'cpu'):.2f} × floor, "
            f"{r.step.cpu.median / report.built_in.cpu.median:.2f} × built-in"
            for r in report.recipes
        ]
        notes.append(f"By processor time, which other programs disturb less: {'; '.join(by_cpu)}.")
    notes.append(
        f"Random images with {here.objects} boxes each; without optimizer, clipping, moving average and loading. "
        "Parts are timed by themselves. MiB: weights and buffers, and the most that tensors take in a step."
    )
    return notes
