"""Exports in 8 bits with parts in full precision, and how much each part hurts."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest

from tests.helpers import tiny
from yolokd.backend import checkpoints as weights
from yolokd.backend.parts import Partition
from yolokd.deploy.export import export
from yolokd.errors import UserError
from yolokd.outputs import RECORD

needs_openvino = pytest.mark.skipif(importlib.util.find_spec("openvino") is None, reason="openvino is not installed")

needs_nncf = pytest.mark.skipif(importlib.util.find_spec("nncf") is None, reason="nncf is not installed")


@pytest.mark.parametrize(
    ("format", "options", "message"),
    [
        ("onnx", {"keep_float": ["stem"]}, "Parts are left in full precision in an int8 export"),
        ("onnx", {"precision": "int8", "keep_float": ["haed"]}, "has no part 'haed'; known: stem, backbone.p2"),
        ("mnn", {"precision": "int8", "sensitivity": True}, "Only exports to openvino and onnx can leave parts"),
        ("onnx", {"precision": "int8", "sensitivity": True, "nms": True}, "measured at raw outputs: leave nms out"),
    ],
)
def test_export__parts_that_cannot_be_left_out(
    trained_at_64: Path, tmp_path: Path, format: str, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        export(trained_at_64, format=format, check=tiny.data_set(tmp_path / "data"), **options)
    assert [p.name for p in trained_at_64.parent.iterdir()] == ["best.pt"]


@pytest.mark.parametrize("options", [{"keep_float": ["stem"]}, {"sensitivity": True}])
def test_export__parts_of_a_network_with_ranges_of_its_own(
    trained_at_64: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any]
) -> None:
    monkeypatch.setattr(weights, "is_quantized", lambda _: True)
    with pytest.raises(UserError, match="was trained in 8 bits has its own ranges"):
        export(trained_at_64, **options)


@pytest.mark.slow
def test_export__sensitivity_of_the_parts_that_are_not_kept(
    trained_at_64: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ("stem", "neck", "head.cls")
    monkeypatch.setattr(Partition, "names", property(lambda self: names))
    data = tiny.data_set(tmp_path / "data", images=2)
    report = export(trained_at_64, precision="int8", check=data, keep_float=["stem"], sensitivity=True)
    assert report.keep_float == ("stem",)
    assert report.ap_interval is not None or report.ap_change is None
    found = report.sensitivity
    assert found is not None
    assert {effect.part for effect in found.parts} == {"neck", "head.cls"}
    assert all(effect.outcome.bytes > found.whole.bytes == report.after.bytes for effect in found.parts)
    assert all(effect.ap_interval[0] <= effect.ap_gain <= effect.ap_interval[1] for effect in found.parts)
    assert sorted(p.name for p in trained_at_64.parent.iterdir()) == [RECORD, "best.pt", "best_int8.onnx"]


@needs_openvino
@needs_nncf
def test_export__openvino_leaves_a_part_in_full_precision(trained_at_64: Path, tmp_path: Path) -> None:
    import openvino

    data = tiny.data_set(tmp_path / "data", images=2)
    report = export(trained_at_64, format="openvino", precision="int8", check=data, keep_float=["stem"])
    network = openvino.Core().read_model(Path(report.path) / "best.xml")
    kinds = {
        op.get_friendly_name(): op.input_value(0).get_node().get_type_name()
        for op in network.get_ordered_ops()
        if op.get_type_name() == "Convolution"
    }
    rounded = {n: kinds[f"__module.model.{n}.conv/aten::_convolution/Convolution"] == "FakeQuantize" for n in "013"}
    assert rounded == {"0": False, "1": False, "3": True}
