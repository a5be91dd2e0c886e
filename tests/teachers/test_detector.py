"""The teacher runner against the plain model: same numbers, less work, nothing changed."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.helpers.models import FAMILIES, detector
from yolokd.backend.heads import neck_features, split_branches
from yolokd.errors import UserError
from yolokd.teachers.detector import DetectorTeacher, fold, require_compiler


def state(module: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items()}


@pytest.mark.parametrize("family", FAMILIES)
def test_teacher__equals_the_unfolded_model(family: str) -> None:
    model = detector(family).eval()
    images = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        raw: Any = model(images)[1]
    output = DetectorTeacher(copy.deepcopy(model))(images, head=True, levels=("p3", "p4", "p5"))
    assert output.raw is not None
    for name, branch in split_branches(raw).items():
        for key in ("scores", "boxes"):
            torch.testing.assert_close(split_branches(output.raw)[name][key], branch[key], rtol=1e-4, atol=1e-4)
    for level, feature in neck_features(raw, images).items():
        torch.testing.assert_close(output.features[level], feature, rtol=1e-4, atol=1e-4)


def test_teacher__no_normalization_is_left() -> None:
    teacher = DetectorTeacher(detector("v8"))
    assert not [m for m in teacher.modules() if isinstance(m, nn.BatchNorm2d)]


@pytest.mark.parametrize(("levels", "layers"), [(("p3",), 16), (("p4", "p3"), 19), (("p3", "p4", "p5"), 22)])
def test_teacher__stops_at_the_last_layer_that_is_needed(levels: tuple[str, ...], layers: int) -> None:
    teacher = DetectorTeacher(detector("v8"))
    ran: list[int] = []
    for index, layer in enumerate(teacher.layers):
        layer.register_forward_hook(lambda m, i, o, index=index: ran.append(index))
    output = teacher(torch.rand(1, 3, 64, 64), head=False, levels=levels)
    assert ran == list(range(layers))
    assert output.raw is None
    assert set(output.features) == set(levels)


def test_teacher__decodes_no_boxes() -> None:
    teacher = DetectorTeacher(detector("v8"))
    output = teacher(torch.rand(1, 3, 64, 64), head=True)
    assert isinstance(output.raw, dict)
    assert output.raw["scores"].shape == (1, 3, 84)
    assert teacher.layers[-1].shape is None  # set where boxes are decoded


def test_teacher__stays_frozen_when_the_pair_is_put_into_training_mode() -> None:
    teacher = DetectorTeacher(detector("v10"))
    before = state(teacher)
    teacher.train(True)
    output = teacher(torch.rand(2, 3, 64, 64), head=True, levels=("p3",))
    assert not any(p.requires_grad for p in teacher.parameters())
    assert not output.features["p3"].requires_grad
    assert all(torch.equal(value, before[name]) for name, value in state(teacher).items())


def test_teacher__holds_its_weights_in_the_precision_that_it_runs_in() -> None:
    teacher = DetectorTeacher(detector("v8"), dtype=torch.bfloat16)
    assert {p.dtype for p in teacher.parameters()} == {torch.bfloat16}
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = teacher(torch.rand(1, 3, 64, 64), head=False, levels=("p4",))
    assert output.features["p4"].dtype == torch.bfloat16


@pytest.mark.parametrize("family", FAMILIES)
def test_teacher__features_lie_in_memory_as_the_students_do(family: str) -> None:
    output = DetectorTeacher(detector(family))(torch.rand(2, 3, 64, 96), head=False, levels=("p3", "p4", "p5"))
    assert all(feature.is_contiguous() for feature in output.features.values())


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch's own parts
def test_teacher__a_compiled_pass_is_the_same_and_the_attack_is_not_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    tracer = torch.compile  # traced as ever, but run as it is: generating code takes minutes

    def trace(function: Any, *, options: Any) -> Any:
        assert options == {"freezing": True}
        return tracer(function, backend="eager", fullgraph=True)

    monkeypatch.setattr(torch, "compile", trace)
    model, images = detector("v8"), torch.rand(2, 3, 64, 64)
    plain, compiled = DetectorTeacher(copy.deepcopy(model)), DetectorTeacher(model, compiled=True)
    expected, found = (teacher(images, head=True, levels=("p3",)) for teacher in (plain, compiled))
    assert expected.raw is not None
    assert found.raw is not None
    torch.testing.assert_close(found.features, expected.features)
    torch.testing.assert_close(found.raw["scores"], expected.raw["scores"])
    images.requires_grad_()
    attacked: Any = compiled.run(images).raw
    assert torch.autograd.grad(attacked["scores"].sum(), images)[0].any()


def test_require_compiler__says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing(*_: Any, **__: Any) -> Any:
        raise RuntimeError("No working C++ compiler found.\nSet TORCH_LOGS for more.")

    monkeypatch.setattr(torch, "compile", nothing)
    with pytest.raises(UserError) as caught:
        require_compiler(torch.device("cpu"))
    message = str(caught.value)
    assert message.startswith("teacher.compile is on, but torch cannot compile for the device 'cpu' (No working C++")
    assert "TORCH_LOGS" not in message


def test_fold__keeps_both_branches_of_a_dual_head() -> None:
    head = fold(detector("26")).model[-1]
    assert head.cv2 is not None
    assert head.one2one_cv2 is not None
    assert "fuse" not in vars(head)
