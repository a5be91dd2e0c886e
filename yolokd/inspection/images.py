"""Single images with their labels, brought to the input size as training brings them, but not augmented."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor

from yolokd.augment.ikd import Image
from yolokd.backend.api import LetterBox
from yolokd.data.check import JOINED_CLASSES, LONGEST
from yolokd.data.labels import NO_KEYPOINTS, BadRowError, Box, Keypoints, parse_row, read_rows, refuse_row
from yolokd.data.layout import images_of, label_path
from yolokd.errors import DataError, UserError, printable
from yolokd.images.reader import read_image

LIMIT = 16  # images that are taken from a folder
SHOWN = 960  # pixels of the longer side that an image is drawn with


@dataclass(frozen=True)
class LabeledImage:
    """One image as the models see it, and as it is drawn."""

    path: Path
    shown: Image  # RGB, (h, w, 3)
    square: Tensor  # (1, 3, S, S) in [0, 1], padded with gray
    area: tuple[int, int, int, int]  # x, y, x, y of the image within the square, in pixels
    labels: Tensor | None  # (N, 5): class, and x, y, width, height as shares of the square; None without a label file

    def batch(self, device: torch.device) -> dict[str, Any]:
        """Return the image as a batch of one, as the trainer hands batches to the model."""
        labels = torch.zeros(0, 5) if self.labels is None else self.labels
        return {
            "img": self.square.to(device),
            "batch_idx": torch.zeros(len(labels), device=device),
            "cls": labels[:, :1].to(device),
            "bboxes": labels[:, 1:].to(device),
            "im_file": [str(self.path)],
        }


def find_images(sources: Sequence[str | Path]) -> tuple[list[Path], list[str]]:
    """Return the images that are meant, and what to tell; of a folder its first `LIMIT` images.

    Raises:
        UserError: Nothing is there, or a folder holds no images.
    """
    found: list[Path] = []
    notes = []
    for source in sources:
        path = Path(source).expanduser()
        if not path.is_dir():
            if not path.is_file():
                raise UserError(f"There is no image or folder '{source}'.")
            found.append(path)
            continue
        try:
            inside = [Path(image) for image in images_of(path)]
        except OSError as error:
            place = printable(error.filename or path)
            raise UserError(f"The images in '{place}' cannot be listed: {error.strerror or error}.") from error
        if not inside:
            raise UserError(f"There are no images in the folder '{source}'.")
        if len(inside) > LIMIT:
            notes.append(f"'{source}' holds {len(inside)} images: the first {LIMIT} are taken, name others singly")
        found += inside[:LIMIT]
    return found, notes


def read_labeled_image(
    path: Path, imgsz: int, classes: int, keypoints: Keypoints = NO_KEYPOINTS, *, joined: bool = False
) -> LabeledImage:
    """Read an image and the labels that lie where Ultralytics looks for them.

    Args:
        path: The image.
        imgsz: Side of the square input in pixels.
        classes: Number of classes that labels may name.
        keypoints: `kpt_shape` of the data YAML.
        joined: All classes of the labels are the student's one (`train.single_cls`).

    Raises:
        DataError: It is no image that Ultralytics can read, or its label file holds an impossible row.
    """
    image = read_image(path)
    letterbox = LetterBox(imgsz)
    place = letterbox.get_params({"img": image})
    left, top, (width, height) = place["left"], place["top"], place["new_unpad"]
    square: Image = letterbox.apply_image({"img": image}, place)["img"][..., ::-1]
    known = JOINED_CLASSES if joined else classes
    rows = read_labels(Path(label_path(str(path.absolute()))), known, keypoints)
    if rows is not None and joined:
        rows = [(0, box) for _, box in rows]
    scale, offset = np.array([width, height] * 2) / imgsz, np.array([left, top, 0, 0]) / imgsz
    labels = None if rows is None else [[label, *(np.array(box) * scale + offset)] for label, box in rows]
    return LabeledImage(
        path=path,
        shown=shrink(image[..., ::-1], SHOWN),
        square=torch.from_numpy(np.ascontiguousarray(square)).permute(2, 0, 1)[None] / 255,
        area=(left, top, left + width, top + height),
        labels=None if labels is None else torch.tensor(labels, dtype=torch.float32).view(-1, 5),
    )


def read_labels(file: Path, classes: int, keypoints: Keypoints = NO_KEYPOINTS) -> list[tuple[int, Box]] | None:
    """Return class and box of each row of a label file; None if there is no such file.

    Raises:
        DataError: The file is not text, or Ultralytics would refuse a row of it.
    """
    try:
        rows, polygons = read_rows(file, keypoints)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise DataError(f"The labels '{printable(file)}' cannot be read as text: {error}") from error
    found = []
    for number, columns in rows:
        try:
            values, box = parse_row(columns, polygons)
            refuse_row(values[0], box, classes)
        except BadRowError as bad:
            raise DataError(f"{printable(file)}:{number}: {bad.args[0]}, got {bad.args[1][:LONGEST]}.") from bad
        found.append((int(values[0]), box))
    return list(dict.fromkeys(found))  # Ultralytics uses a repeated row once


def shrink(image: Image, longest: int) -> Image:
    """Return the image with its longer side at most so many pixels long."""
    height, width = image.shape[:2]
    ratio = longest / max(height, width)
    if ratio >= 1:
        return np.ascontiguousarray(image)
    size = max(round(width * ratio), 1), max(round(height * ratio), 1)
    small: Image = cv2.resize(np.ascontiguousarray(image), size, interpolation=cv2.INTER_AREA)
    return small
