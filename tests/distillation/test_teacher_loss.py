"""The teacher's loss per anchor: against Ultralytics' own criterion, closed forms and slow loops."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tests.helpers.boxes import ciou
from tests.helpers.rotated import crowded_rotated, stock_rotated, taught_rotated
from tests.helpers.taught import GRID, SIZE, crowded, labeled, only, stock, taught
from tests.helpers.waits import Waits
from yolokd.backend.heads import as_head
from yolokd.distillation.teacher_loss import (
    Objects,
    TeacherLoss,
    distance_loss,
    missed_loss,
    overlap,
    pad_objects,
    teacher_loss,
)
from yolokd.loaders.batch import with_counts


def judge(raw: dict[str, Any], batch: dict[str, Any], classes: int = 3) -> tuple[TeacherLoss, Objects]:
    head = as_head(raw, GRID, None)
    objects = pad_objects(batch, torch.arange(classes), head)
    return teacher_loss(head, objects), objects


@pytest.mark.parametrize("bins", [16, 1])
@pytest.mark.parametrize("seed", range(3))
def test_teacher_loss__sums_to_ultralytics_criterion(bins: int, seed: int) -> None:
    batch = crowded(seed=seed)
    raw = taught(batch, bins=bins, seed=seed)
    (box, cls, dfl), (_, _, scores, foreground, _) = stock(raw, batch, bins=bins)
    loss, _ = judge(raw, batch)
    normalizer = scores.sum().clamp(min=1)
    torch.testing.assert_close(loss.cls.sum() / normalizer, cls)
    torch.testing.assert_close((loss.box * loss.mass).sum() / normalizer, box + dfl)
    torch.testing.assert_close(loss.mass, scores.sum(-1))
    assert torch.equal(loss.slot >= 0, foreground)
    assert foreground.any()


@pytest.mark.parametrize("bins", [16, 1])
def test_teacher_loss__cls_equals_the_criterions_at_every_anchor(bins: int) -> None:
    batch = crowded()
    raw = taught(batch, bins=bins)
    scores = stock(raw, batch, bins=bins)[1][2]
    expected = F.binary_cross_entropy(raw["scores"].transpose(1, 2).sigmoid(), scores, reduction="none").sum(-1)
    torch.testing.assert_close(judge(raw, batch)[0].cls, expected)


@pytest.mark.parametrize("bins", [16, 1])
def test_of_levels__sum_is_the_criterion_on_the_image_alone(bins: int) -> None:
    batch = crowded(images=4)
    raw = taught(batch, bins=bins)
    of_levels = judge(raw, batch)[0].of_levels(GRID)
    assert of_levels.shape == (4, 3)
    for image in range(4):
        part, said = only(batch, raw, image)
        torch.testing.assert_close(of_levels[image].sum(), stock(said, part, bins=bins)[0].sum())


def test_of_levels__a_level_answers_for_its_own_anchors() -> None:
    batch = labeled([])
    raw = taught(batch)
    raw["scores"][..., GRID.places("p4")] += 3
    expected = [F.softplus(raw["scores"])[..., GRID.places(level)].sum() for level in GRID.shapes]  # divided by 1
    torch.testing.assert_close(judge(raw, batch)[0].of_levels(GRID)[0], torch.stack(expected))


def test_pad_objects__any_order_and_the_smaller_first() -> None:
    batch = labeled([(2, 0, 0, 32, 32), (0, 8, 8, 16, 16)], [], [(1, 4, 4, 40, 60)])
    for order in ([0, 1, 2], [2, 1, 0], [1, 2, 0]):
        mixed = {key: batch[key][order] for key in ("batch_idx", "cls", "bboxes")}
        objects = judge(taught(batch), mixed)[1]
        assert objects.present.tolist() == [[True, True], [False, False], [True, False]]
        assert objects.labels.tolist() == [[0, 2], [0, 0], [1, 0]]
        torch.testing.assert_close(objects.boxes[0], torch.tensor([[8.0, 8, 16, 16], [0, 0, 32, 32]]))
        torch.testing.assert_close(objects.boxes[2, 0], torch.tensor([4.0, 4, 40, 60]))


def test_pad_objects__with_counts_the_same_without_a_wait() -> None:
    batch = crowded()
    head = as_head(taught(batch), GRID, None)
    counted = with_counts(batch)
    with Waits() as waits:
        found = pad_objects(counted, torch.arange(3), head)
    assert not waits.seen
    with Waits() as waits:
        expected = pad_objects(batch, torch.arange(3), head)
    assert waits.seen
    assert all(torch.equal(getattr(found, key), value) for key, value in vars(expected).items() if value is not None)


def test_pad_objects__unknown_classes_are_present_and_not_known() -> None:
    batch = labeled([(0, 0, 0, 8, 8), (1, 0, 0, 9, 9), (2, 0, 0, 10, 10)])
    head = as_head(taught(batch, classes=2), GRID, None)
    objects = pad_objects(batch, torch.tensor([1, -1, 0]), head)
    assert objects.present.tolist() == [[True, True, True]]
    assert objects.known.tolist() == [[True, False, True]]
    assert objects.labels.tolist() == [[1, 0, 0]]


def hand_made(cls: list[list[float]], box: list[list[float]], slot: list[list[int]]) -> TeacherLoss:
    return TeacherLoss(torch.tensor(cls), torch.tensor(box), torch.zeros(len(cls), len(cls[0])), torch.tensor(slot))


def objects_of(known: list[list[bool]]) -> Objects:
    mask = torch.tensor(known)
    return Objects(torch.zeros(*mask.shape, 4), torch.zeros(mask.shape, dtype=torch.long), mask, mask)


def test_of_objects__mean_over_assigned_anchors_and_the_largest_of_the_image_for_the_rest() -> None:
    loss = hand_made(
        cls=[[1, 2, 3, 4, 9], [5, 5, 5, 5, 5], [1, 1, 1, 1, 1]],
        box=[[1, 1, 2, 0, 0], [0, 0, 0, 0, 0], [0, 2, 0, 0, 0]],
        slot=[[0, 0, 2, -1, -1], [-1, -1, -1, -1, -1], [-1, 1, -1, -1, -1]],
    )
    objects = objects_of([[True, True, True], [True, True, False], [False, True, False]])
    missed = torch.tensor([[7.0, 7, 7], [8, 9, 7], [7, 7, 7]])
    of_objects = loss.of_objects(objects, missed)
    assert of_objects[0].tolist() == [2.5, 5, 5]  # (1 + 1 + 2 + 1) / 2; nothing assigned; 3 + 2
    assert of_objects[1, :2].tolist() == [8, 9]  # no object of the image has any anchor
    assert of_objects[2, 1] == 3


def test_missed_loss__closed_form_and_the_best_level() -> None:
    batch = labeled([(1, 30, 30, 40, 40)])  # its center (35, 35) lies in cell 4, 4 of p3, 2, 2 of p4, 1, 1 of p5
    raw = taught(batch)
    raw["scores"].zero_()
    head = as_head(raw, GRID, None)
    objects = pad_objects(batch, torch.arange(3), head)
    assert missed_loss(head, objects).item() == pytest.approx(3 * math.log(2) + 1)
    raw["scores"][0, 1, 64 + 2 * 4 + 2] = 4.0
    expected = 2 * math.log(2) + math.log1p(math.exp(-4)) + 1
    assert missed_loss(as_head(raw, GRID, None), objects).item() == pytest.approx(expected)


def at(point: float, wanted: list[float], raw: Tensor) -> float:
    """The distance loss at one anchor of stride 8, its center at (point, point)."""
    like = raw.new_tensor
    loss = distance_loss(raw[None], like([wanted]), like([[point, point]]), like([[8]]), like([SIZE] * 4))
    assert loss.shape == (1,)
    return loss.item()


def test_distance_loss__closed_forms() -> None:
    # L1: distances of 1, 2, 3, 4 cells where 12, 12, 28, 36 px are wanted
    assert at(20, [8, 8, 48, 56], torch.tensor([1.0, 2, 3, 4])) == pytest.approx((4 + 4 + 4 + 4) / 4 / SIZE)
    assert at(20, [8, 8, 48, 56], torch.tensor([1.0, 1.5, 3.5, 5])) == pytest.approx((4 + 0 + 0 + 4) / 4 / SIZE)
    # DFL: a flat distribution costs log R whatever is wanted, also beyond the last bin
    assert at(20, [-9, 8, 400, 56], torch.zeros(64)) == pytest.approx(math.log(16))


def test_distance_loss__linear_between_two_bins() -> None:
    raw = torch.randn(64, generator=torch.Generator().manual_seed(0)).double()
    logs = raw.view(4, 16).log_softmax(-1)  # wanted: 0.5, 0.5, 1.25, 1.25 cells
    expected = -(0.5 * logs[:2, :2].sum() + 0.75 * logs[2:, 1].sum() + 0.25 * logs[2:, 2].sum()) / 4
    assert at(4, [0, 0, 14, 14], raw) == pytest.approx(expected.item())


def test_overlap__equals_complete_iou_by_hand() -> None:
    generator = torch.Generator().manual_seed(0)
    corner = torch.rand(2, 20, 2, generator=generator, dtype=torch.float64) * 30
    boxes = torch.cat((corner, corner + 3 + 30 * torch.rand(2, 20, 2, generator=generator, dtype=torch.float64)), -1)
    expected = [ciou(a, b) for a, b in zip(boxes[0].tolist(), boxes[1].tolist(), strict=True)]
    assert min(expected) < 0 < max(expected)
    torch.testing.assert_close(
        overlap(boxes[0], boxes[1]), torch.tensor(expected, dtype=torch.float64), rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize("bins", [16, 1])
@pytest.mark.parametrize("seed", range(3))
def test_teacher_loss__of_rotated_boxes_sums_to_ultralytics_criterion(bins: int, seed: int) -> None:
    batch = crowded_rotated(seed=seed)
    raw = taught_rotated(batch, bins=bins, seed=seed)
    (box, cls, dfl, _), (_, _, scores, foreground, _) = stock_rotated(raw, batch, bins=bins)
    loss, objects = judge(raw, batch)
    assert objects.rotated is not None
    normalizer = scores.sum().clamp(min=1)
    torch.testing.assert_close(loss.cls.sum() / normalizer, cls)
    torch.testing.assert_close((loss.box * loss.mass).sum() / normalizer, box + dfl, rtol=1e-4, atol=1e-4)  # its eps
    assert torch.equal(loss.slot >= 0, foreground)
    assert foreground.any()


def test_teacher_loss__a_detector_is_judged_by_the_rectangles_around_rotated_labels() -> None:
    batch = crowded_rotated()
    raw = taught_rotated(batch)
    del raw["angle"]
    loss, objects = judge(raw, batch)
    sizes = objects.boxes[..., 2:] - objects.boxes[..., :2]
    centers = (objects.boxes[..., 2:] + objects.boxes[..., :2]) / 2
    order = torch.where(objects.present, torch.arange(objects.boxes.shape[1]), -1)
    rows = [(image, slot) for image in range(3) for slot in order[image].tolist() if slot >= 0]
    upright = {
        "img": batch["img"],
        "batch_idx": torch.tensor([float(image) for image, _ in rows]),
        "cls": torch.stack([objects.labels[row] for row in rows])[:, None].float(),
        "bboxes": torch.stack([torch.cat((centers[row], sizes[row])) / SIZE for row in rows]),
    }
    expected, _ = judge(raw, upright)
    torch.testing.assert_close(loss.box, expected.box)
    torch.testing.assert_close(loss.cls, expected.cls)


def test_pad_objects__rotated_ones_are_ordered_by_their_own_area() -> None:
    batch = {
        "img": torch.zeros(1, 3, SIZE, SIZE),
        "batch_idx": torch.zeros(2),
        "cls": torch.tensor([[0.0], [1.0]]),  # the thin one's upright rectangle is the larger
        "bboxes": torch.tensor([[0.5, 0.5, 20 / SIZE, 20 / SIZE, 0.0], [0.5, 0.5, 40 / SIZE, 2 / SIZE, math.pi / 4]]),
    }
    objects = judge(taught_rotated(batch), batch)[1]
    assert objects.labels.tolist() == [[1, 0]]
    assert objects.rotated is not None
    torch.testing.assert_close(objects.rotated[0, 0], torch.tensor([32.0, 32, 40, 2, math.pi / 4]))
    reach = (40 + 2) / 2 * math.sqrt(0.5)
    torch.testing.assert_close(
        objects.boxes[0, 0], torch.tensor([32 - reach, 32 - reach, 32 + reach, 32 + reach]), rtol=1e-5, atol=1e-4
    )
