"""Images for an export: those it is compared on, and those that 8-bit ranges are measured on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor

from yolokd.data import layout, publish
from yolokd.errors import DataError
from yolokd.evaluation.ground_truth import list_images
from yolokd.images.reader import SUFFIXES, check_images, left_out, read_image

MAX_COMPARED = 16
MAX_CALIBRATION = 300  # as nncf's own default; more takes longer and changes little
GRAY = 114  # Ultralytics' padding


def is_data_set(check: str | Path) -> bool:
    """Whether `check` names a data set rather than an image or a folder of images."""
    path = Path(check).expanduser()
    if path.is_dir():
        try:
            return any(p.suffix in {".yaml", ".yml"} for p in path.iterdir())
        except OSError as error:
            raise DataError(f"The folder '{check}' cannot be listed: {error.strerror or error}.") from error
    return not (path.is_file() and path.suffix.lower()[1:] in SUFFIXES)


def to_compare(check: str | Path | None) -> list[Path]:
    """Return at most 16 images, spread evenly.

    Args:
        check: A data set (its validation images), a folder or an image; None is the two images that
            Ultralytics ships.

    Raises:
        DataError: There are none, or no such data set.
    """
    if check is None:
        from yolokd.backend.api import ASSETS

        return list_images([Path(ASSETS)])
    path = Path(check).expanduser()
    if is_data_set(check):
        from yolokd.backend import dataset

        return spread(list_images(dataset.resolve(str(check)).splits.get("val", [])), MAX_COMPARED)
    return [path] if path.is_file() else spread(list_images([path]), MAX_COMPARED)


def left_out_of(check: str | Path | None) -> str:
    """Return a sentence on the images of a folder that `to_compare` leaves out; "" if there are none."""
    if check is None or is_data_set(check) or not Path(check).expanduser().is_dir():
        return ""
    return left_out(check_images(layout.images_of(Path(check).expanduser())))


def write_calibration(data: str | Path, folder: Path) -> Path:
    """Write a data YAML of at most 300 training images, spread evenly; return its path.

    Ranges are measured on training images, so that what is scored afterwards was not seen. The images are links, by
    number: Ultralytics takes them from there whatever their names, and writes its cache there.

    Raises:
        DataError: No such data set, or it has no training images.
    """
    from yolokd.backend import dataset
    from yolokd.evaluation.models import write_data

    found = dataset.resolve(str(data))
    chosen = spread(list_images(found.splits.get("train", [])), MAX_CALIBRATION)
    (folder / "images").mkdir(parents=True)
    try:
        for number, path in enumerate(chosen):
            publish.place(path, folder / "images" / f"{number:06}{path.suffix}")
    except OSError as error:
        raise DataError(f"The image '{error.filename}' cannot be used: {error.strerror or error}.") from error
    return write_data(folder, found.names, found.yaml_path)


def spread(images: Sequence[Path], most: int) -> list[Path]:
    """Every n-th of at least one image, n as small as `most` allows."""
    return list(images[:: -(-len(images) // most)])


def letterbox(path: Path, size: int, channels: int = 3) -> Tensor:
    """Read an image into (1, channels, size, size), bytes, RGB if 3 channels, scaled to fit and padded with gray."""
    image = read_image(path, channels)
    height, width = image.shape[:2]
    scale = size / max(height, width)
    new_width, new_height = max(1, round(width * scale)), max(1, round(height * scale))
    canvas = np.full((size, size, channels), GRAY, dtype=np.uint8)
    top, left = (size - new_height) // 2, (size - new_width) // 2
    scaled = cv2.resize(image, (new_width, new_height)).reshape(new_height, new_width, channels)  # of one: (H, W)
    canvas[top : top + new_height, left : left + new_width] = scaled
    if channels == 3:
        canvas = canvas[..., ::-1]
    return torch.from_numpy(canvas.copy()).permute(2, 0, 1)[None]
