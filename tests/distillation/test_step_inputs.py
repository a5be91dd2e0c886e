"""What stored answers ask of the student."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from tests.helpers.models import batch, detector
from tests.helpers.rotated import corners, crowded_rotated
from tests.helpers.waits import Waits
from yolokd.backend.heads import as_head, grid_of, neck_features, split_branches
from yolokd.distillation.assignment import branch_criteria
from yolokd.distillation.positives import PositiveCounts
from yolokd.distillation.step_inputs import answered, assigned_answers, boxes_of, padded_answers
from yolokd.loaders.batch import Answers


def all_classes(device: torch.device) -> tuple[None, None]:
    return None, None


def first_and_last(device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.tensor([0, 2]), torch.tensor([0, 2])


def raw_and_criterion(family: str = "v8") -> tuple[Any, Any, Any]:
    model = detector(family).train()
    model.criterion = model.init_criterion()
    images = batch()["img"]
    raw = model(images)
    return raw, model.criterion, grid_of(neck_features(raw, images))


def labels_as_answers(certain: float = 1.0) -> Answers:
    data = batch()
    chances = torch.nn.functional.one_hot(data["cls"].long().flatten(), 3) * certain
    return Answers(data["batch_idx"].long(), data["bboxes"], chances.float())


@pytest.mark.parametrize("family", ["v8", "26"])
def test_answered__certain_answers_are_the_targets_of_ultralytics_criterion(family: str) -> None:
    raw, criterion, grid = raw_and_criterion(family)
    for name, (part, weight) in branch_criteria(criterion).items():
        seen: list[Any] = []
        handle = part.assigner.register_forward_hook(lambda m, i, o, seen=seen: seen.append(o))
        part.loss(split_branches(raw)[name], batch())
        handle.remove()
        ((_, boxes, scores, positive, _),) = seen
        found = {
            one.weight: one for one in answered(labels_as_answers(), raw, branch_criteria(criterion), grid, all_classes)
        }
        one = found[weight]
        torch.testing.assert_close(one.targets, scores)
        torch.testing.assert_close(one.boxes[positive.bool()], boxes[positive.bool()])
        assert float(one.mass) == pytest.approx(max(float(scores.sum()), 1))


def test_assigned_answers__targets_are_in_proportion_to_the_probabilities() -> None:
    raw, criterion, grid = raw_and_criterion()
    head = as_head(raw, grid, None)
    whole, _, positive = assigned_answers(labels_as_answers(), head, criterion)
    half, _, same = assigned_answers(labels_as_answers(0.5), head, criterion)
    assert positive.any()
    assert torch.equal(positive, same)
    torch.testing.assert_close(half, whole / 2)
    assert not half.requires_grad


def test_answered__only_the_common_classes_and_the_mass_of_the_run() -> None:
    raw, criterion, grid = raw_and_criterion()
    criteria, counts = branch_criteria(criterion), PositiveCounts({})
    (whole,) = answered(labels_as_answers(), raw, criteria, grid, all_classes)
    (some,) = answered(labels_as_answers(), raw, criteria, grid, first_and_last, counts)
    torch.testing.assert_close(some.targets, whole.targets[..., [0, 2]])
    torch.testing.assert_close(some.student.logits, whole.student.logits[..., [0, 2]])
    assert float(some.mass) == pytest.approx(float(some.targets.sum()), rel=1e-4)
    (empty,) = answered(
        Answers(torch.zeros(0, dtype=torch.long), torch.zeros(0, 4), torch.zeros(0, 3)),
        raw,
        criteria,
        grid,
        all_classes,
    )
    assert not empty.targets.any()
    assert float(empty.mass) == 1


def test_padded_answers__the_same_without_a_wait_where_the_most_is_known() -> None:
    raw, _, grid = raw_and_criterion()
    head = as_head(raw, grid, None)
    known = replace(labels_as_answers(), most=2)
    with Waits() as waits:
        found = padded_answers(known, head)
    assert not waits.seen
    expected = padded_answers(labels_as_answers(), head)
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))


def test_boxes_at__are_those_of_all_anchors_with_their_gradient() -> None:
    raw, _, grid = raw_and_criterion()
    image, anchor = torch.tensor([0, 1, 1]), torch.tensor([3, 0, 83])
    gradients = []
    for whole in (True, False):
        head = as_head({**raw, "boxes": raw["boxes"].detach().requires_grad_()}, grid, None)
        boxes = head.boxes[image, anchor] if whole else head.boxes_at(image, anchor)
        (gradient,) = torch.autograd.grad(boxes.square().sum(), head.raw)
        gradients.append((boxes, gradient))
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-3, atol=1e-5)


def test_boxes_of__rotated_labels_are_the_rectangles_around_them() -> None:
    data = crowded_rotated()
    found = boxes_of(data, 3)
    assert [len(one) for one in found] == [5, 0, 5]
    for box, (x, y, w, h, angle) in zip(torch.cat(found).tolist(), data["bboxes"].tolist(), strict=True):
        points = corners(x * 64, y * 64, w * 64, h * 64, angle)
        xs, ys = zip(*points, strict=True)
        assert box == pytest.approx([min(xs), min(ys), max(xs), max(ys)], abs=1e-4)
