from __future__ import annotations

import importlib.util
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import onnx
import pytest
from torch import nn

from tests.helpers import exports, models, tiny
from yolokd.backend.parts import Partition, kept_in_float, partition_of
from yolokd.errors import RunError, UserError

needs_openvino = pytest.mark.skipif(importlib.util.find_spec("openvino") is None, reason="openvino is not installed")

STAGES = ("backbone.p2", "backbone.p3", "backbone.p4", "backbone.p5")
NAMES = ("stem", *STAGES, "neck", "head.box", "head.cls")


@pytest.mark.parametrize(
    ("family", "ends"),
    [("v8", (2, 3, 5, 7, 10, 22)), ("11", (2, 3, 5, 7, 11, 23)), ("26", (2, 3, 5, 7, 11, 23))],
)
def test_partition_of__follows_the_yaml_of_ultralytics(family: str, ends: tuple[int, ...]) -> None:
    model = models.detector(family)
    model.train()
    found = partition_of(model)
    assert found.names == NAMES
    assert model.training
    assert found.head == ends[-1] == len(model.model) - 1
    starts = (0, *ends[:-1])
    expected = {layer: part for part, a, b in zip(NAMES, starts, ends, strict=False) for layer in range(a, b)}
    assert found.layers == expected


@pytest.mark.parametrize("family", ["v8", "11", "26", "v10"])
def test_part_of__every_convolution_is_in_one_part(family: str) -> None:
    model = models.detector(family)
    partition = partition_of(model)
    names = [name for name, module in model.named_modules() if isinstance(module, nn.Conv2d)]
    parts = [partition.part_of(f"__module.{name}/aten::_convolution/Convolution") for name in names]
    assert None not in parts
    assert set(parts) == set(partition.names)


@pytest.mark.parametrize(
    ("operation", "part"),
    [
        ("/model.0/conv/Conv", "stem"),
        ("/model.22/cv2.0/cv2.0.0/conv/Conv", "head.box"),
        ("/model.22/one2one_cv3.1/one2one_cv3.1.2/Conv", "head.cls"),
        ("__module.model.22.dfl.conv/aten::_convolution/Convolution", "head.box"),
        ("__module.model.model.21.cv2.conv/aten::_convolution/Convolution", "neck"),  # with its own NMS
        ("__module.model.2.m.0.cv2.conv/aten::_convolution/Convolution", "backbone.p2"),
        ("__module.model.22/aten::sigmoid/Sigmoid", None),
        ("ShapeOf_10318", None),
        ("/model.99/conv/Conv", None),
    ],
)
def test_part_of__names_of_operations(operation: str, part: str | None) -> None:
    assert partition_of(models.detector("v8")).part_of(operation) == part


def test_check__names_the_known_parts() -> None:
    partition = partition_of(models.detector("v8"))
    partition.check(["stem", "head.cls"], "best.pt")
    with pytest.raises(
        UserError, match=r"'best\.pt' has no part 'haed', 'tail'; known: stem, backbone\.p2, .*head\.cls"
    ):
        partition.check(["haed", "stem", "tail", "tail"], "best.pt")


def test_operations__a_part_without_any_is_an_error() -> None:
    partition = Partition({0: "stem", 1: "neck"}, 2)
    assert partition.operations(["stem"], ["/model.0/Conv", "/model.1/Conv"]) == ["/model.0/Conv"]
    with pytest.raises(RunError, match=r"no operation that belongs to head\.cls"):
        partition.operations(["stem", "head.cls"], ["/model.0/Conv"])


def quantized_convolutions(path: Path) -> dict[str, bool]:
    """Convolutions of an ONNX file → whether their weight is in 8 bits."""
    graph = onnx.load(path).graph
    rounded = {output for node in graph.node if node.op_type == "DequantizeLinear" for output in node.output}
    return {node.name: node.input[1] in rounded for node in graph.node if node.op_type == "Conv"}


@pytest.mark.parametrize("kept", [(), ("stem", "head.cls")])
def test_kept_in_float__of_an_onnx_export(tmp_path: Path, kept: Sequence[str]) -> None:
    import onnxruntime.quantization

    before = onnxruntime.quantization.quantize_static
    path = tiny.checkpoint(tmp_path / "best.pt")
    data = tiny.data_set(tmp_path / "data", images=2)
    partition = partition_of(models.detector("v8"))
    with kept_in_float("onnx", partition, kept):
        written = exports.export(path, "onnx", quantize=8, data=str(data))
    assert onnxruntime.quantization.quantize_static is before
    found = quantized_convolutions(written)
    assert len(found) == 64
    assert {partition.part_of(name) for name, is_rounded in found.items() if not is_rounded} == set(kept)
    assert {partition.part_of(name) for name, is_rounded in found.items() if is_rounded} == set(NAMES) - set(kept)


def test_kept_in_float__an_export_that_quantizes_otherwise_is_an_error() -> None:
    with (
        pytest.raises(RunError, match=r"did not use onnxruntime\.quantization\.quantize_static: stem would be in 8 bi"),
        kept_in_float("onnx", Partition({0: "stem"}, 1), ["stem"]),
    ):
        pass


@dataclass
class Scope:
    """As nncf.IgnoredScope."""

    names: list[str] = field(default_factory=list)
    patterns: list[str] = field(default_factory=list)


@pytest.fixture
def nncf(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Stand in for nncf, which takes minutes to install; return the calls of its `quantize`."""
    seen: list[dict[str, Any]] = []

    def quantize(**options: Any) -> Any:
        seen.append(options)
        return options["model"]

    module = ModuleType("nncf")
    monkeypatch.setattr(module, "quantize", quantize, raising=False)
    monkeypatch.setattr(module, "IgnoredScope", Scope, raising=False)
    monkeypatch.setitem(sys.modules, "nncf", module)
    return seen


@needs_openvino
@pytest.mark.parametrize("family", ["v8", "26"])
def test_kept_in_float__extends_the_scope_that_nncf_is_given(
    tmp_path: Path, family: str, nncf: list[dict[str, Any]]
) -> None:
    import openvino

    written = exports.export(tiny.checkpoint(tmp_path / "best.pt", family=family), "openvino")
    (xml,) = written.glob("*.xml")
    network = openvino.Core().read_model(xml)
    partition = partition_of(models.detector(family))
    own = Scope(["decoding"], ["a pattern"])
    with kept_in_float("openvino", partition, ["stem", "head.cls"]):
        assert sys.modules["nncf"].quantize(model=network, ignored_scope=own, preset="mixed") is network
    (call,) = nncf
    assert own.names == ["decoding"]
    assert (call["preset"], call["ignored_scope"].patterns, call["ignored_scope"].names[0]) == (
        "mixed", ["a pattern"], "decoding"
    )  # fmt: skip
    kinds = {op.get_friendly_name(): op.get_type_name() for op in network.get_ordered_ops()}
    kept = call["ignored_scope"].names[1:]
    assert kept
    assert len(set(kept)) == len(kept)
    assert {partition.part_of(name) for name in kept} == {"stem", "head.cls"}
    weighted = {name for name, kind in kinds.items() if kind in {"Convolution", "GroupConvolution", "MatMul"}}
    assert {name for name in weighted if partition.part_of(name) in {"stem", "head.cls"}} == set(kept) & weighted
    assert set(kept) <= {name for name, kind in kinds.items() if kind not in {"Swish", "Constant"}}


@needs_openvino
def test_kept_in_float__without_a_scope_of_ultralytics(tmp_path: Path, nncf: list[dict[str, Any]]) -> None:
    import openvino

    written = exports.export(tiny.checkpoint(tmp_path / "best.pt"), "openvino")
    (xml,) = written.glob("*.xml")
    with kept_in_float("openvino", partition_of(models.detector("v8")), ["neck"]):
        sys.modules["nncf"].quantize(model=openvino.Core().read_model(xml))
    assert any(name.startswith("__module.model.21") for name in nncf[0]["ignored_scope"].names)
