"""The teacher runner against the plain model: same numbers, less work, nothing changed."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.engine.models import FAMILIES, detector
from yolokd.engine.heads import neck_features, split_branches
from yolokd.engine.teacher import Teacher, fold


def state(module: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items()}


@pytest.mark.parametrize("family", FAMILIES)
def test_teacher__equals_the_unfolded_model(family: str) -> None:
    model = detector(family).eval()
    images = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        raw: Any = model(images)[1]
    output = Teacher(copy.deepcopy(model))(images, head=True, levels=("p3", "p4", "p5"))
    assert output.raw is not None
    for name, branch in split_branches(raw).items():
        for key in ("scores", "boxes"):
            torch.testing.assert_close(split_branches(output.raw)[name][key], branch[key], rtol=1e-4, atol=1e-4)
    for level, feature in neck_features(raw).items():
        torch.testing.assert_close(output.features[level], feature, rtol=1e-4, atol=1e-4)


def test_teacher__no_normalisation_is_left() -> None:
    teacher = Teacher(detector("v8"))
    assert not [m for m in teacher.modules() if isinstance(m, nn.BatchNorm2d)]


@pytest.mark.parametrize(("levels", "layers"), [(("p3",), 16), (("p4", "p3"), 19), (("p3", "p4", "p5"), 22)])
def test_teacher__stops_at_the_last_layer_that_is_needed(levels: tuple[str, ...], layers: int) -> None:
    teacher = Teacher(detector("v8"))
    ran: list[int] = []
    for index, layer in enumerate(teacher.layers):
        layer.register_forward_hook(lambda m, i, o, index=index: ran.append(index))
    output = teacher(torch.rand(1, 3, 64, 64), head=False, levels=levels)
    assert ran == list(range(layers))
    assert output.raw is None
    assert set(output.features) == set(levels)


def test_teacher__decodes_no_boxes() -> None:
    teacher = Teacher(detector("v8"))
    output = teacher(torch.rand(1, 3, 64, 64), head=True)
    assert isinstance(output.raw, dict)
    assert output.raw["scores"].shape == (1, 3, 84)
    assert teacher.layers[-1].shape is None  # set where boxes are decoded


def test_teacher__stays_frozen_when_the_pair_is_put_into_training_mode() -> None:
    teacher = Teacher(detector("v10"))
    before = state(teacher)
    teacher.train(True)
    output = teacher(torch.rand(2, 3, 64, 64), head=True, levels=("p3",))
    assert not any(p.requires_grad for p in teacher.parameters())
    assert not output.features["p3"].requires_grad
    assert all(torch.equal(value, before[name]) for name, value in state(teacher).items())


def test_teacher__holds_its_weights_in_the_precision_that_it_runs_in() -> None:
    teacher = Teacher(detector("v8"), dtype=torch.bfloat16)
    assert {p.dtype for p in teacher.parameters()} == {torch.bfloat16}
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = teacher(torch.rand(1, 3, 64, 64), head=False, levels=("p4",))
    assert output.features["p4"].dtype == torch.bfloat16


def test_fold__keeps_both_branches_of_a_dual_head() -> None:
    head = fold(detector("26")).model[-1]
    assert head.cv2 is not None
    assert head.one2one_cv2 is not None
    assert "fuse" not in vars(head)
