from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from tests.helpers.models import batch, detector
from yolokd.backend.classes import match_classes
from yolokd.backend.heads import read_head
from yolokd.distillation.pair import Parts, build_pair, check_pair
from yolokd.errors import PairError
from yolokd.losses.table import active_losses
from yolokd.recipe import Recipe
from yolokd.teachers.base import Offer

FULL = Offer({"p3": 16, "p4": 32, "p5": 64}, ("one2many",), 16)


def recipe(**losses: Any) -> Recipe:
    return Recipe.from_dict({"losses": losses})


def parts(chosen: Recipe, seed: int = 0) -> Parts:
    student, teacher = detector("v8"), detector("v8", width=0.25, seed=1)
    match = match_classes(student.names, teacher.names, {})
    return Parts(chosen, student, teacher, match, torch.device("cpu"), seed=seed)


def test_build_pair__its_parts_depend_on_the_seed_and_leave_the_runs_numbers_alone() -> None:
    torch.manual_seed(3)
    before = torch.get_rng_state()
    first, second, other = (build_pair(parts(recipe(mgd={}), seed)).projector.state_dict() for seed in (1, 1, 2))
    torch.manual_seed(3)
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert not all(torch.equal(first[key], other[key]) for key in first)


def test_build_pair__trains_at_once() -> None:
    pair = build_pair(parts(recipe(bckd={}))).train()
    loss, items = pair(batch())
    loss.sum().backward()
    assert float(items["kd_bckd_cls"]) > 0
    assert any(p.grad is not None and p.grad.any() for p in pair.student_model.parameters())
    assert all(p.grad is None for p in pair.teacher_model.parameters())


@pytest.mark.parametrize(
    ("losses", "offer", "text"),
    [
        ({"ssim": {}}, replace(FULL, widths={"p3": 16, "p4": 32}), r"gives neck features of p3, p4.*Leave p5 out"),
        ({"ssim": {}}, replace(FULL, widths={}, branches=()), "gives stored answers only"),
        ({"bckd": {}}, replace(FULL, branches=()), "'bckd' compares class scores and boxes"),
        ({"ultralytics": {}}, replace(FULL, branches=()), "'ultralytics' compares class scores"),
        ({"ld": {}}, replace(FULL, bins=1), "reg_max 16 and the teacher's 1"),
    ],
)
def test_check_pair__names_what_the_teacher_lacks(losses: dict[str, Any], offer: Offer, text: str) -> None:
    student = read_head(detector("v8"), "The student")
    check_pair(active_losses(recipe(**losses)), student, FULL, [])
    with pytest.raises(PairError, match=text):
        check_pair(active_losses(recipe(**losses)), student, offer, [])


def test_check_pair__a_teacher_that_cannot_be_attacked() -> None:
    attack = Recipe.from_dict({"losses": {"fgd": {}}, "augment": {"ikd": {"adversarial": {}}}})
    student = read_head(detector("v8"), "The student")
    with pytest.raises(PairError, match="'ikd' attacks the teacher"):
        check_pair(active_losses(attack), student, replace(FULL, attackable=False), [])
