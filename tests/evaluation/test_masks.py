from __future__ import annotations

import contextlib
import copy
import io
from typing import Any

import numpy as np
import pytest
import torch
from pycocotools import mask as reference
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from tests.helpers.rle import decode
from yolokd.errors import DataError
from yolokd.evaluation.bootstrap import interval_of_change, weighted_ap
from yolokd.evaluation.coco import METRICS, score
from yolokd.evaluation.masks import area, encode, mask_overlap, of_polygon
from yolokd.evaluation.matches import match

SIZE = {"height": 40, "width": 60}


def block(left: int, top: int, width: int, height: int) -> Any:
    """The run lengths of a rectangle, and its box."""
    pixels = torch.zeros(1, SIZE["height"], SIZE["width"], dtype=torch.uint8)
    pixels[0, top : top + height, left : left + width] = 1
    return {"segmentation": encode(pixels)[0], "bbox": [left, top, width, height]}


def truth_of(*annotations: dict[str, Any]) -> dict[str, Any]:
    return {
        "images": [{"id": 0, **SIZE}],
        "categories": [{"id": 0, "name": "car"}],
        "annotations": [{"id": n + 1, "image_id": 0, "category_id": 0, **one} for n, one in enumerate(annotations)],
    }


def found(**one: Any) -> dict[str, Any]:
    return {"image_id": 0, "category_id": 0, "score": 0.9, **one}


def test_encode__equals_pycocotools() -> None:
    pixels = np.random.default_rng(0).random((3, 40, 60)) > 0.5
    theirs = reference.encode(np.asfortranarray(pixels.transpose(1, 2, 0).astype(np.uint8)))
    ours = encode(torch.from_numpy(pixels))
    assert [one["size"] for one in ours] == [[40, 60]] * 3
    assert [decode(one).tolist() for one in ours] == [decode(one).tolist() for one in theirs]
    assert [area(one) for one in ours] == pixels.sum((1, 2)).tolist()
    assert encode(torch.zeros(0, 4, 4)) == []


def test_of_polygon__equals_pycocotools() -> None:
    polygon = [0.2, 0.1, 0.9, 0.3, 0.6, 0.9, 0.1, 0.7]
    pixels = [value * (40 if place % 2 else 60) for place, value in enumerate(polygon)]
    theirs = decode(reference.merge(reference.frPyObjects([pixels], 40, 60)))
    assert decode(of_polygon(polygon, width=60, height=40)).tolist() == theirs.tolist()


@pytest.mark.parametrize(("shift", "ap"), [(0, 1.0), (2, 0.5), (4, 0.1), (9, 0.0)])
def test_score__mask_ap_in_closed_form(shift: int, ap: float) -> None:
    """Of equal boxes of width 12, shifted ones have an IoU of (12 − shift) / (12 + shift)."""
    iou = (12 - shift) / (12 + shift)
    assert pytest.approx(sum(iou >= 0.5 + 0.05 * n - 1e-9 for n in range(10)) / 10) == ap if shift else ap == 1
    scores = score(truth_of(block(10, 10, 12, 8)), [found(**block(10 + shift, 10, 12, 8))], masks=True)
    assert scores.summary["AP"] == pytest.approx(ap)
    assert scores.per_class[0] == pytest.approx(ap)


def test_score__boxes_do_not_count_for_masks_nor_masks_for_boxes() -> None:
    one, other = block(10, 10, 12, 8), block(30, 20, 12, 8)
    truth = truth_of(one)
    crossed = [found(bbox=one["bbox"], segmentation=other["segmentation"])]
    assert score(truth, crossed).summary["AP"] == pytest.approx(1.0)
    assert score(truth, crossed, masks=True).summary["AP"] == 0.0
    crossed = [found(bbox=other["bbox"], segmentation=one["segmentation"])]
    assert score(truth, crossed).summary["AP"] == 0.0
    assert score(truth, crossed, masks=True).summary["AP"] == pytest.approx(1.0)


def test_score__masks_equal_pycocotools() -> None:
    rng = np.random.default_rng(1)

    def random_block() -> dict[str, Any]:
        width, height = (int(v) for v in rng.integers(4, 36, 2))
        made: dict[str, Any] = block(int(rng.integers(0, 60 - width)), int(rng.integers(0, 40 - height)), width, height)
        return made

    blocks = [random_block() for _ in range(12)]
    truth = truth_of(*blocks)
    detections = [found(**one) | {"score": round(float(rng.random()), 3)} for one in (*blocks[:7], random_block())]
    detections[2].update(block(5, 5, 20, 20))
    with contextlib.redirect_stdout(io.StringIO()):
        oracle, own = COCO(), copy.deepcopy(truth)
        for entry in own["annotations"]:
            entry |= {"area": float(reference.area(entry["segmentation"])), "iscrowd": 0}
        oracle.dataset = own
        oracle.createIndex()
        bare = [{k: v for k, v in one.items() if k != "bbox"} for one in copy.deepcopy(detections)]
        evaluation = COCOeval(oracle, oracle.loadRes(bare), "segm")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    expected = dict(zip(METRICS, evaluation.stats, strict=True))
    assert score(truth, detections, masks=True).summary == pytest.approx(expected, abs=1e-9)
    assert 0 < expected["AP"] < 1


def test_match__of_masks_gives_the_ap_of_masks() -> None:
    rng = np.random.default_rng(2)
    truth: dict[str, Any] = {"images": [], "categories": [{"id": 0, "name": "car"}], "annotations": []}
    detections = []
    for image in range(6):
        truth["images"].append({"id": image, **SIZE})
        for _ in range(4):
            left, top, width, height = (int(v) for v in rng.integers(4, 20, 4))
            number = len(truth["annotations"]) + 1
            own = {"image_id": image, "category_id": 0}
            crowd = {"iscrowd": int(rng.random() < 0.2)}
            truth["annotations"].append({"id": number, **own, **block(left, top, width, height), **crowd})
            moved = block(left + int(rng.integers(0, 4)), top, width, height)
            # its box tells nothing of its mask
            detections.append({**own, **moved, "bbox": [0, 0, 60, 40], "score": float(rng.random())})
    matches = match(truth, detections, mask_overlap)
    whole = weighted_ap(matches, np.ones((1, 6), np.float32))
    expected = score(truth, detections, masks=True).summary
    assert 0 < expected["AP"] < 1
    assert whole.mean() == pytest.approx(expected["AP"], abs=1e-6)
    assert whole[0, 0] == pytest.approx(expected["AP50"], abs=1e-6)
    assert match(truth, detections).classes[0].found.any() != matches.classes[0].found.any()
    low, high = interval_of_change(match(truth, detections[::2], mask_overlap), match(truth, detections, mask_overlap))
    assert -1 < low <= expected["AP"] - score(truth, detections[::2], masks=True).summary["AP"] <= high < 1


def test_score__a_missing_mask_is_an_error() -> None:
    one = block(10, 10, 12, 8)
    with pytest.raises(DataError, match="detection 0 needs a 'segmentation' of run lengths"):
        score(truth_of(one), [found(bbox=one["bbox"])], masks=True)
    with pytest.raises(DataError, match="annotation 0 needs a 'segmentation'"):
        score(truth_of({"bbox": one["bbox"]}), [], masks=True)
