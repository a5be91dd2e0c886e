from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from yolokd.backend.parts import Partition
from yolokd.deploy import conversion
from yolokd.deploy.conversion import convert
from yolokd.errors import RunError

NOTHING = Partition({}, 0)


class Exporter:
    """Writes what it is told to."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.asked: list[dict[str, Any]] = []

    def export(self, **options: Any) -> str:
        self.asked.append(options)
        file = self.folder / "best.onnx"
        file.write_bytes(b"no network")
        return str(file)


def test_convert__ranges_of_a_training_reach_openvino_by_way_of_onnx(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    exporter = Exporter(tmp_path)
    monkeypatch.setattr(conversion, "onnx_to_openvino", lambda file: file.with_name("folder"))
    made = convert(exporter, Path("best.pt"), "openvino", {"imgsz": 64}, partition=NOTHING, own_ranges=True)
    assert made == tmp_path / "folder"
    made = convert(exporter, Path("best.pt"), "openvino", {"imgsz": 64}, partition=NOTHING)
    assert made == tmp_path / "best.onnx"
    assert [asked["format"] for asked in exporter.asked] == ["onnx", "openvino"]
    assert [asked["imgsz"] for asked in exporter.asked] == [64, 64]


def test_convert__a_file_that_openvino_cannot_read(tmp_path: Path) -> None:
    pytest.importorskip("openvino", reason="openvino is not installed")
    with pytest.raises(RunError, match=r"OpenVINO could not convert 'best\.pt' to openvino: "):
        convert(Exporter(tmp_path), Path("best.pt"), "openvino", {}, partition=NOTHING, own_ranges=True)
