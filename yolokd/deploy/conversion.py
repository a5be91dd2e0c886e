"""Ultralytics' export with its errors told apart, and the result opened in its own runtime."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from yolokd.backend import parts, runtimes
from yolokd.backend.openvino_conversion import onnx_to_openvino
from yolokd.deploy.writing import hushed
from yolokd.errors import RunError, UserError

if TYPE_CHECKING:
    from torch import Tensor


def choose_head(yolo: Any, source: Path, nms_free: bool) -> None:
    """Choose the branch of a dual head that is exported; `UserError` if there is no NMS-free one."""
    yolo.model.end2end = nms_free
    if nms_free and not yolo.model.end2end:
        raise UserError(f"'{source}' has no NMS-free head (YOLO26 and YOLOv10 have one); leave out --nms-free.")


def convert(
    yolo: Any,
    source: Path,
    format: str,
    options: Mapping[str, Any],
    *,
    partition: parts.Partition,
    kept: Sequence[str] = (),
    own_ranges: bool = False,
) -> Path:
    """Export where `yolo` was loaded from and return the path of the result.

    Args:
        yolo: From `yolokd.backend.opening.open_checkpoint`.
        source: The user's checkpoint, for messages.
        format: From `yolokd.backend.formats.known_format`.
        options: Of `YOLO.export`.
        partition: Of the checkpoint; empty where nothing is kept.
        kept: Parts that stay in full precision.
        own_ranges: The network was trained in 8 bits. Ultralytics writes its ranges to ONNX, OpenVINO reads them there.

    Raises:
        UserError: A package is missing.
        RunError: Whatever else went wrong.
    """
    via_onnx = own_ranges and format == "openvino"
    try:
        with hushed(), parts.kept_in_float(format, partition, kept):
            written = Path(yolo.export(format="onnx" if via_onnx else format, **options))
            return onnx_to_openvino(written) if via_onnx else written
    except RunError:
        raise
    except ImportError as error:
        raise UserError(f"Export to {format} needs the package '{error.name}': pip install {error.name}") from error
    except Exception as error:  # converters of two dozen formats, each with errors of its own
        who = "OpenVINO could not convert" if via_onnx else "Ultralytics could not export"
        raise RunError(f"{who} '{source}' to {format}: {error}") from error


def open_run(path: Path, format: str, image: Tensor) -> tuple[runtimes.Run | None, str]:
    """Return the export as a function and nothing to say; or None and why it cannot be run here.

    Args:
        path: The exported file or folder.
        format: Its format.
        image: On which it is tried, (1, C, H, W) in [0, 1].

    Raises:
        RunError: It cannot be run, although its runtime is one that yolokd brings along.
    """
    try:
        run = runtimes.open_run(path, format)
        run(image)
    except Exception as error:  # whatever a runtime objects to in the file
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        if format in runtimes.PLAIN:
            raise RunError(f"'{path}' was written but cannot be run: {reason}") from error
        return None, f"not checked, as {format} cannot be run here: {reason}"
    return run, ""
