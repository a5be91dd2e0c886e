"""Weight selection against hand-made networks and a slow, spelled-out selection."""

from __future__ import annotations

from copy import deepcopy

import pytest
import torch
from torch import nn
from ultralytics.nn.tasks import DetectionModel

from tests.helpers.models import FAMILIES, OTHER_LEVELS, config, detector
from tests.helpers.segments import model_of
from yolokd.backend.classes import match_classes
from yolokd.errors import PairError
from yolokd.initialization.weight_selection import select_weights, spaced


def same_classes(model: DetectionModel) -> object:
    return match_classes(model.names, model.names, {})


def test_spaced__floor_of_equal_steps() -> None:
    assert spaced(4, 8).tolist() == [0, 2, 4, 6]
    assert spaced(2, 3).tolist() == [0, 1]
    assert spaced(3, 3).tolist() == [0, 1, 2]


@pytest.mark.parametrize("family", sorted({*FAMILIES, *OTHER_LEVELS}))
def test_inherit__equal_shapes_give_an_equal_model(family: str) -> None:
    student, teacher = detector(family, seed=1), detector(family, seed=2)
    image = torch.rand(1, 3, 64, 64)
    before = student.eval()(image)[0]
    taken = select_weights(student, teacher, match_classes(student.names, teacher.names, {}))
    torch.testing.assert_close(student.eval()(image)[0], teacher.eval()(image)[0], rtol=1e-5, atol=1e-5)
    assert not torch.allclose(before, student(image)[0])
    assert 0.9 < taken.share <= 1


def test_inherit__every_second_channel_wherever_it_comes_from() -> None:
    """The expected places are written out for the concatenations of YOLOv8: pieces keep every second channel."""
    student, teacher = detector("v8", width=0.125), detector("v8", width=0.25, seed=3)
    select_weights(student, teacher, match_classes(student.names, teacher.names, {}))
    own, other = dict(student.named_parameters()), dict(teacher.named_parameters())
    torch.testing.assert_close(own["model.0.conv.weight"], other["model.0.conv.weight"][::2])  # all three colors
    for name in ("model.2.cv1", "model.2.m.0.cv1", "model.4.cv2", "model.9.cv2", "model.12.cv1", "model.21.cv1"):
        expected = other[f"{name}.conv.weight"][::2, ::2]
        torch.testing.assert_close(own[f"{name}.conv.weight"], expected)
        torch.testing.assert_close(own[f"{name}.bn.weight"], other[f"{name}.bn.weight"][::2])
        running = student.state_dict()[f"{name}.bn.running_var"]
        torch.testing.assert_close(running, teacher.state_dict()[f"{name}.bn.running_var"][::2])
    torch.testing.assert_close(own["model.22.cv2.0.2.weight"], other["model.22.cv2.0.2.weight"])  # both 64 wide
    narrowed = own["model.22.cv3.0.2.weight"].shape[1] / other["model.22.cv3.0.2.weight"].shape[1]
    expected = other["model.22.cv3.0.2.weight"][
        :, spaced(*(m["model.22.cv3.0.2.weight"].shape[1] for m in (own, other)))
    ]
    torch.testing.assert_close(own["model.22.cv3.0.2.weight"], expected / narrowed)


def test_inherit__unequal_ratios_follow_the_pieces_of_a_concatenation() -> None:
    """One input keeps every fourth channel, the other every second one, as between YOLOv8l and YOLOv8n at p5."""
    thin, wide = config("v8"), config("v8")
    thin["scales"] = {"n": [0.33, 0.125, 1024]}
    wide["scales"] = {"n": [0.33, 0.5, 512]}  # the limit of channels makes p5 half as wide as its ratio says
    student, teacher = (DetectionModel(c, nc=3, verbose=False) for c in (thin, wide))
    for model in (student, teacher):
        model.names = {0: "a", 1: "b", 2: "c"}
    select_weights(student, teacher, match_classes(student.names, teacher.names, {}))
    ours, theirs = student.model[12].cv1.conv.weight, teacher.model[12].cv1.conv.weight  # of p5 upsampled and p4
    p5 = student.model[9].cv2.conv.out_channels, teacher.model[9].cv2.conv.out_channels
    p4 = student.model[6].cv2.conv.out_channels, teacher.model[6].cv2.conv.out_channels
    assert p5[1] / p5[0] != p4[1] / p4[0]
    columns = [*spaced(*p5).tolist(), *(p5[1] + spaced(*p4)).tolist()]
    torch.testing.assert_close(ours, theirs[spaced(len(ours), len(theirs))][:, columns])


def test_inherit__a_shallower_student_takes_the_first_blocks() -> None:
    deep = config("v8")
    deep["scales"] = {"n": [1.0, 0.25, 1024]}
    student, teacher = detector("v8"), DetectionModel(deep, nc=3, verbose=False)
    teacher.names = student.names
    select_weights(student, teacher, match_classes(student.names, teacher.names, {}))
    ours, theirs = student.model[4], teacher.model[4]
    torch.testing.assert_close(ours.m[1].cv1.conv.weight, theirs.m[1].cv1.conv.weight[::2, ::2])
    pieces = 2 + len(ours.m)  # of the concatenation that cv2 reads: two halves and the first blocks
    torch.testing.assert_close(ours.cv2.conv.weight, theirs.cv2.conv.weight[::2, : pieces * theirs.c : 2])


def test_inherit__class_rows_go_by_name() -> None:
    student, teacher = detector("v8", classes=3), detector("v8", classes=4, seed=4)
    student.names = {0: "bus", 1: "tram", 2: "car"}
    teacher.names = {0: "car", 1: "dog", 2: "bus", 3: "cat"}
    before = deepcopy(student.model[-1].cv3[0][-1])
    select_weights(student, teacher, match_classes(student.names, teacher.names, {}))
    ours, theirs = student.model[-1].cv3[0][-1], teacher.model[-1].cv3[0][-1]
    torch.testing.assert_close(ours.weight[[0, 2]], theirs.weight[[2, 0]])
    torch.testing.assert_close(ours.bias[[0, 2]], theirs.bias[[2, 0]])
    torch.testing.assert_close(ours.weight[1], before.weight[1])  # nobody to learn from


def test_inherit__leaves_the_models_as_they_work() -> None:
    student, teacher = detector("11"), detector("11", width=0.25, seed=5)
    kept = deepcopy(teacher)
    select_weights(student, teacher, match_classes(student.names, teacher.names, {}))
    assert all("forward" not in vars(m) for model in (student, teacher) for m in model.modules())
    assert all(
        torch.equal(a, b) for a, b in zip(kept.state_dict().values(), teacher.state_dict().values(), strict=True)
    )
    assert student.training == detector("11").training
    assert all(p.requires_grad for n, p in student.named_parameters() if "dfl" not in n)
    assert isinstance(student.model[0], nn.Module)


def test_inherit__another_family_is_refused() -> None:
    with pytest.raises(PairError, match=r"layer 2 is C2f in the student and C3k2 in the teacher"):
        select_weights(detector("v8"), detector("11"), same_classes(detector("v8")))  # type: ignore[arg-type]


def test_inherit__other_levels_are_another_family() -> None:
    with pytest.raises(PairError, match=r"layer 16 is Upsample in the student and Conv in the teacher"):
        select_weights(detector("v8-p2"), detector("v8"), same_classes(detector("v8")))  # type: ignore[arg-type]


def test_inherit__a_narrower_teacher_has_nothing_to_give() -> None:
    student, teacher = detector("v8", width=0.25), detector("v8", width=0.125)
    before = student.model[2].cv1.conv.weight.clone()
    taken = select_weights(student, teacher, match_classes(student.names, teacher.names, {}))
    assert torch.equal(student.model[2].cv1.conv.weight, before)
    assert taken.share < 0.2  # what is as wide in both: parts of the head


@pytest.mark.parametrize("family", ["v8-pose", "26-pose"])
def test_inherit__keypoints_are_taken_over_only_if_both_have_the_same(family: str) -> None:
    student, teacher = (model_of(family, keypoints=(4, 3), seed=seed) for seed in (1, 2))
    image = torch.rand(1, 3, 64, 64)
    select_weights(student, teacher, match_classes(student.names, teacher.names, {}))
    torch.testing.assert_close(student.eval()(image)[0], teacher.eval()(image)[0], rtol=1e-5, atol=1e-5)
    with pytest.raises(PairError, match=r"kpt_shape is \[17, 3\] in the student and \[4, 3\] in the teacher"):
        select_weights(model_of(family), teacher, match_classes(student.names, teacher.names, {}))
