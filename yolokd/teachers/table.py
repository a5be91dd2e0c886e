"""From the recipe to its teacher."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

from yolokd.backend.api import DetectionModel
from yolokd.backend.heads import HeadInfo
from yolokd.errors import UserError
from yolokd.teachers.asking import Panel
from yolokd.teachers.base import Offer, Teacher
from yolokd.teachers.detector import DTYPES, DetectorTeacher, require_compiler
from yolokd.teachers.stored import StoredTeacher

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
    if recipe.teacher.answers == "stored":
        return StoredTeacher()
    precision = precision_of(recipe)
    if precision == "auto":
        precision = "fp16" if device.type == "cuda" and half else "fp32"
    return DetectorTeacher(model, dtype=DTYPES[precision], compiled=recipe.teacher.compile)


def panel_of(recipe: Recipe, models: Sequence[DetectionModel], device: torch.device) -> Panel:
    """Return the teachers as they are asked about whole images, in single precision; the detectors become their own."""
    names = [dict(model.names) for model in models]
    teachers: list[Any] = [DetectorTeacher(model).to(device) for model in models]
    return Panel(teachers, names, flip=recipe.teacher.answers == "stored" and recipe.teacher.flip)


def offer_of(recipe: Recipe, head: HeadInfo) -> Offer:
    """Return what the teacher gives whose head this is."""
    return StoredTeacher().offer if recipe.teacher.answers == "stored" else Offer.of_head(head)


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
