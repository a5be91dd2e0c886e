"""Training without a labeled data set: the teacher labels the images first, into the run's own folder."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from shutil import rmtree
from typing import Any, NamedTuple

from yolokd.backend.api import make_divisible
from yolokd.backend.checkpoints import Spec
from yolokd.errors import UserError
from yolokd.labeling.label import Labeled, label
from yolokd.recipe import Recipe
from yolokd.recipe.arguments import argument
from yolokd.training.run_directory import LABELED, check_writable, run_folder


def is_label_free(recipe: Recipe) -> bool:
    """Whether a run has images without labels and no data set."""
    return recipe.train.get("data") is None and recipe.train.get("unlabeled") is not None


class FirstLabels(NamedTuple):
    """What a run trains on in place of its images without labels."""

    made: Labeled
    changes: list[str]  # assignments to the recipe
    options: dict[str, Any]  # in place of those that it was resolved with; see `yolokd.training.run.resolve_recipe`


@contextmanager
def labels_first(
    teacher: Spec | None,
    recipe: Recipe,
    *,
    classes: Sequence[str] = (),
    runs: Path | None = None,
    keep: bool = True,
    progress: Callable[[str, int, int], None] | None = None,
) -> Iterator[FirstLabels]:
    """Label the images of `train.unlabeled` with the teachers; a new set goes again if the block that follows fails.

    The teachers' answers stay in the cache, so that the next labeling of these images asks nobody.

    The teachers are asked as for stored answers: at `teacher.imgsz`, or else twice the training size, mirrored as well
    where `teacher.flip` says so; boxes count from a score of 0.3, or what `train.pseudo_labels` says.

    Args:
        teacher: The first teacher; further ones are the recipe's `teacher.models`.
        recipe: The resolved recipe, with `train.unlabeled` and without `train.data`.
        classes: Which classes, see `yolokd.labeling.classes.parse_classes`; all that the teachers know if empty.
        runs: Folder of all runs; `runs` in the current folder if None.
        keep: Whether the set stays after the block; if not, it was made to be looked at.
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
    missing = [place for place in (folder, *folder.parents) if not place.exists()]
    earlier = (folder / LABELED).exists()  # of a run that this one is to write over (`train.exist_ok`)
    done = False
    try:
        made = label(
            Path(str(recipe.train["unlabeled"])),
            folder / LABELED,
            [teacher, *recipe.teacher.models],
            classes=classes,
            conf=_conf(recipe.train.get("pseudo_labels")),
            imgsz=recipe.teacher.imgsz or 2 * int(make_divisible(int(argument(recipe.train, "imgsz")), 32)),
            flip=recipe.teacher.flip,
            device=recipe.train.get("device"),
            progress=progress,
        )
        yield FirstLabels(
            made, _changes(made, folder), {"data": str(made.path), "name": folder.name, "unlabeled": None}
        )
        done = True
    finally:
        if not ((done and keep) or earlier):
            rmtree(folder / LABELED, ignore_errors=True)
            for place in missing:
                with contextlib.suppress(OSError):
                    place.rmdir()  # only if it is empty


def _changes(made: Labeled, folder: Path) -> list[str]:
    values = {"project": str(folder.parent), "exist_ok": True, "unlabeled": None, "pseudo_labels": False}
    changes = [f"train.{key}={json.dumps(value)}" for key, value in values.items()]
    renamed = {theirs: own for own, many in made.classes.items() for theirs in many if theirs != own}
    return [*changes, f"teacher.classes={json.dumps(renamed)}"] if renamed else changes


def _conf(asked: object) -> str | None:
    """Return `train.pseudo_labels` as `--conf` takes it; None for the default."""
    if isinstance(asked, Mapping):
        return ",".join(f"{name}={score}" for name, score in asked.items()) or None
    return str(asked) if isinstance(asked, float) else None
