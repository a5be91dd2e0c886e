"""What can be exported, in which precision, and what must be installed for it."""

from __future__ import annotations

import importlib.util
from typing import Literal

from yolokd.backend.quantization import FORMATS
from yolokd.errors import UserError, nearest

Precision = Literal["float32", "float16", "int8"]

QUANTIZE: dict[Precision, int | None] = {"float32": None, "float16": 16, "int8": 8}  # Ultralytics' argument
_ONNX = ("onnx", "onnxruntime", "onnxslim")
PACKAGES = {"onnx": _ONNX, "openvino": ("openvino",), "engine": ("onnx", "onnxslim")}
INT8_PACKAGES = {"openvino": ("nncf",)}
RANGES_PACKAGES = {"openvino": _ONNX}  # for ranges of training, which come by way of an ONNX file


def known_format(format: str) -> str:
    """Return Ultralytics' name of an export format; `UserError` with the nearest ones if there is none such."""
    known = _known()
    if format.lower() in known:
        return format.lower()
    near = nearest(format, known)
    hint = f" Did you mean '{near}'?" if near else ""
    raise UserError(f"There is no export format '{format}'.{hint} Ultralytics knows: {', '.join(known)}.")


def check_precision(format: str, precision: Precision) -> None:
    """Raise `UserError` where Ultralytics cannot export a format in a precision, or this machine lacks the GPU for it.

    Args:
        format: From `known_format`.
        precision: What the weights and sums are held in.
    """
    import torch
    from ultralytics.engine.exporter import FP16_FORMATS, FP32_UNSUPPORTED_FORMATS, INT8_FORMATS

    able = {
        "float32": frozenset(_known()) - FP32_UNSUPPORTED_FORMATS,
        "float16": FP16_FORMATS,
        "int8": INT8_FORMATS,
    }
    own = [word for word, formats in able.items() if format in formats]
    if own and precision not in own:
        raise UserError(
            f"Ultralytics cannot export {format} in {precision}, only in {' or '.join(own)}. "
            f"In {precision} it can: {', '.join(sorted(able[precision]))}."
        )
    gpu_only = format == "engine" or (format == "torchscript" and precision == "float16")
    if gpu_only and not torch.cuda.is_available():
        what = "TensorRT engines are" if format == "engine" else "TorchScript in float16 is"
        raise UserError(f"{what} exported on an NVIDIA GPU, and torch finds none here. Export on the target machine.")


def precision_of_quantized(format: str, precision: Precision) -> Precision:
    """Return the precision in which a network that was trained in 8 bits is exported: int8, with its own ranges.

    Args:
        format: From `known_format`.
        precision: What was asked for; float32, which is the default, asks for nothing.

    Raises:
        UserError: float16, or a format that has no place for the ranges.
    """
    if precision == "float16":
        raise UserError("A network that was trained in 8 bits is exported in them: leave float16 (--half) out.")
    if format not in FORMATS:
        raise UserError(
            f"The ranges of a network that was trained in 8 bits are written to {', '.join(FORMATS)} only, not to "
            f"{format}: choose one of these, or export a checkpoint that was trained without train.quantize."
        )
    return "int8"


def require_packages(format: str, precision: Precision, *, own_ranges: bool = False) -> None:
    """Raise `UserError` where a package for the export or its check is missing; it names the extra that brings it.

    Args:
        format: From `known_format`.
        precision: What the weights and sums are held in.
        own_ranges: The network was trained in 8 bits, so that nothing is calibrated.
    """
    further = RANGES_PACKAGES if own_ranges else INT8_PACKAGES
    needed = (*PACKAGES.get(format, ()), *(further.get(format, ()) if precision == "int8" else ()))
    missing = [package for package in needed if importlib.util.find_spec(package) is None]
    if missing:
        what = f"{format} in int8" if precision == "int8" else format
        extra = "onnx" if set(missing) <= set(_ONNX) else "export"
        raise UserError(f"Export to {what} needs {', '.join(missing)}: pip install 'yolokd[{extra}]'")


def _known() -> list[str]:
    from ultralytics.engine.exporter import export_formats

    return [name for name in export_formats()["Argument"] if name != "-"]
