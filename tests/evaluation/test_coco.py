from __future__ import annotations

import contextlib
import copy
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from tests.helpers.coco_results import Record, random_results
from yolokd.errors import DataError
from yolokd.evaluation.coco import METRICS, evaluate_json, score


def _oracle(truth: Record, found: list[Record]) -> tuple[dict[str, float], Any]:
    truth, found = copy.deepcopy(truth), copy.deepcopy(found)
    with contextlib.redirect_stdout(io.StringIO()):
        reference = COCO()
        reference.dataset = truth
        reference.createIndex()
        evaluation = COCOeval(reference, reference.loadRes(found), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return dict(zip(METRICS, evaluation.stats, strict=True)), evaluation.eval["precision"]


def _small() -> tuple[Record, list[Record]]:
    truth = {
        "images": [{"id": 1}],
        "categories": [{"id": 1, "name": "car"}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [0, 0, 50, 50], "area": 2500, "iscrowd": 0}],
    }
    return truth, [{"image_id": 1, "category_id": 1, "bbox": [0, 0, 50, 50], "score": 0.9}]


def _files(folder: Path, truth: object, found: object) -> tuple[Path, Path]:
    (folder / "truth.json").write_text(json.dumps(truth))
    (folder / "found.json").write_text(json.dumps(found))
    return folder / "truth.json", folder / "found.json"


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("decimals", [1, 6])
def test_evaluate_json__equals_pycocotools(tmp_path: Path, seed: int, decimals: int) -> None:
    truth, found = random_results(seed, decimals=decimals)
    expected, _ = _oracle(truth, found)
    scores = evaluate_json(*_files(tmp_path, truth, found))
    assert tuple(scores) == METRICS
    assert scores == pytest.approx(expected, abs=1e-9)
    assert 0.1 < scores["AP"] < 0.9


def test_evaluate_json__equals_pycocotools_with_more_than_100_detections(tmp_path: Path) -> None:
    truth, found = random_results(5, count=2)
    rng = np.random.default_rng(0)
    crowd = [{**d, "score": float(rng.random())} for d in found for _ in range(30)]
    scores = evaluate_json(*_files(tmp_path, truth, crowd))
    assert scores == pytest.approx(_oracle(truth, crowd)[0], abs=1e-9)


def test_evaluate_json__equals_pycocotools_where_an_id_is_zero(tmp_path: Path) -> None:
    boxes = [[40.0 * n, 0.0, 30.0, 30.0] for n in range(4)]
    truth = {
        "images": [{"id": 1}],
        "categories": [{"id": 0, "name": "car"}],
        "annotations": [
            {"id": n, "image_id": 1, "category_id": 0, "bbox": box, "area": 900.0, "iscrowd": 0}
            for n, box in enumerate(boxes)
        ],
    }
    found: list[Record] = [{"image_id": 1, "category_id": 0, "bbox": box, "score": 0.5} for box in boxes]
    scores = evaluate_json(*_files(tmp_path, truth, found))
    assert scores == pytest.approx(_oracle(truth, found)[0], abs=1e-9)
    assert scores["AR100"] == 0.75  # the object whose id is 0 is never found, in both


def test_score__each_class_equals_pycocotools() -> None:
    truth, found = random_results(7)
    _, precision = _oracle(truth, found)
    expected = {}
    for k, category in enumerate((1, 3, 7, 9)):
        curve = precision[:, :, k, 0, 2]
        expected[category] = float(curve[curve > -1].mean()) if (curve > -1).any() else -1.0
    assert score(truth, found).per_class == pytest.approx(expected, abs=1e-9)
    assert expected[9] == -1.0


def test_score__precision_at_iou_50_equals_pycocotools() -> None:
    truth, found = random_results(7)
    _, precision = _oracle(truth, found)
    curves = score(truth, found).precision50
    assert list(curves) == [1, 3, 7, 9]
    for k, curve in enumerate(curves.values()):
        np.testing.assert_allclose(curve, precision[0, :, k, 0, 2], atol=1e-9)


def test_evaluate_json__perfect_detection_scores_one(tmp_path: Path) -> None:
    scores = evaluate_json(*_files(tmp_path, *_small()))
    defined = {"AP", "AP50", "AP75", "APm", "AR1", "AR10", "AR100", "ARm"}
    assert scores == pytest.approx({m: 1.0 if m in defined else -1.0 for m in METRICS})


def test_evaluate_json__no_detections_score_zero_where_there_is_ground_truth(tmp_path: Path) -> None:
    truth, _ = _small()
    scores = evaluate_json(*_files(tmp_path, truth, []))
    defined = {"AP", "AP50", "AP75", "APm", "AR1", "AR10", "AR100", "ARm"}
    assert scores == {m: 0.0 if m in defined else -1.0 for m in METRICS}


def test_evaluate_json__no_objects_leave_everything_undefined(tmp_path: Path) -> None:
    truth, found = _small()
    scores = evaluate_json(*_files(tmp_path, {**truth, "annotations": []}, found))
    assert scores == dict.fromkeys(METRICS, -1.0)


def test_evaluate_json__missing_area_and_iscrowd_are_filled_in(tmp_path: Path) -> None:
    truth, found = random_results(8)
    for record in truth["annotations"]:
        record.update(area=record["bbox"][2] * record["bbox"][3], iscrowd=0)
    bare = copy.deepcopy(truth)
    for record in bare["annotations"]:
        del record["area"], record["iscrowd"]
    scores = evaluate_json(*_files(tmp_path, bare, found))
    assert scores == pytest.approx(_oracle(truth, found)[0], abs=1e-9)


def test_evaluate_json__is_silent(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    evaluate_json(*_files(tmp_path, *_small()))
    assert capfd.readouterr() == ("", "")


def test_score__takes_names_as_image_ids_and_leaves_its_input_alone() -> None:
    truth, found = random_results(9)
    expected, _ = _oracle(truth, found)
    named = copy.deepcopy(truth)
    for record in named["images"]:
        record["id"] = f"{record['id']:06}"
    for record in (*named["annotations"], *found):
        record["image_id"] = f"{record['image_id']:06}"
    before = copy.deepcopy((named, found))
    assert score(named, found).summary == pytest.approx(expected, abs=1e-9)
    assert (named, found) == before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image_id": 99}, "detection 0 has image_id 99, an image that the ground truth does not list"),
        ({"image_id": [1]}, "detection 0 has image_id"),
        ({"category_id": 2}, "detection 0 has category_id 2, a class that the ground truth does not list"),
        ({"score": float("nan")}, "detection 0 holds nan in its 'score'"),
        ({"score": None}, "detection 0 holds None in its 'score'"),
        ({"bbox": [0, 0, float("inf"), 1]}, "detection 0 holds inf in its 'bbox'"),
        ({"bbox": [0, 0, 1]}, r"detection 0 needs a 'bbox' of four numbers .*got \[0, 0, 1\]"),
        ({"bbox": ["a", 0, 1, 1]}, "detection 0 holds 'a' in its 'bbox'"),
    ],
)
def test_evaluate_json__names_a_bad_detection(tmp_path: Path, change: Record, message: str) -> None:
    truth, found = _small()
    with pytest.raises(DataError, match=message):
        evaluate_json(*_files(tmp_path, truth, [{**found[0], **change}]))


@pytest.mark.parametrize(
    ("truth", "message"),
    [
        ([], "object with a list 'images'"),
        ({"images": [], "annotations": [], "categories": [{"id": 1}]}, "'images' is empty"),
        ({"images": [{"id": 1}], "annotations": [], "categories": []}, "'categories' is empty"),
        ({"images": [{}], "annotations": [], "categories": []}, "'images' needs an 'id'"),
        ({"images": [{"id": 1}], "categories": [{"id": 1}]}, "list 'annotations'"),
        (
            {"images": [{"id": 1}], "categories": [{"id": 1}], "annotations": [{"image_id": 1, "bbox": [0, 0, 1, 1]}]},
            "annotation 0 needs a whole number as its 'id'",
        ),
        (
            {
                "images": [{"id": 1}],
                "categories": [{"id": 1}],
                "annotations": [{"id": 1, "image_id": 2, "category_id": 1, "bbox": [0, 0, 1, 1]}],
            },
            "annotation 0 has image_id 2",
        ),
    ],
)
def test_evaluate_json__names_what_the_ground_truth_lacks(tmp_path: Path, truth: object, message: str) -> None:
    with pytest.raises(DataError, match=message):
        evaluate_json(*_files(tmp_path, truth, []))


def test_evaluate_json__names_files_that_cannot_be_read(tmp_path: Path) -> None:
    truth, found = _files(tmp_path, *_small())
    with pytest.raises(DataError, match=r"detections file '.*gone\.json' cannot be read: No such file"):
        evaluate_json(truth, tmp_path / "gone.json")
    found.write_text('[{"image_id": 1,')
    with pytest.raises(DataError, match=r"detections file '.*found\.json' is not valid JSON"):
        evaluate_json(truth, found)
    found.write_text("{}")
    with pytest.raises(DataError, match="detections must be a list of objects, got dict"):
        evaluate_json(truth, found)
