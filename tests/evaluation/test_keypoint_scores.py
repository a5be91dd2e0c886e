from __future__ import annotations

import contextlib
import copy
import io
import math
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from tests.helpers.segments import make_poses
from yolokd.backend.dataset import resolve
from yolokd.backend.networks import Identity
from yolokd.data.check import check_labels
from yolokd.errors import DataError
from yolokd.evaluation.bootstrap import weighted_ap
from yolokd.evaluation.coco import KEYPOINT_METRICS, score
from yolokd.evaluation.further import Further, score_further
from yolokd.evaluation.keypoint_scores import (
    KEYPOINTS,
    hindrance_to_keypoints,
    oks_overlap,
    sigmas_of_data,
)
from yolokd.evaluation.matches import match
from yolokd.losses.keypoint import COCO_SIGMAS, sigmas_of

NAMES = {0: "person"}


def truth_of(*annotations: dict[str, Any]) -> dict[str, Any]:
    return {
        "images": [{"id": 0}, {"id": 1}],
        "categories": [{"id": 0, "name": "person"}],
        "annotations": [
            {"id": n + 1, "image_id": 0, "category_id": 0, "iscrowd": 0, **one} for n, one in enumerate(annotations)
        ],
    }


def detection(**one: Any) -> dict[str, Any]:
    return {"image_id": 0, "category_id": 0, "bbox": [0, 0, 1, 1], "score": 0.9, **one}


def metric(sigmas: Sequence[float]) -> Further:
    """The metric of data with these constants."""
    return replace(KEYPOINTS, overlap=partial(oks_overlap, sigmas=sigmas), score=partial(score, sigmas=sigmas))


@pytest.mark.parametrize("similarity", [0.97, 0.76, 0.52, 0.3])
def test_score_further__keypoint_ap_in_closed_form(similarity: float) -> None:
    """One object of 40² pixels with one keypoint of constant 1/2, so that k = 1 and d² = −2 · 40² · ln OKS."""
    distance = math.sqrt(-2 * 40**2 * math.log(similarity))
    truth = truth_of({"bbox": [0, 0, 40, 40], "area": 1600, "keypoints": [10, 10, 2]})
    found, further = score_further(metric([0.5]), truth, [detection()], [[10 + distance, 10, 0.1]], NAMES)
    assert (further.AP, further.AP50) == (found.AP, found.AP50)
    expected = sum(similarity >= 0.5 + 0.05 * n for n in range(10)) / 10
    assert pytest.approx(expected) == found.AP == found.APm == found.per_class["person"]
    assert pytest.approx((float(similarity >= 0.5), float(similarity >= 0.75))) == (found.AP50, found.AP75)
    assert found.APl == -1


def random_pose(rng: np.random.Generator, count: int) -> dict[str, Any]:
    width, height = rng.uniform(20, 160, 2)
    x, y = rng.uniform(0, 200, 2)
    points = np.column_stack((x + rng.random(count) * width, y + rng.random(count) * height, rng.integers(0, 3, count)))
    return {"bbox": [x, y, width, height], "area": width * height, "keypoints": points.flatten().tolist()}


@pytest.mark.parametrize(("count", "seed"), [(17, 0), (17, 1), (5, 2)])
def test_score__keypoints_equal_pycocotools(count: int, seed: int) -> None:
    """Found, half found and false ones; one object without visible keypoints, one in a crowd."""
    rng = np.random.default_rng(seed)
    poses = [random_pose(rng, count) | {"image_id": n % 2} for n in range(30)]
    poses[3]["keypoints"][2::3] = [0.0] * count
    poses[4]["iscrowd"] = 1
    truth, found = truth_of(*poses), []
    for number, one in enumerate([*poses[:24], *(random_pose(rng, count) for _ in range(20))]):
        moved = np.array(one["keypoints"]).reshape(-1, 3)
        moved[:, :2] += rng.normal(0, 0.02 * math.sqrt(one["area"]) * rng.integers(1, 6), (count, 2))
        keypoints = moved.flatten().tolist()
        found.append(
            detection(keypoints=keypoints, image_id=number % 2, score=round(float(rng.random()), 2), bbox=one["bbox"])
        )
    sigmas = sigmas_of(count)
    with contextlib.redirect_stdout(io.StringIO()):
        oracle, own = COCO(), copy.deepcopy(truth)
        for entry in own["annotations"]:
            entry["num_keypoints"] = sum(value > 0 for value in entry["keypoints"][2::3])
        oracle.dataset = own
        oracle.createIndex()
        bare = [{k: v for k, v in one.items() if k != "bbox"} for one in copy.deepcopy(found)]
        evaluation = COCOeval(oracle, oracle.loadRes(bare), "keypoints")
        evaluation.params.kpt_oks_sigmas = np.array(sigmas)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    expected = dict(zip(KEYPOINT_METRICS, evaluation.stats, strict=True))
    scores = score(truth, found, sigmas=sigmas)
    assert scores.summary == pytest.approx(expected, abs=1e-9)
    assert 0.05 < expected["AP"] < 0.95
    assert 0 < expected["APm"] != expected["APl"] > 0
    assert scores.per_class[0] == pytest.approx(expected["AP"], abs=1e-9)


def test_match__by_keypoints_gives_cocos_ap() -> None:
    """Of objects with visible and invisible keypoints; more than 20 detections of an image, of which 20 count."""
    rng = np.random.default_rng(4)
    poses = [random_pose(rng, 5) | {"image_id": n % 2} for n in range(24)]
    for one in poses:
        one["keypoints"][2] = 2.0  # at least one is visible
    truth, detections = truth_of(*poses), []
    for _ in range(3):
        for one in poses:
            moved = np.array(one["keypoints"]).reshape(-1, 3)
            moved[:, :2] += rng.normal(0, 0.03 * math.sqrt(one["area"]) * rng.integers(1, 6), (5, 2))
            keypoints, score_ = moved.flatten().tolist(), round(float(rng.random()), 3)
            detections.append(detection(keypoints=keypoints, image_id=one["image_id"], score=score_, bbox=one["bbox"]))
    sigmas = (0.05, 0.1, 0.2, 0.1, 0.05)
    _, further = score_further(metric(sigmas), truth, detections, [one["keypoints"] for one in detections], NAMES)
    expected = score(truth, detections, sigmas=sigmas).summary
    matches = further.matches(truth)
    found = weighted_ap(matches, np.ones((1, 2), np.float32))
    assert 0.05 < expected["AP"] < 0.95
    assert found.mean() == pytest.approx(expected["AP"], abs=1e-6)
    assert found[0, 0] == pytest.approx(expected["AP50"], abs=1e-6)
    assert len(matches.classes[0].image) <= 40
    other = match(truth, detections, further.metric.overlap)
    assert weighted_ap(other, np.ones((1, 2), np.float32)).mean() > found.mean()  # of all detections


@pytest.mark.parametrize("seed", range(4))
def test_match__objects_without_visible_keypoints_are_neither_found_nor_missed(seed: int) -> None:
    """Some of them overlap with each other, and one is a crowd; detections of each come twice."""
    rng = np.random.default_rng(seed)
    poses = [random_pose(rng, 5) | {"image_id": n % 2} for n in range(10)]
    for one in poses[::2]:
        one["keypoints"][2::3] = [0.0] * 5
    poses += [{**poses[0]}, {**poses[2], "iscrowd": 1}]
    detections = []
    for one in [*poses, *poses]:
        moved = np.array(one["keypoints"]).reshape(-1, 3)
        moved[:, :2] += rng.normal(0, 0.03 * math.sqrt(one["area"]) * rng.integers(1, 6), (5, 2))
        score_ = round(float(rng.random()), 3)
        keypoints = moved.flatten().tolist()
        detections.append(detection(keypoints=keypoints, image_id=one["image_id"], score=score_, bbox=one["bbox"]))
    truth, sigmas = truth_of(*poses), (0.05, 0.1, 0.2, 0.1, 0.05)
    _, further = score_further(metric(sigmas), truth, detections, [one["keypoints"] for one in detections], NAMES)
    expected = score(truth, detections, sigmas=sigmas).summary
    found = weighted_ap(further.matches(truth), np.ones((1, 2), np.float32))
    assert 0.05 < expected["AP"] < 0.95
    assert found.mean() == pytest.approx(expected["AP"], abs=1e-6)
    assert found[0, 0] == pytest.approx(expected["AP50"], abs=1e-6)


def test_score__nothing_found_is_0_and_boxes_do_not_count() -> None:
    truth = truth_of({"bbox": [0, 0, 40, 40], "area": 1600, "keypoints": [10, 10, 2]})
    assert score(truth, [], sigmas=[0.5]).summary["AP"] == 0
    far = detection(bbox=[0, 0, 40, 40], keypoints=[900, 900, 1])
    assert score(truth, [far], sigmas=[0.5]).summary["AP"] == 0
    assert score(truth, [far]).summary["AP"] == pytest.approx(1)


def test_score__keypoints_that_are_missing_or_of_another_number_are_errors() -> None:
    box = {"bbox": [0, 0, 40, 40], "area": 1600}
    with pytest.raises(DataError, match=r"annotation 0 needs 'keypoints', x, y and visibility of 1, got None"):
        score(truth_of(box), [], sigmas=[0.5])
    truth = truth_of({**box, "keypoints": [1, 1, 2]})
    with pytest.raises(DataError, match="detection 0 needs 'keypoints'"):
        score(truth, [detection(keypoints=[1, 1])], sigmas=[0.5])
    with pytest.raises(DataError, match="detection 0 holds nan in its 'keypoints'"):
        score(truth, [detection(keypoints=[1, math.nan, 2])], sigmas=[0.5])


def test_sigmas_of_data__its_own_or_by_the_number_of_keypoints(tmp_path: Path) -> None:
    data = make_poses(tmp_path / "four", train=1, val=1)
    assert sigmas_of_data(resolve(str(data))) == (0.25,) * 4
    text = data.read_text()
    data.write_text(text + "kpt_oks_sigmas: [0.1, 0.2, 0.3, 0.4]\n")
    assert sigmas_of_data(resolve(str(data))) == (0.1, 0.2, 0.3, 0.4)
    for wrong in ("[0.1, 0.2]", "[0.1, 0.2, 0.3, 0]", "some", "[[1, 2], [3]]", "[.nan, 1, 1, 1]"):
        data.write_text(text + f"kpt_oks_sigmas: {wrong}\n")
        with pytest.raises(DataError, match="kpt_oks_sigmas must be 4 positive numbers, got"):
            sigmas_of_data(resolve(str(data)))
    own = KEYPOINTS.of_data(KEYPOINTS, resolve(str(make_poses(tmp_path / "again", train=1, val=1))))
    assert own.unfit(Identity({0: "one"}, keypoints=4)) == ""
    assert own.unfit(Identity({0: "one"}, keypoints=17)).endswith("it gives 17 of each object, the data have 4")
    persons = make_poses(tmp_path / "persons", train=1, val=1, keypoints=(17, 3))
    assert sigmas_of_data(resolve(str(persons))) == COCO_SIGMAS


def test_hindrance_to_keypoints__says_what_the_labels_lack(tmp_path: Path) -> None:
    data = make_poses(tmp_path / "data", train=1, val=2)

    def hindrance() -> str:
        found = resolve(str(data))
        report = check_labels({"val": found.splits["val"]}, found.names, keypoints=found.keypoints)
        return hindrance_to_keypoints(found, "val", report)

    assert hindrance() == ""
    file = tmp_path / "data" / "labels" / "val" / "001.txt"
    file.write_text(" ".join(file.read_text().splitlines()[0].split()[:5]))
    assert "not scored: 1 of the 3 objects have none that can be used; the first is " in hindrance()
    assert hindrance().endswith("001.txt:1: a box and its 4 keypoints have 17 columns, got 5")
    for path in (tmp_path / "data" / "labels").rglob("*.txt"):
        path.write_text("0 .5 .5 .2 .2")
    data.write_text(data.read_text().partition("kpt_shape")[0])
    assert hindrance() == "keypoints are not scored: the data have none (no kpt_shape in the data YAML)"
