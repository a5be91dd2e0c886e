from __future__ import annotations

from typing import Any

import pytest
import torch
from ultralytics.nn.modules.head import Detect, Segment

from tests.helpers.models import detector
from tests.helpers.segments import model_of
from yolokd.errors import UserError
from yolokd.recipe import Recipe, load_recipe
from yolokd.teachers import table
from yolokd.teachers.table import make_teacher

LEVELS = ("p3", "p4", "p5")
CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)


def recipe(*, examples: bool = False, **teacher: Any) -> Recipe:
    ikd: dict[str, Any] = {"augment": {"ikd": {"adversarial": {}}}} if examples else {}
    return Recipe.from_dict({"losses": {"bckd": {}}, "teacher": teacher, **ikd})


@pytest.mark.parametrize(
    ("asked", "device", "half", "dtype"),
    [
        ("auto", CPU, True, torch.float32),
        ("auto", GPU, True, torch.float16),
        ("auto", GPU, False, torch.float32),
        ("bf16", GPU, True, torch.bfloat16),
        ("fp32", GPU, True, torch.float32),
    ],
)
def test_make_teacher__precision_follows_device_and_recipe(
    asked: str, device: torch.device, half: bool, dtype: torch.dtype
) -> None:
    teacher = make_teacher(recipe(precision=asked), detector("v8"), device, half=half, student=LEVELS)
    assert teacher.dtype == dtype
    assert {p.dtype for p in teacher.parameters()} == {dtype}


def test_make_teacher__twins_take_single_precision() -> None:
    assert make_teacher(recipe(examples=True), detector("v8"), GPU, half=True, student=LEVELS).dtype == torch.float32
    with pytest.raises(UserError, match="takes single precision"):
        make_teacher(recipe(examples=True, precision="fp16"), detector("v8"), GPU, half=True, student=LEVELS)


def test_make_teacher__compiles_only_if_told_and_after_a_trial(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[torch.device] = []
    compiled: list[Any] = []

    def compile_nothing(function: Any, **options: Any) -> Any:
        compiled.append((function.__name__, options))
        return function

    monkeypatch.setattr(table, "require_compiler", tried.append)
    monkeypatch.setattr(torch, "compile", compile_nothing)
    make_teacher(recipe(), detector("v8"), CPU, half=False, student=LEVELS)
    assert not tried
    assert not compiled
    make_teacher(recipe(compile=True), detector("v8"), CPU, half=False, student=LEVELS)
    assert tried == [CPU]
    assert compiled == [("run", {"options": {"freezing": True}})]


@pytest.mark.parametrize(("recipe_name", "head", "extras"), [("bckd", Detect, ()), ("mask", Segment, ("masks",))])
def test_make_teacher__masks_are_computed_only_where_a_loss_takes_them(
    recipe_name: str, head: type, extras: tuple[str, ...]
) -> None:
    teacher: Any = make_teacher(load_recipe(recipe_name), model_of("v8-seg"), CPU, half=False, student=LEVELS)
    assert type(teacher.layers[-1]) is head
    assert teacher.offer.extras == extras
