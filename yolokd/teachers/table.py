"""From the recipe to its teacher."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any

import torch

from yolokd.backend.api import DetectionModel
from yolokd.backend.heads import HeadInfo
from yolokd.errors import UserError
from yolokd.losses.base import requirements
from yolokd.losses.table import active_losses
from yolokd.teachers.asking import Panel
from yolokd.teachers.base import Offer, Teacher
from yolokd.teachers.detector import DTYPES, DetectorTeacher, require_compiler
from yolokd.teachers.scaled import ScaledTeacher, scaled_offer
from yolokd.teachers.several import SeveralTeacher, offer_of_several
from yolokd.teachers.stored import OFFER, StoredTeacher

if TYPE_CHECKING:
    from yolokd.recipe import Recipe


def make_teacher(
    recipe: Recipe,
    model: DetectionModel,
    device: torch.device,
    *,
    half: bool,
    student: Collection[str],
    further: Sequence[DetectionModel] = (),
    classes: Sequence[int] | None = None,
) -> Teacher:
    """Return the frozen teacher as the recipe wants it.

    Args:
        recipe: What to distill.
        model: The trained detector, which becomes the teacher's own.
        device: Where it is going to run.
        half: Whether the student trains in mixed precision there.
        student: Levels of the student's head.
        further: Those of `teacher.models`, likewise.
        classes: Places among the teacher's classes, united if it is several, that the student learns; None for all.

    Raises:
        UserError: A precision in which the teacher cannot be attacked, or no compiler where one is wanted.
    """
    check_teacher(recipe, device)
    if recipe.teacher.answers == "stored":
        return StoredTeacher()
    precision = precision_of(recipe)
    if precision == "auto":
        precision = "fp16" if device.type == "cuda" and half else "fp32"
    names = [dict(one.names) for one in (model, *further)]
    extras = () if further or recipe.teacher.scale != 1 else requirements(active_losses(recipe).values()).extras
    detectors = [
        DetectorTeacher(one, dtype=DTYPES[precision], compiled=recipe.teacher.compile, extras=extras)
        for one in (model, *further)
    ]
    teacher = SeveralTeacher(detectors, names) if further else detectors[0]
    return teacher if recipe.teacher.scale == 1 else ScaledTeacher(teacher, student, classes)


def panel_of(recipe: Recipe, models: Sequence[DetectionModel], device: torch.device) -> Panel:
    """Return the teachers as they are asked about whole images, in single precision; the detectors become their own."""
    names = [dict(model.names) for model in models]
    teachers: list[Any] = [DetectorTeacher(model).to(device) for model in models]
    return Panel(teachers, names, flip=recipe.teacher.answers == "stored" and recipe.teacher.flip)


def offer_of(recipe: Recipe, head: HeadInfo, student: HeadInfo) -> Offer:
    """Return what the teacher gives whose head this is, of several that of the first, to a student with its head."""
    if recipe.teacher.answers == "stored":
        return OFFER
    offer = Offer.of_head(head)
    offer = offer_of_several(offer) if recipe.teacher.models else offer
    return offer if recipe.teacher.scale == 1 else scaled_offer(offer, student.levels)


def check_teacher(recipe: Recipe, device: torch.device) -> None:
    """Raise `UserError` for settings of the teacher that cannot be met, on this device or with the rest of a recipe."""
    _check_scale(recipe)
    precision_of(recipe)
    if recipe.teacher.compile:
        require_compiler(device)


def require_plain(recipe: Recipe, command: str) -> None:
    """Raise `UserError` where a command that takes one teacher at the student's size is given another kind."""
    if recipe.teacher.models:
        raise UserError(f"{command} takes one teacher: leave teacher.models out, and give --teacher once.")
    if recipe.teacher.scale != 1:
        raise UserError(f"{command} shows the teacher the student's images: leave teacher.scale out or set it to 1.")


def _check_scale(recipe: Recipe) -> None:
    scale = recipe.teacher.scale
    if scale == 1:
        return
    if recipe.teacher.answers == "stored":
        raise UserError(
            f"teacher.scale is {scale}, but stored answers are asked at teacher.imgsz: leave teacher.scale out, or set "
            "teacher.answers to live."
        )
    for key in ("rect", "multi_scale"):
        if recipe.train.get(key):
            raise UserError(
                f"teacher.scale is {scale}, which takes square images of one size: leave train.{key} or teacher.scale "
                "out."
            )
    if recipe.augment.adversarial is not None:
        raise UserError(
            f"teacher.scale is {scale}, but augment.ikd.adversarial attacks the teacher on the student's own images: "
            "set augment.ikd.adversarial to null, or leave teacher.scale out."
        )


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
