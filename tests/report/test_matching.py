from __future__ import annotations

import contextlib
import io
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from torchvision.ops import box_convert, box_iou

from yolokd.report.matching import IOU, USUAL_THRESHOLD, LossAccumulator, best_threshold, in_crowds, iou, match


def things(rng: np.random.Generator, count: int, *, scores: bool) -> list[dict[str, Any]]:
    """Boxes crowded into three images and two classes, with equal scores among them."""
    made = []
    for _ in range(count):
        box = [*rng.uniform(0, 20, 2), *rng.uniform(8, 20, 2)]
        thing = {"image_id": int(rng.integers(3)), "category_id": int(rng.integers(2)), "bbox": box}
        made.append(thing | ({"score": round(float(rng.uniform()), 1)} if scores else {}))
    return made


def overlap(box: Any, other: Any) -> float:
    (x, y, w, h), (a, b, c, d) = box["bbox"], other["bbox"]
    common = max(min(x + w, a + c) - max(x, a), 0) * max(min(y + h, b + d) - max(y, b), 0)
    return float(common / (w * h + c * d - common))


def slow_match(objects: list[Any], detections: list[Any]) -> tuple[set[int], set[int]]:
    """One detection after the other over all images, with no arrays and no groups."""
    right, taken = set(), set()
    for place in sorted(range(len(detections)), key=lambda n: -detections[n]["score"]):
        found = detections[place]
        kind = found["image_id"], found["category_id"]
        free = [n for n, o in enumerate(objects) if n not in taken and (o["image_id"], o["category_id"]) == kind]
        best = max(free, key=lambda n: overlap(found, objects[n]), default=None)
        if best is not None and overlap(found, objects[best]) >= 0.5:
            right.add(place)
            taken.add(best)
    return right, taken


@pytest.mark.parametrize("seed", range(20))
def test_match__equals_a_slow_loop_at_every_threshold(seed: int) -> None:
    rng = np.random.default_rng(seed)
    objects, detections = things(rng, 25, scores=False), things(rng, 60, scores=True)
    right, found = match(objects, detections)
    assert (set(np.flatnonzero(right).tolist()), set(np.flatnonzero(found).tolist())) == slow_match(objects, detections)
    assert right.any()
    for threshold in (0.3, 0.7):
        kept = [n for n, box in enumerate(detections) if box["score"] >= threshold]
        again, _ = match(objects, [detections[n] for n in kept])
        assert again.tolist() == right[kept].tolist()


@pytest.mark.parametrize("seed", range(10))
def test_match_and_in_crowds__equal_pycocotools(seed: int) -> None:
    rng = np.random.default_rng(seed)
    objects, crowds = things(rng, 20, scores=False), things(rng, 4, scores=False)
    detections = [{**box, "score": n / 100, "id": n} for n, box in enumerate(things(rng, 60, scores=True), start=1)]
    right, _ = match(objects, detections)
    ignored = ~right & in_crowds(crowds, detections)
    reference = COCO()
    annotations = [{**box, "iscrowd": 0} for box in objects] + [{**box, "iscrowd": 1} for box in crowds]
    reference.dataset = {
        "images": [{"id": n} for n in range(3)],
        "categories": [{"id": n} for n in range(2)],
        "annotations": [
            {**box, "id": n, "area": box["bbox"][2] * box["bbox"][3]} for n, box in enumerate(annotations, start=1)
        ],
    }
    with contextlib.redirect_stdout(io.StringIO()):
        reference.createIndex()
        evaluation = COCOeval(reference, reference.loadRes(detections), "bbox")
        evaluation.evaluate()
    expected_right: set[int] = set()
    expected_ignored: set[int] = set()
    for part in (part for part in evaluation.evalImgs[: 2 * 4 * 3] if part and part["aRng"] == [0, 1e10]):
        for number, matched, ignore in zip(part["dtIds"], part["dtMatches"][0], part["dtIgnore"][0], strict=True):
            (expected_ignored if ignore else expected_right if matched else set()).add(number - 1)
    assert set(np.flatnonzero(right).tolist()) == expected_right
    assert set(np.flatnonzero(ignored).tolist()) == expected_ignored
    assert expected_ignored


def test_match__of_nothing() -> None:
    one = [{"image_id": 0, "category_id": 0, "bbox": [0, 0, 4, 4], "score": 0.5}]
    assert [part.tolist() for part in match([], one)] == [[False], []]
    assert [part.tolist() for part in match(one, [])] == [[], [False]]


def test_in_crowds__half_of_the_detection_and_the_same_class() -> None:
    crowd = {"image_id": 0, "category_id": 0, "bbox": [0, 0, 10, 10]}
    boxes: list[dict[str, Any]] = [
        {"image_id": 0, "category_id": 0, "bbox": [8, 0, 4, 4], "score": 1},  # half in it
        {"image_id": 0, "category_id": 0, "bbox": [9, 0, 4, 4], "score": 1},  # a quarter
        {"image_id": 0, "category_id": 1, "bbox": [1, 1, 4, 4], "score": 1},
        {"image_id": 1, "category_id": 0, "bbox": [1, 1, 4, 4], "score": 1},
    ]
    assert in_crowds([crowd], boxes).tolist() == [True, False, False, False]
    assert not in_crowds([], boxes).any()


def test_iou__equals_torchvision() -> None:
    rng = np.random.default_rng(0)
    boxes, others = rng.uniform(1, 30, (7, 4)), rng.uniform(1, 30, (5, 4))
    corners = [box_convert(torch.from_numpy(b), "xywh", "xyxy") for b in (boxes, others)]
    np.testing.assert_allclose(iou(boxes, others), box_iou(*corners).numpy(), atol=1e-12)
    assert iou(np.zeros((1, 4)), np.zeros((1, 4))).tolist() == [[0.0]]
    assert IOU == 0.5


def f1(right: NDArray[np.bool_], scores: NDArray[np.float64], objects: int, threshold: float) -> float:
    kept = scores >= threshold
    return 2 * float((right & kept).sum()) / (float(kept.sum()) + objects)


@pytest.mark.parametrize("seed", range(20))
def test_best_threshold__is_that_of_an_exhaustive_search(seed: int) -> None:
    rng = np.random.default_rng(seed)
    scores, right = rng.uniform(size=40).round(1), rng.uniform(size=40) < 0.5
    best = max(sorted(set(scores), reverse=True), key=lambda t: f1(right, scores, 30, t))
    assert best_threshold(right, scores, 30) == best


def test_best_threshold__without_any_hit_is_the_usual_one() -> None:
    assert best_threshold(np.zeros(3, bool), np.array([0.1, 0.2, 0.3]), 5) == USUAL_THRESHOLD
    assert best_threshold(np.zeros(0, bool), np.zeros(0), 0) == USUAL_THRESHOLD


def test_tally__counts() -> None:
    accumulator = LossAccumulator(objects=4, right=3, false=2)
    assert accumulator.missed == 1
    assert accumulator.f1 == pytest.approx(6 / 9)
    assert LossAccumulator(0, 0, 0).f1 == 1.0
    assert LossAccumulator(0, 0, 1).f1 == 0.0
