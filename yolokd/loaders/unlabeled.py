"""Unlabeled images in training: which they are, and how they join a step. `unlabeled_stream` loads them.

Each step sees, besides its labeled images, some that have no labels: they come on top of the batch, so that the
labeled images, their order and augmentation, the number of steps and the detection loss stay what they are without.
Student and teacher look at both in one pass, the labeled ones first, and every distillation term is the mean over all
of them; its strength against the detection loss does not change. BatchNorm sees both, too.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from yolokd.data.layout import fingerprint, images_of
from yolokd.errors import DataError, UserError, printable
from yolokd.images.reader import ImageCheck, check_images, left_out
from yolokd.recipe import Recipe
from yolokd.recipe.arguments import SHARE

SHOWN = 5  # files that a message names


@dataclass(frozen=True)
class Unlabeled:
    """The unlabeled images of a run, checked."""

    source: Path  # a folder, or a list of images
    files: tuple[str, ...]
    damaged: str  # a sentence that names those that are left out; "" if none is
    share: float  # of each step's images

    def per_step(self, batch: int) -> int:
        """How many come on top of so many labeled images."""
        return on_top(self.share, batch)

    def identity(self, *, like: str | None = None) -> dict[str, Any]:
        """Where they are, how many are used, and a digest of their names and sizes, of the version of `like`."""
        return {
            "source": str(self.source),
            "pictures": len(self.files),
            "fingerprint": fingerprint({"unlabeled": [self.source]}, like=like),
        }


def on_top(share: float, batch: int) -> int:
    """Return how many unlabeled images come on top of so many labeled ones, to be this share of all."""
    return max(1, round(batch * share / (1 - share)))


def find_unlabeled(recipe: Recipe) -> Unlabeled | None:
    """Find and open the unlabeled images that a recipe names; None if it names none.

    Raises:
        UserError: The recipe has no losses.
        DataError: The folder does not exist or holds no image that can be read.
    """
    source = recipe.train.get("unlabeled")
    if source is None:
        return None
    if not recipe.distills:
        raise UserError(
            f"The recipe '{recipe.name}' has no losses, and unlabeled images ('{source}') take part in nothing "
            f"else. Leave --unlabeled (train.unlabeled) out, set train.pseudo_labels, or take a recipe with losses."
        )
    path = Path(str(source)).expanduser().absolute()
    checks = images_at(path)
    files = tuple(file for file, check in checks.items() if check.usable)
    if not files:
        raise DataError(f"None of the {len(checks)} unlabeled images at '{path}' can be read: {_shown(checks)}.")
    return Unlabeled(
        path, files, left_out(checks, "unlabeled image"), float(recipe.train.get("unlabeled_share", SHARE))
    )


def images_at(path: Path) -> dict[str, ImageCheck]:
    """Return the images of a folder or list, in order, and what is known of each.

    Raises:
        DataError: There is no such folder or list, it cannot be read, or holds no images.
    """
    try:
        found = images_of(path)
    except FileNotFoundError:
        raise DataError(f"There are no unlabeled images at '{path}': no such folder or list.") from None
    except UnicodeDecodeError as error:
        raise DataError(
            f"'{path}' is neither a folder of images nor a text file with one path per line. Make images of a video "
            f"with `yolokd data frames`."
        ) from error
    except (OSError, ValueError) as error:
        raise DataError(f"The unlabeled images at '{path}' cannot be listed: {error}") from error
    if not found:
        raise DataError(f"'{path}' holds no images; give a folder of images, or a .txt with one path per line.")
    return check_images(found)


def check_unlabeled(found: Unlabeled, recipe: Recipe, splits: Mapping[str, Sequence[Path]]) -> list[str]:
    """Check them against the rest of a run and return what is worth knowing.

    Args:
        found: From `find_unlabeled`.
        recipe: The run's.
        splits: Of the labeled data set: split → folders of images or lists of them.

    Raises:
        DataError: Images that scores are measured on are among them.
        UserError: Training with rectangular images.
    """
    own = {os.path.realpath(file): file for file in found.files}
    for split in ("val", "test"):
        try:
            judged = {os.path.realpath(file) for source in splits.get(split, ()) for file in images_of(source)}
        except (OSError, ValueError):
            continue  # the check of the labels says why
        if common := sorted(own[file] for file in own.keys() & judged):
            raise DataError(
                f"{len(common)} of the unlabeled images at '{found.source}' belong to the data set's {split} split: "
                f"{_shown(common)}. Training on them would spoil the score; take them out of the folder."
            )
    if recipe.train.get("rect"):
        raise UserError("Unlabeled images are not sorted by shape: leave train.rect or train.unlabeled out.")
    return [found.damaged] if found.damaged else []


def with_absolute_paths(recipe: Recipe) -> Recipe:
    """Return the recipe with unlabeled images and further teachers named from the root, to go on from anywhere.

    A teacher that is not a file here, such as an official name, keeps its name.
    """
    source, models = recipe.train.get("unlabeled"), recipe.teacher.models
    if source is None and not models:
        return recipe
    changed: dict[str, Any] = {"teacher": {**recipe.to_dict()["teacher"], "models": [_from_root(m) for m in models]}}
    if source is not None:
        changed["train"] = {**recipe.train, "unlabeled": str(Path(str(source)).expanduser().absolute())}
    return recipe.with_sections(**changed)


def _from_root(model: str) -> str:
    path = Path(model).expanduser()
    return str(path.absolute()) if path.exists() else model


def _shown(files: Iterable[str]) -> str:
    files = list(map(printable, files))
    return ", ".join(files[:SHOWN]) + (", …" if len(files) > SHOWN else "")
