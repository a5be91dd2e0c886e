"""An ONNX file of Ultralytics as the folder that its OpenVINO export writes.

Ultralytics (8.4.190) refuses to export a network that was trained in 8 bits to OpenVINO, since its path there
calibrates with nncf. OpenVINO itself reads the QuantizeLinear and DequantizeLinear nodes of an ONNX file as
FakeQuantize, keeps the weights in 8 bits and computes these convolutions in 8 bits, with the ranges of the file. What
Ultralytics adds to the result is added here as well: names and sizes in `metadata.yaml`, and the entries `model_info`
of Intel's own tools.
"""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

SUFFIX = "_int8_openvino_model"
TYPED = ("stride", "batch", "imgsz", "names", "args", "channels", "end2end")  # metadata that are no text
PAD_VALUE, SCALE_VALUE, IOU = 114, 255.0, 0.7  # as Ultralytics writes them


def onnx_to_openvino(file: Path) -> Path:
    """Convert an ONNX file in 8 bits, remove it, and return the folder beside it.

    Args:
        file: Of Ultralytics, with its metadata.

    Returns:
        `best_int8_openvino_model` for `best.onnx`: the network, its weights and `metadata.yaml`.

    Raises:
        ImportError: openvino or onnx is not installed.
        Exception: Whatever OpenVINO objects to in the file.
    """
    import openvino
    import yaml

    network = openvino.convert_model(file)
    metadata = _metadata(file)
    for key, value in _model_info(metadata).items():
        network.set_rt_info(value, ["model_info", key])
    folder = file.with_name(f"{file.stem}{SUFFIX}")
    folder.mkdir()
    openvino.save_model(network, folder / f"{file.stem}.xml", compress_to_fp16=False)
    text = yaml.safe_dump(metadata, sort_keys=False, allow_unicode=True)
    (folder / "metadata.yaml").write_text(text, encoding="utf-8")
    file.unlink()
    return folder


def _metadata(file: Path) -> dict[str, Any]:
    """What Ultralytics wrote into an ONNX file, where all values are text."""
    import onnx

    entries = {entry.key: entry.value for entry in onnx.load(file, load_external_data=False).metadata_props}
    return {key: ast.literal_eval(value) if key in TYPED else value for key, value in entries.items()}


def _model_info(metadata: dict[str, Any]) -> dict[str, Any]:
    return {
        "model_type": "YOLO",
        "reverse_input_channels": True,
        "pad_value": PAD_VALUE,
        "scale_values": [SCALE_VALUE],
        "iou_threshold": IOU,
        "labels": [name.replace(" ", "_") for name in metadata["names"].values()],
        "resize_type": "fit_to_window_letterbox",
    }
