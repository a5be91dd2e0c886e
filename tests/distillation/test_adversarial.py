"""Adversarial examples of real detectors: what the attack raises, what the comparison gives, what both leave alone."""

from __future__ import annotations

import copy
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.helpers.attacks import (
    class_branches,
    compare,
    examples_of,
    make_attack,
    make_parts,
    make_sensitive_teacher,
    make_teacher,
    same,
    settings,
    state,
)
from tests.helpers.models import DUAL, FAMILIES, LEVELS, OTHER_LEVELS, batch, class_names, detector
from tests.helpers.waits import Waits
from yolokd.augment.ikd import adversarial
from yolokd.backend.checkpoints import load_detector
from yolokd.backend.classes import match_classes
from yolokd.backend.heads import neck_features, split_branches
from yolokd.distillation.adversarial import (
    Attack,
    extra_passes,
    frozen_statistics,
    neck_pass,
    quarters,
)
from yolokd.distillation.assignment import branch_criteria
from yolokd.errors import PairError
from yolokd.loaders.batch import COUNTS, with_counts
from yolokd.losses.base import Grid, Step
from yolokd.losses.ikd import IKD
from yolokd.teachers.detector import DetectorTeacher

# The attack


def test_make__raises_the_teachers_loss_more_than_chance_within_bounds() -> None:
    teacher, data = make_sensitive_teacher(), batch(3)
    attack = make_attack(teacher)
    loss = attack.attack_loss(teacher, data)
    clean = loss(data["img"])
    images = attack.make(teacher, data, 1)
    assert images is not None
    assert not images.requires_grad
    assert float(images.min()) >= 0
    assert float(images.max()) <= 1
    assert float((images - data["img"]).abs().max()) == pytest.approx(8 / 255, abs=1e-6)
    noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(0)).sign() * 8 / 255
    chance = loss((data["img"] + noise).clamp(0, 1))
    attacked = loss(images)
    assert (attacked > clean * 1.05).all()
    assert (attacked > chance * 1.05).all()


def test_make__raises_the_loss_of_a_trained_detector(shared: Path) -> None:
    detector = load_detector(shared / "weights" / "yolov8n-coco.pt")
    teacher = DetectorTeacher(detector)
    names = {0: "bus", 1: "car", 2: "motorbike", 3: "person", 4: "truck"}
    attack = Attack(settings(), match_classes(names, detector.names, {"motorcycle": "motorbike"}))
    data = highway(shared / "data" / "highway", 4)
    images = attack.make(teacher, data, 1)
    assert images is not None
    with torch.no_grad():
        loss = attack.attack_loss(teacher, data)
        clean, attacked = loss(data["img"]), loss(images)
        for seed in range(3):
            signs = torch.randn(images.shape, generator=torch.Generator().manual_seed(seed)).sign()
            assert (attacked > loss((data["img"] + signs * 8 / 255).clamp(0, 1))).all()
    assert (attacked > 2 * clean).all()


def highway(folder: Path, size: int, side: int = 192) -> dict[str, Any]:
    """A batch of real images, padded at the right and below."""
    images, index, classes, boxes = [], [], [], []
    for number, path in enumerate(sorted((folder / "images" / "val").glob("*.jpg"))[:size]):
        image = cv2.imread(str(path))
        assert image is not None
        height, width = image.shape[:2]
        ratio = side / max(height, width)
        image = cv2.resize(image, (round(width * ratio), round(height * ratio)))
        height, width = image.shape[:2]
        padded = np.full((side, side, 3), 114, np.uint8)
        padded[:height, :width] = image[..., ::-1]
        images.append(torch.from_numpy(padded).permute(2, 0, 1) / 255)
        for line in (folder / "labels" / "val" / f"{path.stem}.txt").read_text().splitlines():
            kind, x, y, w, h = (float(v) for v in line.split())
            index.append(float(number))
            classes.append([kind])
            boxes.append([x * width / side, y * height / side, w * width / side, h * height / side])
    return {
        "img": torch.stack(images),
        "batch_idx": torch.tensor(index),
        "cls": torch.tensor(classes),
        "bboxes": torch.tensor(boxes),
    }


@pytest.mark.parametrize("size", [1, 3, 4, 5, 9])
def test_quarters__every_image_keeps_its_labels(size: int) -> None:
    data = batch(size)
    parts = quarters(data)
    assert len(parts) <= 4
    assert torch.equal(torch.cat([part["img"] for part in parts]), data["img"])
    place = 0
    for part in parts:
        for image in range(len(part["img"])):
            own, whole = part["batch_idx"] == image, data["batch_idx"] == place
            assert torch.equal(part["cls"][own], data["cls"][whole])
            assert torch.equal(part["bboxes"][own], data["bboxes"][whole])
            place += 1
    assert place == size
    with_numbers = with_counts(data)
    with Waits() as waits:
        counted = quarters(with_numbers)
    assert not waits.seen
    for part, other in zip(parts, counted, strict=True):
        assert all(torch.equal(part[key], other[key]) for key in part)
        assert other[COUNTS] == (2,) * len(part["img"])


def test_make__an_example_does_not_depend_on_its_neighbors() -> None:
    teacher, data = make_sensitive_teacher(), batch(4)
    attack = make_attack(teacher)
    alone = attack.make(teacher, data, 1)  # in quarters, so each by itself
    together = adversarial(data["img"], attack.attack_loss(teacher, data), eps=8, step=2, steps=5)
    assert alone is not None
    assert (alone == together).float().mean() > 0.99  # a sign of a gradient near 0 may turn by rounding
    assert (data["img"] == together).float().mean() < 0.5


def test_make__disturbs_neither_teacher_nor_random_streams_nor_batch() -> None:
    teacher, data = make_teacher(), batch()
    attack = make_attack(teacher)
    before, images = state(teacher), data["img"].clone()
    draws = []
    for attacked in (False, True):
        for set_seed in (torch.manual_seed, random.seed, np.random.seed):
            set_seed(5)
        if attacked:
            attack.make(teacher, data, 1)
        draws.append((random.random(), float(np.random.rand()), float(torch.rand(()))))
    assert draws[0] == draws[1]
    assert same(before, teacher)
    assert all(p.grad is None and not p.requires_grad for p in teacher.parameters())
    assert torch.equal(data["img"], images)
    assert not data["img"].requires_grad


def test_make__only_on_every_nth_step() -> None:
    teacher = make_teacher()
    attack = make_attack(teacher, every=3, steps=1)
    acts = [step for step in range(8) if attack.make(teacher, batch(), step) is not None]
    assert acts == [1, 4, 7]


def test_ikd__on_every_nth_step_counts_n_times() -> None:
    student, teacher = detector("v8").train(), make_teacher()
    parts, images = make_parts(student, teacher), batch()["img"]
    step = Step({}, {}, Grid({}, {}), adversarial=examples_of(images, student, teacher))
    thrice = IKD(settings(every=3)).maps(step, parts, ("ikd",))["ikd"]
    torch.testing.assert_close(thrice, 3 * compare(student, teacher, parts, images))
    assert IKD(settings(every=3)).maps(replace(step, adversarial=None), parts, ("ikd",)) == {}


def test_make__does_not_depend_on_autocast() -> None:
    teacher, data = make_teacher(), batch()
    attack = make_attack(teacher, steps=2)
    plain = attack.make(teacher, data, 1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = attack.make(teacher, data, 1)
    assert plain is not None
    assert inside is not None
    assert inside.dtype == torch.float32
    assert torch.equal(plain, inside)


def test_make__refuses_a_half_precision_teacher() -> None:
    teacher = DetectorTeacher(detector("v8"), dtype=torch.bfloat16)
    with pytest.raises(ValueError, match=r"takes a teacher in single precision, got torch\.bfloat16"):
        make_attack(teacher).make(teacher, batch(), 1)


def test_make__a_batch_without_objects() -> None:
    teacher, data = make_sensitive_teacher(), batch()
    data.update(batch_idx=torch.zeros(0), cls=torch.zeros(0, 1), bboxes=torch.zeros(0, 4))
    attack = make_attack(teacher)
    images = attack.make(teacher, data, 1)
    assert images is not None
    loss = attack.attack_loss(teacher, data)
    assert (loss(images) > loss(data["img"])).all()


# The loss under attack


@pytest.mark.parametrize("family", ["v8", *DUAL])
def test_attack_loss__equals_ultralytics_criterion(family: str) -> None:
    model, data = detector(family, width=0.25, seed=1).eval(), batch(3)
    teacher = DetectorTeacher(copy.deepcopy(model))
    loss = make_attack(teacher).attack_loss(teacher, data)(data["img"])
    with torch.no_grad():
        raw: Any = model(data["img"])[1]
    criterion = branch_criteria(model.init_criterion())["one2many"][0]
    sums: list[Tensor] = []
    criterion.assigner.register_forward_hook(lambda m, i, output: sums.append(output[2].sum().clamp(min=1)))
    _, items = criterion.loss(split_branches(raw)["one2many"], data)
    expected = items["cls_loss"] / model.args.cls * sums[0]
    assert loss.shape == (3,)
    assert float(loss.sum()) == pytest.approx(float(expected), rel=1e-4)


def test_attack_loss__keeps_the_assignment_of_the_first_images() -> None:
    teacher, data = make_sensitive_teacher(), batch()
    other = torch.rand(data["img"].shape, generator=torch.Generator().manual_seed(9))
    with torch.no_grad():
        loss, fresh = (make_attack(teacher).attack_loss(teacher, data) for _ in range(2))
        first = loss(data["img"])
        kept = loss(other)
        assert not torch.equal(kept, fresh(other))
        assert torch.equal(loss(data["img"]), first)
        assert torch.equal(loss(other), kept)


def test_attack_loss__is_that_of_the_common_classes() -> None:
    teacher = make_teacher(classes=5)
    names = {0: "class3", 1: "unknown", 2: "class0"}
    data = batch(3)
    data["cls"] = torch.tensor([0.0, 1.0, 2.0, 0.0, 1.0, 1.0])[:, None]  # the last image holds unknown objects only
    attack = make_attack(teacher, names)
    with torch.no_grad():
        loss = attack.attack_loss(teacher, data)(data["img"])
        raw: Any = teacher(data["img"]).raw
        background = nn.functional.softplus(raw["scores"][2, [0, 3]]).sum()
        assert float(loss[2]) == pytest.approx(float(background), rel=1e-3)
        for branch in class_branches(teacher):
            branch[-1].bias[[1, 2, 4]] += 3.0
        assert torch.allclose(attack.attack_loss(teacher, data)(data["img"]), loss)
        renamed = {0: "class0", 1: "unknown", 2: "class3"}
        assert not torch.allclose(make_attack(teacher, renamed).attack_loss(teacher, data)(data["img"]), loss)


def test_attack_loss__of_joined_classes_the_largest_score_is_attacked() -> None:
    teacher = make_teacher(classes=5)
    match = match_classes({0: "class3", 1: "x"}, class_names(5), {"class1": "class3", "class4": "x"})
    data = batch(2)
    data["cls"] = torch.zeros(0, 1)
    data["bboxes"], data["batch_idx"] = torch.zeros(0, 4), torch.zeros(0)
    with torch.no_grad():
        loss = Attack(settings(), match).attack_loss(teacher, data)(data["img"])
        raw: Any = teacher(data["img"]).raw
    scores = raw["scores"]
    background = nn.functional.softplus(torch.stack([scores[:, [1, 3]].amax(1), scores[:, 4]], 1)).sum((1, 2))
    torch.testing.assert_close(loss, background, rtol=1e-3, atol=0)


def test_attack__a_teacher_without_common_classes_is_refused() -> None:
    teacher = make_teacher()
    with pytest.raises(PairError, match=r"knows none of them by name:\n  dog  - missing -\nMap names"):
        make_attack(teacher, {0: "dog"})


# The comparison


@pytest.mark.parametrize("family", ["v8", *DUAL])
def test_ikd__equals_the_models_in_evaluation_mode(family: str) -> None:
    student, master = detector(family).train(), detector(family, width=0.25, seed=1).eval()
    teacher = DetectorTeacher(copy.deepcopy(master))
    parts = make_parts(student, teacher)
    images = batch(3)["img"]
    result = compare(student, teacher, parts, images)
    with torch.no_grad():
        own: Any = neck_features(copy.deepcopy(student).eval()(images)[1], images)
        goal: Any = neck_features(master(images)[1], images)
        expected = []
        for level in LEVELS[family]:
            squares = (parts[level](own[level]) - goal[level]).square()  # (B, C, H, W)
            expected.append(torch.stack([squares[:, :, y, x].sum(1) for y, x in np.ndindex(*squares.shape[2:])], 1))
    torch.testing.assert_close(result.detach(), torch.cat(expected, 1), rtol=1e-3, atol=1e-3)
    assert result.shape == (3, 84)


def test_ikd__leaves_statistics_and_teacher_alone_bit_by_bit() -> None:
    student, teacher = detector("v8").train(), make_teacher()
    parts = make_parts(student, teacher)
    before, master = state(student), state(teacher)
    assert sum("num_batches_tracked" in name for name in before) > 20
    modes = [module.training for module in student.modules()]
    compare(student, teacher, parts, batch()["img"]).sum().backward()
    assert same(before, student)
    assert same(master, teacher)
    assert modes == [module.training for module in student.modules()]
    assert all(p.grad is None for p in teacher.parameters())
    student(batch()["img"])
    assert not same(before, student)  # a clean pass does update them


@pytest.mark.parametrize("family", ["v8", *DUAL])
def test_ikd__gradient_reaches_backbone_neck_and_parts_but_not_the_head(family: str) -> None:
    student, teacher = detector(family).train(), make_teacher(family)
    parts = make_parts(student, teacher)
    compare(student, teacher, parts, batch()["img"]).sum(1).mean(0).backward()
    gradient_ratios = [
        sum(float(p.grad.abs().sum()) for p in layer.parameters() if p.grad is not None) for layer in student.model
    ]
    trainable = [any(True for _ in layer.parameters()) for layer in student.model]
    assert all(ratio > 0 for ratio, has in zip(gradient_ratios[:-1], trainable[:-1], strict=True) if has)
    assert gradient_ratios[-1] == 0
    assert all(p.grad is not None and float(p.grad.abs().sum()) > 0 for p in parts.parameters())
    norms = [m for m in student.model[:-1].modules() if isinstance(m, nn.BatchNorm2d)]
    assert all(m.weight.grad is not None for m in norms)


def test_ikd__gradient_is_that_of_a_pass_after_the_clean_one() -> None:
    teacher, images = make_teacher(), batch(3)["img"]

    def gradients(*, before: bool) -> list[Tensor]:
        student = detector("v8").train()
        parts = make_parts(student, teacher)
        ahead = compare(student, teacher, parts, images.flip(0)) if before else None
        student(images)  # updates the running statistics
        value = ahead if ahead is not None else compare(student, teacher, parts, images.flip(0))
        return list(torch.autograd.grad(value.sum(), [p for p in parts.parameters() if p.requires_grad]))

    for ahead, after in zip(gradients(before=True), gradients(before=False), strict=True):
        torch.testing.assert_close(ahead, after)


def test_ikd__is_in_single_precision_under_autocast() -> None:
    student, teacher = detector("v8").train(), make_teacher()
    parts = make_parts(student, teacher)
    plain = compare(student, teacher, parts, batch()["img"])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = compare(student, teacher, parts, batch()["img"])
    assert inside.dtype == torch.float32
    torch.testing.assert_close(inside.sum(1), plain.sum(1), rtol=0.05, atol=0)


def test_ikd__a_student_that_is_the_teacher_has_no_gap() -> None:
    model = detector("v8", seed=1)
    teacher = DetectorTeacher(copy.deepcopy(model))
    parts = make_parts(model, teacher)
    assert not list(parts.parameters())  # equal widths need no adapter
    assert float(compare(model.train(), teacher, parts, batch()["img"]).detach().abs().max()) < 1e-6


@pytest.mark.parametrize("family", [*FAMILIES, *OTHER_LEVELS])
def test_neck_pass__gives_what_the_head_sees(family: str) -> None:
    model, images = detector(family).eval(), batch()["img"]
    with torch.no_grad():
        raw: Any = model(images)[1]
        features = neck_pass(model, images)
    assert tuple(features) == LEVELS[family]
    assert all(torch.equal(features[level], feature) for level, feature in neck_features(raw, images).items())


def test_frozen_statistics__restores_modes_after_an_error_and_leaves_frozen_ones_frozen() -> None:
    model = nn.Sequential(nn.BatchNorm2d(2), nn.BatchNorm1d(2).eval(), nn.SyncBatchNorm(2), nn.Dropout())
    inside: list[bool] = []

    def fail() -> None:
        with frozen_statistics(model):
            inside.extend(m.training for m in model)
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert inside == [False, False, False, True]
    assert [m.training for m in model] == [True, False, True, True]


# The plan


def test_extra_passes__per_average_step() -> None:
    passes = extra_passes(settings())
    assert (passes.teacher, passes.student) == (11 / 4, 4 / 4)
