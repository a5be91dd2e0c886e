"""Every kind of model that gives boxes, against what Ultralytics itself makes of its outputs."""

from __future__ import annotations

import sys
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torchvision.ops import box_iou
from ultralytics import YOLO
from ultralytics.utils.nms import non_max_suppression

from tests.helpers.attack import Attack
from tests.helpers.box_models import NAMES, box_model, save, scene, stub_encoder
from tests.helpers.unlabeled import make_images
from yolokd.backend.checkpoints import load_detector
from yolokd.data.layout import images_of
from yolokd.errors import UserError, WeightsError
from yolokd.files import sha256
from yolokd.loaders.answers import LOWEST
from yolokd.teachers.answers import AnswerStore, Question
from yolokd.teachers.asking import MOST, OVERLAP, Labeler, Panel, mirrored
from yolokd.teachers.detector import DetectorTeacher
from yolokd.teachers.opening import open_labeler

CPU = torch.device("cpu")
CLOSED = [
    *("detect", "detect-26", "detect-p2", "segment", "segment-11", "segment-26", "pose", "pose-11", "pose-26"),
    "rtdetr",
]
OPEN = ["world", "yoloe", "yoloe-segment-11", "yoloe-26"]
GRID = [kind for kind in (*CLOSED, *OPEN) if kind != "rtdetr"]


def opened(folder: Path, model: Any, *, flip: bool = False, classes: list[str] | None = None) -> Labeler:
    return open_labeler(save(model, folder / "model.pt"), CPU, flip=flip, classes=classes)


def reference(model: Any, images: Tensor) -> list[Tensor]:
    """Ultralytics' own boxes of a model on YOLO's grid: (N, 6 + extras) of each image."""
    model.end2end = False  # else the head picks boxes of its other branch
    with torch.no_grad():
        output = model(images)[0]
    found: list[Tensor] = non_max_suppression(
        output, LOWEST, OVERLAP, agnostic=True, max_det=MOST, nc=model.model[-1].nc, max_time_img=60.0
    )
    return found


@pytest.mark.parametrize("kind", GRID)
def test_answers__are_the_models_own_boxes_without_duplicates(kind: str, tmp_path: Path) -> None:
    model, images = box_model(kind), scene()
    labeler = opened(tmp_path, model)
    assert labeler.names == NAMES
    for (boxes, probabilities), expected in zip(labeler.answers(images), reference(model, images), strict=True):
        scores, classes = probabilities.max(1)
        assert probabilities.shape == (len(boxes), 3)
        assert len(boxes) >= 8
        assert (scores[:-1] >= scores[1:]).all()
        assert (box_iou(boxes, boxes).fill_diagonal_(0) <= OVERLAP + 1e-5).all()
        for row in expected[:8]:  # further ones may differ by an overlap on the brink of the limit
            place = (boxes - row[:4]).abs().amax(1).argmin()
            torch.testing.assert_close(boxes[place], row[:4], rtol=0, atol=1e-2)
            torch.testing.assert_close(scores[place], row[4], rtol=1e-3, atol=1e-5)
            assert classes[place] == row[5]


def test_answers__rtdetr_as_its_predictor(tmp_path: Path) -> None:
    model, images = box_model("rtdetr"), scene(64, 64)
    path = save(model, tmp_path / "model.pt")
    results = YOLO(path).predict(images, conf=LOWEST, max_det=MOST, device="cpu", verbose=False)
    for (boxes, probabilities), result in zip(
        open_labeler(path, CPU, flip=False).answers(images), results, strict=True
    ):
        boxes, found = boxes.clamp(0, 64), 0
        assert len(result.boxes)
        torch.testing.assert_close(probabilities[0].max(), result.boxes.conf[0])
        for box, score, index in zip(result.boxes.xyxy, result.boxes.conf, result.boxes.cls.int(), strict=True):
            gap, place = (boxes - box).abs().amax(1).min(0)
            if gap < 1e-3:
                torch.testing.assert_close(probabilities[place, index], score)
                found += 1
            else:
                assert box_iou(boxes, box[None]).max() > OVERLAP - 1e-3  # a duplicate
        assert found >= len(boxes) / 2


def test_answers__rtdetr_sees_squares_and_tells_pixels_of_the_image(tmp_path: Path) -> None:
    labeler = opened(tmp_path, box_model("rtdetr"))
    square = scene(96, 96)
    tall = torch.nn.functional.interpolate(scene(48, 96), (96, 96), mode="bilinear", align_corners=False)
    for (boxes, _), (stretched, _) in zip(labeler.answers(scene(48, 96)), labeler.answers(tall), strict=True):
        torch.testing.assert_close(boxes, stretched * torch.tensor([1, 0.5, 1, 0.5]))
    assert labeler.answers(square)[0][0].max() > 48


@pytest.mark.parametrize("kind", ["detect", "segment-26", "pose-11", "world", "yoloe-26", "detect-p2", "rtdetr"])
def test_answers__flipped_of_a_mirrored_image_are_mirrored(kind: str, tmp_path: Path) -> None:
    labeler, images = opened(tmp_path, box_model(kind), flip=True), scene()
    for (boxes, probabilities), (other, same) in zip(
        labeler.answers(images), labeler.answers(images.flip(3)), strict=True
    ):
        assert len(other) == len(boxes) >= 3
        for box, row in zip(boxes, probabilities, strict=True):
            place = (mirrored(other, 96) - box).abs().amax(1).argmin()
            torch.testing.assert_close(mirrored(other, 96)[place], box, rtol=0, atol=1e-2)
            torch.testing.assert_close(same[place], row, rtol=1e-3, atol=1e-5)


def test_answers__flip_without_anchors_is_the_fusion_of_both_views(tmp_path: Path) -> None:
    images = scene(64, 64, images=1)
    plain = opened(tmp_path, box_model("rtdetr"))
    ((boxes, probabilities),) = opened(tmp_path, box_model("rtdetr"), flip=True).answers(images)
    ((first, ours),), ((second, theirs),) = plain.answers(images), plain.answers(images.flip(3))
    candidates = torch.cat((first, mirrored(second, 64))).clamp(0, 64)
    assert not torch.equal(boxes[:5], candidates[:5])
    assert (box_iou(boxes, candidates).amax(1) > 0.5).all()
    assert probabilities.max() <= (ours.max() + theirs.max()) / 2 + 1e-6


def test_open_labeler__a_plain_detector_answers_as_the_training_teacher(tmp_path: Path) -> None:
    path = save(box_model("detect"), tmp_path / "model.pt")
    labeler = open_labeler(str(path), CPU, flip=True, classes=["ignored: it has classes of its own"])
    own = Panel([DetectorTeacher(load_detector(path))], [NAMES], flip=True)
    for (boxes, probabilities), (expected, theirs) in zip(labeler.answers(scene()), own.answers(scene()), strict=True):
        assert torch.equal(boxes, expected)
        assert torch.equal(probabilities, theirs)
    assert (labeler.digest, labeler.path, labeler.names) == (sha256(path), path, NAMES)


def test_collect__stores_what_any_labeler_answers(tmp_path: Path) -> None:
    labeler = opened(tmp_path, box_model("rtdetr"))
    files = images_of(make_images(tmp_path / "images", 3))
    store = AnswerStore(Question((labeler.digest,), 64, flip=False), tmp_path / "kept")
    first, again = (store.collect(files, labeler, CPU) for _ in range(2))
    for file in files:
        assert len(first[file].boxes)
        np.testing.assert_array_equal(first[file].probabilities, again[file].probabilities)


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("obb", r"model\.pt' gives rotated boxes \(OBBModel\)"),
        ("classify", r"model\.pt' gives no boxes \(ClassificationModel\)"),
        ("semantic", r"model\.pt' gives no boxes \(SemanticSegmentationModel\)"),
        ("depth", r"model\.pt' gives no boxes \(DepthModel\)"),
    ],
)
def test_open_labeler__models_without_upright_boxes_are_refused(kind: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=said) as caught:
        opened(tmp_path, box_model(kind))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", ["segment", "pose-26", "rtdetr", "world", "yoloe"])
def test_open_labeler__these_are_no_teachers_of_a_training(kind: str, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="is not a YOLO detector"):
        load_detector(save(box_model(kind), tmp_path / "model.pt"))


@pytest.mark.parametrize("kind", ["segment", "pose", "rtdetr", "world", "yoloe"])
def test_open_labeler__a_foreign_object_is_refused_before_it_runs(kind: str, tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    path = save(box_model(kind), tmp_path / "model.pt", extra=Attack(marker))
    with pytest.raises(WeightsError, match=r"system.*--trust-checkpoint"):
        open_labeler(path, CPU, flip=False)
    assert not marker.exists()


@pytest.mark.parametrize("kind", ["detect-26", "segment-26"])
def test_open_labeler__a_model_fused_for_inference_is_refused(kind: str, tmp_path: Path) -> None:
    model = box_model(kind)
    model.model[-1].end2end = True
    model.model[-1].fuse()
    with pytest.raises(WeightsError, match="fused for inference and lost its one-to-many branch"):
        opened(tmp_path, model)


def test_open_labeler__gray_images_are_refused(tmp_path: Path) -> None:
    model = box_model("detect")
    model.yaml["channels"] = 1
    with pytest.raises(WeightsError, match="takes images of 1 channels"):
        opened(tmp_path, model)


def test_open_labeler__mirrored_queries_need_the_package_of_fusion(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ensemble_boxes", None)
    opened(tmp_path, box_model("rtdetr"))
    opened(tmp_path, box_model("detect"), flip=True)
    with pytest.raises(UserError, match=r"pip install 'yolokd\[footage\]'"):
        opened(tmp_path, box_model("rtdetr"), flip=True)


@pytest.mark.parametrize(("kind", "encoder"), [("world", "clip:ViT-B/32"), ("yoloe", "mobileclip:blt")])
def test_open_labeler__class_names_are_prompts(
    kind: str, encoder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    built = stub_encoder(monkeypatch)
    saved = opened(tmp_path, box_model(kind))
    assert built == []
    labeler = opened(tmp_path, box_model(kind), classes=["van", "car"])
    assert built == [encoder]
    assert labeler.names == {0: "van", 1: "car"}
    other = opened(tmp_path, box_model(kind), classes=["car", "van"])
    assert len({saved.digest, labeler.digest, other.digest}) == 3
    images = scene(images=1)
    ((boxes, rows),), ((same, turned),) = labeler.answers(images), other.answers(images)
    assert rows.shape == (len(boxes), 2)
    torch.testing.assert_close(rows[:3], turned[:3].flip(1))
    torch.testing.assert_close(boxes[:3], same[:3])
    assert (rows[:3, 0] != rows[:3, 1]).all()


def test_open_labeler__prompts_are_what_ultralytics_sets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stub_encoder(monkeypatch)
    for kind in ("world", "yoloe-segment-11"):
        model = box_model(kind)
        path = save(model, tmp_path / f"{kind}.pt")
        yolo = YOLO(path)
        yolo.set_classes(["van", "car"])
        ((boxes, rows),) = open_labeler(path, CPU, flip=False, classes=["van", "car"]).answers(scene(images=1))
        (expected,) = reference(deepcopy(yolo.model).float().eval(), scene(images=1))
        torch.testing.assert_close(boxes[0], expected[0, :4], rtol=0, atol=1e-2)
        torch.testing.assert_close(rows[0].max(), expected[0, 4])


@pytest.mark.parametrize("classes", [[], ["car", "Car"]])
def test_open_labeler__prompts_are_distinct(
    classes: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stub_encoder(monkeypatch)
    with pytest.raises(UserError, match="takes class names as prompts, each once"):
        opened(tmp_path, box_model("world"), classes=classes)


def test_open_labeler__a_yoloe_without_vocabulary_needs_class_names(tmp_path: Path) -> None:
    model = box_model("yoloe")
    del model.pe
    with pytest.raises(WeightsError, match=r"model\.pt' was saved without class names"):
        opened(tmp_path, model)


def test_open_labeler__a_prompt_free_yoloe_keeps_its_vocabulary(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stub_encoder(monkeypatch)
    model, names = box_model("yoloe"), ["car", "bus", "rider", "van"]
    model.set_vocab(model.get_vocab(names), names)
    images = scene()
    with torch.no_grad():
        for (boxes, probabilities), image in zip(
            opened(tmp_path, model, classes=["ignored"]).answers(images), images, strict=True
        ):
            (expected,) = non_max_suppression(
                model(image[None])[0], LOWEST, OVERLAP, agnostic=True, max_det=MOST, nc=4, max_time_img=60.0
            )
            assert probabilities.shape[1] == 4
            assert len(expected)
            torch.testing.assert_close(boxes[:3], expected[:3, :4], rtol=0, atol=1e-3)
            torch.testing.assert_close(probabilities[:3].amax(1), expected[:3, 4])
