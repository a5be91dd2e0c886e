"""Continuing an interrupted run: checked in full before Ultralytics could fall back to another one."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path
from typing import Any

from yolokd.backend.checkpoints import find, load
from yolokd.backend.paths import refuse_altered
from yolokd.errors import UserError
from yolokd.files import sha256
from yolokd.inputs import Kinds, misfits
from yolokd.recipe import Recipe
from yolokd.training.run_directory import is_run
from yolokd.training.settings import KEY, RunSettings

SETTINGS: Kinds = {"recipe": dict, "recipe_name": str}  # what no `RunSettings` is without


@dataclass(frozen=True)
class Interrupted:
    """A run that can go on."""

    folder: Path
    checkpoint: Path
    settings: RunSettings
    epoch: int  # finished epochs
    epochs: int  # of the whole run
    data: str  # path of the data YAML
    arguments: dict[str, Any] = field(default_factory=dict)  # Ultralytics' training arguments
    names: dict[int, str] = field(default_factory=dict)  # of the student's classes

    @property
    def task(self) -> str:
        """The student's task."""
        return str(self.arguments.get("task") or "detect")


def read_interrupted(run: str) -> Interrupted:
    """Read the state of a run from its folder or its last.pt.

    Raises:
        UserError: The run is missing, finished, not yolokd's, or was stopped before its first epoch was saved; its
            checkpoint is outside a run's folder, or in one that Ultralytics cannot open.
    """
    path = Path(run).expanduser().absolute()
    checkpoint = path / "weights" / "last.pt" if path.is_dir() else path
    if not checkpoint.is_file():
        if path.is_dir() and (path / "args.yaml").exists():
            raise UserError(
                f"The run '{run}' stopped before its first epoch was saved, so there is nothing to continue. Start it "
                f"again with its command."
            )
        raise UserError(f"There is no run '{run}' to resume: neither a run's folder nor a last.pt.")
    model, saved = load(checkpoint)
    args: dict[str, Any] = saved.get("train_args") or {}
    if saved.get("epoch", -1) < 0:
        own = KEY in saved
        raise UserError(
            f"The run '{run}' is finished, there is nothing to resume."
            if own
            else f"'{checkpoint}' is not an interrupted yolokd run: it holds no training state."
        )
    if KEY not in args:
        raise UserError(f"'{run}' is not a yolokd run; resume it with the tool that started it.")
    _check_arguments(checkpoint, args)
    _check_place(checkpoint)
    student = getattr(model, "student_model", model)
    return Interrupted(
        checkpoint.parent.parent,
        checkpoint,
        RunSettings.from_dict(args[KEY]),
        saved["epoch"] + 1,
        args["epochs"],
        str(args.get("data") or ""),
        {key: value for key, value in args.items() if key != KEY},
        dict(getattr(student, "names", {})),
    )


def _check_arguments(checkpoint: Path, args: Mapping[str, Any]) -> None:
    """Refuse a checkpoint whose training arguments are not those that a run of yolokd writes."""
    settings = args[KEY]
    damaged = [*misfits({"epochs": args.get("epochs")}, {"epochs": int})]
    if not damaged and args["epochs"] < 1:
        damaged = ["epochs"]
    if not isinstance(settings, dict) or not SETTINGS.keys() <= settings.keys() or misfits(settings, SETTINGS):
        damaged.append(KEY)
    if damaged:
        raise UserError(
            f"'{checkpoint}' cannot be resumed: its training arguments hold no valid value for {', '.join(damaged)}. "
            f"Start the run again with its command."
        )


def _check_place(checkpoint: Path) -> None:
    """Refuse a checkpoint whose folder would be filled with the files of the run, over those that are there."""
    folder = checkpoint.parent.parent
    if checkpoint.parent.name != "weights" or ((folder / "results.csv").exists() and not is_run(folder)):
        raise UserError(
            f"'{checkpoint}' is not in a folder of its own run, which the rest of the run is written to. Move it to "
            f"RUN/weights/{checkpoint.name} with a new folder RUN, and give --resume RUN."
        )
    refuse_altered(checkpoint, "The checkpoint of the run,", "Rename the folder, or move the run to another one.")


def check_same(
    run: Interrupted,
    asked: Recipe | None,
    teacher: str | Path | Sequence[str | Path] | None,
    named: Collection[str] = (),
) -> list[Path]:
    """Refuse to continue under other teachers or with a changed recipe; return the paths of the run's teachers.

    Args:
        run: The interrupted run.
        asked: The recipe given on the command line, or None if none was given.
        teacher: The teacher given on the command line, or None; of several, the first or all of them.
        named: Keys of `train` that the command line sets; the others belong to the run.

    Raises:
        UserError: Names what differs.
    """
    settings = run.settings
    stored = settings.load_recipe()
    given = [] if teacher is None else [teacher] if isinstance(teacher, (str, Path)) else list(teacher)
    if asked is not None:
        train = {**stored.train, **{key: asked.train[key] for key in named if key in asked.train}}
        complete = asked.with_sections(train=train, summary=stored.summary)
        if len(given) > 1 or not asked.teacher.models:  # where they are now is told otherwise
            models = list(stored.teacher.models)
            complete = complete.with_sections(teacher={**complete.to_dict()["teacher"], "models": models})
        differences = complete.differences(stored)
        if differences:
            raise UserError(
                f"The run '{run.folder}' was started with another recipe: {'; '.join(differences[:5])}. Resume without "
                f"--recipe and --set, or start a new run."
            )
    if settings.teacher is None:
        if given:
            raise UserError(f"The run '{run.folder}' has no teacher; '{given[0]}' cannot join it now.")
        return []
    digests = [settings.teacher_sha256, *settings.models_sha256]
    started = [settings.teacher, *stored.teacher.models][: len(digests)]
    if len(given) not in {0, 1, len(started)}:
        raise UserError(
            f"The run '{run.folder}' was started under {_count(started)}, not {len(given)}: give --teacher as often as "
            f"then, in the same order."
        )
    return [
        _same(run, str(told), place, digest)
        for told, place, digest in zip_longest([*given], started, digests, fillvalue="")
    ]


def _same(run: Interrupted, told: str, started: str, digest: str | None) -> Path:
    """Return where a teacher is now: as the command line says, or where it was when the run was started."""
    if not told and not Path(started).is_file():
        raise UserError(
            f"The run '{run.folder}' was started under the teacher '{started}', which is not there any more. "
            f"Give where it is now with --teacher."
        )
    path = find(told or started)
    if sha256(path) != digest:
        raise UserError(
            f"The run '{run.folder}' was started under another teacher than '{path}' holds now "
            f"(sha256 {str(digest)[:12]}…). Give the original file, or start a new run."
        )
    return path


def _count(teachers: Sequence[str]) -> str:
    return "one teacher" if len(teachers) == 1 else f"{len(teachers)} teachers"
