"""The labels of a YOLO data set as a COCO ground truth, read by the rules that Ultralytics trains and validates by.

What a row is, `yolokd.data.labels` says. Equal rows count once, and an image without a label file has no objects. What
is wrong with labels is said by `yolokd.data.check`; here they are taken to be right.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from yolokd.data import layout
from yolokd.data.labels import NO_KEYPOINTS, Box, Keypoints, parse_row, read_rows
from yolokd.errors import DataError, printable
from yolokd.evaluation.masks import of_polygon
from yolokd.files import sha256_of
from yolokd.images.reader import ImageCheck, check_images, shown_size

Rows = NDArray[np.float64]
SEGMENTATION, KEYPOINTS, CORNERS = "segmentation", "keypoints", "corners"  # of annotations, beside their boxes
Choose = Callable[[Sequence[Path]], Iterable[Path]]  # some of the images of a split


def list_images(sources: Iterable[Path]) -> list[Path]:
    """Return the images behind folders and lists, sorted, absolute, each once; without those that cannot be used.

    `yolokd.data.check.check_labels` names the latter.

    Raises:
        DataError: A source cannot be read, or there is no image that can be used.
    """
    sources = list(sources)
    where = ", ".join(f"'{source}'" for source in sources) or "this split"
    checks = _opened(sources)
    if not checks:
        raise DataError(f"There are no images in {where}.")
    usable = [Path(path) for path, check in checks.items() if check.usable]
    if not usable:
        path, check = next(iter(checks.items()))
        raise DataError(
            f"None of the {len(checks)} images in {where} can be used: {printable(path)} is {check.problem}."
        )
    return usable


def unusable(sources: Iterable[Path]) -> list[Path]:
    """Return the images that `list_images` leaves out, sorted, absolute.

    Raises:
        DataError: A source cannot be read.
    """
    return [Path(path) for path, check in _opened(sources).items() if not check.usable]


def _opened(sources: Iterable[Path]) -> dict[str, ImageCheck]:
    try:
        found = {path for source in sources for path in layout.images_of(source)}
    except (OSError, ValueError) as error:
        raise DataError(f"The images cannot be listed: {error}") from error
    return check_images(sorted(found))


def coco_ground_truth(
    paths: Sequence[Path],
    names: Mapping[int, str],
    keypoints: Keypoints = NO_KEYPOINTS,
    *,
    beside: Collection[str] = (),
) -> dict[str, list[dict[str, Any]]]:
    """Build a COCO ground truth from YOLO labels.

    Args:
        paths: Absolute paths, from `list_images`.
        names: Class index → name. The labels must have passed `yolokd.data.check.check_labels` with them.
        keypoints: `kpt_shape` of the data YAML.
        beside: Give each annotation these, with which every object must be labeled: `SEGMENTATION`, the run lengths of
            its polygon; `CORNERS` of its polygon, x, y, x, y, … in pixels; `KEYPOINTS`, and rows are equal then only if
            their keypoints are.

    Returns:
        `images` (id = place in `paths`, from 0; file_name, width, height), `annotations` (ids from 1; bbox in
        pixels of the image, area = width · height) and `categories` (id = class index).

    Raises:
        DataError: An image that cannot be read.
    """
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for image_id, path in enumerate(paths):
        width, height = shown_size(path)
        images.append({"id": image_id, "file_name": str(path), "width": width, "height": height})
        rows = _rows(label_path(path), keypoints, whole=KEYPOINTS in beside)
        for values, (x, y, w, h) in rows.items():
            box = [(x - w / 2) * width, (y - h / 2) * height, w * width, h * height]
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image_id,
                    "category_id": int(values[0]),
                    "bbox": box,
                    "area": box[2] * box[3],
                    "iscrowd": 0,
                    **{key: _beside(key, values, keypoints, width, height) for key in beside},
                }
            )
    categories = [{"id": index, "name": name} for index, name in sorted(names.items())]
    return {"images": images, "annotations": annotations, "categories": categories}


def _beside(key: str, values: Sequence[float], keypoints: Keypoints, width: int, height: int) -> Any:
    """What an annotation gets from a row of labels beside its box."""
    if key == SEGMENTATION:
        return of_polygon(values[1:], width=width, height=height)
    if key == KEYPOINTS:
        return coco_keypoints(values[5:], keypoints, width, height)
    return [value * (height if place % 2 else width) for place, value in enumerate(values[1:])]


def coco_keypoints(values: Sequence[float], keypoints: Keypoints, width: int, height: int) -> list[float]:
    """Return keypoints as COCO lists them: x and y in pixels and visibility, one after the other.

    Args:
        values: Of a row of labels, as shares of the image.
        keypoints: `kpt_shape` of the data YAML. Without a column of visibility all are visible that lie in the image's
            positive part, as Ultralytics reads them.
        width: Of the image, in pixels.
        height: Likewise.

    Example:
        >>> coco_keypoints([0.5, 0.25, -0.005, 0.5], (2, 2), width=8, height=4)
        [4.0, 1.0, 2.0, -0.04, 2.0, 0.0]
    """
    count, columns = keypoints
    found: list[float] = []
    for place in range(0, count * columns, columns):
        x, y, *visible = values[place : place + columns]
        found += [x * width, y * height, *(visible or [2.0 * (x >= 0 and y >= 0)])]
    return found


def only_images(truth: Mapping[str, list[dict[str, Any]]], choose: Choose) -> dict[str, list[dict[str, Any]]]:
    """Return the part of a ground truth that belongs to some of its images, with the ids that it had."""
    kept = set(map(str, choose([Path(image["file_name"]) for image in truth["images"]])))
    images = [image for image in truth["images"] if image["file_name"] in kept]
    ids = {image["id"] for image in images}
    boxes = [box for box in truth["annotations"] if box["image_id"] in ids]
    return {**truth, "images": images, "annotations": boxes}


def sample(paths: Iterable[Path], most: int) -> list[Path]:
    """Return at most so many of the images, sorted, chosen by a hash of their names: the same ones wherever they are.

    Example:
        >>> [path.name for path in sample([Path("a.jpg"), Path("b.jpg"), Path("c.jpg")], 2)]
        ['a.jpg', 'c.jpg']
    """
    return sorted(sorted(paths, key=lambda path: (sha256_of(path.name), str(path)))[:most])


def label_path(image: Path) -> Path:
    """Return where the labels of an image lie."""
    return Path(layout.label_path(str(image)))


def read_labels(path: Path, keypoints: Keypoints = NO_KEYPOINTS) -> Rows:
    """Return the rows (class, x, y, width, height) of a label file, shape (N, 5), shares of the image; N may be 0."""
    return np.array([(values[0], *box) for values, box in _rows(path, keypoints).items()]).reshape(-1, 5)


def _rows(path: Path, keypoints: Keypoints, *, whole: bool = False) -> dict[tuple[float, ...], Box]:
    """The numbers of each row of a label file and its box, equal rows once; `whole` with the keypoints behind it."""
    try:
        rows, polygons = read_rows(path, NO_KEYPOINTS if whole else keypoints)
    except FileNotFoundError:
        return {}
    if whole:
        numbers = (tuple(map(float, columns)) for _, columns in rows)
        return {values: values[1:5] for values in numbers}
    return dict(parse_row(columns, polygons) for _, columns in rows)
