from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.helpers.models import detector
from yolokd.backend.heads import read_head
from yolokd.errors import UserError
from yolokd.recipe import Recipe
from yolokd.training.argument_checks import check_strides
from yolokd.training.plan import ModelPlan


def plan(family: str) -> ModelPlan:
    head = read_head(detector(family), "The model")
    return ModelPlan(f"{family}.pt", Path(f"{family}.pt"), True, 0, 0.0, head)


def check(content: dict[str, Any], imgsz: int, student: str, *teachers: str) -> None:
    check_strides(Recipe.from_dict({"losses": {"bckd": {}}, **content}), imgsz, plan(student), [*map(plan, teachers)])


@pytest.mark.parametrize(
    ("content", "imgsz", "student", "teacher", "text"),
    [
        (
            {},
            96,
            "v8-p6",
            "v8",
            r"The student 'v8-p6.pt' has levels up to stride 64 .* 96 px. Take --imgsz 64 or 128",
        ),
        ({}, 32, "v8", "v8-p6", r"The teacher 'v8-p6.pt' has levels up to stride 64 .* not 32 px. Take --imgsz 64\."),
        ({"train": {"rect": True}}, 128, "v8", "v8-p6", "train.rect makes images .* stride, 32, and the teacher"),
        ({"train": {"multi_scale": 0.5}}, 128, "v8", "v8-p6", "leave train.multi_scale out"),
    ],
)
def test_check_strides__refuses(content: dict[str, Any], imgsz: int, student: str, teacher: str, text: str) -> None:
    with pytest.raises(UserError, match=text):
        check(content, imgsz, student, teacher)


@pytest.mark.parametrize(
    ("content", "imgsz", "student", "teachers"),
    [
        ({}, 96, "v8", ["v8-p2"]),
        ({"teacher": {"scale": 2}}, 96, "v8", ["v8-p6"]),  # which sees 192 px
        ({"train": {"multi_scale": 0.5}}, 128, "v8-p6", ["v8-p6"]),
        ({"losses": {"soft": {}}, "teacher": {"answers": "stored"}}, 96, "v8", ["v8-p6"]),  # asked at a size of its own
        ({}, 96, "v8", []),
    ],
)
def test_check_strides__lets_pass_what_fits(
    content: dict[str, Any], imgsz: int, student: str, teachers: list[str]
) -> None:
    try:
        check(content, imgsz, student, *teachers)
    except UserError as error:
        refused = str(error)
    else:
        refused = ""
    assert refused == ""
