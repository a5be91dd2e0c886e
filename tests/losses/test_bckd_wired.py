"""BCKD in a step: sums over branches and what they are divided by, and rotated boxes."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from ultralytics.utils.metrics import probiou

from tests.helpers.bckd import boxes, plain_cls
from tests.helpers.steps import doubled, gradient, make_step, moves
from yolokd.errors import RunError, ShapeError
from yolokd.losses import base
from yolokd.losses.base import ANGLES, Head, Step
from yolokd.losses.bckd import BCKD, PIXEL, bckd_box_map, bckd_cls_map, bckd_rotated_map, score_gap
from yolokd.recipe import BCKDConfig

TERMS = ("bckd_cls", "bckd_box")
NONE = nn.ModuleDict()


def values(loss: BCKD, step: Step) -> dict[str, float]:
    return {term: m.sum(1).mean(0).item() for term, m in loss.maps(step, NONE, TERMS).items()}


@pytest.mark.parametrize("normalizer", ["positives", "target_scores"])
def test_bckd_wired__is_the_sum_over_branches_divided_by_n(normalizer: str) -> None:
    step = make_step(weights=(0.8, 0.2))
    wanted = dict.fromkeys(TERMS, 0.0)
    for branch in step.branches:
        student, teacher = branch.student, branch.teacher
        n = branch.positives.sum().item() if normalizer == "positives" else 4.5
        gap = score_gap(student.logits, teacher.logits)
        cls = plain_cls(student.logits, teacher.logits, 2, detach=False)
        box = bckd_box_map(student.boxes, teacher.boxes, gap, iou="iou")
        wanted["bckd_cls"] += branch.weight * cls.sum().item() / n
        wanted["bckd_box"] += branch.weight * box.sum().item() / n
    config = BCKDConfig.model_validate({"beta": 2.0, "iou": "iou", "normalizer": normalizer})
    assert values(BCKD(config), step) == pytest.approx(wanted, rel=1e-6)


def test_bckd_wired__detaches_the_weight_if_told() -> None:
    step = make_step()
    student, teacher = step.branches[0].student.logits, step.branches[0].teacher.logits
    loss_map = BCKD(BCKDConfig(detach_weight=True)).maps(step, NONE, TERMS)["bckd_cls"]
    scale = 2 / step.branches[0].positives.sum()
    wanted = scale * gradient(plain_cls(student, teacher, 1, detach=True), student)
    torch.testing.assert_close(gradient(loss_map, student), wanted, rtol=1e-6, atol=1e-9)


def test_bckd_wired__a_repeated_batch_changes_nothing() -> None:
    step = make_step()
    assert values(BCKD(BCKDConfig()), doubled(step)) == pytest.approx(values(BCKD(BCKDConfig()), step), rel=1e-6)


def test_bckd_wired__without_positives_n_is_one() -> None:
    step = make_step()
    step.branches[0].positives.zero_()
    student, teacher = step.branches[0].student, step.branches[0].teacher
    wanted = plain_cls(student.logits, teacher.logits, 1, detach=False).sum().item()
    assert values(BCKD(BCKDConfig()), step)["bckd_cls"] == pytest.approx(wanted, rel=1e-6)


def test_bckd_wired__over_processes_n_is_the_mean(monkeypatch: pytest.MonkeyPatch) -> None:
    loss, step = BCKD(BCKDConfig()), make_step()
    own = step.branches[0].positives.sum().item()
    alone = values(loss, step)
    monkeypatch.setattr(base, "mean_over_ranks", lambda x: 3 * x)  # the other rank found five times as many
    assert own > 0
    assert values(loss, step) == pytest.approx({term: value / 3 for term, value in alone.items()}, rel=1e-6)


def test_bckd_wired__computes_only_what_is_active() -> None:
    step, loss = make_step(), BCKD(BCKDConfig())
    assert list(loss.maps(step, NONE, ["bckd_cls"])) == ["bckd_cls"]
    assert "boxes" not in vars(step.branches[0].student)  # nothing was decoded
    assert list(loss.maps(step, NONE, ["bckd_box"])) == ["bckd_box"]
    assert tuple(loss.maps(step, NONE, TERMS)) == loss.terms


def test_bckd_wired__teaches_the_student_only() -> None:
    step = make_step()
    maps = BCKD(BCKDConfig()).maps(step, NONE, TERMS)
    assert {term: m.shape for term, m in maps.items()} == dict.fromkeys(TERMS, (2, step.grid.anchors))
    student, teacher = step.branches[0].student, step.branches[0].teacher
    heads = (student.logits, student.raw, teacher.logits, teacher.raw)
    assert [moves(maps["bckd_cls"], x) for x in heads] == [True, False, False, False]
    assert [moves(maps["bckd_box"], x) for x in heads] == [False, True, False, False]


def test_bckd_wired__a_missing_head_is_an_error() -> None:
    with pytest.raises(RunError, match="`bckd` needs the heads"):
        BCKD(BCKDConfig()).maps(make_step(weights=()), NONE, TERMS)


def step_with(share: float, **averages: float) -> Step:
    """A step whose batch holds this share of positives, in a run with these averages per image."""
    step = make_step()
    (branch,) = step.branches
    found = torch.zeros_like(branch.positives)
    found[:, : round(share * found.shape[1])] = True
    known = {name: torch.tensor(value, dtype=torch.float64) for name, value in averages.items()} or None
    return replace(step, branches=(replace(branch, positives=found, averages=known),))


@pytest.mark.parametrize("normalizer", ["positives", "target_scores"])
def test_bckd_wired__strength_does_not_depend_on_the_objects_of_the_batch(normalizer: str) -> None:
    loss = BCKD(BCKDConfig.model_validate({"normalizer": normalizer}))
    background, full = (step_with(share, positives=12.0, target_scores=5.0) for share in (0.0, 0.5))
    for term, value in values(loss, background).items():
        torch.testing.assert_close(value, values(loss, full)[term])
        assert float(value) > 0


def test_bckd_wired__average_of_the_run_divides_by_its_positives_per_image() -> None:
    step = step_with(0.5, positives=12.0, target_scores=5.0)
    student, teacher = step.branches[0].student.logits, step.branches[0].teacher.logits
    expected = float(bckd_cls_map(student.detach(), teacher).sum(1).mean()) / 12
    assert float(values(BCKD(BCKDConfig()), step)["bckd_cls"]) == pytest.approx(expected)


def test_bckd_wired__average_of_the_batch_is_the_published_form() -> None:
    step = step_with(0.0, positives=12.0, target_scores=5.0)
    alone = values(BCKD(BCKDConfig()), step_with(0.0))
    for term, value in values(BCKD(BCKDConfig(average="batch")), step).items():
        torch.testing.assert_close(value, alone[term])


def rotated_pair(count: int = 30) -> tuple[Tensor, Tensor, Tensor]:
    numbers = torch.Generator().manual_seed(3)
    scale = torch.tensor([50.0, 50, 30, 10, 3], dtype=torch.float64)
    one, other = torch.rand(2, 2, count, 5, generator=numbers, dtype=torch.float64) * scale + 1
    return one.requires_grad_(), other.requires_grad_(), torch.rand(2, count, generator=numbers, dtype=torch.float64)


def test_bckd_rotated_map__equals_ultralytics_probiou() -> None:
    student, teacher, gap = rotated_pair()
    overlap = probiou(student.flatten(0, 1), teacher.flatten(0, 1), eps=1e-14, floor=PIXEL).view_as(gap)
    found = bckd_rotated_map(student, teacher, gap)
    torch.testing.assert_close(found, gap * (1 - overlap), rtol=0, atol=1e-11)
    assert found.shape == gap.shape
    assert bool((found <= gap).all())


def test_bckd_rotated_map__a_turned_bar_in_closed_form() -> None:
    # squared sides 63 + 1 and 15 + 1, a turn by 90°: e^−B = 2 · √(64 · 16) / (64 + 16) = 4/5
    sides = math.sqrt(63), math.sqrt(15)
    student, teacher = boxes(8, 8, *sides, 0.4), boxes(8, 8, *sides, 0.4 + math.pi / 2)
    found = bckd_rotated_map(student, teacher, torch.tensor([[0.5]]))
    assert found.item() == pytest.approx(0.5 * math.sqrt(1 / 5), rel=1e-12)


def test_bckd_rotated_map__the_student_alone_gets_a_gradient_by_its_angle_too() -> None:
    student, teacher, gap = rotated_pair()
    gap.requires_grad_()
    values = bckd_rotated_map(student, teacher, gap)
    assert gradient(values, student)[..., 4].any()
    assert not moves(values, teacher)
    assert not moves(values, gap)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_bckd_rotated_map__half_is_computed_in_float32(dtype: torch.dtype) -> None:
    student, teacher, gap = (x.detach().to(dtype) for x in rotated_pair())
    found = bckd_rotated_map(student, teacher, gap)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, bckd_rotated_map(student.float(), teacher.float(), gap.float()))


def test_bckd_rotated_map__other_shapes_are_refused() -> None:
    student, teacher, gap = rotated_pair()
    with pytest.raises(ShapeError, match="same shape"):
        bckd_rotated_map(student, teacher[:1], gap)
    with pytest.raises(ShapeError, match="boxes and gap"):
        bckd_rotated_map(student, teacher, gap[:, 1:])
    with pytest.raises(ShapeError, match="rotated boxes must have"):
        bckd_rotated_map(student[..., :4], teacher[..., :4], gap)


def turned(head: Head, seed: int) -> Head:
    numbers = torch.Generator().manual_seed(seed)
    angles = torch.randn(*head.raw.shape[:2], 1, generator=numbers, dtype=torch.float64).requires_grad_()
    return replace(head, extras={**head.extras, ANGLES: angles})


def test_bckd_wired__compares_rotated_boxes_where_both_heads_have_angles() -> None:
    step = make_step()
    (branch,) = step.branches
    both = replace(branch, student=turned(branch.student, 0), teacher=turned(branch.teacher, 1))
    assert both.student.rotated is not None
    assert both.teacher.rotated is not None
    found = BCKD(BCKDConfig(average="batch")).maps(replace(step, branches=(both,)), NONE, TERMS)["bckd_box"]
    gap = score_gap(both.student.logits, both.teacher.logits)
    expected = bckd_rotated_map(both.student.rotated, both.teacher.rotated, gap)
    torch.testing.assert_close(found, expected * 2 / both.positives.sum())
    assert moves(found, both.student.extras[ANGLES])
    assert not moves(found, both.teacher.extras[ANGLES])


def test_bckd_wired__of_a_rotated_teacher_alone_the_rectangles_around_its_boxes_count() -> None:
    step = make_step()
    (branch,) = step.branches
    teacher = turned(branch.teacher, 1)
    mixed = replace(branch, teacher=teacher)
    found = BCKD(BCKDConfig(average="batch")).maps(replace(step, branches=(mixed,)), NONE, TERMS)["bckd_box"]
    gap = score_gap(branch.student.logits, teacher.logits)
    expected = bckd_box_map(branch.student.boxes, teacher.boxes, gap)
    torch.testing.assert_close(found, expected * 2 / branch.positives.sum())
    assert not torch.equal(teacher.boxes, branch.teacher.boxes)


def test_bckd_wired__equal_rotated_heads_give_zero_and_no_gradient() -> None:
    step = make_step()
    (branch,) = step.branches
    student = turned(branch.student, 0)
    equal = replace(branch, student=student, teacher=student)
    maps = BCKD(BCKDConfig()).maps(replace(step, branches=(equal,)), NONE, TERMS)
    assert not any(values.any() for values in maps.values())
    for values in maps.values():
        for leaf in (student.logits, student.raw, student.extras[ANGLES]):
            assert not moves(values, leaf)


def test_bckd__needs_boxes_in_one_frame_only_for_its_box_term() -> None:
    assert BCKD(BCKDConfig()).requires.overlaps
    assert not BCKD(BCKDConfig(box=0)).requires.overlaps
