"""A teacher and a student that fit each other, and the two as one model under a recipe."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from yolokd.backend.api import DetectionModel
from yolokd.backend.classes import ClassMatch
from yolokd.backend.heads import HeadInfo, read_head
from yolokd.distillation.levels import Levels
from yolokd.distillation.model import TeacherStudent
from yolokd.distillation.state import build_distillation
from yolokd.errors import PairError
from yolokd.losses.base import ANGLES, KEYPOINTS, Loss, requirements
from yolokd.teachers.base import Offer
from yolokd.teachers.table import make_teacher

if TYPE_CHECKING:
    from yolokd.recipe import Recipe


@dataclass
class Parts:
    """What a pair is built from.

    Attributes:
        recipe: What to distill.
        student: The detector that learns.
        teacher: The trained detector, which becomes the teacher's own and changes.
        further: Those of `teacher.models`, likewise.
        match: Which classes both know.
        device: Where they are going to run.
        half: Whether the student trains in mixed precision there.
        seed: Of the adapters' and generators' first weights.
        epochs: Of the whole run.
        state: A plain dict that is saved with the run.
    """

    recipe: Recipe
    student: DetectionModel
    teacher: DetectionModel
    match: ClassMatch
    device: torch.device
    half: bool = False
    seed: int = 0
    epochs: int = 1
    state: MutableMapping[str, Any] = field(default_factory=dict)
    further: Sequence[DetectionModel] = ()


def build_pair(parts: Parts) -> TeacherStudent:
    """Return teacher and student as one model under a recipe; the run's own random numbers stay as they are.

    Raises:
        UserError: A setting of the teacher that cannot be met; see `yolokd.teachers.table.check_teacher`.
    """
    learned = [place for places in parts.match.teacher for place in places]
    student = read_head(parts.student, "The student").levels
    teacher = make_teacher(
        parts.recipe,
        parts.teacher,
        parts.device,
        half=parts.half,
        student=student,
        further=parts.further,
        classes=learned or None,
    )
    levels = Levels.of(student, teacher.offer)
    distillation = build_distillation(parts.recipe, parts.match, levels, epochs=parts.epochs, state=parts.state)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(parts.seed)  # of the CPU alone: forking spares no other device
        return TeacherStudent(parts.student, teacher, distillation)


def check_pair(losses: Mapping[str, Loss], student: HeadInfo, teacher: Offer, notes: list[str]) -> None:
    """Raise `PairError` where a loss cannot compare these two; add to the notes what is left out."""
    notes += Levels.of(student.levels, teacher).check(losses, teacher)
    for name, loss in losses.items():
        if loss.requires.answers and not teacher.stored:
            raise PairError(
                f"The loss '{name}' compares with stored answers of the teacher, but this one answers live. Set "
                "teacher.answers to stored."
            )
        if loss.requires.teacher_head and not teacher.branches:
            raise PairError(
                f"The loss '{name}' compares class scores and boxes at every anchor, but the teacher gives {teacher}."
            )
        if lacking := [one for one in loss.requires.extras if one not in student.extras or one not in teacher.extras]:
            who = "student" if lacking[0] not in student.extras else "teacher"
            raise PairError(
                f"The loss '{name}' compares {lacking[0]}, which the {who} does not give"
                + (f" (it gives {teacher})" if who == "teacher" else f" (its task is {student.task})")
                + f". Take one that does, or leave losses.{name} out."
            )
        if KEYPOINTS in loss.requires.extras:
            _check_keypoints(name, loss, student, teacher)
        if loss.requires.distributions and (student.bins != teacher.bins or student.bins == 1):
            raise PairError(
                f"The loss '{name}' compares box distributions, but the student's head has reg_max {student.bins} and "
                + (f"the teacher's {teacher.bins}" if teacher.attackable else f"the teacher gives {teacher}")
                + ". Use bckd's box term, which works on decoded boxes."
            )
        _check_frames(name, loss, student, teacher)
        if loss.requires.adversarial and not teacher.attackable:
            raise PairError(
                f"The loss '{name}' attacks the teacher on the student's images, which this kind of teacher does not "
                "allow. Set augment.ikd.adversarial to null."
            )
    if len(student.branches) != len(teacher.branches) and requirements(losses.values()).teacher_head:
        notes.append("one partner has a single head: only the one-to-many branch is distilled")


def _check_keypoints(name: str, loss: Loss, student: HeadInfo, teacher: Offer) -> None:
    """Raise `PairError` where a loss cannot compare the keypoints of two heads that both give some."""
    own, other = student.keypoints, teacher.keypoints
    if own is None or other is None:
        return
    if own.count != other.count:
        raise PairError(
            f"The loss '{name}' compares keypoints one by one, but the student has {own.count} (kpt_shape of the data) "
            f"and the teacher {other.count}. Take a teacher of the same keypoints, or leave losses.{name} out."
        )
    if loss.requires.visibility and (
        lacking := "student" if own.columns < 3 else "teacher" if other.columns < 3 else ""
    ):
        raise PairError(
            f"The loss '{name}' compares the visibility of keypoints, which the {lacking} does not give (its kpt_shape "
            f"has two columns). Set losses.{name}.visibility to 0."
        )


def _check_frames(name: str, loss: Loss, student: HeadInfo, teacher: Offer) -> None:
    """Refuse to compare rotated boxes with others, but for the upright rectangles around those of a teacher."""
    own, other = ANGLES in student.extras, ANGLES in teacher.extras
    if loss.requires.overlaps and own and not other:
        raise PairError(
            f"The loss '{name}' compares boxes, and those of the student are rotated, while the teacher gives {teacher}"
            f" without {ANGLES}. Set losses.{name}.box to 0, so that it compares class scores alone."
        )
    if loss.requires.distributions and own != other:
        raise PairError(
            f"The loss '{name}' compares distances to the sides of boxes, but only the "
            f"{'student' if own else 'teacher'}'s are along the axes of rotated boxes. Leave losses.{name} out."
        )


def check_weighting(student: HeadInfo, teacher: Offer) -> None:
    """Raise `PairError` where the labels of a student cannot judge a teacher: rotated boxes take labels with angles."""
    if ANGLES in teacher.extras and ANGLES not in student.extras:
        raise PairError(
            f"weighting.aid judges the teacher's boxes by the labels, but the teacher's are rotated and the labels of "
            f"a student of the task {student.task} have no {ANGLES}. Take weighting.aid out of the recipe."
        )


def describe_tasks(losses: Mapping[str, Loss], student: HeadInfo, teachers: Sequence[HeadInfo]) -> str | None:
    """Return what is left out of what the tasks give beside class scores and boxes; None where nothing is.

    Args:
        losses: Active ones, which fit the pair.
        student: Head of the student.
        teachers: Heads of the teachers.
    """
    others = dict.fromkeys(one.task for one in teachers if one.task != student.task)
    part = "only the detect part is distilled (class scores, boxes, neck features)"
    if others:
        if ANGLES in student.extras:
            part = "only class scores and neck features are distilled, since the student's boxes are rotated"
        elif any(ANGLES in one.extras for one in teachers):
            part += "; a teacher's boxes are rotated, and the upright rectangles around them count"
        return f"the student's task is {student.task}, a teacher's is {' and '.join(others)}: {part}"
    needs = requirements(losses.values())
    compared = (*needs.extras, ANGLES) if needs.overlaps else needs.extras  # angles are part of a rotated box
    if left := [extra for extra in student.extras if extra not in compared]:
        return f"no loss of this recipe compares {', '.join(left)}: {part}, and the labels teach the rest"
    return None
