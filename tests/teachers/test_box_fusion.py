"""Fused boxes in closed form, and against weighted boxes fusion written out as the paper tells it."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from yolokd.errors import ShapeError, UserError
from yolokd.loaders.answers import LOWEST, Answer
from yolokd.teachers.asking import OVERLAP
from yolokd.teachers.box_fusion import SAME, fuse_boxes

Box = tuple[float, float, float, float]
BOTH = torch.ones(2, 2, dtype=torch.bool)


def answer(*rows: tuple[Box, Sequence[float]], classes: int = 2) -> Answer:
    """Boxes, middle, width, height, with their probabilities."""
    boxes = np.array([box for box, _ in rows], np.float32).reshape(-1, 4)
    return Answer(boxes, np.array([row for _, row in rows], np.float32).reshape(-1, classes))


A: Box = (0.4, 0.4, 0.2, 0.2)
SHIFTED: Box = (0.42, 0.4, 0.2, 0.2)  # IoU 0.82 with A
BESIDE: Box = (0.44, 0.4, 0.2, 0.2)  # IoU 0.67 with A: over SAME, under OVERLAP
ELSEWHERE: Box = (0.8, 0.8, 0.2, 0.2)


def test_fuse_boxes__two_equal_boxes_are_that_box_with_its_probabilities() -> None:
    fused = fuse_boxes([answer((A, [0.8, 0.1])), answer((A, [0.8, 0.1]))], BOTH)
    np.testing.assert_allclose(fused.boxes, [A], atol=1e-6)
    np.testing.assert_allclose(fused.probabilities, [[0.8, 0.1]], atol=1e-6)


def test_fuse_boxes__what_one_of_two_found_is_halved_if_both_know_the_class() -> None:
    fused = fuse_boxes([answer((A, [0.8, 0.1])), answer()], BOTH)
    np.testing.assert_allclose(fused.boxes, [A], atol=1e-6)
    np.testing.assert_allclose(fused.probabilities, [[0.4, 0.05]], atol=1e-6)


def test_fuse_boxes__what_only_one_knows_is_not_halved() -> None:
    know = torch.tensor([[True, False], [True, True]])
    fused = fuse_boxes([answer(), answer((A, [0.1, 0.8]))], know)
    np.testing.assert_allclose(fused.boxes, [A], atol=1e-6)
    np.testing.assert_allclose(fused.probabilities, [[0.05, 0.8]], atol=1e-6)


def test_fuse_boxes__boxes_are_averaged_by_score() -> None:
    fused = fuse_boxes([answer((A, [0.9, 0.0])), answer((SHIFTED, [0.3, 0.2]))], BOTH)
    np.testing.assert_allclose(fused.boxes, [[0.405, 0.4, 0.2, 0.2]], atol=1e-6)
    np.testing.assert_allclose(fused.probabilities, [[0.6, 0.1]], atol=1e-6)


def test_fuse_boxes__one_object_of_which_two_disagree_is_one_box_of_both_classes() -> None:
    fused = fuse_boxes([answer((A, [0.7, 0.2])), answer((A, [0.1, 0.6]))], BOTH)
    np.testing.assert_allclose(fused.boxes, [A], atol=1e-6)
    np.testing.assert_allclose(fused.probabilities, [[0.4, 0.4]], atol=1e-6)


def test_fuse_boxes__objects_of_two_classes_side_by_side_keep_their_own_probabilities() -> None:
    one = answer((A, [0.9, 0.02]), (BESIDE, [0.04, 0.7]))
    assert SAME < 0.16 / 0.24 < OVERLAP
    fused = fuse_boxes([one, one], BOTH)
    np.testing.assert_allclose(fused.boxes, one.boxes, atol=1e-6)
    np.testing.assert_allclose(fused.probabilities, one.probabilities, atol=1e-6)


def test_fuse_boxes__a_second_box_of_one_detector_does_not_take_the_place_of_its_first() -> None:
    fused = fuse_boxes([answer((A, [0.9, 0.0]), (SHIFTED, [0.1, 0.0])), answer((A, [0.9, 0.0]))], BOTH)
    np.testing.assert_allclose(fused.boxes, [[0.4 + 0.02 * 0.1 / 1.9, 0.4, 0.2, 0.2]], atol=1e-6)
    np.testing.assert_allclose(fused.probabilities, [[0.9, 0.0]], atol=1e-6)


def test_fuse_boxes__probabilities_of_unknown_classes_do_not_count() -> None:
    know = torch.tensor([[True, False], [True, True]])
    fused = fuse_boxes([answer((A, [0.5, 0.9])), answer((A, [0.5, 0.1]))], know)
    np.testing.assert_allclose(fused.probabilities, [[0.5, 0.1]], atol=1e-6)


def test_fuse_boxes__strongest_first_and_none_below_the_least_probability() -> None:
    weak: Box = (0.1, 0.8, 0.1, 0.1)
    one = answer((A, [0.3, 0.0]), (ELSEWHERE, [0.0, 0.6]), (weak, [1.9 * LOWEST, 0.0]))
    fused = fuse_boxes([one, answer()], BOTH)
    np.testing.assert_allclose(fused.boxes, [ELSEWHERE, A], atol=1e-6)
    np.testing.assert_allclose(fused.probabilities, [[0.0, 0.3], [0.15, 0.0]], atol=1e-6)


def test_fuse_boxes__boxes_are_cut_to_the_image_and_those_outside_dropped() -> None:
    one = answer(((0.0, 0.5, 0.4, 0.4), [0.8, 0.0]), ((1.3, 0.5, 0.2, 0.2), [0.8, 0.0]))
    np.testing.assert_allclose(fuse_boxes([one, one], BOTH).boxes, [[0.1, 0.5, 0.2, 0.4]], atol=1e-6)


def test_fuse_boxes__nothing_found_is_nothing() -> None:
    fused = fuse_boxes([answer(), answer()], BOTH)
    assert fused.boxes.shape == (0, 4)
    assert fused.probabilities.shape == (0, 2)


def random_answer(rng: np.random.Generator, objects: NDArray[np.float64], classes: int) -> Answer:
    """Most of the objects, each moved a little, with random probabilities."""
    found = objects[rng.random(len(objects)) < 0.8]
    boxes = np.concatenate((found, found[: len(found) // 3]))  # some twice
    boxes = boxes * rng.uniform(0.96, 1.04, boxes.shape)
    return Answer(boxes.astype(np.float32), rng.dirichlet([0.3] * classes, len(boxes)).astype(np.float32))


def corners(answer: Answer) -> NDArray[np.float64]:
    boxes = answer.boxes.astype(float)
    return np.concatenate((boxes[:, :2] - boxes[:, 2:] / 2, boxes[:, :2] + boxes[:, 2:] / 2), 1).clip(0, 1)


def iou(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    sides = np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2])
    inter = float(sides.clip(0).prod())
    return inter / (float((a[2:] - a[:2]).prod()) + float((b[2:] - b[:2]).prod()) - inter)


def slow_clusters(
    answers: Sequence[Answer], know: NDArray[np.bool_], kind: int
) -> list[tuple[NDArray[np.float64], float]]:
    """Steps 1 to 6 of the paper for one class, over the detectors that know it: boxes and scores."""
    entries = []
    for one, known in zip(answers, know, strict=True):
        rows = one.probabilities * known
        entries += [
            (float(row[kind]), box) for row, box in zip(rows, corners(one), strict=True) if row.argmax() == kind
        ]
    clusters: list[list[tuple[float, NDArray[np.float64]]]] = []
    fused: list[NDArray[np.float64]] = []
    for score, box in sorted(entries, key=lambda entry: -entry[0]):
        overlaps = [iou(box, other) for other in fused]
        if overlaps and max(overlaps) > SAME:
            place = int(np.argmax(overlaps))
            clusters[place].append((score, box))
            weights = np.array([own for own, _ in clusters[place]])
            fused[place] = (np.stack([own for _, own in clusters[place]]) * weights[:, None]).sum(0) / weights.sum()
        else:
            clusters.append([(score, box)])
            fused.append(box)
    experts = int(know[:, kind].sum())
    return [
        (box, float(np.mean([score for score, _ in own])) * min(experts, len(own)) / experts)
        for box, own in zip(fused, clusters, strict=True)
    ]


@pytest.mark.parametrize("seed", range(5))
def test_fuse_boxes__boxes_are_those_of_weighted_boxes_fusion_written_out(seed: int) -> None:
    rng = np.random.default_rng(seed)
    objects = np.concatenate((rng.uniform(0.2, 0.8, (12, 2)), rng.uniform(0.05, 0.3, (12, 2))), 1)
    answers = [random_answer(rng, objects, 3) for _ in range(3)]
    know = np.array([[True, True, True], [True, True, False], [True, False, False]])
    fused = fuse_boxes(answers, torch.from_numpy(know))
    expected = [(box, kind, score) for kind in range(3) for box, score in slow_clusters(answers, know, kind)]
    assert len(fused.boxes) >= 8
    kept = set()
    for box, row in zip(corners(fused), fused.probabilities, strict=True):
        gaps = [float(np.abs(box - other).max()) for other, _, _ in expected]
        place = int(np.argmin(gaps))
        assert gaps[place] < 1e-5
        kept.add(place)
        _, kind, score = expected[place]
        assert row[kind] >= score - 1e-6
        np.testing.assert_allclose(row, slow_row(answers, know, box, kind, score), atol=1e-5)
    for place, (box, _, score) in enumerate(expected):
        if place not in kept:  # a duplicate across classes, or too weak
            assert max(iou(box, other) for other in corners(fused)) > OVERLAP - 1e-6 or score < LOWEST


def slow_row(
    answers: Sequence[Answer], know: NDArray[np.bool_], box: NDArray[np.float64], kind: int, score: float
) -> NDArray[np.float64]:
    """The probabilities of a fused box by the rule of the docstring."""
    total = np.zeros(know.shape[1])
    for one, known in zip(answers, know, strict=True):
        near = [
            (overlap, row * known)
            for own, row in zip(corners(one), one.probabilities, strict=True)
            if (overlap := iou(own, box)) > SAME
        ]
        same = [row for _, row in near if row.argmax() == kind]
        if same:
            total += max(same, key=lambda row: float(row[kind]))
        elif near:
            total += max(near, key=lambda entry: entry[0])[1]
    total /= know.sum(0)
    total[kind] = max(total[kind], score)
    return total


def test_fuse_boxes__is_deterministic() -> None:
    rng = np.random.default_rng(7)
    objects = np.concatenate((rng.uniform(0.2, 0.8, (20, 2)), rng.uniform(0.05, 0.3, (20, 2))), 1)
    answers = [random_answer(rng, objects, 2) for _ in range(2)]
    first, second = (fuse_boxes(answers, BOTH) for _ in range(2))
    np.testing.assert_array_equal(first.boxes, second.boxes)
    np.testing.assert_array_equal(first.probabilities, second.probabilities)


@pytest.mark.parametrize("know", [torch.ones(1, 2), torch.ones(2, 3), torch.ones(2)])
def test_fuse_boxes__know_that_does_not_fit(know: torch.Tensor) -> None:
    with pytest.raises(ShapeError, match=r"know must be \(detectors, classes\)"):
        fuse_boxes([answer(), answer()], know.bool())


def test_fuse_boxes__a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ensemble_boxes", None)
    with pytest.raises(UserError, match=r"ensemble-boxes: pip install 'yolokd\[footage\]'"):
        fuse_boxes([answer(), answer()], BOTH)
