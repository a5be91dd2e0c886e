"""The pair under distillation, built from tiny detectors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tests.helpers.models import detector
from yolokd.backend.classes import match_classes
from yolokd.backend.heads import read_head
from yolokd.distillation.levels import Levels
from yolokd.distillation.model import TeacherStudent
from yolokd.distillation.state import build_distillation
from yolokd.losses.base import requirements
from yolokd.losses.table import active_losses
from yolokd.recipe import Recipe
from yolokd.teachers.detector import DetectorTeacher


def pair_of(recipe: Recipe, student: Any, teacher: Any) -> TeacherStudent:
    """Wire a pair as the trainer does."""
    extras = requirements(active_losses(recipe).values()).extras
    master = DetectorTeacher(teacher.eval(), extras=extras)
    match = match_classes(student.names, teacher.names, recipe.teacher.classes)
    levels = Levels.of(read_head(student, "The student").levels, master.offer)
    model = TeacherStudent(student, master, build_distillation(recipe, match, levels))
    model.train()
    return model


def pair(
    losses: Mapping[str, Any], *, student: str = "v8", teacher: str = "v8", teacher_classes: int = 3
) -> TeacherStudent:
    recipe = Recipe.from_dict({"losses": dict(losses)})
    return pair_of(recipe, detector(student), detector(teacher, width=0.25, classes=teacher_classes, seed=1))
