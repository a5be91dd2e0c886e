"""Training without a labeled data set: the teacher labels the images first, into the run's own folder."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from yolokd.backend.api import make_divisible
from yolokd.backend.checkpoints import Spec
from yolokd.errors import UserError
from yolokd.labeling.label import Labeled, label
from yolokd.recipe import Recipe
from yolokd.recipe.arguments import argument
from yolokd.training.answers import asked_size
from yolokd.training.run_directory import LABELED, check_writable, run_folder


def is_label_free(recipe: Recipe) -> bool:
    """Whether a run has images without labels and no data set."""
    return recipe.train.get("data") is None and recipe.train.get("unlabeled") is not None


def label_first(
    teacher: Spec | None,
    recipe: Recipe,
    *,
    classes: Sequence[str] = (),
    runs: Path | None = None,
    progress: Callable[[str, int, int], None] | None = None,
) -> tuple[Labeled, list[str], dict[str, Any]]:
    """Label the images of `train.unlabeled` with the teachers.

    Returns the set, and what makes the recipe train on it in place of `train.unlabeled`: assignments, and options to
    replace those that the recipe was resolved with (`yolokd.training.run.resolve_recipe`).

    The teachers are asked as for stored answers: at `teacher.imgsz`, or else twice the training size, mirrored as well
    where `teacher.flip` says so; boxes count from a score of 0.3, or what `train.pseudo_labels` says.

    Args:
        teacher: The first teacher; further ones are the recipe's `teacher.models`.
        recipe: The resolved recipe, with `train.unlabeled` and without `train.data`.
        classes: Which classes, see `yolokd.labeling.classes.parse_classes`; all that the teachers know if empty.
        runs: Folder of all runs; `runs` in the current folder if None.
        progress: As `yolokd.labeling.label.label` takes it.

    Raises:
        UserError: No teacher; and what `label` raises. Nothing is left behind then.
    """
    if teacher is None:
        raise UserError(
            "Images without labels and no --data take a teacher that labels them: --teacher yolov8x, or give the data "
            "set with --data."
        )
    folder = check_writable(run_folder(recipe, runs))
    imgsz = int(make_divisible(int(argument(recipe.train, "imgsz")), 32))
    stored = recipe.with_sections(teacher={**recipe.to_dict()["teacher"], "answers": "stored"})
    try:
        made = label(
            Path(str(recipe.train["unlabeled"])),
            folder / LABELED,
            [teacher, *recipe.teacher.models],
            classes=classes,
            conf=_conf(recipe.train.get("pseudo_labels")),
            imgsz=asked_size(stored, imgsz),
            flip=recipe.teacher.flip,
            device=recipe.train.get("device"),
            progress=progress,
        )
    except BaseException:
        with contextlib.suppress(OSError):
            folder.rmdir()  # only if it is empty
        raise
    values = {"project": str(folder.parent), "exist_ok": True, "unlabeled": None, "pseudo_labels": False}
    changes = [f"train.{key}={json.dumps(value)}" for key, value in values.items()]
    return made, changes, {"data": str(made.path), "name": folder.name, "unlabeled": None}


def _conf(asked: object) -> str | None:
    """Return `train.pseudo_labels` as `--conf` takes it; None for the default."""
    if isinstance(asked, Mapping):
        return ",".join(f"{name}={score}" for name, score in asked.items()) or None
    return str(asked) if isinstance(asked, float) else None
