"""Opening checkpoints the same way for evaluation, export and prediction, with Ultralytics kept quiet."""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from yolokd.recipe.arguments import default

MIN_STRIDE = 32


@contextmanager
def quiet() -> Iterator[None]:
    """Silence Ultralytics' logger and progress bars, which write to stdout, and the warnings of what it calls.

    Errors still arrive as exceptions.
    """
    logger = logging.getLogger("ultralytics")
    before = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(before)


@contextmanager
def without_lines(text: str) -> Iterator[None]:
    """Hold back the lines of Ultralytics' logger that contain a text."""

    def keep(record: logging.LogRecord) -> bool:
        return text not in str(record.msg)

    logger = logging.getLogger("ultralytics")
    logger.addFilter(keep)
    try:
        yield
    finally:
        logger.removeFilter(keep)


def open_checkpoint(path: Path, folder: Path, tasks: Collection[str] | None = None) -> Any:
    """Return `ultralytics.YOLO` on a detector's checkpoint; of a run that is still going on, its student.

    Args:
        path: A local file, from `yolokd.backend.checkpoints.find`.
        folder: Where the student of an unfinished run may be written.
        tasks: Names of `yolokd.backend.tasks.TASKS`, whose models are taken; None takes detect models only.

    Raises:
        WeightsError: Not a YOLO detector, unreadable, or unsafe to load.
    """
    from yolokd.backend import checkpoints as weights  # before ultralytics: it switches restricted loading on
    from yolokd.backend.quantization import silenced

    plain = weights.plain_copy(path, folder) if tasks is None else weights.plain_copy(path, folder, tasks)
    from ultralytics import YOLO

    with quiet(), silenced():
        return YOLO(str(plain))


def image_size(yolo: Any, asked: int | None) -> tuple[int, tuple[str, ...]]:
    """Return the side of the square input in pixels, a multiple of the model's largest stride, and what to tell.

    Args:
        yolo: From `open_checkpoint`.
        asked: What the user wants; None is the size that the checkpoint was trained at, else Ultralytics' default.
    """
    trained = yolo.overrides.get("imgsz") or default("imgsz")
    wanted = asked or (max(trained) if isinstance(trained, (list, tuple)) else int(trained))
    stride = max(int(yolo.model.stride.max()), MIN_STRIDE)
    size = math.ceil(wanted / stride) * stride
    return size, () if size == wanted else (f"imgsz {wanted} is no multiple of {stride}: {size} was used",)


def short_names(paths: Sequence[Path]) -> list[str]:
    """Return the shortest ends of the paths that tell them apart: `best.pt`, or `kd/weights/best.pt` where needed."""
    depth = 1
    distinct = len(set(paths))
    while True:
        names = ["/".join(path.parts[-depth:]) for path in paths]
        if len(set(names)) == distinct or depth >= max(len(path.parts) for path in paths):
            return names
        depth += 1
