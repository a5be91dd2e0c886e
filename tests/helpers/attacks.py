"""Attacks on small detectors, and the comparison of what both models make of them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn
from ultralytics.nn.tasks import DetectionModel

from tests.helpers.models import batch, class_names, detector
from yolokd.backend.classes import match_classes
from yolokd.backend.heads import read_head
from yolokd.distillation.adversarial import (
    Attack,
    Examples,
)
from yolokd.distillation.levels import Levels
from yolokd.losses.base import Grid, Step
from yolokd.losses.ikd import IKD
from yolokd.teachers.detector import DetectorTeacher

NAMES = {0: "class0", 1: "class1", 2: "class2"}


def settings(**changes: Any) -> Any:
    return SimpleNamespace(**{"gain": 1e-5, "eps": 8, "step": 2, "steps": 5, "every": 4, **changes})


def make_attack(teacher: DetectorTeacher, names: dict[int, str] | None = None, **changes: Any) -> Attack:
    return Attack(
        settings(**changes), match_classes(names or NAMES, class_names(class_branches(teacher)[0][-1].out_channels), {})
    )


def make_teacher(family: str = "v8", **changes: Any) -> DetectorTeacher:
    return DetectorTeacher(detector(family, width=0.25, seed=1, **changes))


def make_sensitive_teacher() -> DetectorTeacher:
    """A teacher whose scores depend on the image: its statistics fit its random weights."""
    model = detector("v8", width=0.25, seed=1)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
    with torch.no_grad():
        model.train()(batch(8, seed=1)["img"])
    teacher = DetectorTeacher(model)
    for branch in class_branches(teacher):
        branch[-1].weight.mul_(10)
        branch[-1].bias.zero_()
    return teacher


def class_branches(teacher: DetectorTeacher) -> Any:
    head: Any = teacher.layers[-1]
    return head.cv3


IKD_LOSS = IKD(settings(every=1))


def make_parts(student: DetectionModel, teacher: DetectorTeacher) -> nn.ModuleDict:
    torch.manual_seed(0)
    return IKD_LOSS.build(read_head(student, "The student").widths, teacher.info.widths)


def examples_of(images: Tensor, student: DetectionModel, teacher: DetectorTeacher) -> Examples:
    levels = Levels.of(read_head(student, "The student").levels, teacher.offer)
    return Examples(images, student, teacher, levels)


def compare(student: DetectionModel, teacher: DetectorTeacher, parts: nn.ModuleDict, images: Tensor) -> Tensor:
    """The loss map of adversarial examples."""
    step = Step({}, {}, Grid({}, {}), adversarial=examples_of(images, student, teacher))
    return IKD_LOSS.maps(step, parts, ("ikd",))["ikd"]


def state(module: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items()}


def same(before: dict[str, Tensor], module: nn.Module) -> bool:
    after = module.state_dict()
    return before.keys() == after.keys() and all(torch.equal(value, after[name]) for name, value in before.items())
