"""Checking a comparison before its first run: what differs between recipes must be the distillation alone."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from yolokd.backend.api import select_device, yaml_model_load
from yolokd.backend.checkpoints import Spec, find, is_yaml
from yolokd.comparison.metrics import check_data, check_teachers, common_task
from yolokd.comparison.spec import BASELINE, FILE, Comparison, Student, read, trained_as
from yolokd.data.check import fingerprint
from yolokd.errors import UserError
from yolokd.files import sha256, sha256_of
from yolokd.loaders.unlabeled import with_absolute_paths
from yolokd.recipe import Recipe
from yolokd.recipe.arguments import OWN, argument
from yolokd.recipe.classes import ClassMap
from yolokd.training import run_files as records
from yolokd.training.plan import Known, Plan, make_plan
from yolokd.training.run import resolve_recipe
from yolokd.training.run_directory import check_name, check_place

COMMON = ("train.", "teacher.")  # what --set may change: the rest makes a recipe what it is
# Training arguments that do not touch the result of a paired run, or that the comparison sets itself.
NEUTRAL = frozenset((
    "cache", "data", "device", "exist_ok", "name", "patience", "plots", "project", "save", "save_period", "seed",
    "verbose", "workers",
))  # fmt: skip


def load_alike(names: Sequence[str | Path], overrides: Sequence[str] = (), **options: Any) -> list[Recipe]:
    """Load recipes to set side by side, with the same options and overrides applied to each.

    Raises:
        UserError: No recipes, the same name twice, or an override that would change some recipes and not others.
        RecipeError: All problems of a recipe at once.
    """
    special = [override for override in overrides if not override.strip().startswith(COMMON)]
    if special:
        raise UserError(
            f"--set holds for all recipes that are set side by side, so it takes train.* and teacher.* only, got "
            f"'{special[0]}'. Write a recipe file to change another key."
        )
    recipes = [resolve_recipe(name, overrides, **options) for name in names]
    _distinct("recipes", [recipe.name for recipe in recipes])
    return recipes


def load_recipes(names: Sequence[str | Path], overrides: Sequence[str] = (), **options: Any) -> list[Recipe]:
    """Load the recipes of a comparison, the baseline first.

    A baseline that is not among them is added with the training arguments of the first recipe. Errors: `load_alike`.
    """
    recipes = load_alike(names, overrides, **options)
    if all(recipe.name != BASELINE for recipe in recipes):
        plain = {"losses": {}, "train": recipes[0].train, "teacher": recipes[0].teacher.model_dump()}
        recipes.append(Recipe.from_dict(plain, name=BASELINE))
    taught = {one.name for one in recipes if (one.distills or one.regimes) and one.name != BASELINE}
    recipes = [with_absolute_paths(recipe if recipe.name in taught else _labeled_only(recipe)) for recipe in recipes]
    return sorted(recipes, key=lambda recipe: recipe.name != BASELINE)  # stable: the others as given


def plan_comparison(
    teacher: Spec | None,
    students: Sequence[Spec],
    recipes: Sequence[Recipe],
    seeds: Sequence[int],
    *,
    devices: Sequence[str | None] = (None,),
    name: str | None = None,
    allow_partial: bool = False,
    runs: Path = Path("runs"),
    progress: Callable[[int, int], None] | None = None,
) -> Comparison:
    """Check a comparison in full, without writing anything.

    Args:
        teacher: The teacher's checkpoint; None only if no recipe needs one.
        students: Checkpoints, names or model YAMLs; each is compared with a baseline of its own.
        recipes: From `load_recipes`.
        seeds: Whole numbers from 0.
        devices: Where runs may take place, one run at a time on each entry; None picks a device.
        name: Name of the folder below `runs`; "compare-" and the data YAML's stem if None.
        allow_partial: As for training.
        runs: Folder of all runs.
        progress: As for `make_plan`.

    Raises:
        UserError: Names that clash, budgets that differ, and whatever `make_plan` refuses: before the first step.
    """
    _check_parts(students, recipes[0], seeds)
    trained, notes = _trained(recipes, students)
    each = [recipe for own in trained.values() for recipe in own]
    budgets, classes = [_budget(own) for own in trained.values()], _classes(each)  # each agrees with the baseline's
    options = {"allow_partial": allow_partial, "runs": runs / "compare", "progress": progress}
    plans = _plans(teacher, {who: [_on(one, devices) for one in own] for who, own in trained.items()}, **options)
    task, plan = _task(plans), plans[0]
    used = _used(teacher, each)
    name = f"compare-{plan.data.yaml_path.stem}" if name is None else name
    folder = runs.absolute() / name
    stored = read(folder) if (folder / FILE).is_file() else None  # perhaps with fingerprints of an earlier version
    comparison = Comparison(
        folder=folder,
        data=str(plan.data.yaml_path.absolute()),
        data_fingerprint=fingerprint(plan.data.splits, like=None if stored is None else stored.data_fingerprint),
        **_identity(used),
        budget=budgets[0] | {"imgsz": plan.imgsz, "device": select_device(devices[0] or "", verbose=False).type},
        recipes={recipe.name: recipe.to_dict() for recipe in recipes},
        students={Path(student).stem: Student(_absolute(student), _digest(student)) for student in students},
        seeds=tuple(seeds),
        classes=classes,
        allow_partial=allow_partial,
        task=task,
        versions=records.versions(),
        unlabeled=_unlabeled(plans, stored),
        models={str(one.path.absolute()): sha256(one.path) for plan in plans for one in plan.further},
        notes=tuple(dict.fromkeys([*notes, *(note for plan in plans for note in plan.notes)])),
    )
    _check_places(comparison, name)
    return comparison


def _check_parts(students: Sequence[Spec], baseline: Recipe, seeds: Sequence[int]) -> None:
    _distinct("seeds", [str(seed) for seed in seeds])
    _distinct("students", [Path(student).stem for student in students])
    if baseline.name != BASELINE or baseline.needs_teacher or baseline.regimes:
        raise UserError(f"The recipe '{BASELINE}' of a comparison must have no losses, and random first weights.")


def _used(teacher: Spec | None, recipes: Sequence[Recipe]) -> Path | None:
    """Return the teacher's file if any of the recipes needs it."""
    return find(teacher) if teacher is not None and any(recipe.needs_teacher for recipe in recipes) else None


def _identity(teacher: Path | None) -> dict[str, Any]:
    """Return path and digest of the teacher, under the names of a comparison's fields."""
    if teacher is None:
        return {"teacher": None, "teacher_sha256": None}
    return {"teacher": str(teacher.absolute()), "teacher_sha256": sha256(teacher)}


def _check_places(comparison: Comparison, name: str) -> None:
    check_name(comparison.folder.parent, name)
    for run in comparison.runs:
        check_place(run.folder)


def _plans(teacher: Spec | None, recipes: Mapping[Spec, Sequence[Recipe]], **options: Any) -> list[Plan]:
    """Check every combination as a run of its own; labels and the teacher are read once."""
    known = Known()
    return [
        make_plan(teacher if recipe.needs_teacher else None, student, recipe, known=known, **options)
        for student, own in recipes.items()
        for recipe in own
    ]


def _task(plans: Sequence[Plan]) -> str:
    """Return the task of all students, after it was checked that they, the teacher and the labels can be scored by it.

    Raises:
        UserError: Students of several tasks, or a model whose task is not scored.
        DataError: Labels that the task cannot be scored on.
    """
    task = common_task({str(plan.student.spec): plan.student.head.task for plan in plans})
    check_teachers({str(plan.teacher.spec): plan.teacher.head.task for plan in plans if plan.teacher is not None})
    check_data(task, [(plan.data, plan.report) for plan in plans[:1]])
    return task


def _trained(recipes: Sequence[Recipe], students: Sequence[Spec]) -> tuple[dict[Spec, list[Recipe]], list[str]]:
    """Return the recipes as they train each student, and what to say about their regimes.

    Raises:
        UserError: The first is no plain training.
    """
    if recipes[0].name != BASELINE or recipes[0].needs_teacher or recipes[0].regimes:
        raise UserError(f"The recipe '{BASELINE}' of a comparison must have no losses, and random first weights.")
    trained: dict[Spec, list[Recipe]] = {}
    told = []
    for student in students:
        pairs = [trained_as(recipe, student) for recipe in recipes]
        trained[student] = [recipe for recipe, _ in pairs]
        whose = "" if len(students) == 1 else f"{Path(student).stem}: "
        told += [f"{whose}{note}" for _, notes in pairs for note in notes]
    return trained, told


def _unlabeled(plans: Sequence[Plan], stored: Comparison | None) -> dict[str, str]:
    """Source of unlabeled images → digest, in the form that a comparison stored, if there is one."""
    sources = [plan.unlabeled for plan in plans if plan.unlabeled is not None]
    known = {} if stored is None else stored.unlabeled
    found = [source.identity(like=known.get(str(source.source))) for source in sources]
    return {entry["source"]: entry["fingerprint"] for entry in found}


def _labeled_only(recipe: Recipe) -> Recipe:
    """Return a recipe without losses as it trains: unlabeled images and pseudo-labels are for the others."""
    train = {key: value for key, value in recipe.train.items() if key not in OWN}
    return recipe.with_sections(train=train)


def _on(recipe: Recipe, devices: Sequence[str | None]) -> Recipe:
    """Return a recipe on all devices together, which its plan checks."""
    together = ",".join(dict.fromkeys(device for device in devices if device is not None))
    if not together:
        return recipe
    return recipe.with_sections(train={**recipe.train, "device": together})


def _budget(recipes: Sequence[Recipe]) -> dict[str, Any]:
    """The training arguments that all recipes share.

    Raises:
        UserError: They differ, or leave the number of epochs or the size of a batch to the machine.
    """
    keys = sorted({key for recipe in recipes for key in recipe.train} - NEUTRAL - OWN.keys())
    lines = []
    for key in keys:
        values = {recipe.name: argument(recipe.train, key) for recipe in recipes}
        if any(value != values[BASELINE] for value in values.values()):
            lines.append(f"{key} ({', '.join(f'{name} {value}' for name, value in values.items())})")
    if lines:
        raise UserError(
            f"The recipes train with different budgets, so their scores could not be compared: {'; '.join(lines)}. "
            f"Give them the same value with --epochs, --imgsz, --batch or --set train.KEY=VALUE."
        )
    budget = {key: argument(recipes[0].train, key) for key in keys}
    budget |= {key: argument(recipes[0].train, key) for key in ("epochs", "imgsz", "batch")}
    if budget.get("time") is not None:
        raise UserError("train.time ends runs by the clock, so that their budgets differ; give --epochs instead.")
    if not (isinstance(budget["batch"], int) and budget["batch"] > 0):
        raise UserError(f"A comparison needs a batch size of its own, such as --batch 16, got {budget['batch']}.")
    if budget.get("multi_scale"):
        raise UserError("train.multi_scale draws image sizes that differ between runs; leave it out of a comparison.")
    return budget


def _classes(recipes: Sequence[Recipe]) -> ClassMap:
    """How the teacher's classes are mapped when it is scored: as the recipes say, which must agree."""
    given = {recipe.name: recipe.to_dict()["teacher"]["classes"] for recipe in recipes if recipe.teacher.classes}
    first: ClassMap = next(iter(given.values()), {})
    if any(classes != first for classes in given.values()):
        raise UserError(f"The recipes {', '.join(given)} map the teacher's classes differently (teacher.classes).")
    return first


def _distinct(what: str, names: Sequence[str]) -> None:
    if not names:
        raise UserError(f"There are no {what} to compare; give at least one.")
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise UserError(f"The {what} need different names; given twice: {', '.join(twice)}.")


def _absolute(spec: Spec) -> str:
    path = Path(spec).expanduser()
    return str(path.absolute()) if path.exists() else str(spec)


def _digest(spec: Spec) -> str:
    if not is_yaml(spec):
        return sha256(find(spec))
    description = {key: value for key, value in yaml_model_load(str(spec)).items() if key != "yaml_file"}
    return sha256_of(json.dumps(description, sort_keys=True, default=str))
