"""Starting and continuing runs: from a checked plan to a finished folder."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from yolokd.backend.checkpoints import Spec, find, from_scratch
from yolokd.backend.devices import check_device
from yolokd.backend.quantization import without_warnings
from yolokd.data.check import fingerprint
from yolokd.errors import RunError, UserError, YolokdError
from yolokd.files import sha256
from yolokd.loaders.unlabeled import with_absolute_paths
from yolokd.recipe import Recipe, load_recipe
from yolokd.recipe.arguments import OWN, argument
from yolokd.training import run_files as records
from yolokd.training.checkpoint_files import finish_checkpoints
from yolokd.training.label_free import is_label_free, labels_first
from yolokd.training.plan import Plan, make_plan
from yolokd.training.regime import as_started
from yolokd.training.resume import Interrupted, check_same, read_interrupted
from yolokd.training.resume_changes import prepare, refuse_fixed, refuse_others
from yolokd.training.settings import KEY, RunSettings
from yolokd.training.trainer import DistillTrainer
from yolokd.training.trainers import trainer_of

OWN_PART = re.compile(r"(best|last|epoch\d+)\.pt\.part")  # what a kill leaves of a checkpoint that was being written
OPTIONS = (
    "data",
    "epochs",
    "imgsz",
    "batch",
    "device",
    "seed",
    "name",
    "unlabeled",
)  # of `train`, each a key of the recipe's `train`


def train(
    teacher: Spec | Sequence[Spec] | None,
    student: Spec,
    recipe: str | Path,
    *,
    overrides: Sequence[str] = (),
    allow_partial: bool = False,
    **options: Any,
) -> Path:
    """Check, then train; see `yolokd.api.train`."""
    first, further = split_teachers(teacher)
    resolved = resolve_recipe(recipe, [*overrides, *further], **options)
    with ExitStack() as stack:
        if is_label_free(resolved):
            found = stack.enter_context(labels_first(first, resolved))
            resolved = resolve_recipe(recipe, [*overrides, *further, *found.changes], **{**options, **found.options})
        plan = make_plan(first, student, resolved, allow_partial=allow_partial)
    return start(plan)


def split_teachers(teachers: Spec | Sequence[Spec] | None) -> tuple[Spec | None, list[str]]:
    """Return the first of several teachers, and the assignment of the others to `teacher.models`, if there are any."""
    if teachers is None or isinstance(teachers, (str, Path)):
        return teachers, []
    specs = list(teachers)
    if len(specs) < 2:
        return (specs[0] if specs else None), []
    return specs[0], [f"teacher.models={json.dumps(list(map(str, specs[1:])))}"]


def resolve_recipe(recipe: str | Path, overrides: Sequence[str] = (), **options: Any) -> Recipe:
    """Load a recipe with the command's options and overrides applied; options that are None are left as they are.

    Raises:
        UserError: An option that does not exist.
        RecipeError: All problems of the recipe and of the options at once.
    """
    unknown = set(options) - set(OPTIONS)
    if unknown:
        raise UserError(f"Unknown option {', '.join(sorted(unknown))}; known are {', '.join(OPTIONS)}, overrides.")
    given = [f"train.{key}={json.dumps(value, default=str)}" for key, value in options.items() if value is not None]
    return load_recipe(recipe, [*overrides, *given])


def start(
    plan: Plan, *, paired: bool = False, callbacks: Mapping[str, Callable[[DistillTrainer], None]] | None = None
) -> Path:
    """Train as planned and return the run's folder.

    Args:
        plan: What to do, checked.
        paired: Show the images that every paired run with this seed shows; see `yolokd.loaders.sampling`.
        callbacks: Ultralytics' event → called with the trainer, after all others; only for a run in this one process.

    Raises:
        UserError: A paired run with `multi_scale`, whose sizes are not paired.
        RunError: The run failed after it had started.
    """
    if paired and plan.recipe.train.get("multi_scale"):
        raise UserError("Paired runs see the same images at the same size: leave train.multi_scale out or set it 0.")
    settings = RunSettings(
        recipe=plan.recipe.to_dict(),
        recipe_name=plan.recipe.name,
        teacher=None if plan.teacher is None else str(plan.teacher.path.absolute()),
        teacher_sha256=None if plan.teacher is None else sha256(plan.teacher.path),
        models_sha256=[sha256(model.path) for model in plan.further],
        paired=paired,
        provenance=_provenance(plan),
    )
    overrides: dict[str, Any] = {
        **{key: value for key, value in plan.recipe.train.items() if key not in OWN},
        "task": plan.student.head.task,
        "mode": "train",
        "model": str(plan.student.path.absolute() if plan.student.path.exists() else plan.student.path),
        "data": str(plan.data.yaml_path.absolute()),
        "imgsz": plan.imgsz,
        "project": str(plan.folder.parent),
        "name": plan.folder.name,
        KEY: settings.to_dict(),
    }
    if plan.teacher is not None and plan.recipe.distills:
        overrides["distill_model"] = settings.teacher

    def build() -> DistillTrainer:
        trainer = trainer_of(plan.student.head.task)(overrides=overrides)
        trainer.detectors = plan.detectors
        for event, callback in (callbacks or {}).items():
            trainer.add_callback(event, callback)
        return trainer

    return _run(build)


def resume(
    run: str,
    *,
    recipe: Recipe | None = None,
    teacher: Spec | Sequence[Spec] | None = None,
    device: str | None = None,
    named: Collection[str] = (),
    changes: Sequence[str] = (),
    tell: Callable[[str], None] | None = None,
) -> Path:
    """Continue an interrupted run from its last saved epoch, and finish it.

    Args:
        run: The run's folder, or the last.pt in it.
        recipe: A recipe to compare with that of the run.
        teacher: Where the teacher is now; of several, all in the order of the run, or the first.
        device: Where to go on.
        named: Keys of `train` that `recipe` was given with.
        changes: `train.key=value` with keys of `yolokd.training.resume_changes`: where data and unlabeled images are
            now, batch, workers and the like.
        tell: Called with each sentence about what changes.

    Raises:
        UserError: Nothing to continue, another teacher, recipe or data than the run was started with, or a change that
            would make another run of it.
        RunError: The run failed again.
    """
    refuse_others(changes)
    if recipe is None:
        refuse_fixed([f"train.{key}" for key in named])
    interrupted = read_interrupted(run)
    device_too = [] if device is None else [f"train.device={json.dumps(device)}"]
    asked = None if recipe is None else with_absolute_paths(_as_started(recipe, interrupted))
    teacher_paths = check_same(interrupted, asked, teacher, named)
    say = tell or (lambda note: None)
    if interrupted.epoch >= interrupted.epochs:  # killed after the last epoch, while finishing
        check_device(device)
        if changes:
            say(f"all epochs are completed, so nothing changes by {', '.join(changes)}")
        return _finish(interrupted)
    prepared = prepare(interrupted, [*changes, *device_too])
    settings = prepared.run.settings
    if teacher_paths:
        _move_teachers(settings, teacher_paths)
    for note in prepared.notes:
        say(note)
    overrides: dict[str, Any] = {
        "task": interrupted.task,
        "mode": "train",
        "model": str(interrupted.checkpoint),
        "resume": str(interrupted.checkpoint),
        "save_dir": str(interrupted.folder),
        **prepared.arguments,
        KEY: settings.to_dict(),
    }
    if teacher_paths and settings.load_recipe().distills:
        overrides["distill_model"] = settings.teacher
    _remove_parts(interrupted.folder / "weights")
    return _run(lambda: trainer_of(interrupted.task)(overrides=overrides))


def _as_started(recipe: Recipe, run: Interrupted) -> Recipe:
    student = run.settings.provenance.get("student") or run.arguments.get("model") or ""
    return as_started(recipe, run.settings.load_recipe(), str(student))


def _move_teachers(settings: RunSettings, paths: Sequence[Path]) -> None:
    """Set where the teachers are now, the first and those of `teacher.models`."""
    settings.teacher, *models = (str(path.absolute()) for path in paths)
    settings.recipe["teacher"] = {**settings.recipe.get("teacher", {}), "models": models}


def _remove_parts(folder: Path) -> None:
    """Remove what a kill has left of checkpoints that were being written."""
    for stray in folder.glob("*.pt.part"):
        if OWN_PART.fullmatch(stray.name):
            stray.unlink()


def _run(build: Callable[[], DistillTrainer]) -> Path:
    try:
        with without_warnings():
            trainer = build()
            trainer.train()
    except YolokdError:
        raise
    except subprocess.CalledProcessError as error:
        raise RunError("The run failed in one of its processes; its own message stands above.") from error
    except Exception as error:  # whatever Ultralytics or torch raise; --debug shows where
        reason = str(error).strip() or type(error).__name__
        raise RunError(f"The run failed: {reason}") from error
    return Path(trainer.save_dir)


def _finish(interrupted: Interrupted) -> Path:
    finish_checkpoints(interrupted.folder / "weights", interrupted.settings)
    records.cut_results(interrupted.folder / "results.csv", interrupted.epochs)
    return interrupted.folder


def _provenance(plan: Plan) -> dict[str, Any]:
    return {
        "student": plan.student.spec,
        "student_initialisation": _initialization(plan),
        "data": str(plan.data.yaml_path.absolute()),
        "data_fingerprint": fingerprint(plan.data.splits),
        "data_splits": records.split_identities(plan.data.splits),
        **({} if plan.unlabeled is None else {"unlabeled": plan.unlabeled.identity()}),
        "seed": argument(plan.recipe.train, "seed"),
        "versions": records.versions(),
        "command": records.command_line(),
    }


def _initialization(plan: Plan) -> str:
    """Say where the student's first weights come from, `train.pretrained` included, which Ultralytics lets decide."""
    pretrained = argument(plan.recipe.train, "pretrained")
    rows = "" if plan.class_rows is None else f"; class rows: {plan.class_rows}"
    if isinstance(pretrained, str):
        return f"checkpoint {pretrained}, sha256 {sha256(find(pretrained))}{rows}"
    if not from_scratch(plan.student.path, pretrained):
        return f"checkpoint {plan.student.path}, sha256 {sha256(plan.student.path)}{rows}"
    return "from scratch" if plan.selected is None else "a part of the teacher's weights, fitted on training images"
