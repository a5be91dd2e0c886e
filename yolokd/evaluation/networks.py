"""What can be scored: a checkpoint, or a file or folder that Ultralytics exported from one.

An export tells its class names itself, and nearly always has one input shape, which no `imgsz` changes. How many
parameters it holds it does not tell.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from yolokd.errors import UserError, WeightsError
from yolokd.evaluation.checkpoints import DEFAULT_IMGSZ, image_size, open_checkpoint, quiet


@dataclass(frozen=True)
class Opened:
    """A network that is ready for validation."""

    yolo: Any  # ultralytics.YOLO
    imgsz: int  # longer side of the input, pixels
    parameters: int  # 0: not known
    gflops: float  # 0: not known
    notes: tuple[str, ...] = ()


def find(spec: str | Path) -> Path:
    """Return the path of an export as it is; of anything else as `yolokd.engine.weights.find`, errors included."""
    from yolokd.engine import weights

    path = Path(spec).expanduser()
    return path if is_export(path) else weights.find(spec)


def is_export(path: Path) -> bool:
    """Whether there is something at `path` that is named as Ultralytics names its exports."""
    from ultralytics.engine.exporter import export_formats

    suffixes = tuple(suffix for suffix in export_formats()["Suffix"] if suffix != ".pt")
    return path.exists() and path.name.lower().endswith(suffixes)


def class_names(path: Path) -> dict[int, str]:
    """Return the classes of a network by their index.

    Raises:
        UserError: The runtime of an export is not installed.
        WeightsError: Not a detector, or an export that its runtime cannot load.
    """
    if is_export(path):
        return dict(load_export(path).names)
    from yolokd.engine import weights

    return dict(weights.load_detector(path).names)


def open_network(path: Path, folder: Path, asked: int | None) -> Opened:
    """Return a checkpoint or an export as `ultralytics.YOLO`, with its size.

    Args:
        path: From `find`.
        folder: Where the student of an unfinished run may be written.
        asked: Longer side of the input in pixels; None is the size that the network was trained or exported at.

    Raises:
        UserError: The runtime of an export is not installed.
        WeightsError: Not a detector, or an export that its runtime cannot load.
    """
    if is_export(path):
        return _open_export(path, asked)
    yolo = open_checkpoint(path, folder)
    size, notes = image_size(yolo, asked)
    _, parameters, _, gflops = yolo.info(imgsz=size)
    return Opened(yolo, size, parameters, gflops, notes)


def load_export(path: Path, device: str = "cpu") -> Any:
    """Return an export in its runtime, as `ultralytics.nn.autobackend.AutoBackend`; errors as `class_names`."""
    import torch
    from ultralytics.nn.autobackend import AutoBackend

    try:
        with quiet():
            return AutoBackend(str(path), device=torch.device(device), verbose=False)
    except ImportError as error:
        raise UserError(
            f"'{path}' needs the package '{error.name}', which is not installed: pip install {error.name} "
            f"(for ONNX and OpenVINO: pip install 'yolokd[export]')."
        ) from error
    except Exception as error:  # whatever a runtime objects to in a file
        raise WeightsError(f"'{path}' cannot be loaded: {str(error).strip() or type(error).__name__}") from error


def _open_export(path: Path, asked: int | None) -> Opened:
    from ultralytics import YOLO

    backend = load_export(path)
    if backend.task not in {None, "detect"}:
        raise WeightsError(f"'{path}' is not a YOLO detector (task {backend.task}).")
    own = max(getattr(backend, "imgsz", None) or (DEFAULT_IMGSZ,))
    size = asked or own if backend.dynamic else own
    notes = () if asked in (None, size) else (f"its input has {size} px, so imgsz {asked} does not apply",)
    with quiet():
        return Opened(YOLO(str(path), task="detect"), size, 0, 0.0, notes)
