"""What can be scored: a checkpoint, or a file or folder that Ultralytics exported from one.

An export tells its class names itself, and nearly always has one input shape, which no `imgsz` changes. How many
parameters it holds it does not tell.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from yolokd.backend.opening import image_size, open_checkpoint, quiet
from yolokd.errors import UserError, WeightsError
from yolokd.recipe.arguments import default
from yolokd.recipe.classes import ITEM, find_name

MAX_DETECTIONS = 300  # of an image, as a checkpoint is scored
DEFAULT_CONF = 0.25  # of the NMS that Ultralytics builds into an export


@dataclass(frozen=True)
class Identity:
    """What a network tells apart."""

    names: dict[int, str]  # class index → name
    channels: int = 3  # of the images that it takes
    single_cls: bool | None = None  # train.single_cls; None: not recorded, as in an export
    classes: tuple[int, ...] | None = None  # train.classes; None: all, or not recorded
    task: str = "detect"
    keypoints: int = 0  # of each object; 0: it gives none

    def is_joined(self, data: Mapping[int, str]) -> bool:
        """Whether its one class stands for all classes of the data; of an export, whether the name says so."""
        if len(self.names) != 1 or self.names.get(0) != ITEM:
            return False
        return self.single_cls or (self.single_cls is None and find_name(ITEM, data.values()) is None)


@dataclass(frozen=True)
class Export:
    """How an export was made."""

    shape: tuple[int, int]  # height and width of its input, pixels
    metadata: Mapping[str, Any]  # what Ultralytics wrote into it
    rows: int | None  # detections that it gives of each image; None if its output needs NMS


@dataclass(frozen=True)
class Opened:
    """A network that is ready for validation."""

    yolo: Any  # ultralytics.YOLO
    imgsz: int  # longer side of the input, pixels
    parameters: int  # 0: not known
    gflops: float  # 0: not known
    notes: tuple[str, ...] = ()
    export: Export | None = None  # None: a checkpoint


def find(spec: str | Path) -> Path:
    """Return the path of an export as it is; of anything else as `yolokd.backend.checkpoints.find`, errors included."""
    from yolokd.backend import checkpoints as weights

    path = Path(spec).expanduser()
    return path if is_export(path) else weights.find(spec)


def is_export(path: Path) -> bool:
    """Whether there is something at `path` that is named as Ultralytics names its exports."""
    from ultralytics.engine.exporter import export_formats

    suffixes = tuple(suffix for suffix in export_formats()["Suffix"] if suffix != ".pt")
    return path.exists() and path.name.lower().endswith(suffixes)


def identify(path: Path, tasks: Collection[str] = ("detect",)) -> Identity:
    """Return what a network tells apart, and the images that it takes.

    Args:
        path: From `find`.
        tasks: Names of `yolokd.backend.tasks.TASKS`, whose checkpoints and exports are taken.

    Raises:
        UserError: The runtime of an export is not installed.
        WeightsError: Not a detector, or an export that its runtime cannot load.
    """
    if is_export(path):
        backend = load_export(path)
        shape = dict(backend.metadata).get("kpt_shape") or (0,)
        task = _task(backend, path, tasks)
        return Identity(dict(backend.names), int(backend.channels), task=task, keypoints=int(shape[0]))
    from yolokd.backend import checkpoints as weights

    return identity_of(weights.load_detector(path, tasks))


def identity_of(model: Any) -> Identity:
    """Return what a checkpoint's model tells apart, from `yolokd.backend.checkpoints.load_detector`."""
    from yolokd.backend.tasks import keypoints_of_head, task_of_head

    args: Mapping[str, Any] = model.args if isinstance(model.args, Mapping) else vars(model.args)
    classes = args.get("classes")
    layout = keypoints_of_head(model.model[-1])
    return Identity(
        names=dict(model.names),
        channels=int(model.yaml.get("channels", 3)),
        single_cls=bool(args.get("single_cls")),
        classes=None if classes is None else tuple(sorted([classes] if isinstance(classes, int) else classes)),
        task=task_of_head(model.model[-1]),
        keypoints=0 if layout is None else layout.count,
    )


def open_network(path: Path, folder: Path, asked: int | None, tasks: Collection[str] = ("detect",)) -> Opened:
    """Return a checkpoint or an export as `ultralytics.YOLO`, with its size.

    Args:
        path: From `find`.
        folder: Where the student of an unfinished run may be written.
        asked: Longer side of the input in pixels; None is the size that the network was trained or exported at.
        tasks: As for `identify`.

    Raises:
        UserError: The runtime of an export is not installed.
        WeightsError: Not a detector, or an export that its runtime cannot load.
    """
    if is_export(path):
        return _open_export(path, asked, tasks)
    yolo = open_checkpoint(path, folder, tasks)
    size, notes = image_size(yolo, asked)
    _, parameters, _, gflops = yolo.info(imgsz=size)
    return Opened(yolo, size, parameters, gflops, notes)


def load_export(path: Path, device: str = "cpu") -> Any:
    """Return an export in its runtime, as `ultralytics.nn.autobackend.AutoBackend`; errors as `identify`."""
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


def _task(backend: Any, path: Path, tasks: Collection[str]) -> str:
    """The task of an export's model, "detect" where another tool has not recorded any; it is one of `tasks`."""
    task = str(backend.task or "detect")
    if task not in tasks:
        wanted = f"one of the tasks {', '.join(tasks)}" if len(tasks) > 1 else "a YOLO detector"
        raise WeightsError(f"'{path}' is not {wanted} (task {task}).")
    return task


def _open_export(path: Path, asked: int | None, tasks: Collection[str]) -> Opened:
    from ultralytics import YOLO

    backend = load_export(path)
    task = _task(backend, path, tasks)
    exported = _shape(backend)
    size = asked or max(exported) if backend.dynamic else max(exported)
    shape = (size, size) if backend.dynamic else exported
    notes = () if asked in (None, size) else (f"its input has {size} px, so imgsz {asked} does not apply",)
    export = Export(shape, dict(backend.metadata), _rows(backend, shape))
    with quiet():
        return Opened(YOLO(str(path), task=task), size, 0, 0.0, notes, export)


def _shape(backend: Any) -> tuple[int, int]:
    """Height and width that an export was made for."""
    size = getattr(backend, "imgsz", None) or default("imgsz")
    height, width = (size[0], size[-1]) if isinstance(size, (list, tuple)) else (size, size)
    return int(height), int(width)


def shape_note(shape: tuple[int, int], checkpoints: Collection[int]) -> str | None:
    """Return what to tell of an export whose input has another shape than a checkpoint's beside it; or None.

    Args:
        shape: Height and width of the export's input in pixels.
        checkpoints: Sides of the squares that checkpoints were scored at; may be empty.
    """
    height, width = shape
    others = [f"{side}×{side}" for side in sorted(set(checkpoints)) if (side, side) != shape]
    if others:
        return f"its input is {height}×{width}, the checkpoint was scored at {' and '.join(others)}"
    if height != width:
        return f"its input is {height}×{width} (height × width), not a square"
    return None


def _rows(backend: Any, shape: tuple[int, int]) -> int | None:
    """Number of final detections that an export gives of each image; None if its output needs NMS."""
    import torch

    from yolokd.backend.tasks import TASKS

    if not backend.end2end:  # also told of an export with its own NMS
        return None
    try:
        with torch.inference_mode(), quiet():
            output = backend(torch.zeros(backend.batch, backend.channels, *shape, device=backend.device))
    except Exception:  # whatever a runtime objects to; the validation says it
        return None
    output, *further = output if isinstance(output, (list, tuple)) else (output,)
    width = 6 + sum(one.shape[1] for one in further if one.ndim == 4)  # behind each box a vector for prototypes
    width += math.prod(dict(backend.metadata).get("kpt_shape") or (0,))  # or keypoints
    width += TASKS[backend.task or "detect"].rotated  # or an angle
    return int(output.shape[-2]) if output.ndim == 3 and output.shape[-1] == width else None


def export_notes(export: Export, lowest: float | None) -> tuple[str, ...]:
    """Return in what an export differs from its checkpoint by the way it was made, so far as that touches its score.

    Args:
        export: From `open_network`. Its metadata are empty if another tool made it; `args` holds the arguments of the
            export, of which Ultralytics records a part only.
        lowest: The lowest score that it gave; None if it found nothing.
    """
    metadata = export.metadata
    args = metadata.get("args") or {}
    notes = []
    if args.get("nms"):
        notes.append(_nms_note(args, lowest))
    elif metadata.get("end2end"):
        notes.append("its head needs no NMS (one-to-one), where a checkpoint is scored by its one-to-many branch")
    anchors = sum((export.shape[0] // stride) * (export.shape[1] // stride) for stride in (8, 16, 32))
    if export.rows is not None and export.rows < min(anchors, MAX_DETECTIONS):
        notes.append(f"gives at most {export.rows} detections of an image, a checkpoint {MAX_DETECTIONS}")
    if precision := _precision(args):
        notes.append(f"was exported in {precision}")
    batch = int(metadata.get("batch") or 1)
    if batch > 1 and not metadata.get("dynamic"):
        notes.append(f"its batch is fixed at {batch}, so its latency is that of {batch} images")
    return tuple(notes)


def _nms_note(args: Mapping[str, Any], lowest: float | None) -> str:
    conf = args.get("conf")
    least = DEFAULT_CONF if conf is None else float(conf)
    if lowest is not None and lowest < least:  # another threshold than the default, which few formats record
        return f"contains its own NMS, which gives a box one class; the lowest score that it gave is {lowest:.3g}"
    unsure = "" if conf is not None else " (the default; the file does not record another)"
    return f"contains its own NMS, which drops scores below {least:g}{unsure} and gives a box one class"


def _precision(args: Mapping[str, Any]) -> str:
    """The precision of an export; "" if it is full or not recorded."""
    known = {8: "int8", "8": "int8", 16: "float16", "16": "float16", "fp16": "float16", 32: "", "32": "", "fp32": ""}
    quantize = args.get("quantize")
    if quantize is not None:
        return known.get(quantize, str(quantize))
    return "int8" if args.get("int8") else "float16" if args.get("half") else ""  # as older versions record it
