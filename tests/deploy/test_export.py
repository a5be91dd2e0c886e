from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import pytest
import torch
from ultralytics import YOLO

from tests.evaluation import tiny
from yolokd.deploy import export as module
from yolokd.deploy.export import ExportReport, export
from yolokd.deploy.parity import Parity
from yolokd.engine import weights
from yolokd.errors import DataError, RunError, UserError


@pytest.fixture(scope="module")
def trained_at_64(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.checkpoint(tmp_path_factory.mktemp("weights") / "best.pt")


@pytest.mark.parametrize(
    ("family", "format", "nms_free"),
    [("v8", "onnx", False), ("11", "torchscript", False), ("26", "onnx", True), ("v10", "onnx", True)],
)
def test_export__equals_the_checkpoint(tmp_path: Path, family: str, format: str, nms_free: bool) -> None:
    path = tiny.checkpoint(tmp_path / "best.pt", family=family)
    report = export(path, format=format, nms_free=nms_free)
    assert report.passed is True
    assert report.imgsz == 64
    assert Path(report.path) == tmp_path / f"best.{format}"
    assert report.parity is not None
    assert report.parity.pictures == 2
    assert report.parity.box_px < 1e-3
    assert report.parity.score < 1e-5
    assert "no detections to compare, so raw outputs decide" in report.notes
    if format == "onnx":
        network = onnx.load(report.path)
        shape = [d.dim_value for d in network.graph.output[0].type.tensor_type.shape.dim]
        assert shape == ([1, 84, 6] if nms_free else [1, 7, 84])  # 84 anchors at 64 px
        assert {e.key: e.value for e in network.metadata_props}["names"] == str(dict(enumerate(tiny.NAMES)))


def test_export__real_detections_agree(shared: Path, tmp_path: Path) -> None:
    path = Path(shutil.copy(shared / "weights" / "yolov8n-coco.pt", tmp_path / "teacher.pt"))
    report = export(path, imgsz=320, check=shared / "data" / "highway" / "images" / "val")
    assert report.passed is True
    assert report.parity is not None
    assert report.parity.pictures == 16
    assert report.parity.agreement == 1.0
    assert report.parity.detections > 50
    assert 0 < report.parity.box_px < 0.05
    assert report.notes == ()


def test_export__sees_an_edited_file(trained_at_64: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = module._run_export

    def tampered(*args: Any) -> Path:
        path = run(*args)
        network = onnx.load(path)
        (bias,) = [t for t in network.graph.initializer if t.name.endswith("cv3.0.2.bias")]
        bias.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(bias) + 4, bias.name))
        onnx.save(network, path)
        return path

    monkeypatch.setattr(module, "_run_export", tampered)
    report = export(trained_at_64)
    assert report.passed is False
    assert report.parity is not None
    assert report.parity.score > 0.01
    assert Path(report.path).is_file()


def test_export__unfinished_run_exports_its_student_beside_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    student = tiny.checkpoint(tmp_path / "elsewhere" / "student.pt")
    wrapper = tmp_path / "run" / "last.pt"
    wrapper.parent.mkdir()
    wrapper.write_bytes(b"a wrapper that only yolokd.engine can open")

    def plain_copy(path: Path, folder: Path) -> Path:
        return Path(shutil.copy(student, folder / path.name))

    monkeypatch.setattr(weights, "plain_copy", plain_copy)
    (tmp_path / "run" / "last.onnx").write_text("an earlier export")
    report = export(wrapper)
    assert report.path == str(tmp_path / "run" / "last.onnx")
    assert report.passed is True
    assert sorted(p.name for p in wrapper.parent.iterdir()) == ["last.onnx", "last.pt"]


def test_export__rounds_the_size_up_and_says_so(trained_at_64: Path) -> None:
    report = export(trained_at_64, imgsz=70, format="torchscript")
    assert report.imgsz == 96
    assert report.notes[0] == "imgsz 70 is no multiple of 32: 96 was used"


def test_export__half_precision_is_judged_by_detections(trained_at_64: Path) -> None:
    report = export(trained_at_64, quantize=16)
    assert report.full_precision is False
    assert report.passed is True


@pytest.mark.parametrize(
    ("parity", "full", "passed"),
    [
        (Parity(2, 0.1, 0.001, 100, 100), True, True),
        (Parity(2, 3.0, 0.001, 100, 100), True, False),
        (Parity(2, 3.0, 0.001, 100, 100), False, True),
        (Parity(2, 3.0, 0.001, 0, 0), False, False),
        (Parity(2, 0.1, 0.001, 100, 90), True, False),
        (Parity(2, 0.1, 0.001, 100, 90), False, False),
    ],
)
def test_export_report__verdict(parity: Parity, full: bool, passed: bool) -> None:
    assert ExportReport("a.pt", "a.onnx", "onnx", 64, parity, full).passed is passed


def test_export__checks_on_given_pictures(trained_at_64: Path, tmp_path: Path) -> None:
    data = tiny.data_set(tmp_path, pictures=40)
    folder = tmp_path / "images" / "val"
    spread = [folder / f"{n:06}.png" for n in range(0, 40, 3)]
    assert module._pictures(data) == module._pictures(folder) == module._pictures(str(tmp_path)) == spread
    report = export(trained_at_64, format="torchscript", check=folder / "000000.png")
    assert report.parity is not None
    assert report.parity.pictures == 1


def test_export__names_pictures_that_cannot_be_read(trained_at_64: Path, tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_text("")
    with pytest.raises(DataError, match=r"a\.jpg' cannot be read as a picture"):
        export(trained_at_64, check=tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no pictures in"):
        export(trained_at_64, check=tmp_path / "empty")


def test_letterbox__equals_ultralytics(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    picture = rng.integers(0, 255, (60, 100, 3), dtype=np.uint8)
    cv2.imwrite(str(tmp_path / "a.png"), picture)
    from ultralytics.data.augment import LetterBox

    expected = LetterBox((64, 64), auto=False)(image=picture)[..., ::-1].copy()
    torch.testing.assert_close(
        module._letterbox(tmp_path / "a.png", 64)[0].permute(1, 2, 0), torch.from_numpy(expected), rtol=0, atol=0
    )


def test_export__unknown_format_lists_the_known_ones(trained_at_64: Path) -> None:
    with pytest.raises(UserError, match=r"no export format 'onx'\. Did you mean 'onnx'\?.*torchscript, onnx, openvino"):
        export(trained_at_64, format="onx")


def test_export__missing_package_names_the_extra(trained_at_64: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    absent = {"onnxruntime", "onnxslim"}
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name in absent else find(name))
    with pytest.raises(UserError, match=r"needs onnxruntime, onnxslim: pip install 'yolokd\[onnx\]'"):
        export(trained_at_64)


def test_export__nms_free_needs_such_a_head(trained_at_64: Path) -> None:
    with pytest.raises(UserError, match="no NMS-free head"):
        export(trained_at_64, nms_free=True)


def test_export__other_formats_are_not_checked(trained_at_64: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fake(self: Any, **options: Any) -> str:
        assert options["format"] == "openvino"
        folder = trained_at_64.with_name("best_openvino_model")
        folder.mkdir()
        return str(folder)

    monkeypatch.setattr(YOLO, "export", fake)
    report = export(trained_at_64, format="OpenVINO")
    assert report.passed is None
    assert report.parity is None
    assert report.notes == ("not checked: only onnx and torchscript can be run here",)
    assert report.path.endswith("best_openvino_model")


@pytest.mark.parametrize(
    ("error", "kind", "message"),
    [
        (ModuleNotFoundError("No module named 'openvino'", name="openvino"), UserError, "pip install openvino"),
        (RuntimeError("no such operator"), RunError, "could not export .* to openvino: no such operator"),
    ],
)
def test_export__failures_of_ultralytics(
    trained_at_64: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, kind: type[Exception], message: str
) -> None:
    def fail(self: Any, **options: Any) -> str:
        raise error

    monkeypatch.setattr(YOLO, "export", fail)
    with pytest.raises(kind, match=message):
        export(trained_at_64, format="openvino")


def test_export__a_file_that_cannot_be_run(trained_at_64: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def empty(self: Any, **options: Any) -> str:
        path = trained_at_64.with_suffix(".onnx")
        path.write_bytes(b"")
        return str(path)

    monkeypatch.setattr(YOLO, "export", empty)
    with pytest.raises(RunError, match=r"best\.onnx' was written but cannot be run"):
        export(trained_at_64)
