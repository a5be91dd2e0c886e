from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from tests.helpers.coco_results import random_results
from yolokd.evaluation import bootstrap
from yolokd.evaluation.bootstrap import ap_interval, draw_images, weighted_ap
from yolokd.evaluation.coco import score
from yolokd.evaluation.matches import match

Record = dict[str, Any]


def _drawn(truth: Record, found: list[Record], places: list[int]) -> tuple[Record, list[Record]]:
    """Write the images at these places out, each as often as it is there, under new ids."""
    ids = sorted(image["id"] for image in truth["images"])
    annotations, detections = [], []
    for number, place in enumerate(places):
        annotations += [{**a, "image_id": number} for a in truth["annotations"] if a["image_id"] == ids[place]]
        detections += [{**d, "image_id": number} for d in found if d["image_id"] == ids[place]]
    annotations = [{**annotation, "id": number} for number, annotation in enumerate(annotations, start=1)]
    images = [{"id": number} for number in range(len(places))]
    return {"images": images, "annotations": annotations, "categories": truth["categories"]}, detections


@pytest.mark.parametrize("seed", range(3))
def test_ap__of_a_draw_is_cocos_on_the_images_written_out(seed: int) -> None:
    truth, found = random_results(seed, decimals=9)  # without equal scores, whose order is that of the images
    places = np.random.default_rng(seed).integers(0, len(truth["images"]), len(truth["images"]))
    expected = score(*_drawn(truth, found, places.tolist())).summary["AP"]
    weights = np.bincount(places, minlength=len(truth["images"])).astype(np.float32)
    assert weighted_ap(match(truth, found), weights[None]).mean() == pytest.approx(expected, abs=1e-6)


def test_ap__of_every_image_once_is_cocos() -> None:
    truth, found = random_results(0)
    once = np.ones((1, len(truth["images"])), np.float32)
    assert weighted_ap(match(truth, found), once).mean() == pytest.approx(score(truth, found).summary["AP"], abs=1e-6)


def test_ap_interval__equal_detections_differ_by_nothing() -> None:
    truth, found = random_results(0)
    assert ap_interval(truth, found, copy.deepcopy(found), resamples=20) == (0.0, 0.0)


def test_ap_interval__a_ruined_network_is_certainly_worse_and_the_other_way_round_better() -> None:
    truth, found = random_results(0)
    ruined = [{**d, "bbox": [d["bbox"][0] + 1000, *d["bbox"][1:]]} for d in found]
    low, high = ap_interval(truth, found, ruined, resamples=100)
    assert low < high < 0
    assert list(ap_interval(truth, ruined, found, resamples=100)) == pytest.approx([-high, -low])


def test_ap_interval__noise_on_few_images_is_not_certain_and_narrows_with_many() -> None:
    rng = np.random.default_rng(0)
    widths = []
    for images in (8, 120):
        truth, found = random_results(1, count=images)
        noisy = [{**d, "score": float(d["score"] + rng.normal(0, 0.3))} for d in found]
        again = [{**d, "score": float(d["score"] + rng.normal(0, 0.3))} for d in found]
        low, high = ap_interval(truth, noisy, again, resamples=300)
        widths.append(high - low)
        if images == 8:
            assert low < 0 < high
    assert widths[1] < widths[0] / 2


def test_ap_interval__one_image_tells_nothing() -> None:
    truth, found = random_results(0, count=1)
    assert ap_interval(truth, found, []) == (-1.0, 1.0)


def test_weighted_ap__every_threshold_of_every_draw_is_cocos_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    truth, found = random_results(1, decimals=9)
    matches, weights = match(truth, found), draw_images(len(truth["images"]), resamples=12, seed=3)
    together = weighted_ap(matches, weights)
    assert together.shape == (12, 10)
    for row, weight in zip(together, weights, strict=True):
        scores = score(*_drawn(truth, found, np.repeat(np.arange(len(weight)), weight.astype(int)).tolist())).summary
        assert row.mean() == pytest.approx(scores["AP"], abs=1e-6)
        assert (row[0], row[5]) == pytest.approx((scores["AP50"], scores["AP75"]), abs=1e-6)
    monkeypatch.setattr(bootstrap, "BLOCK", 1)  # one draw at a time
    assert np.array_equal(weighted_ap(matches, weights), together)


def test_weighted_ap__equals_pycocotools_where_every_image_counts_once() -> None:
    truth, found = random_results(2, count=60)
    reference = COCO()
    reference.dataset = copy.deepcopy(truth)
    reference.createIndex()
    run = COCOeval(reference, reference.loadRes(copy.deepcopy(found)), "bbox")
    run.evaluate()
    run.accumulate()
    run.summarize()
    once = np.ones((1, len(truth["images"])), np.float32)
    assert weighted_ap(match(truth, found), once).mean() == pytest.approx(run.stats[0], abs=1e-3)


def test_weighted_ap__classes_without_an_object_in_a_draw_do_not_count() -> None:
    box = {"bbox": [0, 0, 10, 10]}
    truth: Record = {
        "images": [{"id": 1}, {"id": 2}],
        "categories": [{"id": 1}, {"id": 2}],
        "annotations": [{"id": n, "image_id": n, "category_id": n, **box} for n in (1, 2)],
    }
    found = [{"image_id": 1, "category_id": 1, **box, "score": 0.9}]
    draws = np.array([[1, 1], [2, 0], [0, 2], [0, 0]], np.float32)
    assert weighted_ap(match(truth, found), draws).mean(axis=1).tolist() == pytest.approx([0.5, 1.0, 0.0, -1.0])


def test_draw_images__whole_draws_the_same_for_all() -> None:
    weights = draw_images(259)
    assert weights.shape == (1000, 259)
    assert (weights.sum(axis=1) == 259).all()
    assert np.array_equal(weights, draw_images(259))
    assert not np.array_equal(weights, draw_images(259, seed=1))
    assert len(draw_images(5000)) == 400
    assert len(draw_images(50_000)) == 200
    assert weights.var() == pytest.approx(1 - 1 / 259, rel=0.01)  # of a binomial with n trials at 1 / n
