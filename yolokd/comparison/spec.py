"""A comparison: recipes × seeds × students on one data set with one budget, and its file `compare.json`.

It lives in a folder of its own: `compare.json` (this plan), `teacher.json` (the teacher's score) and a folder per
student with a folder per run. What it was started with is checked whenever it is started again; seeds, recipes and
students may be added. `yolokd.comparison.checks` makes the plan, `execution` executes it, and `results` sums up.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from yolokd.backend.checkpoints import Spec
from yolokd.errors import UserError
from yolokd.files import PART, write_json
from yolokd.inputs import Kinds, misfits, read_json
from yolokd.locks import locked
from yolokd.recipe import Recipe
from yolokd.recipe.arguments import OWN, argument
from yolokd.recipe.classes import ClassMap
from yolokd.training.regime import in_its_regime

FILE = "compare.json"
LOCK = "lock"
BASELINE = "baseline"
TEXT_OR_NONE = (str, type(None))
KINDS: Kinds = {
    "data": str, "data_fingerprint": str, "teacher": TEXT_OR_NONE, "teacher_sha256": TEXT_OR_NONE, "budget": dict,
    "recipes": dict, "classes": (dict, str), "allow_partial": bool, "versions": dict, "unlabeled": dict, "models": dict,
    "sequential": bool, "task": str,
}  # fmt: skip


@dataclass(frozen=True)
class Student:
    """A model description or checkpoint, and a digest of what it holds."""

    spec: str
    digest: str


@dataclass(frozen=True)
class Run:
    """One training of a comparison."""

    student: str
    recipe: str
    seed: int
    folder: Path

    @property
    def name(self) -> str:
        """The run's folder below the comparison's."""
        return f"{self.student}/{self.folder.name}"


@dataclass(frozen=True)
class Comparison:
    """What is compared, checked; plain data but for the folder."""

    folder: Path
    data: str
    data_fingerprint: str
    teacher: str | None
    teacher_sha256: str | None
    budget: Mapping[str, Any]  # training arguments that all runs share
    recipes: Mapping[str, dict[str, Any]]  # name → resolved recipe
    students: Mapping[str, Student]
    seeds: tuple[int, ...]
    classes: ClassMap  # the teacher's class names → the data's, or the name of a shipped map
    allow_partial: bool
    versions: Mapping[str, str]
    unlabeled: Mapping[str, str] = field(default_factory=dict)  # sources of unlabeled images → digest
    models: Mapping[str, str] = field(default_factory=dict)  # teachers beside the first → SHA-256
    sequential: bool = False  # seeds are added until something is decided, which the intervals allow for
    task: str = "detect"  # of all students
    notes: tuple[str, ...] = field(default=(), compare=False)  # told to the user, not stored

    @property
    def runs(self) -> list[Run]:
        """All runs, seed by seed and the baseline first, so that pairs are complete as early as possible."""
        return [
            Run(student, recipe, seed, self.folder / student / f"{recipe}-{seed}")
            for seed in self.seeds
            for student in self.students
            for recipe in self.recipes
        ]

    def recipe_for(self, student: str, name: str) -> Recipe:
        """Return a recipe as it trains one of the students: in the regime that fits."""
        return trained_as(Recipe.from_dict(self.recipes[name], name=name), self.students[student].spec)[0]

    def recipe_of(self, run: Run, device: str | None) -> Recipe:
        """Return the recipe of a run with its seed, name and device, early stopping off."""
        recipe = self.recipe_for(run.student, run.recipe)
        own: dict[str, Any] = {"data": self.data, "seed": run.seed, "name": run.folder.name, "patience": 0}
        if device is not None:
            own["device"] = device
        return recipe.with_sections(train={**recipe.train, **own})

    def save(self) -> None:
        """Write `compare.json`."""
        plain = asdict(self)
        del plain["folder"], plain["notes"]
        write_json(self.folder / FILE, plain)


def trained_as(recipe: Recipe, student: Spec) -> tuple[Recipe, list[str]]:
    """Return a recipe as it trains a student, in the regime that fits, with notes on it.

    Images without labels and pseudo-labels are for recipes that distill; one that does not trains without them.
    """
    chosen, notes = in_its_regime(recipe, student)
    if chosen.distills and chosen.name != BASELINE:
        return chosen, notes
    return chosen.with_sections(train={key: value for key, value in chosen.train.items() if key not in OWN}), notes


def read(folder: Path) -> Comparison:
    """Return the comparison that a folder holds.

    Raises:
        UserError: `compare.json` is missing or cannot be read.
    """
    try:
        plain = read_json(folder / FILE)
        students = {name: Student(**student) for name, student in plain.pop("students").items()}
        found = Comparison(folder=folder, students=students, seeds=tuple(plain.pop("seeds")), **plain)
        _check_kinds(found)
        return found
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"'{folder}' holds no comparison that can be read ({error}). Give another --name.") from error


def _check_kinds(found: Comparison) -> None:
    """Raise `TypeError` where a value read from a file is not of its field's kind."""
    inside = {"recipe": found.recipes.values(), "seed": found.seeds, "student": found.students.values()}
    wrong = [*misfits(vars(found), KINDS)]
    wrong += [what for what, values in inside.items() if not all(_is_a(what, value) for value in values)]
    if wrong:
        raise TypeError(f"{', '.join(wrong)}: of another kind than written")


def _is_a(what: str, value: Any) -> bool:
    if what == "recipe":
        return isinstance(value, dict) and isinstance(value.get("train"), dict)
    if what == "student":
        return isinstance(value.spec, str) and isinstance(value.digest, str)
    return type(value) is int


@contextmanager
def opened(asked: Comparison) -> Iterator[Comparison]:
    """Hold the comparison's folder: written at the first start, checked and extended at every other.

    Yields:
        What was asked for. The file keeps recipes, seeds and students of earlier calls as well.

    Raises:
        UserError: The folder holds something else, a comparison that differs by more than added recipes, seeds or
            students, or one that another process is running.
    """
    folder = asked.folder
    stored_alike(asked)
    folder.mkdir(parents=True, exist_ok=True)
    with _locked(folder):
        stored = stored_alike(asked)
        if stored is None:
            asked.save()
            yield asked
            return
        sequential = asked.sequential or stored.sequential
        replace(
            asked,
            teacher=asked.teacher or stored.teacher,
            teacher_sha256=asked.teacher_sha256 or stored.teacher_sha256,
            recipes={**stored.recipes, **asked.recipes},
            students={**stored.students, **asked.students},
            seeds=tuple(dict.fromkeys((*stored.seeds, *asked.seeds))),
            classes=asked.classes or stored.classes,
            unlabeled={**stored.unlabeled, **asked.unlabeled},
            models={**stored.models, **asked.models},
            versions=stored.versions,
            sequential=sequential,
        ).save()
        yield replace(asked, sequential=sequential, notes=(*asked.notes, *_version_notes(asked, stored)))


def stored_alike(asked: Comparison) -> Comparison | None:
    """Return what the comparison's folder holds, which agrees with what is asked for; None if nothing was started.

    Raises:
        UserError: The folder holds something else, or a comparison that differs by more than added recipes, seeds or
            students.
    """
    folder = asked.folder
    if not (folder / FILE).exists():
        if folder.exists() and any(map(_is_foreign, folder.iterdir())):
            raise UserError(f"'{folder}' exists and is no comparison. Give another --name.")
        return None
    stored = read(folder)
    if differences := _differences(asked, stored):
        raise UserError(
            f"The comparison in '{folder}' was started with {'; '.join(differences)}. Only recipes, seeds and "
            f"students can be added to it; give another --name for a new one."
        )
    return stored


def _version_notes(asked: Comparison, stored: Comparison) -> list[str]:
    changed = [f"{key} {own}" for key, own in stored.versions.items() if own != asked.versions[key]]
    return [f"earlier runs of this comparison were made with {', '.join(changed)}"] if changed else []


def _is_foreign(path: Path) -> bool:
    """Whether a file of a folder without `compare.json` is none that a killed comparison leaves there."""
    return path.name != LOCK and not (FILE in path.name and path.name.endswith(PART))


def _differences(asked: Comparison, stored: Comparison) -> list[str]:
    found = []
    keys = dict.fromkeys([*stored.budget, *asked.budget])
    changed = [key for key in keys if argument(stored.budget, key) != argument(asked.budget, key)]
    if changed:
        pairs = [f"{key} {argument(stored.budget, key)}, now {argument(asked.budget, key)}" for key in changed]
        found.append(f"another budget ({'; '.join(pairs)})")
    if asked.data_fingerprint != stored.data_fingerprint:
        found.append(f"other data than '{asked.data}' holds now ({stored.data})")
    if asked.teacher and stored.teacher and asked.teacher_sha256 != stored.teacher_sha256:
        found.append(f"another teacher than '{asked.teacher}' holds now ({stored.teacher})")
    if asked.classes and stored.classes and asked.classes != stored.classes:
        found.append("other teacher.classes")
    if asked.task != stored.task:
        found.append(f"students of the task {stored.task}, now {asked.task}")
    if asked.allow_partial != stored.allow_partial:
        found.append(f"--allow-partial {'on' if stored.allow_partial else 'off'}")
    for source in asked.unlabeled.keys() & stored.unlabeled.keys():
        if asked.unlabeled[source] != stored.unlabeled[source]:
            found.append(f"other unlabeled images than '{source}' holds now")
    for path in asked.models.keys() & stored.models.keys():
        if asked.models[path] != stored.models[path]:
            found.append(f"another teacher than '{path}' holds now")
    for name in asked.students.keys() & stored.students.keys():
        if asked.students[name].digest != stored.students[name].digest:
            found.append(f"another student '{name}'")
    for name in [name for name in asked.recipes if name in stored.recipes]:
        students = {**stored.students, **asked.students}
        sides = (replace(asked, students=students), replace(stored, students=students))
        compared = [[_essence(side.recipe_for(student, name)) for side in sides] for student in students]
        if lines := dict.fromkeys(line for here, there in compared for line in here.differences(there)):
            found.append(f"another recipe '{name}' ({'; '.join([*lines][:5])})")
    return found


def _essence(recipe: Recipe) -> Recipe:
    """Return what makes a recipe what it is: without its summary, and the training arguments that all recipes share.

    Levels that an earlier version named by itself, the three that all of its models had, are all common ones.
    """
    losses = {
        name: {**section, "levels": None} if section.get("levels") == ["p3", "p4", "p5"] else section
        for name, section in recipe.to_dict()["losses"].items()
    }
    own = {key: value for key, value in recipe.train.items() if key in OWN}
    return recipe.with_sections(train=own, summary="", losses=losses)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Keep other processes from running the same comparison."""
    with ExitStack() as stack:
        try:
            stack.enter_context(locked(folder / LOCK, wait=False))
        except BlockingIOError as error:
            raise UserError(f"The comparison in '{folder}' is being run by another process.") from error
        yield
