"""The labels of a YOLO data set as a COCO ground truth, read by the rules that Ultralytics trains and validates by.

A row is `class x y width height`, centre and size as shares of the picture; or, in a file of polygons,
`class x1 y1 x2 y2 …`, of which the enclosing box counts. Equal rows count once, and a picture without a label file has
no objects. What is wrong with labels is said by `yolokd.data.check`; here they are taken to be right.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from yolokd.data import layout
from yolokd.errors import DataError

Rows = NDArray[np.float64]

EXIF_ORIENTATION = 274
PNG_EXIF = {"exif", "Raw profile type exif"}  # where Pillow keeps it
QUARTER_TURNS = {5, 6, 7, 8}  # orientations that swap width and height


def list_pictures(sources: Iterable[Path]) -> list[Path]:
    """Return the pictures behind folders and lists of pictures, sorted, absolute, each once.

    Raises:
        DataError: A source cannot be read, or there is no picture.
    """
    sources = list(sources)
    try:
        found = {path for source in sources for path in layout.pictures(source)}
    except (OSError, ValueError) as error:
        raise DataError(f"The pictures cannot be listed: {error}") from error
    if not found:
        raise DataError(f"There are no pictures in {', '.join(f'{str(s)!r}' for s in sources) or 'this split'}.")
    return [Path(p) for p in sorted(found)]


def coco_ground_truth(pictures: Sequence[Path], names: Mapping[int, str]) -> dict[str, list[dict[str, Any]]]:
    """Build a COCO ground truth from YOLO labels.

    Args:
        pictures: Absolute paths, from `list_pictures`.
        names: Class index → name. The labels must have passed `yolokd.data.check.check_labels` with them.

    Returns:
        `images` (id = place in `pictures`, from 0; file_name, width, height), `annotations` (ids from 1; bbox in
        pixels of the picture, area = width · height) and `categories` (id = class index).

    Raises:
        DataError: A picture that cannot be read.
    """
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for image_id, picture in enumerate(pictures):
        width, height = picture_size(picture)
        images.append({"id": image_id, "file_name": str(picture), "width": width, "height": height})
        for category, x, y, w, h in read_labels(label_path(picture)).tolist():
            box = [(x - w / 2) * width, (y - h / 2) * height, w * width, h * height]
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image_id,
                    "category_id": int(category),
                    "bbox": box,
                    "area": box[2] * box[3],
                    "iscrowd": 0,
                }
            )
    categories = [{"id": index, "name": name} for index, name in sorted(names.items())]
    return {"images": images, "annotations": annotations, "categories": categories}


def label_path(picture: Path) -> Path:
    """Return where the labels of a picture lie."""
    return Path(layout.label_path(str(picture)))


def picture_size(path: Path) -> tuple[int, int]:
    """Return width and height in pixels as the picture is shown, from its header.

    Raises:
        DataError: It is no picture.
    """
    try:
        with Image.open(path) as picture:
            width, height = picture.size
            # A PNG without EXIF data before its pixels would be decoded to the end in search of some.
            bare = picture.format == "PNG" and not PNG_EXIF & picture.info.keys()
            turned = not bare and picture.getexif().get(EXIF_ORIENTATION) in QUARTER_TURNS
    except (OSError, SyntaxError, ValueError, ImportError) as error:  # PIL's, and of Ultralytics' patch to PIL
        raise DataError(f"The file '{path}' cannot be read as a picture.") from error
    return (height, width) if turned else (width, height)


def read_labels(path: Path) -> Rows:
    """Return the rows (class, x, y, width, height) of a label file, shape (N, 5), shares of the picture; N may be 0."""
    text = path.read_text(encoding="utf-8-sig") if path.is_file() else ""
    lines = dict.fromkeys(tuple(map(float, line.split())) for line in text.splitlines() if line.strip())
    polygons = any(len(line) > 6 for line in lines)
    return np.array([_enclose(line) if polygons else line for line in lines]).reshape(-1, 5)


def _enclose(polygon: tuple[float, ...]) -> tuple[float, ...]:
    points = np.reshape(polygon[1:], (-1, 2))
    low, high = points.min(0), points.max(0)
    return (polygon[0], *((low + high) / 2), *(high - low))
