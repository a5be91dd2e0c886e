"""Finding and loading checkpoints, and every kind of file that is not one."""

from __future__ import annotations

import pickle
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from ultralytics.nn.tasks import ClassificationModel, DetectionModel, RTDETRDetectionModel, SegmentationModel

from tests.helpers.attack import Attack
from tests.helpers.models import CONFIGS, detector, save
from yolokd.backend.checkpoints import find, load, load_detector
from yolokd.errors import WeightsError


def test_find__a_path_is_taken_as_it_is(teacher_pt: Path) -> None:
    assert find(teacher_pt) == teacher_pt
    assert find(str(teacher_pt)) == teacher_pt


def test_find__a_missing_path_is_named() -> None:
    with pytest.raises(WeightsError, match=r"There is no file 'no/such/file\.pt'"):
        find("no/such/file.pt")


def test_find__a_wrong_name_shows_the_nearest() -> None:
    with pytest.raises(WeightsError, match=r"yolov8nn.*yolov8n\.pt"):
        find("yolov8nn")


@pytest.mark.parametrize("name", ["yolov8l", "yolov8l.pt", "yolo11n"])
def test_find__an_official_name_offline_says_what_to_do(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    stem = name.removesuffix(".pt")
    with pytest.raises(WeightsError, match=rf"'{stem}\.pt' is not here .*no network.*{stem}\.yaml"):
        find(name)


def test_find__an_official_name_that_lies_here_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, teacher_pt: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "yolov8n.pt").write_bytes(teacher_pt.read_bytes())
    assert find("yolov8n") == Path("yolov8n.pt")


def test_find__folders_and_other_files(tmp_path: Path) -> None:
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "best.pt").touch()
    with pytest.raises(WeightsError, match=r"is a folder.*Did you mean '.*best\.pt'"):
        find(tmp_path)
    text = tmp_path / "model.onnx"
    text.touch()
    with pytest.raises(WeightsError, match=r"must end in \.pt"):
        find(text)


def test_load__a_checkpoint_that_runs_code_is_refused_before_it_does(tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    path = tmp_path / "attack.pt"
    torch.save({"model": Attack(marker), "epoch": -1}, path)
    with pytest.raises(WeightsError, match=r"system.*--trust-checkpoint"):
        load(path)
    assert not marker.exists()


def test_load__a_bare_pickle_that_runs_code_is_refused_too(tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    path = tmp_path / "attack.pt"
    path.write_bytes(pickle.dumps(Attack(marker)))
    with pytest.raises(WeightsError, match=r"--trust-checkpoint|cannot be read"):
        load(path)
    assert not marker.exists()


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"PK\x03\x04 cut off"])
def test_load__damaged_files_are_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "damaged.pt"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=r"damaged\.pt"):
        load(path)


def test_load__a_truncated_checkpoint_is_named(tmp_path: Path, teacher_pt: Path) -> None:
    path = tmp_path / "cut.pt"
    path.write_bytes(teacher_pt.read_bytes()[:20_000])
    with pytest.raises(WeightsError, match=r"cut\.pt' cannot be read"):
        load(path)


def test_load__an_archive_without_a_model(tmp_path: Path) -> None:
    path = tmp_path / "other.pt"
    torch.save({"weights": torch.zeros(3)}, path)
    with pytest.raises(WeightsError, match=r"other\.pt' cannot be read"):
        load(path)
    with zipfile.ZipFile(tmp_path / "zip.pt", "w") as archive:
        archive.writestr("readme.txt", "hello")
    with pytest.raises(WeightsError, match=r"zip\.pt' "):
        load(tmp_path / "zip.pt")


@pytest.mark.parametrize(
    ("build", "kind"),
    [
        (lambda: SegmentationModel(str(CONFIGS / "v8/yolov8-seg.yaml"), nc=2, verbose=False), "SegmentationModel"),
        (lambda: ClassificationModel(str(CONFIGS / "v8/yolov8-cls.yaml"), nc=2, verbose=False), "ClassificationModel"),
    ],
)
def test_load_detector__other_tasks_are_refused_by_name(tmp_path: Path, build: Any, kind: str) -> None:
    model = build()
    model.args = {"task": "other"}
    path = save(model, tmp_path / "model.pt")
    with pytest.raises(WeightsError, match=rf"not a YOLO detector \({kind}"):
        load_detector(path)


def test_load_detector__rtdetr_is_refused_by_name(tmp_path: Path) -> None:
    model = RTDETRDetectionModel(str(CONFIGS / "rt-detr/rtdetr-l.yaml"), nc=2, verbose=False)
    model.args = {"task": "detect"}
    path = save(model, tmp_path / "rtdetr.pt")
    with pytest.raises(WeightsError, match=r"not a YOLO detector.*RTDETR"):
        load_detector(path)


def test_load_detector__gives_the_saved_weights(tmp_path: Path) -> None:
    model = detector("11", seed=4)
    loaded = load_detector(save(model, tmp_path / "model.pt"))
    assert type(loaded) is DetectionModel
    for name, value in loaded.state_dict().items():
        torch.testing.assert_close(value, model.state_dict()[name].half().to(value.dtype))


def test_load_detector__real_coco_weights(shared: Path) -> None:
    model = load_detector(shared / "weights" / "yolov8n-coco.pt")
    assert len(model.names) == 80
