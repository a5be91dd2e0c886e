"""Exporting a checkpoint through Ultralytics, then running the result against it (see `yolokd.deploy.parity`)."""

from __future__ import annotations

import difflib
import importlib.util
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import torch

from yolokd.data.layout import PICTURES
from yolokd.deploy.parity import Parity, compare
from yolokd.errors import DataError, RunError, UserError
from yolokd.evaluation.checkpoints import image_size, open_checkpoint, quiet
from yolokd.evaluation.ground_truth import list_pictures

if TYPE_CHECKING:
    from torch import Tensor

CHECKED_FORMATS = ("onnx", "torchscript")
ONNX_PACKAGES = ("onnx", "onnxruntime", "onnxslim")
MAX_PICTURES = 16
GREY = 114  # Ultralytics' padding


@dataclass(frozen=True)
class ExportReport:
    """What was written and how it compares with its checkpoint."""

    source: str
    path: str
    format: str
    imgsz: int
    parity: Parity | None  # None: not checked
    full_precision: bool
    notes: tuple[str, ...] = ()

    @property
    def passed(self) -> bool | None:
        """Whether the exported network says what the checkpoint says; None where that was not checked.

        Final detections must agree. So must raw outputs, unless the export was asked to be coarser than single
        precision; without any detections, raw outputs decide in any case.
        """
        if self.parity is None:
            return None
        raw_counts = self.full_precision or self.parity.detections == 0
        return self.parity.detections_agree and (self.parity.raw_agrees or not raw_counts)


def export(
    weights: str | Path,
    *,
    format: str = "onnx",
    imgsz: int | None = None,
    check: str | Path | None = None,
    nms_free: bool = False,
    **options: Any,
) -> ExportReport:
    """Export a checkpoint beside itself and compare the result with it.

    Args:
        weights: A `.pt` path or an Ultralytics name; of a run that is still going on, its student.
        format: One of Ultralytics' formats. ONNX and TorchScript are checked, others are only written.
        imgsz: Side of the square input in pixels; None is the size that the checkpoint was trained at.
        check: Pictures to compare on: a data set (its validation pictures), a folder or a picture; at most 16 of them
            are used. None takes the two photographs that Ultralytics ships.
        nms_free: The output of a YOLO26 or YOLOv10 head that needs no NMS.
        **options: Passed on to `YOLO.export`, such as `quantize`, `dynamic`, `simplify`, `opset`.

    Returns:
        A report; `passed` is False where the two differ. Nothing is deleted then.

    Raises:
        UserError: Unknown format, a missing package, or a head without an NMS-free branch.
        WeightsError: A checkpoint that is missing or not a detector.
        DataError: `check` holds no pictures.
        RunError: Ultralytics' export failed, or its result cannot be run.
    """
    from yolokd.engine import weights as checkpoints

    source = checkpoints.find(weights)
    format = _known_format(format)
    _require_packages(format)
    pictures = _pictures(check) if format in CHECKED_FORMATS else []
    with tempfile.TemporaryDirectory(prefix="yolokd-") as folder, quiet():
        yolo = open_checkpoint(source, Path(folder))
        size, notes = image_size(yolo, imgsz)
        inputs = [_letterbox(picture, size) for picture in pictures]
        yolo.model.end2end = nms_free
        if nms_free and not yolo.model.end2end:
            raise UserError(f"'{source}' has no NMS-free head (YOLO26 and YOLOv10 have one); leave out --nms-free.")
        path = _run_export(yolo, source, format, {"imgsz": size, "nms": False if nms_free else None, **options})
        parity = None
        if format not in CHECKED_FORMATS:
            notes = (*notes, f"not checked: only {' and '.join(CHECKED_FORMATS)} can be run here")
        elif options.get("nms"):
            notes = (*notes, "not checked: the export contains its own NMS")
        else:
            parity = _compare(yolo, path, format, inputs)
            if not parity.detections:
                notes = (*notes, "no detections to compare, so raw outputs decide")
    full = options.get("quantize") in (None, 32)
    return ExportReport(str(source), str(path), format, size, parity, full, notes)


def _known_format(format: str) -> str:
    from ultralytics.engine.exporter import export_formats

    known = [name for name in export_formats()["Argument"] if name != "-"]
    if format.lower() in known:
        return format.lower()
    near = difflib.get_close_matches(format.lower(), known, n=1)
    hint = f" Did you mean '{near[0]}'?" if near else ""
    raise UserError(f"There is no export format '{format}'.{hint} Ultralytics knows: {', '.join(known)}.")


def _require_packages(format: str) -> None:
    missing = [p for p in ONNX_PACKAGES if format == "onnx" and importlib.util.find_spec(p) is None]
    if missing:
        raise UserError(f"Export to ONNX needs {', '.join(missing)}: pip install 'yolokd[onnx]'")


def _run_export(yolo: Any, source: Path, format: str, options: dict[str, Any]) -> Path:
    """Export and return the path of the result, beside the checkpoint also where that is a temporary copy."""
    try:
        written = Path(yolo.export(format=format, **options))
    except ImportError as error:
        raise UserError(f"Export to {format} needs the package '{error.name}': pip install {error.name}") from error
    except Exception as error:  # converters of two dozen formats, each with errors of its own
        raise RunError(f"Ultralytics could not export '{source}' to {format}: {error}") from error
    target = source.parent / written.name
    if written.resolve() != target.resolve():
        shutil.rmtree(target, ignore_errors=True)
        shutil.move(written, target)
    return target


def _compare(yolo: Any, path: Path, format: str, inputs: list[Tensor]) -> Parity:
    try:
        run = _onnx(path) if format == "onnx" else _torchscript(path)
        network = yolo.model.float().eval().cpu()
        with torch.inference_mode():
            return compare((_first(network(x / 255)), run(x / 255)) for x in inputs)
    except Exception as error:  # whatever a runtime objects to in the file
        raise RunError(f"'{path}' was written but cannot be run: {error}") from error


def _onnx(path: Path) -> Callable[[Tensor], Tensor]:
    import onnxruntime

    onnxruntime.set_default_logger_severity(3)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (entry,) = session.get_inputs()
    half = entry.type == "tensor(float16)"

    def run(x: Tensor) -> Tensor:
        (output, *_) = session.run(None, {entry.name: (x.half() if half else x).numpy()})
        return torch.from_numpy(output)[0].float()

    return run


def _torchscript(path: Path) -> Callable[[Tensor], Tensor]:
    network = torch.jit.load(str(path), map_location="cpu")  # type: ignore[no-untyped-call]
    return lambda x: _first(network(x))


def _first(output: Any) -> Tensor:
    """The decoded output of the first picture."""
    tensor: Tensor = output[0] if isinstance(output, (list, tuple)) else output
    return tensor[0].float()


def _pictures(check: str | Path | None) -> list[Path]:
    if check is None:
        from ultralytics.utils import ASSETS

        return list_pictures([Path(ASSETS)])
    path = Path(check).expanduser()
    if path.is_file() and path.suffix.lower()[1:] in PICTURES:
        return [path]
    if path.is_dir() and not any(p.suffix in {".yaml", ".yml"} for p in path.iterdir()):
        found = list_pictures([path])
    else:
        from yolokd.engine import dataset

        found = list_pictures(dataset.resolve(str(check)).splits.get("val", []))
    return found[:: -(-len(found) // MAX_PICTURES)]


def _letterbox(path: Path, size: int) -> Tensor:
    """Read a picture into (1, 3, size, size), RGB bytes, scaled to fit and padded with grey."""
    picture = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if picture is None:
        raise DataError(f"The file '{path}' cannot be read as a picture.")
    height, width = picture.shape[:2]
    scale = size / max(height, width)
    new_width, new_height = max(1, round(width * scale)), max(1, round(height * scale))
    canvas = np.full((size, size, 3), GREY, dtype=np.uint8)
    top, left = (size - new_height) // 2, (size - new_width) // 2
    canvas[top : top + new_height, left : left + new_width] = cv2.resize(picture, (new_width, new_height))
    return torch.from_numpy(canvas[..., ::-1].copy()).permute(2, 0, 1)[None]
