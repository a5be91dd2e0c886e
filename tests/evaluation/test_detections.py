from __future__ import annotations

import json
from pathlib import Path

import pytest
from ultralytics import YOLO

from tests.helpers import models, segments, tiny
from tests.helpers.lively import lively
from tests.helpers.rle import decode
from yolokd.backend.opening import quiet
from yolokd.errors import DataError
from yolokd.evaluation.detections import detect, latency
from yolokd.evaluation.ground_truth import list_images
from yolokd.evaluation.masks import Rle


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.data_set(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    model = lively(classes=len(tiny.NAMES))
    return models.save(
        model, tmp_path_factory.mktemp("weights") / "best.pt", train_args={"imgsz": 64, "task": "detect"}
    )


def test_detect__equals_ultralytics_own_results_but_for_rounding(data: Path, weights: Path, tmp_path: Path) -> None:
    images = [str(path) for path in list_images([data.parent / "images" / "val"])]
    options = {"imgsz": 96, "batch": 2, "device": "cpu", "project": str(tmp_path)}
    shares: list[float] = []
    with quiet():
        found = detect(YOLO(weights), data, images, options={**options, "name": "a"}, progress=shares.append)
        # Its file is written at the end of the plain validation.
        plain = {"conf": 0.001, "iou": 0.7, "max_det": 300, "save_json": True, "plots": False, "verbose": False}
        YOLO(weights).val(data=str(data), **options, **plain, name="b")
    theirs = json.loads((tmp_path / "b" / "predictions.json").read_text())
    assert shares == [pytest.approx(1 / 3), pytest.approx(2 / 3), 1.0]
    assert len(found) == len(theirs) > 100
    for (image, index, box, score), entry in zip(found, theirs, strict=True):
        assert Path(image).name == entry["file_name"]
        assert index + 1 == entry["category_id"]
        assert [round(x, 3) for x in box] == entry["bbox"]
        assert round(score, 5) == entry["score"]
    assert any(box != [round(x, 3) for x in box] for _, _, box, _ in found)


def test_detect__images_that_ultralytics_leaves_out(data: Path, weights: Path, tmp_path: Path) -> None:
    options = {"imgsz": 64, "batch": 2, "device": "cpu", "project": str(tmp_path), "name": "a"}
    with quiet(), pytest.raises(DataError, match=r"cannot read 1 of the images, such as 'gone\.png' \(no such file\)"):
        detect(YOLO(weights), data, ["gone.png"], options=options, progress=lambda share: None)


def test_latency__is_a_time(weights: Path) -> None:
    with quiet():
        assert 0 < latency(YOLO(weights), 64, "cpu") < 10_000


def test_detect__masks_are_those_that_ultralytics_writes(tmp_path: Path) -> None:
    data = segments.make_polygons(tmp_path / "data", train=1, val=3, side=72)
    weights = segments.save(segments.model_of("v8-seg"), tmp_path / "segment.pt")
    images = [str(path) for path in list_images([data.parent / "images" / "val"])]
    options = {"imgsz": 96, "batch": 2, "device": "cpu", "project": str(tmp_path)}
    masks: list[Rle] = []
    with quiet():
        found = detect(
            YOLO(weights), data, images, options={**options, "name": "a"}, progress=lambda share: None, beside=masks
        )
        plain = {"conf": 0.001, "iou": 0.7, "max_det": 300, "save_json": True, "plots": False, "verbose": False}
        YOLO(weights).val(data=str(data), **options, **plain, name="b")
    theirs = json.loads((tmp_path / "b" / "predictions.json").read_text())
    assert len(masks) == len(found) == len(theirs) > 100
    areas = []
    for mask, (image, index, _, _), entry in zip(masks, found, theirs, strict=True):
        assert (Path(image).name, index + 1) == (entry["file_name"], entry["category_id"])
        assert (decode(mask) == decode(entry["segmentation"])).all()
        areas.append(float(decode(mask).sum()))
    assert 0 < sum(areas) < len(areas) * 72 * 72


@pytest.mark.parametrize(("family", "keypoints"), [("v8-pose", (4, 3)), ("26-pose", (4, 2))])
def test_detect__keypoints_are_those_that_ultralytics_writes(
    tmp_path: Path, family: str, keypoints: tuple[int, int]
) -> None:
    data = segments.make_poses(tmp_path / "data", train=1, val=3, side=72, keypoints=keypoints)
    weights = segments.save(segments.model_of(family, keypoints=keypoints), tmp_path / "pose.pt")
    images = [str(path) for path in list_images([data.parent / "images" / "val"])]
    options = {"imgsz": 96, "batch": 2, "device": "cpu", "project": str(tmp_path)}
    points: list[list[float]] = []
    with quiet():
        found = detect(
            YOLO(weights), data, images, options={**options, "name": "a"}, progress=lambda share: None, beside=points
        )
        plain = {"conf": 0.001, "iou": 0.7, "max_det": 300, "save_json": True, "plots": False, "verbose": False}
        YOLO(weights).val(data=str(data), **options, **plain, name="b")
    theirs = json.loads((tmp_path / "b" / "predictions.json").read_text())
    assert len(points) == len(found) == len(theirs) > 100
    for own, (image, index, _, _), entry in zip(points, found, theirs, strict=True):
        assert (Path(image).name, index + 1) == (entry["file_name"], entry["category_id"])
        expected = [entry["keypoints"][place :: keypoints[1]] for place in range(keypoints[1])]
        assert [own[place::3] for place in range(keypoints[1])] == expected
        assert keypoints[1] == 3 or own[2::3] == [1.0] * 4


def test_detect__keypoints_of_another_number_than_the_data_have(tmp_path: Path) -> None:
    data = segments.make_poses(tmp_path / "data", train=1, val=1)
    weights = segments.save(segments.model_of("v8-pose"), tmp_path / "pose.pt")
    images = [str(path) for path in list_images([data.parent / "images" / "val"])]
    options = {"imgsz": 64, "batch": 1, "device": "cpu", "project": str(tmp_path), "name": "a"}
    points: list[list[float]] = []
    with quiet():
        found = detect(YOLO(weights), data, images, options=options, progress=lambda share: None, beside=points)
    assert {len(one) for one in points} == {3 * 17}
    assert len(points) == len(found) > 0
