"""Metrics of rotated boxes: closed forms, and Ultralytics' own validator on the same boxes."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ultralytics.models.yolo.obb import OBBValidator
from ultralytics.utils.metrics import OBBMetrics
from ultralytics.utils.ops import xywhr2xyxyxyxy

from tests.helpers import segments, tiny
from tests.helpers.rotated import corners, make_rotated
from yolokd.errors import DataError, WeightsError
from yolokd.evaluation import models
from yolokd.evaluation.ground_truth import CORNERS, coco_ground_truth, list_images
from yolokd.evaluation.models import evaluate
from yolokd.evaluation.rotated_scores import METRIC, rotated_overlap, score_rotated
from yolokd.losses.rotated import hellinger_distance

NAMES = {0: "ship", 1: "plane"}
Box = tuple[float, float, float, float, float]


def truth_of(*boxes: tuple[int, Box]) -> dict[str, Any]:
    """One image with boxes of some classes."""
    annotations = [
        {"image_id": 0, "category_id": kind, "corners": [value for point in corners(*box) for value in point]}
        for kind, box in boxes
    ]
    return {"images": [{"id": 0}], "annotations": annotations}


def found(kind: int, box: Box, score: float = 0.9) -> dict[str, Any]:
    return {"image_id": 0, "category_id": kind, "rbox": list(box), "score": score}


def test_score_rotated__exact_boxes_are_perfect_however_they_are_written() -> None:
    truth = truth_of((0, (30, 30, 20, 6, 0.4)), (1, (80, 40, 9, 30, 1.0)))
    same = [found(0, (30, 30, 6, 20, 0.4 + math.pi / 2)), found(1, (80, 40, 9, 30, 1.0 - math.pi))]
    score = score_rotated(truth, same, NAMES)
    assert (score.map50, score.map75) == pytest.approx((0.995, 0.995))  # its interpolation, of a perfect curve
    assert score.map50_95 == pytest.approx(0.995)
    assert score.per_class == pytest.approx({"ship": 0.995, "plane": 0.995})
    assert score.metric == METRIC


@pytest.mark.parametrize(("turn", "thresholds"), [(0.05, 9), (0.1, 8), (0.2, 6), (0.6, 1), (1.2, 0)])
def test_score_rotated__a_turned_bar_in_closed_form(turn: float, thresholds: int) -> None:
    """ProbIoU of equal bars of ratio 10/3: 1 − √(1 − 1/√(1 + sin²δ ((r − 1/r)/2)²))."""
    ratio = 10 / 3
    overlap = 1 - math.sqrt(1 - (1 + (math.sin(turn) * (ratio - 1 / ratio) / 2) ** 2) ** -0.5)
    assert sum(overlap >= 0.5 + 0.05 * step for step in range(10)) == thresholds
    score = score_rotated(truth_of((0, (30, 30, 20, 6, 0.4))), [found(0, (30, 30, 20, 6, 0.4 + turn))], NAMES)
    assert score.map50_95 == pytest.approx(0.995 * thresholds / 10)
    assert score.per_class["plane"] == -1


def test_score_rotated__nothing_found_and_nothing_there() -> None:
    assert score_rotated(truth_of((0, (30, 30, 20, 6, 0.4))), [], NAMES).map50 == 0
    nothing = score_rotated(truth_of(), [found(0, (30, 30, 20, 6, 0.4))], NAMES)
    assert (nothing.map50, nothing.per_class) == (-1, {"ship": -1, "plane": -1})


def test_score_rotated__equals_ultralytics_validator() -> None:
    rng = np.random.default_rng(0)
    matcher: Any = OBBValidator.__new__(OBBValidator)
    matcher.iouv, matcher.niou = torch.linspace(0.5, 0.95, 10), 10
    metrics = OBBMetrics(NAMES)
    truth: dict[str, Any] = {"images": [], "annotations": []}
    detections: list[dict[str, Any]] = []
    for image in range(12):
        count = 0 if image == 5 else 6
        boxes = rng.random((count, 5)) * [80, 80, 30, 10, 3] + [10, 10, 10, 4, -0.7]
        kinds, scores = rng.integers(2, size=count), np.sort(rng.random(count))[::-1]
        noisy = boxes + rng.normal(size=boxes.shape) * [2, 2, 2, 1, 0.1]
        guessed = np.where(rng.random(count) < 0.8, kinds, 1 - kinds)
        truth["images"].append({"id": image})
        for box, kind in zip(boxes, kinds, strict=True):
            flat = xywhr2xyxyxyxy(torch.tensor(box)[None]).flatten().tolist()
            truth["annotations"].append({"image_id": image, "category_id": int(kind), "corners": flat})
        for box, kind, score in zip(noisy, guessed, scores, strict=True):
            detections.append({"image_id": image, "category_id": int(kind), "rbox": list(box), "score": float(score)})
        pred = {"cls": torch.tensor(guessed), "bboxes": torch.tensor(noisy), "conf": torch.tensor(scores.copy())}
        label = {"cls": torch.tensor(kinds), "bboxes": torch.tensor(boxes)}
        matched = matcher._process_batch(pred, label)
        metrics.update_stats(
            {
                **matched,
                "target_cls": kinds,
                "target_img": np.unique(kinds),
                "conf": scores,
                "pred_cls": guessed,
                "im_name": str(image),
            }
        )
    metrics.process(save_dir=Path(), plot=False)
    detections = [detections[place] for place in rng.permutation(len(detections))]
    score = score_rotated(truth, detections, NAMES)
    assert 0.1 < score.map50_95 < 0.9
    assert score.map50_95 == pytest.approx(metrics.box.map, abs=1e-6)
    assert (score.map50, score.map75) == pytest.approx((metrics.box.map50, metrics.box.map75), abs=1e-6)


def test_rotated_overlap__is_that_of_the_gaussians_of_each_pair() -> None:
    rng = np.random.default_rng(3)
    boxes = rng.random((5, 5)) * [30, 30, 20, 10, 3] + [10, 10, 8, 4, -0.7]
    others = rng.random((3, 5)) * [30, 30, 20, 10, 3] + [10, 10, 8, 4, -0.7]
    found = [{"rbox": list(box)} for box in boxes]
    objects = [{"corners": xywhr2xyxyxyxy(torch.tensor(box)[None]).flatten().tolist()} for box in others]
    overlap = rotated_overlap(found, objects, np.zeros(3, bool))
    pairs = (torch.tensor(boxes)[:, None].expand(5, 3, 5), torch.tensor(others)[None].expand(5, 3, 5))
    expected = 1 - hellinger_distance(*pairs).numpy()
    assert overlap == pytest.approx(expected, abs=1e-3)
    assert 0 < overlap.min() < overlap.max() < 1


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_rotated(tmp_path_factory.mktemp("rotated"), train=1, val=3)


@pytest.fixture(scope="module")
def obb(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return segments.save(segments.model_of("v8-obb"), tmp_path_factory.mktemp("weights") / "obb.pt")


def test_evaluate__an_obb_model_has_no_ap_of_coco(data: Path, obb: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The network is replaced by one that finds every object."""
    images = list_images([data.parent / "images" / "val"])
    truth = coco_ground_truth(images, dict.fromkeys(range(3), "any"), beside=[CORNERS])

    def detect(*_: Any, **__: Any) -> list[tuple[str, int, list[float], float]]:
        boxes = []
        for entry in truth["annotations"]:
            points = np.array(entry["corners"]).reshape(4, 2)
            (ux, uy), (vx, vy) = points[1] - points[0], points[2] - points[1]
            box = [*points.mean(0).tolist(), math.hypot(ux, uy), math.hypot(vx, vy), math.atan2(uy, ux)]
            boxes.append((str(images[entry["image_id"]]), entry["category_id"], box, 0.9))
        return boxes

    monkeypatch.setattr(models, "detect", detect)
    monkeypatch.setattr(models, "latency", lambda *_: 1.0)
    (score,) = evaluate([obb], data)
    assert score.rotated is not None
    assert score.rotated.map50_95 == pytest.approx(0.995, abs=1e-3)
    assert (score.AP, score.APl, score.per_class) == (-1, -1, {})


def test_evaluate__detections_are_rotated_boxes_of_the_original_image(data: Path, obb: Path) -> None:
    (examined,) = models.examine([obb], data, tasks=("obb",), timed=False)
    assert examined.detections
    assert all(len(one["rbox"]) == 5 and "bbox" not in one for one in examined.detections)
    assert examined.score.rotated is not None


def test_evaluate__rotated_boxes_are_scored_alone_and_on_corners(data: Path, obb: Path, tmp_path: Path) -> None:
    detect = tiny.checkpoint(tmp_path / "detect.pt", names=("class0", "class1", "class2"))
    with pytest.raises(DataError, match=r"'obb\.pt' gives rotated boxes.* and 'detect\.pt' gives upright ones"):
        evaluate([detect, obb], data)
    with pytest.raises(DataError, match="KITTI's protocol scores upright boxes"):
        evaluate([obb], data, protocol="kitti")
    polygons = segments.make_polygons(tmp_path / "polygons", train=1, val=3)
    with pytest.raises(DataError, match=r"scored on labels of four corners, and \d of the 6 val objects"):
        evaluate([obb], polygons)
    with pytest.raises(WeightsError, match="Give a detection model"):
        models.examine([obb], data)
