"""The student's first weights, planned and carried out: from the teacher, or class rows of its own checkpoint."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from yolokd.backend.api import LOGGER, DetectionModel
from yolokd.backend.checkpoints import find, from_scratch, load_detector
from yolokd.backend.classes import ClassMatch
from yolokd.backend.dataset import Dataset
from yolokd.backend.tasks import ALL_TASKS
from yolokd.errors import UserError
from yolokd.initialization.class_transfer import ClassRows, plan_class_rows, require_levels, require_same_head
from yolokd.initialization.reconstruction import reconstruct
from yolokd.initialization.weight_selection import UnfitTeacherError, select_weights
from yolokd.recipe import Recipe
from yolokd.recipe.arguments import argument
from yolokd.recipe.classes import fold
from yolokd.teachers.several import of_first
from yolokd.training.task import learned_names

if TYPE_CHECKING:
    from yolokd.training.plan import Loaded, Plan


def first_weights(
    student: DetectionModel, spec: str, teacher: DetectionModel, match: ClassMatch, recipe: Recipe
) -> tuple[float | None, str]:
    """Return the share of the student's weights that comes from the teacher, and what to say about it.

    Raises:
        UnfitTeacherError: They must come from there and cannot.
    """
    if not from_scratch(spec, argument(recipe.train, "pretrained")):
        note = "the student has trained weights and keeps them; student.init is not used"
        if not recipe.train.get("unlabeled"):
            note += ", and for such a student only --unlabeled has shown a gain, most with recipe pseudo"
        return None, note
    try:
        share = select_weights(student, teacher, match).share
    except UnfitTeacherError as error:
        if recipe.student.init == "auto":
            return None, f"the student starts from random weights: {error.reason}"
        raise
    return share, f"the student starts with {share:.0%} of its parameters taken from the teacher"


def with_class_rows(plan: Plan, student: Loaded, teacher: Loaded | None) -> Plan:
    """Say where the class rows of a pretrained student come from.

    Raises:
        UserError: `student.init: classes` with a student that has no trained rows, or without `train.cls_remap`.
    """
    recipe, train = plan.recipe, plan.recipe.train
    pretrained = train.get("pretrained", True)
    if recipe.student.init != "classes":
        note = _random_rows(student, train, plan.data)
        return plan if note is None else replace(plan, notes=(*plan.notes, note))
    if from_scratch(plan.student.spec, pretrained):
        raise UserError(
            "student.init: classes takes class rows from the student's checkpoint, and this student starts from "
            "scratch. Give a trained one (--student yolov8n), or take student.init: auto."
        )
    if not train.get("cls_remap", True):
        raise UserError("student.init: classes takes class rows over by name, which train.cls_remap: false forbids.")
    checkpoint = load_detector(find(pretrained), ALL_TASKS) if isinstance(pretrained, str) else student.model
    require_same_head(student.model, checkpoint, str(pretrained))
    rows = class_rows_of(recipe, plan.data.names, checkpoint, None if teacher is None else teacher.model)
    if teacher is not None and rows.taught:
        require_levels(student.plan.head, teacher.plan.head)
    hidden = checkpoint.model[-1].cv3[0][-1].in_channels
    notes = [f"class rows: {rows.describe()}; all {hidden} hidden channels of the checkpoint's class branch are kept"]
    if teacher is not None and not rows.taught and not recipe.terms():
        notes.append("no loss and no class row needs the teacher: it is not used")
        plan = replace(plan, teacher=None, classes=None)
    return replace(plan, class_rows=rows.describe(), notes=(*plan.notes, *notes))


def class_rows_of(
    recipe: Recipe, names: Mapping[int, str], checkpoint: DetectionModel, teacher: DetectionModel | None
) -> ClassRows:
    """Return where the class rows of a student come from.

    Args:
        recipe: Of the run.
        names: The data's classes, before `train.single_cls` joins them.
        checkpoint: Holds the student's trained weights.
        teacher: The first teacher, if there is one.
    """
    return plan_class_rows(
        names,
        checkpoint.names,
        recipe.student.classes,
        teacher=None if teacher is None else teacher.names,
        teacher_classes=recipe.teacher.classes,
        joined=bool(recipe.train.get("single_cls")),
    )


def select_first_weights(
    student: DetectionModel,
    teacher: DetectionModel,
    match: ClassMatch,
    recipe: Recipe,
    device: torch.device,
    images: Callable[[], Sequence[Tensor]],
) -> None:
    """Start a student from a part of the first teacher's weights, fitted on training images.

    Args:
        student: Is changed, and put on the device like the teacher.
        teacher: The first teacher, before its layers are folded.
        match: Classes of all teachers and of the data.
        recipe: Of the run.
        device: Where the fit is computed.
        images: Gives training images in batches, (B, C, H, W).

    Raises:
        UnfitTeacherError: They must come from there (`student.init: teacher`) and cannot.
    """
    try:
        taken = select_weights(student, teacher, of_first(match, len(teacher.names)))
    except UnfitTeacherError as error:
        if recipe.student.init == "teacher":
            raise
        LOGGER.info(f"The student starts from random weights: {error.reason}.")
        return
    LOGGER.info(f"Fitting the student's first weights: {taken.share:.0%} of them are taken from the teacher ...")
    reconstruct(student.to(device), teacher.to(device), taken.rows, images())


def _random_rows(student: Loaded, train: Mapping[str, Any], data: Dataset) -> str | None:
    """Return a note on class rows that start at random, if the student's checkpoint has rows for other classes."""
    if not student.plan.pretrained or isinstance(train.get("pretrained", True), str):
        return None
    if from_scratch(student.plan.spec, train.get("pretrained", True)) or not train.get("cls_remap", True):
        return None
    known = {fold(name) for name in student.model.names.values()}
    names = learned_names(train, data.names).values()
    unknown = [name for name in names if fold(name) not in known]
    if not 0 < len(unknown) < len(names):
        return None
    return (
        f"class rows of {', '.join(unknown)} start at random, since the student's checkpoint has no class of that "
        f"name; student.init: classes takes them from its class of another name or from the teacher"
    )
