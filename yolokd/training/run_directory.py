"""The folder that a run is written to: its name, its place, and that nothing foreign is written over in it."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from yolokd.backend.paths import refuse_altered
from yolokd.errors import UserError
from yolokd.inputs import read_json
from yolokd.recipe import Recipe

NAME_LIMIT = 255  # bytes of a name; what common file systems take
PATH_LIMIT = 4000  # bytes of a path; Linux takes 4095, and the run's own files are below it
LABELED = "labeled"  # folder of the set that a teacher has labeled for a run
RUN_FILES = {"recipe", "versions", "command"}  # keys of a run's provenance.json


def run_folder(recipe: Recipe, runs: Path | None) -> Path:
    """Return where a run will be written: `runs/<name>`, with a number if that is taken.

    Raises:
        UserError: A name that no folder can have, a path that Ultralytics would alter, or, with `exist_ok`, a folder
            that holds something else than a run of yolokd.
    """
    root = (runs or Path(str(recipe.train.get("project") or "runs"))).expanduser().absolute()
    name = recipe.train.get("name")
    return free_folder(root, str(recipe.name if name is None else name), exist_ok=bool(recipe.train.get("exist_ok")))


def free_folder(root: Path, name: str, *, exist_ok: bool = False) -> Path:
    """Return the folder `name` below `root`, with a number if it is taken; errors as `run_folder`."""
    check_name(root, name)
    folder, number = root / name, 2
    if exist_ok:
        _check_own(folder)
    while not exist_ok and os.path.lexists(folder):
        check_name(root, f"{name}-{number}")
        folder, number = root / f"{name}-{number}", number + 1
    check_place(folder)
    return folder


def check_place(folder: Path) -> None:
    """Raise `UserError` unless a run can be in this folder, and its checkpoints be opened there by Ultralytics."""
    check_name(folder.parent, folder.name)
    refuse_altered(
        folder / "weights" / "last.pt",
        "The checkpoint of the run,",
        "Give another --name, or another folder for runs with --set train.project=DIR.",
    )


def check_name(root: Path, name: str) -> None:
    """Raise `UserError` unless a folder of this name can be made below `root`."""
    shown = name if len(name) <= 60 else f"{name[:40]}…"
    if not name or name in {".", ".."} or Path(name).name != name:
        raise UserError(f"The name '{shown}' is not the name of a folder; give the place with --set train.project=DIR.")
    whole = f"{root}/{name}"
    wrong = next((letter for letter in whole if not letter.isprintable()), None)
    if wrong is not None:
        raise UserError(
            f"The run cannot be written to {whole!r}: its path holds {wrong!r}, a character that cannot be printed. "
            f"Give another --name, or another folder with --set train.project=DIR."
        )
    size = len(os.fsencode(name))
    if size > NAME_LIMIT:
        raise UserError(
            f"The name '{shown}' is too long: it takes {size} bytes, and a file system takes at most {NAME_LIMIT}. "
            f"Give a shorter --name."
        )
    if len(os.fsencode(whole)) > PATH_LIMIT:
        raise UserError(f"The path of the run is longer than {PATH_LIMIT} bytes: '{whole[:40]}…'. Give a shorter one.")


def is_run(folder: Path) -> bool:
    """Whether a folder holds a run of yolokd, or one that was stopped before its files were written."""
    if not folder.is_dir():
        return False
    try:
        found = read_json(folder / "provenance.json")
        return isinstance(found, dict) and found.keys() >= RUN_FILES
    except (OSError, ValueError):
        inside = sorted(path.name for path in folder.iterdir() if path.name != LABELED)
        weights = folder / "weights"
        return inside in ([], ["args.yaml", "weights"]) and not (weights.is_dir() and any(weights.iterdir()))


def refuse_inside(folder: Path, inputs: Iterable[str | Path]) -> None:
    """Raise `UserError` where a run would be written over a file that it reads; for a folder that exists."""
    real = Path(os.path.realpath(folder))
    for path in inputs:
        if real in Path(os.path.realpath(path)).parents:
            raise UserError(
                f"'{path}' is in '{folder}', which the run would be written over. Leave train.exist_ok out, so that "
                f"the run gets a folder of its own, or give another --name."
            )


def check_writable(folder: Path) -> Path:
    """Return the folder if it can be made and written to, else raise `UserError`."""
    parent = folder
    while not parent.exists():
        parent = parent.parent
    if not parent.is_dir() or not os.access(parent, os.W_OK | os.X_OK):
        raise UserError(f"The run cannot be written to '{folder}': '{parent}' is not a folder that you may write to.")
    return folder


def _check_own(folder: Path) -> None:
    if not os.path.lexists(folder):
        return
    if not folder.is_dir() or not is_run(folder):
        raise UserError(
            f"'{folder}' is there and is no run of yolokd, so train.exist_ok does not write over it. Give another "
            f"--name."
        )
