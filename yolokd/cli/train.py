"""`yolokd train`: check everything, print the plan, train."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from yolokd.cli.options import AllowPartial, Data, Overrides, Teachers, TrustCheckpoint
from yolokd.cli.progress import image_bar
from yolokd.errors import UserError
from yolokd.recipe.arguments import argument

if TYPE_CHECKING:
    from yolokd.backend.checkpoints import Spec
    from yolokd.labeling.label import Labeled
    from yolokd.recipe import Recipe
    from yolokd.training.label_free import FirstLabels
    from yolokd.training.plan import ModelPlan, Plan

DEFAULT_RECIPE = "best"

Unlabeled = Annotated[
    str | None,
    typer.Option(
        metavar="DIR",
        help="Images without labels, which take part in the distillation; without --data the teacher labels them.",
    ),
]
LabelClasses = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME,...", help="With --unlabeled and no --data: classes to label, as `data label` takes them."
    ),
]


def train(
    student: Annotated[
        str | None, typer.Option(help="Model to train: a .pt, a name (yolov8n: pretrained) or a YAML (from scratch).")
    ] = None,
    teacher: Teachers = None,
    recipe: Annotated[
        str | None, typer.Option(help="Name of a shipped recipe, or a YAML file; 'best' if left out.")
    ] = None,
    data: Data = None,
    epochs: Annotated[int | None, typer.Option(help="Passes over the training images.")] = None,
    imgsz: Annotated[int | None, typer.Option(help="Side of the input image in pixels, a multiple of 32.")] = None,
    batch: Annotated[
        float | None,
        typer.Option(help="Images per step; -1, or a share of the memory such as 0.7, finds what fits a GPU."),
    ] = None,
    device: Annotated[str | None, typer.Option(help="cpu, mps, a GPU (0) or several (0,1).")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of weights and augmentation, 0 to 4294967295.")] = None,
    unlabeled: Unlabeled = None,
    classes: LabelClasses = None,
    set_: Overrides = None,
    name: Annotated[str | None, typer.Option(help="Name of the run's folder below runs/.")] = None,
    resume: Annotated[str | None, typer.Option(metavar="RUN", help="Continue an interrupted run.")] = None,
    allow_partial: AllowPartial = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check everything, print the plan, stop.")] = False,
    trust_checkpoint: TrustCheckpoint = False,
) -> None:
    """Train a student under a teacher with a recipe.

    With --resume, data and unlabeled images that were moved, the batch and the device may be given anew.
    """
    console = Console()
    given: dict[str, Any] = {
        "data": data, "epochs": epochs, "imgsz": imgsz, "batch": whole(batch), "device": device, "seed": seed,
        "unlabeled": unlabeled,
    }  # fmt: skip
    if resume is not None:
        if dry_run:
            raise UserError("--dry-run plans a new run; leave it out to continue one.")
        _resume(console, resume, recipe, teacher, {**given, "name": name, "student": student}, set_ or [])
        return
    if student is None:
        raise UserError("Give the model to train: --student yolov8n (pretrained) or --student yolov8n.yaml (scratch).")
    from yolokd.training.plan import make_plan
    from yolokd.training.regime import in_its_regime
    from yolokd.training.run import resolve_recipe, split_teachers, start

    first, further = split_teachers(teacher)
    overrides = [*(set_ or []), *further]
    resolved = resolve_recipe(recipe or DEFAULT_RECIPE, overrides, **given, name=name)
    if recipe is None and first is None and in_its_regime(resolved, student)[0].needs_teacher:
        raise UserError("Give the teacher: --teacher yolov8l, or train without one: --recipe baseline.")
    with ExitStack() as stack:
        if found := stack.enter_context(_labels(console, first, resolved, classes or [], dry_run=dry_run)):
            resolved = resolve_recipe(recipe or DEFAULT_RECIPE, [*overrides, *found.changes], **given | found.options)
        progress = stack.enter_context(image_bar())
        plan = make_plan(first, student, resolved, allow_partial=allow_partial, progress=progress)
    show_plan(console, plan)
    if not dry_run:
        _done(console, start(plan), plan.data.yaml_path)


@contextmanager
def _labels(
    console: Console, teacher: Spec | None, recipe: Recipe, classes: Sequence[str], *, dry_run: bool
) -> Iterator[FirstLabels | None]:
    """Label the images first, show the set, and yield what makes the recipe train on it; None for a run with data.

    A dry run labels them as well, since all else follows from the set, but keeps the teacher's answers alone.
    """
    from yolokd.cli.progress import images_told, share_bar
    from yolokd.training.label_free import is_label_free, labels_first

    if not is_label_free(recipe):
        if classes:
            raise UserError("--classes chooses what the teacher labels without --data; a data set has its own classes.")
        yield None
        return
    with ExitStack() as stack:
        with share_bar("Looking at the images") as show:
            told = images_told(show)
            found = stack.enter_context(labels_first(teacher, recipe, classes=classes, keep=not dry_run, progress=told))
        where = "its answers are kept for the run" if dry_run else f"in {found.made.path.parent}"
        console.print(Text(f"Labeled by the teacher, {where}:"), soft_wrap=True)
        _show_labels(console, found.made)
        yield found


def _show_labels(console: Console, made: Labeled) -> None:
    from yolokd.cli.data_table import report_table

    console.print(report_table(made.report))
    for note in made.notes:
        console.print(Text(f"note      {note}", style="yellow"), soft_wrap=True)


def whole(number: float | None) -> float | None:
    """Return a number that stands for a whole one as such: a batch is a count, -1, or a share of the memory."""
    return int(number) if number is not None and number.is_integer() else number


def _resume(
    console: Console,
    run: str,
    recipe: str | None,
    teacher: Sequence[str] | None,
    given: Mapping[str, object],
    overrides: Sequence[str],
) -> None:
    from yolokd.training.resume_changes import CHANGEABLE, MOVABLE, refuse_fixed, refuse_others, split_assignments
    from yolokd.training.run import resolve_recipe, resume

    options = {key: value for key, value in given.items() if value is not None}
    refuse_fixed([f"--{key}" for key in options if key not in {*CHANGEABLE, *MOVABLE}])
    changes, others = split_assignments(overrides)
    if recipe is None:
        refuse_others(others)
    asked = None if recipe is None else resolve_recipe(recipe, others)
    named = [o.partition("=")[0].removeprefix("train.") for o in others if o.startswith("train.")]
    changes += [f"train.{key}={json.dumps(value)}" for key, value in options.items()]

    def tell(note: str) -> None:
        console.print(Text(f"note      {note}", style="yellow"), soft_wrap=True)

    _done(console, str(resume(run, recipe=asked, teacher=teacher, named=named, changes=changes, tell=tell)))


def _done(console: Console, folder: str | Path, data: Path | None = None) -> None:
    from yolokd.evaluation.wording import NOTE, is_labeled_by_teacher

    console.print(
        Text(f"\nThe run is in {folder}: weights/best.pt is the plain student, results.csv holds losses and metrics.")
    )
    if data is not None and is_labeled_by_teacher(data):
        console.print(Text(NOTE, style="yellow"), soft_wrap=True)


def show_plan(console: Console, plan: Plan) -> None:
    """Print what is going to happen."""
    table = Table(title=Text(f"Plan: {plan.recipe.name}"), title_justify="left", show_header=True, box=None)
    for column in ("", "model", "weights", "parameters", "GFLOPs", "head"):
        table.add_column(column, justify="right" if column in {"parameters", "GFLOPs"} else "left")
    teachers = [("teacher", model) for model in (plan.teacher, *plan.further)]
    for role, model in (*teachers, ("student", plan.student)):
        if model is not None:
            table.add_row(*map(Text, _model_row(role, model)))
    console.print(table)
    if plan.teacher is not None:
        if plan.recipe.distills:
            if plan.recipe.teacher.answers == "live":
                _show_taps(console, plan, plan.teacher)
            _show_terms(console, plan)
        _show_classes(console, plan)
    counts = ", ".join(f"{split.images} {name}" for name, split in plan.report.splits.items())
    console.print(Text(f"data      {plan.data.yaml_path}: {counts} images, {len(plan.data.names)} classes"))
    if plan.unlabeled is not None:
        what = f"{len(plan.unlabeled.files)} images, {plan.unlabeled.share:.0%} of what a step sees"
        console.print(Text(f"unlabeled {plan.unlabeled.source}: {what}"))
    console.print(Text(f"size      {plan.imgsz} px, {argument(plan.recipe.train, 'epochs')} epochs"))
    if plan.teacher is not None and plan.teacher_imgsz != plan.imgsz:
        what = f"the teacher sees the images at {plan.teacher_imgsz} px, the student the average of 2 × 2 pixels"
        console.print(Text(f"          {what}"))
    console.print(Text(f"cost      about {plan.cost:.2f} × plain training per step (by floating-point operations)"))
    console.print(Text(f"folder    {plan.folder}"))
    for note in plan.notes:
        console.print(Text(f"note      {note}", style="yellow"))


def _model_row(role: str, model: ModelPlan) -> tuple[str, ...]:
    head = model.head
    kind = f"{' + '.join(head.branches)}, reg_max {head.bins}"
    start = "trained" if model.pretrained else "from scratch"
    return role, model.spec, start, f"{model.parameters:,}", f"{model.gflops:.2f}", kind


def _show_taps(console: Console, plan: Plan, teacher: ModelPlan) -> None:
    from yolokd.teachers.scaled import COARSER

    taps = Table(box=None, show_header=True)
    for column in ("features", "student", "teacher"):
        taps.add_column(column)
    scaled = plan.recipe.teacher.scale != 1
    theirs = () if scaled else teacher.head.levels
    for level in sorted({*plan.student.head.levels, *theirs}):
        other = COARSER.get(level, "") if scaled else level
        cells = [
            f"layer {head.layers[one]}, {head.widths[one]} channels" if one in head.layers else "none"
            for head, one in ((plan.student.head, level), (teacher.head, other))
        ]
        taps.add_row(level, cells[0], f"{other}: {cells[1]}" if scaled and other in teacher.head.layers else cells[1])
    console.print(taps)


def _show_terms(console: Console, plan: Plan) -> None:
    table = Table(box=None)
    table.add_column("term")
    table.add_column("gain", justify="right")
    table.add_column("schedule")
    for term, gain in plan.recipe.terms().items():
        schedule = plan.recipe.schedule_of(term)
        rise = f"{schedule.warmup:g} epochs" if isinstance(schedule.warmup, float) else f"{schedule.warmup} of the run"
        when = f"{schedule.shape}, warm-up {rise}, until {schedule.until:.0%} of the run"
        table.add_row(f"kd_{term}", gain if gain == "auto" else f"{gain:g}", when if gain else "off")
    console.print(table)


def _show_classes(console: Console, plan: Plan) -> None:
    if plan.classes is None:
        return
    if all(own == other for own, other in plan.classes.rows):
        console.print(Text(f"classes   the same {len(plan.classes.rows)} on both sides"))
        return
    table = Table(box=None)
    table.add_column("class of the data")
    table.add_column("class of the teacher")
    for own, other in plan.classes.rows:
        table.add_row(Text(own), Text(other or "- none -"))
    console.print(table)
