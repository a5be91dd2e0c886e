"""Ranges of a training reach OpenVINO by way of ONNX, in a folder that Ultralytics reads as its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import Tensor

from tests.helpers import exports
from tests.helpers.eight_bits import images, needs_modelopt, quantized, save_quantized
from yolokd.backend.checkpoints import load, load_detector
from yolokd.backend.networks import load_export
from yolokd.backend.openvino_conversion import onnx_to_openvino

pytestmark = [pytest.mark.slow, needs_modelopt]


@pytest.fixture(scope="module", params=["v8", "26"])
def converted(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, str]:
    """Checkpoint, folder, and the names that the ONNX file had."""
    for package in ("onnx", "onnxruntime", "onnxslim", "openvino"):
        pytest.importorskip(package, reason=f"{package} is not installed")
    import onnx

    path = save_quantized(tmp_path_factory.mktemp("weights") / "best.pt", quantized(request.param))
    file = exports.export(path, "onnx")
    (names,) = [entry.value for entry in onnx.load(file).metadata_props if entry.key == "names"]
    return path, onnx_to_openvino(file), names


def test_onnx_to_openvino__leaves_one_folder(converted: tuple[Path, Path, str]) -> None:
    path, folder, _ = converted
    assert folder == path.with_name("best_int8_openvino_model")
    assert sorted(p.name for p in path.parent.iterdir()) == ["best.pt", folder.name]
    assert sorted(p.name for p in folder.iterdir()) == ["best.bin", "best.xml", "metadata.yaml"]


def test_onnx_to_openvino__metadata_have_the_types_of_ultralytics(converted: tuple[Path, Path, str]) -> None:
    _, folder, names = converted
    metadata = yaml.safe_load((folder / "metadata.yaml").read_text(encoding="utf-8"))
    assert (metadata["stride"], metadata["batch"], metadata["imgsz"], metadata["channels"]) == (32, 1, [64, 64], 3)
    assert str(metadata["names"]) == names
    assert metadata["args"]["quantize"] == 8
    assert metadata["task"] == "detect"
    backend = load_export(folder)
    assert backend.names == metadata["names"]
    assert backend.stride == 32


def test_onnx_to_openvino__convolutions_are_in_8_bits_with_the_trained_ranges(
    converted: tuple[Path, Path, str],
) -> None:
    import openvino

    path, folder, _ = converted
    network = openvino.Core().read_model(folder / "best.xml")
    kinds = [op.get_type_name() for op in network.get_ops()]
    weights = [op for op in network.get_ops() if op.get_type_name() == "Constant" and len(op.shape) == 4]
    assert sum(op.get_element_type().get_type_name() == "i8" for op in weights) > 50
    loaded: Any = load(path)[0]
    folded = loaded.fuse(verbose=False)
    trained = {
        round(float(m.amax) / 127, 6)
        for n, m in folded.named_modules()
        if n.endswith("input_quantizer") and m.is_enabled
    }
    found = set()
    for op in network.get_ops():
        if op.get_type_name() == "FakeQuantize":
            low, high = (float(op.input_value(n).get_node().data.flatten()[0]) for n in (1, 2))
            assert low == pytest.approx(-128 / 127 * high, rel=1e-5)
            found.add(round(high / 127, 6))
    assert found == trained
    assert "QuantizeLinear" not in kinds


def test_onnx_to_openvino__labels_for_the_tools_of_intel(converted: tuple[Path, Path, str]) -> None:
    import openvino

    network = openvino.Core().read_model(converted[1] / "best.xml")
    assert network.get_rt_info(["model_info", "model_type"]).astype(str) == "YOLO"
    assert network.get_rt_info(["model_info", "labels"]).astype(str).split()[0] == "class0"


def test_onnx_to_openvino__computes_what_the_checkpoint_computes(converted: tuple[Path, Path, str]) -> None:
    """In the first layers: further on, values on the edge of two steps fall to either side."""
    import openvino

    path, folder, _ = converted
    network = openvino.Core().read_model(folder / "best.xml")
    first = next(op for op in network.get_ordered_ops() if op.get_type_name() == "Swish")
    network.add_outputs([first.output(0)])
    compiled = openvino.Core().compile_model(network, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    own = torch.from_numpy(list(compiled(images(1, seed=9).numpy()).values())[-1].copy())
    assert (own - _first_layer(path, ranges=True)).abs().max() < 1e-4
    assert (own - _first_layer(path, ranges=False)).abs().max() > 1e-3


def _first_layer(path: Path, *, ranges: bool) -> Tensor:
    network: Any = load(path)[0] if ranges else load_detector(path)
    with torch.no_grad():
        output: Tensor = network.fuse(verbose=False).eval().model[0](images(1, seed=9))
    return output
