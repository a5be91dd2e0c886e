from __future__ import annotations

import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from PIL import Image
from ultralytics import YOLO

from tests.helpers import kitti, segments, tiny
from tests.helpers.rle import decode
from yolokd.data.kitti import prepare
from yolokd.errors import DataError, RunError, UserError, WeightsError
from yolokd.evaluation import models
from yolokd.evaluation.ground_truth import (
    KEYPOINTS,
    SEGMENTATION,
    coco_ground_truth,
    label_path,
    list_images,
    read_labels,
)
from yolokd.evaluation.masks import encode
from yolokd.evaluation.models import evaluate
from yolokd.images.reader import shown_size

HIGHWAY = ("bus", "car", "motorbike", "person", "truck")
COCO_INDEX = {0: 5, 1: 2, 2: 3, 3: 0, 4: 7}
SUFFIXES = 16

Detections = list[tuple[str, int, list[float], float]]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.data_set(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.checkpoint(tmp_path_factory.mktemp("weights") / "best.pt")


@pytest.fixture
def oracle(monkeypatch: pytest.MonkeyPatch, data: Path) -> Callable[[dict[int, int]], None]:
    """Replace the network by one that finds every object, calling the data's class i its own class mapping[i]."""

    def install(mapping: dict[int, int]) -> None:
        def detect(*_: Any, **__: Any) -> Detections:
            found: Detections = []
            for image in list_images([data.parent / "images" / "val"]):
                width, height = shown_size(image)
                for index, x, y, w, h in read_labels(label_path(image)).tolist():
                    if index in mapping:
                        box = [(x - w / 2) * width, (y - h / 2) * height, w * width, h * height]
                        found.append((str(image), mapping[int(index)], box, 0.9))
            return found

        monkeypatch.setattr(models, "detect", detect)
        monkeypatch.setattr(models, "latency", lambda *_: 1.0)

    return install


def _sample(shared: Path, folder: Path, names: list[str], index: dict[int, int], *, nested: bool = False) -> Path:
    """Link some real images and write their labels with other class numbers; `nested`: equal names in two folders."""
    source = shared / "data" / "highway" / "images" / "val"
    for n, image in enumerate(list_images([source])[:SUFFIXES]):
        place = Path(f"seq{n % 2}/{n // 2:04}.jpg") if nested else Path(f"{n:04}.jpg")
        for kind in ("images", "labels"):
            (folder / kind / "val" / place).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(image, folder / "images" / "val" / place)
        rows = [f"{index[int(row[0])]} {' '.join(map(str, row[1:]))}" for row in read_labels(label_path(image))]
        (folder / "labels" / "val" / place).with_suffix(".txt").write_text("\n".join(rows))
    split = ["images/val/seq0", "images/val/seq1"] if nested else "images/val"
    path = folder / "data.yaml"
    path.write_text(yaml.safe_dump({"path": str(folder), "train": split, "val": split, "names": names}))
    return path


def test_evaluate__scores_an_untrained_model(data: Path, weights: Path) -> None:
    seen: list[tuple[str, float]] = []
    (score,) = evaluate([weights], data, batch=4, device="cpu", progress=lambda *step: seen.append(step))
    model = YOLO(weights).model
    assert (score.name, score.path, score.imgsz) == ("best.pt", str(weights), 64)
    assert score.parameters == sum(p.numel() for p in model.parameters())
    assert 0 <= score.AP <= score.AP50 < 0.2
    assert score.gflops > 0
    assert score.latency_ms > 0
    assert list(score.per_class) == list(tiny.NAMES)
    assert score.notes == ()
    assert [name for name, _ in seen[:-2]] == ["opening images"] * (len(seen) - 2)  # none, if they are known
    assert seen[-2:] == [("best.pt", 0.5), ("best.pt", 1.0)]


def test_evaluate__perfect_detections_score_one(
    data: Path, weights: Path, oracle: Callable[[dict[int, int]], None]
) -> None:
    oracle({0: 0, 1: 1, 2: 2})
    (score,) = evaluate([weights], data, imgsz=70)
    assert pytest.approx((1.0, 1.0, 1.0)) == (score.AP, score.AP50, score.AP75)
    assert score.APl == -1.0
    assert score.per_class == pytest.approx(dict.fromkeys(tiny.NAMES, 1.0))
    assert score.notes == ("imgsz 70 is no multiple of 32: 96 was used",)


def test_evaluate__classes_are_matched_by_name_not_by_number(
    data: Path, tmp_path: Path, oracle: Callable[[dict[int, int]], None]
) -> None:
    path = tiny.checkpoint(tmp_path / "teacher.pt", names=("Truck", "cat", "CAR", "pedestrian"))
    oracle({0: 2, 1: 3, 2: 0})
    (partial,) = evaluate([path], data)
    assert partial.per_class == pytest.approx({"car": 1.0, "person": 0.0, "truck": 1.0})
    assert pytest.approx(2 / 3) == partial.AP
    assert partial.notes == ("does not know person (counted as missed; AP over the others is 100.0)",)
    (full,) = evaluate([path], data, classes={"Pedestrian": "Person"})
    assert pytest.approx(1.0) == full.AP
    assert full.notes == ()


def test_evaluate__teacher_of_80_classes_and_ultralytics_own_numbers(shared: Path, tmp_path: Path) -> None:
    teacher = shared / "weights" / "yolov8n-coco.pt"
    coco_names = list(YOLO(teacher).names.values())
    own = _sample(shared, tmp_path / "five", list(HIGHWAY), {i: i for i in range(5)})
    coco = _sample(shared, tmp_path / "eighty", coco_names, COCO_INDEX)
    (five,) = evaluate([teacher], own, imgsz=256, device="cpu", classes={"motorcycle": "motorbike"})
    (eighty,) = evaluate([teacher], coco, imgsz=256, device="cpu")
    theirs = YOLO(teacher).val(
        data=str(coco), imgsz=256, device="cpu", plots=False, verbose=False, project=str(tmp_path), name="val"
    )
    assert pytest.approx(eighty.AP, abs=1e-9) == five.AP
    assert eighty.per_class["motorcycle"] == five.per_class["motorbike"]
    assert five.AP > 0.3
    assert pytest.approx(theirs.box.map, abs=0.02) == eighty.AP
    assert pytest.approx(theirs.box.map50, abs=0.02) == eighty.AP50


def test_evaluate__images_of_equal_name_in_two_folders(shared: Path, tmp_path: Path) -> None:
    teacher = shared / "weights" / "yolov8n-coco.pt"
    same = {i: i for i in range(5)}
    flat = _sample(shared, tmp_path / "flat", list(HIGHWAY), same)
    nested = _sample(shared, tmp_path / "nested", list(HIGHWAY), same, nested=True)
    (one,), (other,) = (evaluate([teacher], data, imgsz=160, device="cpu") for data in (flat, nested))
    assert one.AP > 0.2
    assert pytest.approx(one.AP, abs=0.01) == other.AP  # batches differ, and with them the padding of some images


def test_evaluate__leaves_no_files_beside_the_weights(
    data: Path, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    evaluate([weights], data, device="cpu")
    assert list(tmp_path.iterdir()) == []
    assert list(weights.parent.iterdir()) == [weights]


def test_evaluate__is_silent(data: Path, weights: Path, capfd: pytest.CaptureFixture[str]) -> None:
    evaluate([weights], data, device="cpu")
    assert capfd.readouterr() == ("", "")


def test_evaluate__kitti_by_the_original_labels(weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hidden = kitti.line("Car", (110, 10, 190, 70), occlusion=3)  # counts at no difficulty
    frames = {f"{n:06}": kitti.CAR + hidden for n in range(51)}
    source = kitti.source(tmp_path / "src", frames)
    train, val = kitti.ids(tmp_path / "t", "000050"), kitti.ids(tmp_path / "v", *list(frames)[:50])
    data = prepare(source, tmp_path / "out", split=f"{train},{val}").path

    def detect(yolo: Any, path: Path, images: list[str], **_: Any) -> Detections:
        return [(image, 0, [20.0, 10.0, 80.0, 50.0], 0.9) for image in images]

    monkeypatch.setattr(models, "detect", detect)
    monkeypatch.setattr(models, "latency", lambda *_: 1.0)
    (score,) = evaluate([weights], data, protocol="kitti", metric="R11")
    assert score.kitti is not None
    assert score.kitti.metric == "R11"
    assert score.kitti.ap_percent["Car"] == {"easy": 100.0, "moderate": 100.0, "hard": 100.0}
    assert score.kitti.objects["Car"] == {"easy": 50, "moderate": 50, "hard": 50}
    assert score.per_class["Car"] == pytest.approx(51 / 101)  # COCO's protocol misses the hidden half
    assert score.notes == ()
    assert evaluate([weights], data)[0].kitti is None


def test_evaluate__refuses_before_it_starts(data: Path, weights: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no protocol 'voc'; known: coco, kitti"):
        evaluate([weights], data, protocol="voc")
    with pytest.raises(UserError, match="metric R11 belongs to the protocol kitti, not to coco"):
        evaluate([weights], data, metric="R11")
    with pytest.raises(UserError, match="no metric 'R12'; known: R40, R11"):
        evaluate([weights], data, protocol="kitti", metric="R12")
    with pytest.raises(
        DataError, match=r"only a set prepared by 'yolokd data kitti SRC OUT' has; the images in '.*val'"
    ):
        evaluate([weights], data, protocol="kitti")
    with pytest.raises(DataError, match="has no split 'test'; it has: train, val"):
        evaluate([weights], data, split="test")
    with pytest.raises(WeightsError, match="gone"):
        evaluate([weights, tmp_path / "gone.pt"], data)
    with pytest.raises(UserError, match=r"--classes car=lorry: the data has no class 'lorry', but car, person, truck"):
        evaluate([weights], data, classes={"car": "lorry"})
    with pytest.raises(UserError, match="--classes lorry=truck: no model here has a class 'lorry'"):
        evaluate([weights], data, classes={"lorry": "truck"})


def test_evaluate__names_labels_that_are_wrong(weights: Path, tmp_path: Path) -> None:
    data = tiny.data_set(tmp_path)
    (tmp_path / "labels" / "val" / "000002.txt").write_text("7 0.5 0.5 0.2 0.2\n")
    with pytest.raises(DataError, match=r"1 error.*\n.*000002\.txt"):
        evaluate(weights, data)


def test_evaluate__failure_of_ultralytics_is_a_failed_run(
    data: Path, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(self: Any, **options: Any) -> None:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(YOLO, "val", fail)
    with pytest.raises(RunError, match=r"best\.pt' could not be validated: out of memory"):
        evaluate([weights], data)


def test_evaluate__image_that_ultralytics_would_skip(weights: Path, tmp_path: Path) -> None:
    data = tiny.data_set(tmp_path)
    Image.new("RGB", (8, 8)).save(tmp_path / "images" / "val" / "000003.png")  # it wants 10 pixels
    (score,) = evaluate(weights, data, device="cpu")
    assert score.notes[0].startswith("1 image is left out, as Ultralytics does: ")
    assert "000003.png (8×8 pixels, fewer than 10 on a side)" in score.notes[0]


@pytest.fixture(scope="module")
def polygons(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return segments.make_polygons(tmp_path_factory.mktemp("polygons"), train=1, val=3)


@pytest.fixture(scope="module")
def segment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return segments.save(segments.model_of("v8-seg"), tmp_path_factory.mktemp("weights") / "segment.pt")


@pytest.fixture
def mask_oracle(monkeypatch: pytest.MonkeyPatch, polygons: Path) -> None:
    """Replace the network by one that finds every object: its box exactly, and of its mask the upper half."""

    def detect(*_: Any, beside: list[Any] | None, **__: Any) -> Detections:
        images = list_images([polygons.parent / "images" / "val"])
        truth = coco_ground_truth(images, dict.fromkeys(range(3), "any"), beside=[SEGMENTATION])
        found: Detections = []
        for entry in truth["annotations"]:
            found.append((str(images[entry["image_id"]]), entry["category_id"], entry["bbox"], 0.9))
            if beside is not None:
                pixels = torch.from_numpy(decode(entry["segmentation"]))
                rows = pixels.any(1).nonzero().flatten()
                pixels[: int(rows[0]) + int(0.57 * len(rows))] = 0
                beside += encode(pixels[None])
        return found

    monkeypatch.setattr(models, "detect", detect)
    monkeypatch.setattr(models, "latency", lambda *_: 1.0)


@pytest.mark.usefixtures("mask_oracle")
def test_evaluate__a_segment_model_has_mask_ap_beside_that_of_boxes(polygons: Path, segment: Path) -> None:
    (score,) = evaluate([segment], polygons)
    assert pytest.approx(1.0) == score.AP
    assert score.masks is not None
    assert 0 < score.masks.AP50 < 1
    assert score.masks.AP75 == 0
    assert set(score.masks.per_class) == {"class0", "class1", "class2"}


@pytest.mark.usefixtures("mask_oracle")
def test_evaluate__a_detect_model_beside_it_is_scored_as_alone(polygons: Path, segment: Path, tmp_path: Path) -> None:
    detect = tiny.checkpoint(tmp_path / "detect.pt", names=("class0", "class1", "class2"))
    one, other = evaluate([detect, segment], polygons)
    (alone,) = evaluate([detect], polygons)
    assert one == alone
    assert one.masks is None
    assert other.masks is not None


def test_evaluate__labels_without_polygons_leave_masks_out_and_say_so(data: Path, segment: Path) -> None:
    (score,) = evaluate([segment], data, classes={f"class{n}": name for n, name in enumerate(tiny.NAMES)})
    assert score.masks is None
    assert score.notes[0].startswith("masks are not scored: ")
    assert score.notes[0].endswith(" objects are labeled as boxes, not as polygons")


def test_evaluate__other_protocols_and_commands_are_refused(
    polygons: Path, segment: Path, poses: Path, pose: Path
) -> None:
    with pytest.raises(DataError, match=r"KITTI's protocol scores boxes, and 'segment\.pt' gives masks"):
        evaluate([segment], polygons, protocol="kitti")
    with pytest.raises(DataError, match=r"KITTI's protocol scores boxes, and 'pose\.pt' gives keypoints"):
        evaluate([pose], poses, protocol="kitti")
    for weights in (segment, pose):
        with pytest.raises(WeightsError, match="Give a detection model"):
            models.examine([weights], polygons)


@pytest.fixture(scope="module")
def poses(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return segments.make_poses(tmp_path_factory.mktemp("poses"), train=1, val=3, side=128)


@pytest.fixture(scope="module")
def pose(tmp_path_factory: pytest.TempPathFactory) -> Path:
    model = segments.model_of("v8-pose", keypoints=(4, 3))
    return segments.save(model, tmp_path_factory.mktemp("weights") / "pose.pt")


@pytest.fixture
def pose_oracle(monkeypatch: pytest.MonkeyPatch, poses: Path) -> None:
    """Replace the network by one that finds every object: its box exactly, its keypoints at an OKS of 0.72."""

    def detect(*_: Any, beside: list[Any] | None, **__: Any) -> Detections:
        images = list_images([poses.parent / "images" / "val"])
        truth = coco_ground_truth(images, dict.fromkeys(range(3), "any"), (4, 3), beside=[KEYPOINTS])
        found: Detections = []
        for entry in truth["annotations"]:
            found.append((str(images[entry["image_id"]]), entry["category_id"], entry["bbox"], 0.9))
            if beside is not None:  # 2σ = 1/2
                away = 0.5 * math.sqrt(-2 * entry["area"] * math.log(0.72))
                beside.append([value + away * (place % 3 == 0) for place, value in enumerate(entry["keypoints"])])
        return found

    monkeypatch.setattr(models, "detect", detect)
    monkeypatch.setattr(models, "latency", lambda *_: 1.0)


@pytest.mark.usefixtures("pose_oracle")
def test_evaluate__a_pose_model_has_keypoint_ap_beside_that_of_boxes(poses: Path, pose: Path) -> None:
    (score,) = evaluate([pose], poses)
    assert pytest.approx(1.0) == score.AP
    assert score.keypoints is not None
    assert pytest.approx(1.0) == score.keypoints.AP50
    assert score.keypoints.AP75 == 0
    assert pytest.approx(0.5) == score.keypoints.AP
    assert set(score.keypoints.per_class) == {"class0", "class1", "class2"}
    assert score.masks is None
    assert not [note for note in score.notes if "scored" in note]


@pytest.mark.usefixtures("pose_oracle")
def test_evaluate__a_detect_model_beside_a_pose_model_is_scored_as_alone(
    poses: Path, pose: Path, tmp_path: Path
) -> None:
    detect = tiny.checkpoint(tmp_path / "detect.pt", names=("class0", "class1", "class2"))
    one, other = evaluate([detect, pose], poses)
    (alone,) = evaluate([detect], poses)
    assert one == alone
    assert one.keypoints is None
    assert other.keypoints is not None


def test_evaluate__keypoints_that_cannot_be_scored_are_left_out_and_it_says_so(
    polygons: Path, poses: Path, pose: Path, tmp_path: Path
) -> None:
    (score,) = evaluate([pose], polygons)
    assert score.keypoints is None
    assert score.notes[0] == "keypoints are not scored: the data have none (no kpt_shape in the data YAML)"
    seventeen = segments.save(segments.model_of("v8-pose"), tmp_path / "17.pt")
    (other,) = evaluate([seventeen], poses)
    assert other.keypoints is None
    assert "keypoints are not scored: it gives 17 of each object, the data have 4" in other.notes
    assert other.AP >= 0
