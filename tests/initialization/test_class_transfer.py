"""Class rows of a pretrained student: against its checkpoint's outputs, and fits against numpy."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from ultralytics.nn.tasks import DetectionModel

from tests.helpers.lively import lively
from tests.helpers.models import DUAL, config, detector
from yolokd.backend.heads import read_head
from yolokd.errors import PairError, RecipeError, UserError
from yolokd.initialization import class_transfer
from yolokd.initialization.class_transfer import plan_class_rows, require_levels, require_same_head, transfer_class_rows

CLASSES = 40  # of the checkpoint, whose class branch is then 40 channels wide, and 32 for fewer classes
DATA = {0: "class7", 1: "kite", 2: "CLASS2 "}
FAMILIES = ("v8", "v10", "11", "26")


def images(count: int = 8, *, seed: int = 7) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return list(torch.rand(count, 4, 3, 64, 64, generator=generator))


def fine_tuned(checkpoint: DetectionModel, family: str, names: Mapping[int, str]) -> Any:
    """Return a student as Ultralytics' trainer builds it from a checkpoint."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        student = DetectionModel(config(family, classes=len(names)), nc=len(names), verbose=False)
    student.names = dict(names)
    student.load(checkpoint, verbose=False)
    return student


def scores(model: Any, image: Tensor) -> dict[str, Tensor]:
    """Return raw class scores by branch, (B, K, A)."""
    model.eval()
    model.model[-1].training = True
    with torch.no_grad():
        raw = model(image)
    return {name: part["scores"] for name, part in (raw if "one2many" in raw else {"one2many": raw}).items()}


def unused() -> list[Tensor]:
    raise AssertionError("no row is fitted, so no image is needed")


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("classes", [CLASSES, 8])  # another hidden width than the student's description, and the same
def test_transfer__common_classes_score_as_in_the_checkpoint(family: str, classes: int) -> None:
    checkpoint = lively(family, classes=classes)
    student = fine_tuned(checkpoint, family, DATA)
    built = DetectionModel(config(family, classes=3), nc=3, verbose=False)
    assert (built.model[-1].cv3[0][-1].in_channels == checkpoint.model[-1].cv3[0][-1].in_channels) == (classes == 8)
    rows = plan_class_rows(DATA, checkpoint.names, {"class5": "kite"})
    transfer_class_rows(student, checkpoint, rows, images=unused)
    image = images(1, seed=1)[0]
    ours, theirs = scores(student, image), scores(checkpoint, image)
    assert set(ours) == ({"one2many", "one2one"} if family in DUAL else {"one2many"})
    for branch, found in ours.items():
        torch.testing.assert_close(found, theirs[branch][:, [7, 5, 2]], rtol=1e-5, atol=1e-5)
    for part in ("cv3", "one2one_cv3"):
        for mine, source in zip(*(getattr(x.model[-1], part, None) or () for x in (student, checkpoint)), strict=True):
            assert torch.equal(mine[-1].weight, source[-1].weight[[7, 5, 2]])
            assert torch.equal(mine[-1].bias, source[-1].bias[[7, 5, 2]])


def test_transfer__names_that_ultralytics_finds_itself_change_nothing() -> None:
    checkpoint = lively(classes=CLASSES)
    student = fine_tuned(checkpoint, "v8", DATA)
    before = deepcopy(student.state_dict())
    transfer_class_rows(student, checkpoint, plan_class_rows(DATA, checkpoint.names, {}), images=unused)
    assert all(torch.equal(before[key], value) for key, value in student.state_dict().items())


def test_transfer__classes_that_nobody_knows_keep_their_random_rows() -> None:
    checkpoint, teacher = lively(classes=CLASSES), lively(classes=4, seed=2)
    names = {0: "kite", 1: "class1", 2: "class3"}
    student = fine_tuned(checkpoint, "v8", names)
    teacher.names = {0: "class3", 1: "dog", 2: "cat", 3: "cow"}
    before = deepcopy(student.state_dict())
    rows = plan_class_rows(names, checkpoint.names, {}, teacher=teacher.names)
    assert rows.left == (0,)
    assert not rows.taught  # the checkpoint's own class3 goes first
    transfer_class_rows(student, checkpoint, rows, images=unused, teacher=teacher)
    assert all(torch.equal(before[key], value) for key, value in student.state_dict().items())
    bias = [branch[-1].bias[0].item() for branch in student.model[-1].cv3]
    assert bias == pytest.approx([np.log(5 / 3 / (640 / stride) ** 2) for stride in (8, 16, 32)])


def test_transfer__a_mapped_row_brings_its_bias() -> None:
    checkpoint = lively(classes=CLASSES)
    for level, branch in enumerate(checkpoint.model[-1].cv3):
        branch[-1].bias.data[5] = -4.0 - level
    student = fine_tuned(checkpoint, "v8", DATA)
    rows = plan_class_rows(DATA, checkpoint.names, {"class5": "kite"})
    transfer_class_rows(student, checkpoint, rows, images=unused)
    assert [branch[-1].bias[1].item() for branch in student.model[-1].cv3] == [-4.0, -5.0, -6.0]


def test_transfer__joined_classes_come_near_the_largest_of_their_scores() -> None:
    checkpoint = lively(classes=CLASSES)
    student = fine_tuned(checkpoint, "v8", {0: "item"})
    rows = plan_class_rows({0: "class1", 1: "class2", 2: "kite"}, checkpoint.names, {"class8": "kite"}, joined=True)
    assert rows.describe() == "item fitted to the checkpoint's class1 + class2 + class8"
    image = images(1, seed=1)[0]
    wanted = scores(checkpoint, image)["one2many"][:, [1, 2, 8]].amax(1)
    before = scores(student, image)["one2many"][:, 0]
    transfer_class_rows(student, checkpoint, rows, images=images)
    after = scores(student, image)["one2many"][:, 0]
    assert (after - wanted).square().mean() < 0.5 * (wanted - wanted.mean()).square().mean()
    assert (after - wanted).square().mean() < 0.01 * (before - wanted).square().mean()


def test_transfer__one_joined_class_is_copied() -> None:
    checkpoint = lively(classes=CLASSES)
    student = fine_tuned(checkpoint, "v8", {0: "item"})
    rows = plan_class_rows({0: "Class1", 1: "dog"}, checkpoint.names, {}, joined=True)
    assert rows.copied == {0: 1}
    transfer_class_rows(student, checkpoint, rows, images=unused)
    image = images(1)[0]
    ours, theirs = scores(student, image)["one2many"][:, 0], scores(checkpoint, image)["one2many"][:, 1]
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(("family", "master"), [*zip(FAMILIES, FAMILIES, strict=True), ("v8", "v8-p2")])
def test_transfer__a_row_of_the_teacher_equals_ridge_regression(family: str, master: str) -> None:
    """Features are read by a hook of this test, and solved by numpy as an augmented least-squares problem."""
    checkpoint, teacher = lively(family, classes=CLASSES), lively(master, width=0.25, classes=3, seed=2)
    names, batches = {0: "class4", 1: "kite"}, images()
    teacher.names = {0: "dog", 1: "kite", 2: "cat"}
    student = fine_tuned(checkpoint, family, names)
    rows = plan_class_rows(
        names, checkpoint.names, {}, teacher=teacher.names, teacher_classes={"cat": "kite", "dog": "class4"}
    )
    assert rows.taught == {1: (1, 2)}
    transfer_class_rows(student, checkpoint, rows, images=lambda: batches, teacher=teacher)
    for part, branch in (("cv3", "one2many"), ("one2one_cv3", "one2one")):
        for level, layers in enumerate(getattr(student.model[-1], part, None) or ()):
            found: list[Tensor] = []
            handle = layers[-1].register_forward_pre_hook(lambda unit, given, found=found: found.append(given[0]))
            start, cells = ((0, 64), (64, 16), (80, 4))[level]
            start += 16 * 16 if master == "v8-p2" else 0  # whose p2 the student does not have
            target = []
            for batch in batches:
                scores(student, batch)
                target.append(scores(teacher, batch)[branch][:, 1:, start : start + cells].amax(1))
            handle.remove()
            x = torch.cat(found).flatten(2).mT.flatten(0, 1).double().numpy()  # (N, C)
            y = torch.cat(target).flatten().double().numpy()
            ridge = 1e-2 * np.square(x).sum(0).mean()
            design = np.block(
                [[x, np.ones((len(x), 1))], [np.sqrt(ridge) * np.eye(x.shape[1]), np.zeros((x.shape[1], 1))]]
            )
            best, *_ = np.linalg.lstsq(design, np.concatenate([y, np.zeros(x.shape[1])]), rcond=None)
            row = np.append(layers[-1].weight[1].detach().flatten().numpy(), layers[-1].bias[1].item())
            np.testing.assert_allclose(row, best, rtol=1e-3, atol=1e-4)


def test_transfer__a_teacher_that_the_hidden_channels_suffice_for_is_matched_exactly(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    checkpoint = lively(classes=CLASSES)
    teacher = deepcopy(checkpoint)
    teacher.names = {index: f"other{index}" for index in range(CLASSES)}
    names = {0: "class1", 1: "kite"}
    student = fine_tuned(checkpoint, "v8", names)
    rows = plan_class_rows(names, checkpoint.names, {}, teacher=teacher.names, teacher_classes={"other6": "kite"})
    monkeypatch.setattr(class_transfer, "RIDGE", 1e-9)
    transfer_class_rows(student, checkpoint, rows, images=lambda: images(16), teacher=teacher)
    image = images(1, seed=1)[0]
    ours, theirs = scores(student, image)["one2many"], scores(checkpoint, image)["one2many"][:, [1, 6]]
    torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-3)


def test_require_levels__a_level_that_the_teacher_lacks_is_refused() -> None:
    student, other = (read_head(detector(family), "The model") for family in ("v8", "v8-p2"))
    require_levels(student, other)
    with pytest.raises(PairError, match="on every level of the student, and the teacher has no p2"):
        require_levels(other, student)


def test_transfer__a_single_head_teaches_both_branches() -> None:
    checkpoint, teacher = lively("26", classes=CLASSES), lively("v8", classes=3, seed=2)
    teacher.names = {0: "dog", 1: "kite", 2: "cat"}
    names = {0: "class1", 1: "kite"}
    student = fine_tuned(checkpoint, "26", names)
    before = deepcopy(student.state_dict())
    rows = plan_class_rows(names, checkpoint.names, {}, teacher=teacher.names)
    transfer_class_rows(student, checkpoint, rows, images=images, teacher=teacher)
    changed = {key for key, value in student.state_dict().items() if not torch.equal(value, before[key])}
    head = f"model.{len(student.model) - 1}"
    ends = {f"{head}.{part}.{level}.2" for part in ("cv3", "one2one_cv3") for level in range(3)}
    assert changed == {f"{end}.{name}" for end in ends for name in ("weight", "bias")}
    for end in ends:
        assert torch.equal(student.state_dict()[f"{end}.weight"][0], before[f"{end}.weight"][0])


def test_transfer__leaves_modes_hooks_random_numbers_and_teacher() -> None:
    checkpoint, teacher = lively(classes=CLASSES), lively(classes=3, seed=2)
    student = fine_tuned(checkpoint, "v8", {0: "dog", 1: "class1"})
    teacher.names = {0: "dog", 1: "kite", 2: "cat"}
    teacher.eval()
    student.train()
    modes = [[module.training for module in model.modules()] for model in (student, teacher)]
    kept, state = deepcopy(teacher.state_dict()), torch.get_rng_state()
    statistics = student.state_dict()["model.0.bn.running_mean"].clone()
    rows = plan_class_rows(student.names, checkpoint.names, {}, teacher=teacher.names)
    transfer_class_rows(student, checkpoint, rows, images=images, teacher=teacher)
    assert rows.taught == {0: (0,)}
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(student.state_dict()["model.0.bn.running_mean"], statistics)
    assert all(torch.equal(kept[key], value) for key, value in teacher.state_dict().items())
    assert modes == [[module.training for module in model.modules()] for model in (student, teacher)]
    assert student.model[0].training
    assert not teacher.model[0].training
    assert not any(m._forward_hooks or m._forward_pre_hooks for x in (student, teacher) for m in x.modules())
    assert all(parameter.requires_grad for name, parameter in student.named_parameters() if "dfl" not in name)


def test_describe__says_for_each_class_where_it_comes_from() -> None:
    own = {0: "person", 1: "car", 2: "motorcycle", 3: "bus", 4: "truck"}
    data = {0: "Car", 1: "motorbike", 2: "heavy", 3: "kite", 4: "cone", 5: "person"}
    rows = plan_class_rows(
        data,
        own,
        {"motorcycle": "motorbike", "bus": "heavy", "truck": "heavy"},
        teacher={0: "toy", 1: "kite", 2: "car"},
        teacher_classes={"toy": "kite"},
    )
    assert rows.describe() == (
        "Car, person from the checkpoint by name; motorbike from the checkpoint's motorcycle; "
        "heavy fitted to the checkpoint's bus + truck; kite fitted to the teacher's kite + toy; cone at random"
    )


def test_describe__a_class_whose_own_row_another_one_takes_as_well() -> None:
    """The map gives the checkpoint's car to van; the row that Ultralytics copies to car by name stays there."""
    rows = plan_class_rows({0: "car", 1: "van"}, {0: "car"}, {"car": "van"})
    assert (rows.copied, rows.left) == ({1: 0}, (0,))
    assert rows.describe() == "car from the checkpoint by name; van from the checkpoint's car"


def test_plan__names_that_differ_by_letter_case_go_to_their_equals() -> None:
    rows = plan_class_rows({0: "a", 1: "A"}, {0: "A", 1: "a", 2: "b"}, {})
    assert rows.copied == {0: 1, 1: 0}
    with pytest.raises(UserError, match="differ only by letter case"):
        plan_class_rows({0: "CAR"}, {0: "car", 1: "Car"}, {})


def test_plan__a_shipped_map_serves_a_coco_student() -> None:
    rows = plan_class_rows({0: "Pedestrian", 1: "Van"}, {0: "person", 2: "car"}, "coco-to-kitti")
    assert rows.describe() == "Pedestrian from the checkpoint's person; Van at random"


def test_plan__wrong_names_of_the_map_are_one_line() -> None:
    with pytest.raises(RecipeError) as error:
        plan_class_rows({0: "car"}, {0: "auto"}, {"autos": "car", "auto": "cars"})
    assert str(error.value) == (
        "student.classes.autos: the student's checkpoint has no class 'autos'; student.classes.auto: the data has no "
        "class 'cars'. the student's checkpoint knows auto; the data has car."
    )


def test_require_same_head__another_architecture_is_one_line() -> None:
    require_same_head(detector("v8"), detector("v8", classes=CLASSES), "x.pt")
    with pytest.raises(PairError, match=r"'x\.pt', but inputs of its head are 64, 128, 256, the student's 32, 64, 128"):
        require_same_head(detector("v8"), detector("v8", width=0.25), "x.pt")
    with pytest.raises(PairError, match=r"but branches of its head are one2many, the student's one2many, one2one\. G"):
        require_same_head(detector("v10"), detector("v8"), "x.pt")


def test_transfer__other_hidden_channels_are_refused() -> None:
    checkpoint = lively(classes=CLASSES)
    student = detector("v8", classes=3)
    with pytest.raises(PairError, match="class branch cv3 has other hidden channels in the student than in its check"):
        transfer_class_rows(student, checkpoint, plan_class_rows(DATA, checkpoint.names, {}), images=unused)
