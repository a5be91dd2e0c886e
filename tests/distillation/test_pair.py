from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from tests.helpers.models import batch, detector
from tests.helpers.segments import model_of
from yolokd.backend.classes import match_classes
from yolokd.backend.heads import read_head
from yolokd.distillation.pair import Parts, build_pair, check_pair, check_weighting, describe_tasks
from yolokd.errors import PairError
from yolokd.loaders.batch import with_larger
from yolokd.losses.table import active_losses
from yolokd.recipe import Recipe
from yolokd.teachers.base import Offer
from yolokd.teachers.several import match_teachers

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


@pytest.mark.parametrize("family", ["v8", "26"])
@pytest.mark.parametrize("scale", [1, 2])
@pytest.mark.parametrize("several", [False, True])
def test_build_pair__every_kind_of_live_teacher_teaches_the_student(family: str, scale: int, several: bool) -> None:
    losses = {"bckd": {}, "cwd": {"levels": ["p3", "p4"]}, "fgd": {"levels": ["p4"]}, "samkd": {"levels": ["p3"]}}
    content = {"losses": losses, "weighting": {"aid": {}}, "teacher": {"scale": scale}}
    student, teacher, other = detector(family), detector(family, width=0.25, seed=1), detector("v8", seed=2)
    names = [student.names, teacher.names, other.names]
    match = (
        match_classes(names[0], names[1], {}) if not several else match_teachers(names[0], names[1:], {}, joined=False)
    )
    further = [other] if several else []
    chosen = Recipe.from_dict(content)
    pair = build_pair(Parts(chosen, student, teacher, match, torch.device("cpu"), further=further)).train()
    given = batch(imgsz=64 * scale)
    loss, items = pair(given if scale == 1 else with_larger(given, scale))
    terms = {key: float(value) for key, value in items.items() if key.startswith("kd_")}
    assert len(terms) == len(pair.terms)
    assert min(terms.values()) > 0, terms
    loss[-len(terms) :].sum().backward()
    assert all(p.grad is None for p in pair.teacher_model.parameters())
    neck = [p.grad for p in pair.student_model.model[:-1].parameters()]
    assert any(gradient is not None and gradient.any() for gradient in neck)
    assert all(gradient is None or gradient.isfinite().all() for gradient in neck)


@pytest.mark.parametrize(
    ("losses", "offer", "text"),
    [
        (
            {"ssim": {"levels": ["p3", "p5"]}},
            replace(FULL, widths={"p3": 16, "p4": 32}),
            r"gives neck features of p3, p4.*Leave p5 out",
        ),
        ({"ssim": {}}, replace(FULL, widths={}, branches=(), stored=True), "gives stored answers only"),
        ({"bckd": {}}, replace(FULL, branches=()), "'bckd' compares class scores and boxes"),
        ({"ultralytics": {}}, replace(FULL, branches=()), "'ultralytics' compares class scores"),
        ({"ld": {}}, replace(FULL, bins=1), "reg_max 16 and the teacher's 1"),
        ({"ld": {}}, replace(FULL, bins=1, attackable=False), "reg_max 16 and the teacher gives neck features of p3"),
    ],
)
def test_check_pair__names_what_the_teacher_lacks(losses: dict[str, Any], offer: Offer, text: str) -> None:
    student = read_head(detector("v8"), "The student")
    wired = active_losses(recipe(**losses), student.levels)
    check_pair(wired, student, FULL, [])
    with pytest.raises(PairError, match=text):
        check_pair(wired, student, offer, [])


def test_check_pair__a_teacher_that_cannot_be_attacked() -> None:
    attack = Recipe.from_dict({"losses": {"fgd": {}}, "augment": {"ikd": {"adversarial": {}}}})
    student = read_head(detector("v8"), "The student")
    with pytest.raises(PairError, match="'ikd' attacks the teacher"):
        check_pair(active_losses(attack, student.levels), student, replace(FULL, attackable=False), [])


def test_check_pair__rotated_boxes_of_both_are_compared() -> None:
    student = read_head(model_of("v8-obb"), "The student")
    wired = active_losses(recipe(bckd={}, ld={}), student.levels)
    notes: list[str] = []
    check_pair(wired, student, Offer.of_head(student), notes)
    assert notes == []
    assert describe_tasks(wired, student, [student]) is None
    left = describe_tasks(active_losses(recipe(bckd={"box": 0}), student.levels), student, [student])
    assert left is not None
    assert left.startswith("no loss of this recipe compares angles: ")


def test_check_pair__a_student_of_rotated_boxes_learns_class_scores_of_a_detector() -> None:
    student, teacher = (read_head(model, "It") for model in (model_of("v8-obb"), detector("v8")))
    offer = Offer.of_head(teacher)
    with pytest.raises(PairError, match=r"'bckd' compares boxes.*without angles\. Set losses\.bckd\.box to 0"):
        check_pair(active_losses(recipe(bckd={})), student, offer, [])
    with pytest.raises(PairError, match=r"'ld' compares distances .* only the student's are along the axes"):
        check_pair(active_losses(recipe(ld={})), student, offer, [])
    wired = active_losses(recipe(bckd={"box": 0}, pkd={}), student.levels)
    check_pair(wired, student, offer, [])
    check_weighting(student, offer)
    assert describe_tasks(wired, student, [teacher]) == (
        "the student's task is obb, a teacher's is detect: only class scores and neck features are distilled, since "
        "the student's boxes are rotated"
    )


def test_check_pair__a_detector_learns_the_rectangles_around_rotated_boxes() -> None:
    student, teacher = (read_head(model, "It") for model in (detector("v8"), model_of("v8-obb")))
    offer = Offer.of_head(teacher)
    wired = active_losses(recipe(bckd={}))
    check_pair(wired, student, offer, [])
    note = describe_tasks(wired, student, [teacher])
    assert note is not None
    assert note.endswith("a teacher's boxes are rotated, and the upright rectangles around them count")
    with pytest.raises(PairError, match=r"'ld' compares distances .* only the teacher's are along the axes"):
        check_pair(active_losses(recipe(ld={})), student, offer, [])
    with pytest.raises(PairError, match=r"labels of a student of the task detect have no angles\. Take weighting\.aid"):
        check_weighting(student, offer)
