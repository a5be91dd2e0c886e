"""Continuing an interrupted run: checked in full before Ultralytics could fall back to another one."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from yolokd.engine.settings import KEY, RunSettings
from yolokd.engine.weights import find, load, sha256
from yolokd.errors import UserError
from yolokd.recipe import Recipe


@dataclass(frozen=True)
class Interrupted:
    """A run that can go on."""

    folder: Path
    checkpoint: Path
    settings: RunSettings
    epoch: int  # finished epochs
    epochs: int  # of the whole run
    data: str  # path of the data YAML


def read_interrupted(run: str) -> Interrupted:
    """Read the state of a run from its folder or its last.pt.

    Raises:
        UserError: The run is missing, finished, not yolokd's, or was stopped before its first epoch was saved.
    """
    path = Path(run).expanduser()
    checkpoint = path / "weights" / "last.pt" if path.is_dir() else path
    if not checkpoint.is_file():
        if path.is_dir() and (path / "args.yaml").exists():
            raise UserError(
                f"The run '{run}' stopped before its first epoch was saved, so there is nothing to continue. Start it "
                f"again with its command."
            )
        raise UserError(f"There is no run '{run}' to resume: neither a run's folder nor a last.pt.")
    _, saved = load(checkpoint)
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
    folder = checkpoint.parent.parent if checkpoint.parent.name == "weights" else checkpoint.parent
    return Interrupted(
        folder,
        checkpoint,
        RunSettings.from_dict(args[KEY]),
        saved["epoch"] + 1,
        int(args["epochs"]),
        str(args.get("data") or ""),
    )


def check_same(
    run: Interrupted, asked: Recipe | None, teacher: str | Path | None, named: Collection[str] = ()
) -> Path | None:
    """Refuse to continue under another teacher or with a changed recipe; return the teacher's path, if there is one.

    Args:
        run: The interrupted run.
        asked: The recipe given on the command line, or None if none was given.
        teacher: The teacher given on the command line, or None.
        named: Keys of `train` that the command line sets; the others belong to the run.

    Raises:
        UserError: Names what differs.
    """
    settings = run.settings
    if asked is not None:
        stored = settings.load_recipe()
        train = {**stored.train, **{key: asked.train[key] for key in named if key in asked.train}}
        complete = {**asked.to_dict(), "train": train, "summary": stored.summary}
        differences = Recipe.from_dict(complete, name=asked.name).differences(stored)
        if differences:
            raise UserError(
                f"The run '{run.folder}' was started with another recipe: {'; '.join(differences[:5])}. Resume without "
                f"--recipe and --set, or start a new run."
            )
    if settings.teacher is None:
        if teacher is not None:
            raise UserError(f"The run '{run.folder}' has no teacher; '{teacher}' cannot join it now.")
        return None
    path = find(teacher if teacher is not None else settings.teacher)
    if sha256(path) != settings.teacher_sha256:
        raise UserError(
            f"The run '{run.folder}' was started under another teacher than '{path}' holds now "
            f"(sha256 {str(settings.teacher_sha256)[:12]}…). Give the original file, or start a new run."
        )
    return path
