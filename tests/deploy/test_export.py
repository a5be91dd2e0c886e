from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from ultralytics import YOLO

from tests.helpers import tiny
from yolokd.backend import checkpoints as weights
from yolokd.backend.formats import QUANTIZE
from yolokd.deploy import export as module
from yolokd.deploy.export import export
from yolokd.errors import DataError, RunError, UserError, WeightsError
from yolokd.outputs import RECORD

needs_openvino = pytest.mark.skipif(importlib.util.find_spec("openvino") is None, reason="openvino is not installed")
needs_nncf = pytest.mark.skipif(importlib.util.find_spec("nncf") is None, reason="nncf is not installed")


@pytest.fixture
def fake_export(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[Path, dict[str, Any]], Path]], None]:
    """Replace Ultralytics' export by a function of the checkpoint's path and the options."""

    def install(make: Callable[[Path, dict[str, Any]], Path]) -> None:
        monkeypatch.setattr(YOLO, "export", lambda self, **options: str(make(Path(self.ckpt_path), options)))

    return install


@pytest.mark.slow
@pytest.mark.parametrize(
    ("family", "format", "nms_free"),
    [
        ("v8", "onnx", False),
        ("11", "torchscript", False),
        ("26", "onnx", True),
        ("v10", "onnx", True),
        pytest.param("v8", "openvino", False, marks=needs_openvino),
    ],
)
def test_export__equals_the_checkpoint(tmp_path: Path, family: str, format: str, nms_free: bool) -> None:
    path = tiny.checkpoint(tmp_path / "best.pt", family=family)
    report = export(path, format=format, nms_free=nms_free)
    assert report.passed is True
    assert report.imgsz == 64
    name = "best_openvino_model" if format == "openvino" else f"best.{format}"
    assert Path(report.path) == tmp_path / name
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([RECORD, "best.pt", name])
    assert report.parity is not None
    assert report.parity.images == 2
    assert report.parity.box_px < 1e-3
    assert report.parity.score < 1e-5
    assert report.notes == ("no detections to compare, so raw outputs decide",)
    assert report.before.bytes == path.stat().st_size
    assert (report.before.AP, report.after.AP) == (None, None)
    assert report.before.latency_ms is not None
    assert report.after.latency_ms is not None
    if format == "onnx":
        network = onnx.load(report.path)
        shape = [d.dim_value for d in network.graph.output[0].type.tensor_type.shape.dim]
        assert shape == ([1, 84, 6] if nms_free else [1, 7, 84])  # 84 anchors at 64 px
        assert {e.key: e.value for e in network.metadata_props}["names"] == str(dict(enumerate(tiny.NAMES)))


def test_export__real_detections_and_ap_agree(shared: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    for split, folder in (("train", "val"), ("val", "val")):
        for kind in ("images", "labels"):
            (data / kind / split).mkdir(parents=True)
            for source in sorted((shared / "data" / "highway" / kind / folder).iterdir())[:8]:
                shutil.copy(source, data / kind / split / source.name)
    (data / "data.yaml").write_text(
        "train: images/train\nval: images/val\nnames: {0: bus, 1: car, 2: motorbike, 3: person, 4: truck}\n"
    )
    path = Path(shutil.copy(shared / "weights" / "yolov8n-coco.pt", tmp_path / "teacher.pt"))
    report = export(path, imgsz=320, check=data)
    assert report.passed is True
    assert report.parity is not None
    assert report.parity.images == 8
    assert report.parity.agreement == 1.0
    assert report.parity.detections > 20
    assert 0 < report.parity.box_px < 0.05
    assert report.before.AP is not None
    assert report.before.AP > 0.2
    assert report.ap_change == pytest.approx(0.0, abs=1e-3)
    assert report.before.per_class is not None
    assert set(report.before.per_class) == {"bus", "car", "motorbike", "person", "truck"}


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
    assert "raw outputs differ by" in report.failures[0]
    assert Path(report.path).is_file()


def test_export__unfinished_run_exports_its_student_beside_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    student = tiny.checkpoint(tmp_path / "elsewhere" / "student.pt")
    wrapper = tmp_path / "run" / "last.pt"
    wrapper.parent.mkdir()
    wrapper.write_bytes(b"a wrapper that only yolokd.engine can open")

    def plain_copy(path: Path, folder: Path, tasks: object) -> Path:
        return Path(shutil.copy(student, folder / path.name))

    monkeypatch.setattr(weights, "plain_copy", plain_copy)
    detector = weights.load_detector(student)
    monkeypatch.setattr(weights, "load_detector", lambda *_: detector)
    monkeypatch.setattr(weights, "is_quantized", lambda _: False)
    (tmp_path / "run" / "last.onnx").write_text("of another tool")
    report = export(wrapper)
    assert report.path == str(tmp_path / "run" / "last-2.onnx")
    assert "'last.onnx' was there and is not an export of yolokd, so it was left as it is" in report.notes
    assert (tmp_path / "run" / "last.onnx").read_text() == "of another tool"
    assert report.source == str(wrapper)
    assert report.before.bytes == student.stat().st_size
    assert report.passed is True
    assert sorted(p.name for p in wrapper.parent.iterdir()) == [RECORD, "last-2.onnx", "last.onnx", "last.pt"]


def test_export__rounds_the_size_up_and_says_so(trained_at_64: Path) -> None:
    report = export(trained_at_64, imgsz=70, format="torchscript")
    assert report.imgsz == 96
    assert report.notes[0] == "imgsz 70 is no multiple of 32: 96 was used"


@pytest.mark.slow
def test_export__half_precision_is_judged_by_detections(trained_at_64: Path) -> None:
    report = export(trained_at_64, precision="float16")
    assert report.passed is True
    kinds = {t.data_type for t in onnx.load(report.path).graph.initializer if len(t.dims) == 4}
    assert kinds == {onnx.TensorProto.FLOAT16}


@pytest.mark.slow
def test_export__int8_onnx_is_measured_on_training_images_and_leaves_other_exports_alone(
    trained_at_64: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tiny.data_set(tmp_path / "data")
    earlier = trained_at_64.with_suffix(".onnx")
    earlier.write_text("an earlier export in float32")
    seen: list[str] = []
    real = YOLO.export

    def spy(self: YOLO, **options: Any) -> str:
        linked = Path(options["data"]).with_name("images").iterdir()
        seen.extend(path.resolve().parent.name for path in linked)
        assert options["quantize"] == 8
        return str(real(self, **options))

    monkeypatch.setattr(YOLO, "export", spy)
    steps: list[str] = []
    report = export(trained_at_64, precision="int8", check=data, progress=steps.append)
    assert seen == ["train"] * 6
    assert list(dict.fromkeys(steps)) == [
        "scoring best.pt, 100%",
        "exporting to onnx, int8",
        "comparing outputs",
        "scoring best_int8.onnx, 17%",
        "scoring best_int8.onnx, 33%",
        "scoring best_int8.onnx, 50%",
        "scoring best_int8.onnx, 67%",
        "scoring best_int8.onnx, 83%",
        "scoring best_int8.onnx, 100%",
        "comparing AP",
    ]
    assert report.path == str(trained_at_64.with_name("best_int8.onnx"))
    assert earlier.read_text() == "an earlier export in float32"
    network = onnx.load(report.path)
    assert "DequantizeLinear" in {node.op_type for node in network.graph.node}
    assert report.before.AP is not None
    assert report.after.AP is not None
    assert report.precision == "int8"
    assert capsys.readouterr().out == ""


@needs_openvino
@needs_nncf
def test_export__int8_openvino(trained_at_64: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import openvino

    report = export(trained_at_64, format="openvino", precision="int8", check=tiny.data_set(tmp_path / "data"))
    folder = trained_at_64.with_name("best_int8_openvino_model")
    assert report.path == str(folder)
    operations = {op.get_type_name() for op in openvino.Core().read_model(folder / "best.xml").get_ops()}
    assert "FakeQuantize" in operations
    assert report.parity is not None
    assert np.isfinite(report.parity.box_px)
    assert report.after.AP is not None
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("check", [None, "images/val", "images/val/000000.png"])
def test_export__int8_needs_a_data_set(trained_at_64: Path, tmp_path: Path, check: str | None) -> None:
    tiny.data_set(tmp_path)
    with pytest.raises(UserError, match=r"int8 export measures .*--check road\.yaml"):
        export(trained_at_64, precision="int8", check=None if check is None else tmp_path / check)


def test_export__data_without_training_images(trained_at_64: Path, tmp_path: Path) -> None:
    data = tiny.data_set(tmp_path / "data")
    for image in (tmp_path / "data" / "images" / "train").iterdir():
        image.unlink()
    with pytest.raises(DataError, match=r"no images in .*train"):
        export(trained_at_64, precision="int8", check=data)
    assert [p.name for p in trained_at_64.parent.iterdir()] == ["best.pt"]


def test_export__data_that_shares_no_class_fails_before_anything_is_written(
    trained_at_64: Path, tmp_path: Path
) -> None:
    data = tiny.data_set(tmp_path / "data", names=("a", "b", "c"))
    with pytest.raises(DataError, match="class"):
        export(trained_at_64, check=data)
    assert [p.name for p in trained_at_64.parent.iterdir()] == ["best.pt"]


def test_export__checks_on_given_images(trained_at_64: Path, tmp_path: Path) -> None:
    tiny.data_set(tmp_path / "data")
    report = export(trained_at_64, format="torchscript", check=tmp_path / "data" / "images" / "val" / "000000.png")
    assert report.parity is not None
    assert report.parity.images == 1
    assert report.before.AP is None


def test_export__names_images_that_cannot_be_read(trained_at_64: Path, tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.jpg").write_text("")
    with pytest.raises(DataError, match=r"a\.jpg is an empty file"):
        export(trained_at_64, check=tmp_path / "images")


def test_export__no_detector(tmp_path: Path) -> None:
    torch.save({"model": torch.nn.Linear(2, 2)}, tmp_path / "best.pt")
    with pytest.raises(WeightsError, match=f"'{tmp_path / 'best.pt'}' "):
        export(tmp_path / "best.pt")


def test_export__nms_free_needs_such_a_head(trained_at_64: Path) -> None:
    with pytest.raises(UserError, match="no NMS-free head"):
        export(trained_at_64, nms_free=True)


@pytest.mark.parametrize("options", [{"quantize": 8}, {"half": True}])
def test_export__precision_is_given_by_its_own_name(trained_at_64: Path, options: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="Give precision='float16' or precision='int8' instead of"):
        export(trained_at_64, **options)
    with pytest.raises(UserError, match=f"no precision 'fp8'; known: {', '.join(QUANTIZE)}"):
        export(trained_at_64, precision="fp8")  # type: ignore[arg-type]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["it's.pt", "yolov5s.pt"])
def test_export__under_a_name_that_ultralytics_alters(tmp_path: Path, name: str) -> None:
    path = tiny.checkpoint(tmp_path / name)
    shutil.copy(tiny.checkpoint(tmp_path / "other.pt", family="11"), tmp_path / "yolov5su.pt")
    report = export(path)
    assert report.path == str(path.with_suffix(".onnx"))
    assert report.passed is True


def test_export__format_that_cannot_be_run_here(
    trained_at_64: Path, fake_export: Callable[[Callable[[Path, dict[str, Any]], Path]], None]
) -> None:
    def make(checkpoint: Path, options: dict[str, Any]) -> Path:
        assert options["format"] == "rknn"
        folder = checkpoint.with_name("best_rknn_model")
        folder.mkdir()
        (folder / "best.rknn").write_bytes(b"12345")
        return folder

    fake_export(make)
    report = export(trained_at_64, format="RKNN", precision="float16")
    assert report.passed is None
    assert report.parity is None
    assert report.after.bytes == 5
    assert (report.before.latency_ms, report.after.latency_ms) == (None, None)
    (note,) = report.notes
    assert note.startswith("not checked, as rknn cannot be run here: ")
    assert report.path == str(trained_at_64.with_name("best_rknn_model"))


@pytest.mark.parametrize(
    ("error", "kind", "message"),
    [
        (ModuleNotFoundError("No module named 'paddle'", name="paddle"), UserError, "pip install paddle"),
        (RuntimeError("no such operator"), RunError, "could not export .* to paddle: no such operator"),
    ],
)
def test_export__failures_of_ultralytics(
    trained_at_64: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, kind: type[Exception], message: str
) -> None:
    def fail(self: Any, **options: Any) -> str:
        raise error

    monkeypatch.setattr(YOLO, "export", fail)
    with pytest.raises(kind, match=message):
        export(trained_at_64, format="paddle")
    assert [p.name for p in trained_at_64.parent.iterdir()] == ["best.pt"]


def test_export__a_file_that_cannot_be_run(
    trained_at_64: Path, fake_export: Callable[[Callable[[Path, dict[str, Any]], Path]], None]
) -> None:
    def make(checkpoint: Path, options: dict[str, Any]) -> Path:
        path = checkpoint.with_suffix(".onnx")
        path.write_bytes(b"")
        return path

    fake_export(make)
    with pytest.raises(RunError, match=r"best\.onnx' was written but cannot be run"):
        export(trained_at_64)


@pytest.mark.slow
def test_export__own_nms_is_judged_by_ap(trained_at_64: Path, tmp_path: Path) -> None:
    report = export(trained_at_64, check=tiny.data_set(tmp_path / "data"), nms=True)
    assert report.parity is None
    assert "outputs not compared: the export contains its own NMS" in report.notes
    assert report.after.AP is not None
