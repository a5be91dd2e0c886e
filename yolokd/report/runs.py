"""What a run's folder says, read without judging: an interrupted or damaged run keeps its place in a report."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from yolokd.backend.checkpoints import load
from yolokd.distillation.weight_files import FILE as AID_FILE
from yolokd.errors import UserError, WeightsError
from yolokd.files import sha256
from yolokd.inputs import Kinds, misfits, parse_json, read_json, read_text, read_yaml, refuse_special

MARKS = ("args.yaml", "provenance.json", "results.csv")  # one of them makes a folder a run
UNKNOWN = "not recorded"
NONE = type(None)
ARGUMENTS: Kinds = {
    "epochs": int, "imgsz": (int, list), "batch": (int, float), "classes": (int, list, NONE), "single_cls": bool,
    "seed": int, "model": str, "data": str,
}  # fmt: skip
PROVENANCE: Kinds = {
    "recipe": str, "teacher": (str, NONE), "teacher_sha256": (str, NONE), "student": str, "data": str, "versions": dict,
    "student_initialisation": str, "data_fingerprint": str, "seed": int, "command": str,
}  # fmt: skip
RECIPE: Kinds = {"teacher": (dict, NONE), "losses": (dict, NONE)}
AID: Kinds = {"mean_weight": (int, float, NONE), "instances": (int, float)}

State = Literal["finished", "unfinished", "without weights"]


@dataclass(frozen=True)
class RunFolder:
    """One training: its files as plain data, empty where a file is missing."""

    folder: Path
    arguments: Mapping[str, Any]  # args.yaml: Ultralytics' training arguments
    recipe: Mapping[str, Any]  # recipe.yaml, resolved
    provenance: Mapping[str, Any]
    columns: Mapping[str, tuple[float, ...]]  # results.csv, a value per epoch; NaN where the file has none
    aid: tuple[Mapping[str, Any], ...]  # lines of aid.jsonl
    state: State
    digest: str | None  # sha256 of last.pt
    problems: tuple[str, ...]  # files that cannot be read

    @property
    def weights(self) -> Path | None:
        """The checkpoint that a report scores: `last.pt`, since `best.pt` is chosen on the images that are scored."""
        return None if self.digest is None else self.folder / "weights" / "last.pt"

    @property
    def recipe_name(self) -> str:
        """Name of the recipe."""
        return str(self.provenance.get("recipe") or UNKNOWN)

    @property
    def teacher_sha256(self) -> str | None:
        """Digest of the teacher's checkpoint; None for plain training."""
        return self.provenance.get("teacher_sha256")

    @property
    def distilled(self) -> bool:
        """Whether a teacher took part, also with Ultralytics' own distiller."""
        return self.teacher_sha256 is not None or bool(self.arguments.get("distill_model"))

    @property
    def student(self) -> str:
        """What was trained, as the user named it."""
        return str(self.provenance.get("student") or self.arguments.get("model") or UNKNOWN)

    @property
    def data(self) -> str:
        """Path or name of the data."""
        return str(self.provenance.get("data") or self.arguments.get("data") or UNKNOWN)

    @property
    def seed(self) -> int | None:
        """Seed of the run."""
        seed = self.provenance.get("seed", self.arguments.get("seed"))
        return seed if isinstance(seed, int) else None

    @property
    def imgsz(self) -> int | None:
        """Side of the images it was trained on, in pixels."""
        size = self.arguments.get("imgsz")
        size = max(size) if isinstance(size, list) and size else size
        return size if isinstance(size, int) else None

    @property
    def single_cls(self) -> bool:
        """Whether all classes of the data are one to it."""
        return bool(self.arguments.get("single_cls"))

    @property
    def epochs(self) -> int:
        """Epochs that results.csv holds."""
        return len(self.columns.get("epoch", ()))

    @property
    def progress(self) -> str:
        """State and epochs in words, such as "unfinished, 3 of 30 epochs"."""
        planned = self.arguments.get("epochs")
        if self.state == "finished" and self.epochs == planned:
            return f"finished, {self.epochs} epochs"
        return f"{self.state}, {self.epochs} of {planned or '?'} epochs"


def is_run(folder: Path) -> bool:
    """Whether a folder looks like that of a training."""
    return any((folder / mark).is_file() for mark in MARKS)


def read_run(folder: Path) -> RunFolder:
    """Read the folder of a run.

    Raises:
        UserError: There is no such folder, or it is not a run's.
    """
    if not folder.is_dir():
        inside = folder.parent.parent if folder.parent.name == "weights" else None
        hint = f" Give the run's folder: '{inside}'." if inside and is_run(inside) else ""
        raise UserError(f"There is no folder '{folder}' to report on.{hint}")
    if not is_run(folder):
        below = sorted(place.name for place in folder.iterdir() if place.is_dir() and is_run(place))
        hint = f" It holds runs; name them, such as '{folder / below[0]}'." if below else ""
        raise UserError(f"'{folder}' is neither a run nor a comparison: it holds none of {', '.join(MARKS)}.{hint}")
    problems: list[str] = []
    state, digest = _checkpoint(folder / "weights" / "last.pt", problems)
    return RunFolder(
        folder=folder,
        arguments=_mapping(folder / "args.yaml", read_yaml, ARGUMENTS, problems),
        recipe=_mapping(folder / "recipe.yaml", read_yaml, RECIPE, problems),
        provenance=_mapping(folder / "provenance.json", read_json, PROVENANCE, problems),
        columns=read_columns(folder / "results.csv"),
        aid=_lines(folder / AID_FILE, problems),
        state=state,
        digest=digest,
        problems=tuple(problems),
    )


def read_columns(file: Path) -> dict[str, tuple[float, ...]]:
    """Return the columns of a results.csv; a row that was cut short is left out, and a missing file has no columns."""
    try:
        refuse_special(file)
        with file.open(encoding="utf-8", newline="") as stream:
            header, *rows = [*csv.reader(stream)] or [[]]
    except (OSError, UnicodeDecodeError, csv.Error):
        return {}
    numbers = [row for row in ([_number(word) for word in row] for row in rows) if len(row) == len(header)]
    return {name.strip(): tuple(row[place] for row in numbers) for place, name in enumerate(header)}


def _number(word: str) -> float:
    try:
        return float(word)
    except ValueError:
        return math.nan


def _checkpoint(last: Path, problems: list[str]) -> tuple[State, str | None]:
    if not last.is_file():
        return "without weights", None
    try:
        checkpoint = load(last)[1]
    except WeightsError as error:
        problems.append(str(error))
        return "without weights", None
    return "finished" if checkpoint.get("epoch", -1) == -1 else "unfinished", sha256(last)


def _mapping(file: Path, read: Callable[[Path], Any], kinds: Kinds, problems: list[str]) -> Mapping[str, Any]:
    """The entries of a file, keys as text; those of another kind than expected are left out and named."""
    if not file.is_file():
        return {}
    try:
        plain = _text_keys(read(file))
    except (OSError, ValueError):
        plain = None
    if not isinstance(plain, dict):
        problems.append(f"{file.name} cannot be read")
        return {}
    wrong = misfits(plain, kinds)
    if isinstance(plain.get("teacher"), dict) and misfits(plain["teacher"], {"classes": (dict, str, NONE)}):
        wrong["teacher"] = plain["teacher"]
    wrong |= {
        key: plain[key]
        for key in ("imgsz", "classes")
        if isinstance(plain.get(key), list) and not all(type(number) is int for number in plain[key])
    }
    problems += [f"{file.name}: the value of '{key}' is no such value and left out" for key in wrong]
    return {key: value for key, value in plain.items() if key not in wrong}


def _text_keys(plain: Any) -> Any:
    """Plain data with all keys as text: YAML allows numbers and dates, which cannot be sorted among text."""
    if isinstance(plain, dict):
        return {str(key): _text_keys(value) for key, value in plain.items()}
    return [_text_keys(value) for value in plain] if isinstance(plain, list) else plain


def _lines(file: Path, problems: list[str]) -> tuple[Mapping[str, Any], ...]:
    if not file.is_file():
        return ()
    try:
        found = tuple(parse_json(line) for line in read_text(file).splitlines() if line.strip())
        if all(isinstance(line, dict) and not misfits(line, AID) for line in found):
            return found
    except (OSError, ValueError):
        pass
    problems.append(f"{file.name} cannot be read")
    return ()
