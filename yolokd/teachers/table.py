"""From the recipe to its teacher."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from yolokd.backend.api import DetectionModel
from yolokd.errors import UserError
from yolokd.teachers.base import Teacher
from yolokd.teachers.detector import DTYPES, DetectorTeacher, require_compiler

if TYPE_CHECKING:
    from yolokd.recipe import Recipe


def make_teacher(recipe: Recipe, model: DetectionModel, device: torch.device, *, half: bool) -> Teacher:
    """Return the frozen teacher as the recipe wants it.

    Args:
        recipe: What to distill.
        model: The trained detector, which becomes the teacher's own.
        device: Where it is going to run.
        half: Whether the student trains in mixed precision there.

    Raises:
        UserError: A precision in which the teacher cannot be attacked, or no compiler where one is wanted.
    """
    check_teacher(recipe, device)
    precision = precision_of(recipe)
    if precision == "auto":
        precision = "fp16" if device.type == "cuda" and half else "fp32"
    return DetectorTeacher(model, dtype=DTYPES[precision], compiled=recipe.teacher.compile)


def check_teacher(recipe: Recipe, device: torch.device) -> None:
    """Raise `UserError` for settings of the teacher that cannot be met on a device."""
    precision_of(recipe)
    if recipe.teacher.compile:
        require_compiler(device)


def precision_of(recipe: Recipe) -> str:
    """Return the precision that the teacher runs in, or "auto".

    Raises:
        UserError: Half precision under an attack, in which the gradients of the images vanish.
    """
    asked = recipe.teacher.precision
    if recipe.augment.adversarial is None:
        return asked
    if asked in {"auto", "fp32"}:
        return "fp32"
    raise UserError(
        "augment.ikd.adversarial attacks the teacher, which takes single precision, but teacher.precision is "
        f"'{asked}'. Set it to auto or fp32, or augment.ikd.adversarial to null."
    )
