from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest

from tests.helpers.coco_results import random_results
from yolokd.evaluation.bootstrap import Matches, ap_interval
from yolokd.evaluation.coco import score

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
    weights = np.bincount(places, minlength=len(truth["images"])).astype(float)
    assert Matches(truth, found).ap(weights) == pytest.approx(expected, abs=1e-9)


def test_ap__of_every_image_once_is_cocos() -> None:
    truth, found = random_results(0)
    once = np.ones(len(truth["images"]))
    assert Matches(truth, found).ap(once) == pytest.approx(score(truth, found).summary["AP"], abs=1e-9)


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
