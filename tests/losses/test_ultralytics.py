from __future__ import annotations

from typing import Any, Final

import pytest
import torch
from torch import Tensor, nn
from ultralytics.cfg import get_cfg
from ultralytics.nn.distill_model import DistillationModel
from ultralytics.nn.tasks import DetectionModel

from tests.helpers.steps import GRID, STUDENT_CHANNELS, TEACHER_CHANNELS, cast, doubled, gradient, make_step, moves
from yolokd.errors import RunError, ShapeError
from yolokd.losses.base import Step
from yolokd.losses.ultralytics import Ultralytics, score_weighted_l2_map
from yolokd.recipe import UltralyticsConfig

LEVELS: Final = ("p3", "p4", "p5")
LOSS = Ultralytics(UltralyticsConfig(levels=LEVELS))


def built_in(student: Tensor, teacher: Tensor, score: Tensor) -> Tensor:
    """The original, which looks at nothing of its object."""
    original: Any = DistillationModel.loss_sl2
    value: Tensor = original(None, student, teacher, 0, (score.flatten(1).unsqueeze(1),))
    return value


def inputs(dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor]:
    return torch.randn(3, 4, 5, 6, dtype=dtype), torch.randn(3, 4, 5, 6, dtype=dtype), torch.rand(3, 5, 6, dtype=dtype)


# score_weighted_l2_map


def test_score_weighted_l2_map__closed_form() -> None:
    student = torch.tensor([1.0, 2.0]).view(1, 1, 1, 2)
    score = torch.tensor([0.25, 0.75]).view(1, 1, 2)
    loss = score_weighted_l2_map(student, torch.zeros(1, 1, 1, 2), score)
    assert loss.flatten().tolist() == pytest.approx([0.25, 3.0], rel=1e-6)
    assert loss.sum((1, 2)).mean().item() == pytest.approx(3.25, rel=1e-6)


def test_score_weighted_l2_map__faint_scores_fade_out() -> None:
    error, score = torch.full((1, 1, 1, 1), 2.0), torch.full((1, 1, 1), 1e-9)
    assert score_weighted_l2_map(error, 0 * error, score).item() == pytest.approx(4 / 2, rel=1e-6)


def test_score_weighted_l2_map__equals_the_built_in() -> None:
    student, teacher, score = inputs()
    student.requires_grad_()
    ours, theirs = score_weighted_l2_map(student, teacher, score).sum((1, 2)).mean(), built_in(student, teacher, score)
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=0)
    torch.testing.assert_close(gradient(ours, student), gradient(theirs, student), rtol=1e-12, atol=1e-15)


def test_score_weighted_l2_map__equals_a_slow_loop() -> None:
    student, teacher, score = inputs()
    loss = score_weighted_l2_map(student, teacher, score)
    total = sum(score.flatten().tolist())
    for b, y, x in ((0, 0, 0), (1, 4, 2), (2, 3, 5)):
        squares = sum((student[b, c, y, x].item() - teacher[b, c, y, x].item()) ** 2 for c in range(4))
        assert loss[b, y, x].item() == pytest.approx(3 * squares * score[b, y, x].item() / (4 * total), rel=1e-9)


def test_score_weighted_l2_map__gradient_equals_finite_differences() -> None:
    student, teacher, score = inputs()
    assert torch.autograd.gradcheck(lambda s: score_weighted_l2_map(s, teacher, score), student.requires_grad_())


def test_score_weighted_l2_map__a_teacher_that_sees_nothing_gives_zero() -> None:
    student, teacher, score = inputs()
    assert not score_weighted_l2_map(student, teacher, 0 * score).any()
    assert not score_weighted_l2_map(student, student.clone(), score).any()


def test_score_weighted_l2_map__only_the_student_gets_a_gradient() -> None:
    student, teacher, score = (x.requires_grad_() for x in inputs())
    loss = score_weighted_l2_map(student, teacher, score)
    assert [moves(loss, x) for x in (student, teacher, score)] == [True, False, False]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_score_weighted_l2_map__half_and_autocast_are_computed_in_float32(dtype: torch.dtype) -> None:
    half = [x.to(dtype) for x in inputs()]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        ours = score_weighted_l2_map(*half)
    assert ours.dtype == torch.float32
    assert torch.equal(ours, score_weighted_l2_map(*(x.float() for x in half)))


def test_score_weighted_l2_map__shapes_that_merely_broadcast_are_refused() -> None:
    student, teacher, score = inputs()
    with pytest.raises(ShapeError, match=r"\(3, 4, 5, 6\) and \(1, 4, 5, 6\)"):
        score_weighted_l2_map(student, teacher[:1], score)
    with pytest.raises(ShapeError, match=r"features and teacher_score .* \(3, 5, 6\) and \(3, 1, 5, 6\)"):
        score_weighted_l2_map(student, teacher, score[:, None])
    with pytest.raises(ShapeError, match=r"4 dimensions, got \(4, 5, 6\)"):
        score_weighted_l2_map(student[0], teacher[0], score[0])


# the wired loss


def value(step: Step, parts: nn.ModuleDict) -> Tensor:
    return LOSS.maps(step, parts, ["ultralytics"])["ultralytics"].sum(1).mean(0)


def parts_of() -> nn.ModuleDict:
    return LOSS.build(STUDENT_CHANNELS, TEACHER_CHANNELS).double()


def test_ultralytics_wired__equals_the_built_in_distiller() -> None:
    """The original model runs a step; ours gets its features and scores, and projectors from the same seed."""
    teacher, student = (DetectionModel(f"yolov8{size}.yaml", nc=3, verbose=False) for size in "sn")
    student.args = get_cfg(overrides={"imgsz": 64})
    torch.manual_seed(7)
    original = DistillationModel(teacher, student)
    batch = {
        "img": torch.rand(2, 3, 64, 96),
        "cls": torch.tensor([[1.0]]),
        "bboxes": torch.tensor([[0.5, 0.5, 0.4, 0.6]]),
        "batch_idx": torch.tensor([0.0]),
    }
    wanted = original.train().loss(batch)[1]["dis_loss"]
    step = Step(
        student={level: original._student_feats[i] for i, level in enumerate(LEVELS)},
        teacher={level: original._teacher_feats[i] for i, level in enumerate(LEVELS)},
        grid=GRID,
        teacher_scores=original.decouple_outputs(original._teacher_feats[3])["scores"].sigmoid().amax(1),
    )
    channels = [{level: x.shape[1] for level, x in side.items()} for side in (step.student, step.teacher)]
    torch.manual_seed(7)
    parts = LOSS.build(*channels)
    for own, theirs in zip(parts.parameters(), original.projector.parameters(), strict=True):
        assert torch.equal(own, theirs)
    torch.testing.assert_close(6 * value(step, parts)[None], wanted, rtol=1e-5, atol=0)


def test_ultralytics_wired__sums_the_levels() -> None:
    step, parts = make_step(), parts_of()
    assert step.teacher_scores is not None
    wanted = 0.0
    for level, shape in GRID.shapes.items():
        score = step.teacher_scores[:, GRID.places(level)].reshape(2, *shape)
        wanted += built_in(parts[level](step.student[level]), step.teacher[level], score).item()
    assert value(step, parts).item() == pytest.approx(wanted, rel=1e-12)
    assert value(doubled(step), parts).item() == pytest.approx(wanted, rel=1e-9)


def test_ultralytics_wired__trains_student_and_projectors_only() -> None:
    step, parts = make_step(), parts_of()
    loss = value(step, parts)
    assert all(moves(loss, x) for x in (*step.student.values(), *parts.parameters()))
    assert not any(moves(loss, x) for x in step.teacher.values())


def test_ultralytics_wired__projects_also_where_channels_are_equal() -> None:
    parts = LOSS.build(TEACHER_CHANNELS, TEACHER_CHANNELS)
    assert [len(list(parts[level].parameters())) for level in LEVELS] == [4, 4, 4]


def test_ultralytics_wired__autocast_and_half_features_change_nothing() -> None:
    step, parts = cast(make_step(), torch.bfloat16), parts_of().float()
    outside = value(step, parts)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = value(step, parts)
    assert inside.dtype == torch.float32
    assert torch.equal(inside, outside)


def test_ultralytics_wired__missing_scores_are_an_error() -> None:
    step = make_step()
    with pytest.raises(RunError, match="`ultralytics` needs the teacher's class scores"):
        value(Step(step.student, step.teacher, GRID), parts_of())
