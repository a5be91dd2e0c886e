"""Pairs whose heads have different levels: which anchors are compared, what is left out, what is refused."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.helpers.models import FAMILIES, LEVELS, batch, detector
from tests.helpers.teacher_student import pair_of
from yolokd.backend.heads import read_head
from yolokd.distillation.adversarial import frozen_statistics
from yolokd.distillation.levels import Levels
from yolokd.distillation.model import TeacherStudent
from yolokd.distillation.pair import check_pair
from yolokd.errors import PairError
from yolokd.loaders.batch import TrainingBatch
from yolokd.losses.base import Grid
from yolokd.losses.bckd import bckd_box_map, bckd_cls_map, score_gap
from yolokd.losses.levels import STRIDES
from yolokd.losses.table import active_losses
from yolokd.recipe import Recipe
from yolokd.teachers.base import Offer
from yolokd.teachers.table import offer_of

SIDE = 128
IMAGES = torch.zeros(2, 3, SIDE, 64)
SETS = [levels for count in (1, 2, 4) for levels in combinations(("p2", "p3", "p4", "p5", "p6"), count)]
PAIRS = [  # student, teacher, levels of both
    ("v8-p2", "v8", ("p3", "p4", "p5")),
    ("v8", "v8-p2", ("p3", "p4", "p5")),
    ("v8-p2", "11", ("p3", "p4", "p5")),
    ("v8-p6", "v8-p2", ("p3", "p4", "p5")),
    ("v8-p2", "v8-p3p4", ("p3", "p4")),
    ("v8-p5", "26", ("p5",)),
]


def offer(levels: tuple[str, ...], **options: Any) -> Offer:
    return Offer(dict.fromkeys(levels, 8), ("one2many",), 16, **options)


def places(levels: tuple[str, ...]) -> list[tuple[str, int, int]]:
    """Level, row and column of every anchor, one after the other."""
    return [
        (level, row, column)
        for level in levels
        for row in range(SIDE // STRIDES[level])
        for column in range(64 // STRIDES[level])
    ]


def numbered(levels: tuple[str, ...]) -> tuple[Tensor, list[tuple[str, int, int]]]:
    """The number of every anchor, (1, A, 1), and its place."""
    found = places(levels)
    return torch.arange(len(found)).view(1, -1, 1), found


def look(pair: TeacherStudent, data: dict[str, Any]) -> Any:
    assert pair.distillation is not None
    return pair.look(TrainingBatch.of(data), pair.distillation.active())


@pytest.mark.parametrize("student", SETS)
@pytest.mark.parametrize("teacher", [("p2", "p3", "p4", "p5"), ("p3", "p5"), ("p6",)])
def test_grids__anchors_of_both_sides_are_at_the_same_places(
    student: tuple[str, ...], teacher: tuple[str, ...]
) -> None:
    levels = Levels.of(student, offer(teacher))
    grids = levels.grids(IMAGES)
    wanted = [place for place in places(student) if place[0] in teacher]
    for side, own in ((grids.student, student), (grids.teacher, teacher)):
        numbers, where = numbered(own)
        assert side.anchors == len(where)
        assert [where[number] for number in side.pick(numbers, levels.common).flatten()] == wanted
        assert torch.equal(
            side.pick(numbers.mT, levels.common, 2).mT, side.pick(numbers, levels.common)
        )  # along another dimension
    assert grids.common.anchors == len(wanted)
    points, strides = grids.common.centers(torch.device("cpu")) if wanted else (torch.zeros(0, 2), torch.zeros(0, 1))
    for (level, row, column), point, stride in zip(wanted, points.tolist(), strides.tolist(), strict=True):
        assert point == [(column + 0.5) * STRIDES[level], (row + 0.5) * STRIDES[level]]
        assert stride == [STRIDES[level]]


def test_pick__all_levels_copy_nothing() -> None:
    grid, x = Grid.of_images(IMAGES, ("p3", "p4")), torch.zeros(1, 160, 2)
    assert grid.pick(x, ("p4", "p3", "p2")) is x


@pytest.mark.parametrize(("student", "teacher", "common"), PAIRS)
def test_look__equals_a_loop_over_the_anchors_of_both(student: str, teacher: str, common: tuple[str, ...]) -> None:
    recipe = Recipe.from_dict({"losses": {"bckd": {"average": "batch"}}})
    pair = pair_of(recipe, detector(student), detector(teacher, seed=1))
    data = batch(imgsz=SIDE)
    model: Any = pair.student_model
    with torch.no_grad(), frozen_statistics(model):
        seen = look(pair, data)
        raw, taught = model(data["img"]), pair.teacher_model(data["img"]).raw
    own, other = (x.get("one2many", x) for x in (raw, taught))
    criterion = getattr(model.criterion, "one2many", model.criterion)
    kept: list[Tensor] = []
    handle = criterion.assigner.register_forward_hook(lambda m, i, o: kept.append(o[3]))
    criterion.loss(own, data)
    handle.remove()
    expected = []
    for level in common:
        heads = []
        for x, name in ((own, student), (other, teacher)):
            start = 0
            for before in LEVELS[name][: LEVELS[name].index(level)]:
                start += (SIDE // STRIDES[before]) ** 2
            cells = slice(start, start + (SIDE // STRIDES[level]) ** 2)
            heads.append((x["scores"][:, :, cells].mT, decoded(x["boxes"][:, :, cells], STRIDES[level]), cells))
        (logits, boxes, cells), (logits_t, boxes_t, _) = heads
        gap = score_gap(logits, logits_t)
        expected.append((bckd_cls_map(logits, logits_t), bckd_box_map(boxes, boxes_t, gap), kept[0][:, cells]))
    positives = max(float(sum(part[2].sum() for part in expected)), 1.0)
    for term, place in (("bckd_cls", 0), ("bckd_box", 1)):
        map_ = torch.cat([part[place] for part in expected], 1) * len(data["img"]) / positives
        torch.testing.assert_close(seen.maps[term], map_, rtol=1e-3, atol=1e-5)
    assert tuple(seen.grid.shapes) == common


def decoded(raw: Tensor, stride: int) -> Tensor:
    """Boxes of the cells of one square level, (B, H·W, 4), by a loop over cells."""
    bins = raw.shape[1] // 4
    side = int(raw.shape[2] ** 0.5)
    found = torch.empty(len(raw), side * side, 4)
    for cell in range(side * side):
        x, y = (cell % side + 0.5) * stride, (cell // side + 0.5) * stride
        sides = raw[:, :, cell].view(-1, 4, bins)
        if bins > 1:
            sides = (sides.softmax(2) * torch.arange(bins)).sum(2)
        left, top, right, bottom = (sides.reshape(-1, 4) * stride).unbind(1)
        found[:, cell] = torch.stack((x - left, y - top, x + right, y + bottom), 1)
    return found


@pytest.mark.parametrize("losses", [{"bckd": {}, "ld": {}, "samkd": {"gain": 0.0}}, {"cwd": {}, "pkd": {}, "ssim": {}}])
@pytest.mark.parametrize("family", ["v8-p2", "v8-p6", "v8-p3p4"])
def test_look__an_equal_teacher_gives_0_and_no_gradient(family: str, losses: dict[str, Any]) -> None:
    recipe = Recipe.from_dict({"losses": losses})
    pair = pair_of(recipe, detector(family), detector(family))
    with frozen_statistics(pair.student_model):
        seen = look(pair, batch(imgsz=SIDE))
    assert tuple(seen.grid.shapes) == LEVELS[family]
    assert pair.distillation is not None
    assert set(seen.maps) == set(pair.distillation.active())
    for term, value in seen.values.items():
        assert abs(float(value.detach())) < 1e-5, term
    sum(seen.values.values()).backward()
    for parameter in pair.student_model.parameters():
        assert parameter.grad is None or float(parameter.grad.abs().max()) < 1e-3


@pytest.mark.parametrize(
    ("student", "teacher"), [("v8-p2", "v8-p2"), ("v8-p2", "v8"), ("v8", "v8-p6"), ("26", "v8-p2")]
)
def test_loss__every_method_acts_on_what_both_have(student: str, teacher: str) -> None:
    content: dict[str, Any] = {
        "losses": {"bckd": {}, "ssim": {}, "samkd": {}, "mgd": {}, "fgd": {}, "pkd": {}, "cwd": {}}
    }
    content["losses"] |= {"fbkd": {}, "ultralytics": {}}
    content |= {"weighting": {"aid": {}}, "augment": {"ikd": {"adversarial": {"steps": 1}}}}
    pair = pair_of(Recipe.from_dict(content), detector(student), detector(teacher, width=0.25, seed=1))
    loss, items = pair(batch(imgsz=SIDE))
    terms = {key: float(value) for key, value in items.items() if key.startswith("kd_")}
    assert len(terms) == len(pair.terms)
    assert min(terms.values()) > 0, terms
    loss[-len(terms) :].sum().backward()
    neck = [p.grad for p in pair.student_model.model[:-1].parameters()]
    assert any(gradient is not None and gradient.any() for gradient in neck)
    assert all(gradient is None or gradient.isfinite().all() for gradient in neck)


@pytest.mark.parametrize(("teacher", "notes"), [("v8", []), ("v8-p2", ["p2"]), ("v8-p6", ["p6"])])
def test_check_pair__says_what_is_left_out(teacher: str, notes: list[str]) -> None:
    found = checked("v8", teacher, {"losses": {"ssim": {}, "bckd": {}}})
    assert found == [
        f"the teacher's {level} is left out of all losses: the student has no such level" for level in notes
    ]


def test_check_pair__says_which_levels_of_the_student_have_no_teacher() -> None:
    (note,) = checked("v8-p2", "v8-p3p4", {"losses": {"bckd": {}}})
    assert note == "the student's p2, p5 are left out of all losses: the teacher has no such level"


def checked(student: str, teacher: str, content: dict[str, Any]) -> list[str]:
    """The notes of a check of two detectors under a recipe."""
    recipe, notes = Recipe.from_dict(content), list[str]()
    heads = read_head(detector(teacher), "The teacher"), read_head(detector(student), "The student")
    given = offer_of(recipe, *heads)
    losses = active_losses(recipe, Levels.of(heads[1].levels, given).features)
    check_pair(losses, heads[1], given, notes)
    return notes


@pytest.mark.parametrize(
    ("student", "teacher", "content", "text"),
    [
        (
            "v8-p5",
            "v8-p3p4",
            {"losses": {"bckd": {}}},
            "no level in common.*\n  student  p5 32\n  teacher  p3 8, p4 16$",
        ),
        (
            "v8",
            "v8-p2",
            {"losses": {"ssim": {"levels": ["p2", "p3"]}}},
            r"student has no such level. Leave p2 out .*p3, p",
        ),
        ("v8-p2", "v8", {"losses": {"cwd": {"levels": ["p2"]}}}, "gives neck features of p3, p4, p5.*Leave p2 out"),
        ("v8", "v8", {"losses": {"mgd": {"levels": ["p6"]}}}, "'mgd' compares neck features of p6, but the student"),
        (
            "v8-p5",
            "v8",
            {"losses": {"pkd": {}}, "teacher": {"scale": 2}},
            "'pkd' compares neck features, but the teacher",
        ),
    ],
)
def test_check_pair__refuses(student: str, teacher: str, content: dict[str, Any], text: str) -> None:
    with pytest.raises(PairError, match=text):
        checked(student, teacher, content)


def test_check_pair__pseudo_labels_alone_need_no_common_level() -> None:
    assert checked("v8-p5", "v8-p3p4", {"losses": {}}) == []


def test_check_pair__stored_answers_are_for_all_levels_of_the_student() -> None:
    assert checked("v8-p2", "v8", {"losses": {"soft": {}}, "teacher": {"answers": "stored"}}) == []


@pytest.mark.parametrize("family", FAMILIES)
def test_levels__of_equal_heads_are_all_of_them(family: str) -> None:
    levels = Levels.of(LEVELS[family], offer(LEVELS[family]))
    assert levels.student == levels.teacher == levels.common == levels.features == ("p3", "p4", "p5")
