"""One row of a YOLO label file, accepted or refused as `verify_image_label` of Ultralytics does.

A row is `class x y width height`, all but the class as shares of the image, or a polygon, `class x y x y …`. A file
with a row of more than six columns holds polygons, and then only those. Where the data YAML says that rows have
keypoints (`kpt_shape`), a row of a box and exactly these keypoints is the row of its box.
"""

# ruff: noqa: PTH123  (a hundred thousand files in seconds)
from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from yolokd.inputs import refuse_special

TOLERANCE = 0.01  # of coordinates beyond 0 and 1

Box = tuple[float, ...]  # x, y of the middle, width, height, as shares of the image
Keypoints = tuple[int, int]  # `kpt_shape` of a data YAML: how many, and how many columns each
NO_KEYPOINTS: Keypoints = (0, 0)


class BadRowError(Exception):
    """A row that Ultralytics refuses: what is wrong, and the value found."""


Row = tuple[int, list[str]]  # number of the line, from 1, and columns


def read_rows(file: str | Path, keypoints: Keypoints = NO_KEYPOINTS) -> tuple[list[Row], bool]:
    """Return the rows of a label file; see `split_rows`.

    Raises:
        FileNotFoundError: There is no such file.
        OSError: It cannot be read.
        ValueError: It is not text in UTF-8.
    """
    try:
        refuse_special(file)
    except NotADirectoryError as error:
        raise FileNotFoundError(error.errno, error.strerror, str(file)) from error
    with open(file, encoding="utf-8-sig") as stream:
        return split_rows(stream.read(), keypoints)


def split_rows(text: str, keypoints: Keypoints = NO_KEYPOINTS) -> tuple[list[Row], bool]:
    """Return the rows of a label file as line number (from 1) and columns, keypoints dropped; and if they are polygons.

    Args:
        text: The file's contents.
        keypoints: `kpt_shape` of the data YAML.

    Example:
        >>> split_rows("0 .5 .5 .2 .2 .4 .4 .6 .6", keypoints=(2, 2))
        ([(1, ['0', '.5', '.5', '.2', '.2'])], False)
    """
    rows = [(number, columns) for number, line in enumerate(text.splitlines(), 1) if (columns := line.split())]
    rows = [(number, drop_keypoints(columns, keypoints)) for number, columns in rows]
    return rows, any(len(columns) > 6 for _, columns in rows)


def drop_keypoints(columns: list[str], keypoints: Keypoints) -> list[str]:
    """Return the columns of a row's box where exactly these keypoints follow it, else the columns as they are.

    Example:
        >>> drop_keypoints("0 .5 .5 .2 .2 .4 .4 .6 .6".split(), (2, 2))
        ['0', '.5', '.5', '.2', '.2']
    """
    return columns[:5] if keypoints[0] and len(columns) == 5 + keypoints[0] * keypoints[1] else columns


def lacks_keypoints(columns: Sequence[str], keypoints: Keypoints) -> str:
    """Return why Ultralytics would not take a row as a box and its keypoints; "" if it would.

    Args:
        columns: The whole row, whose box is right.
        keypoints: `kpt_shape` of the data YAML.

    Example:
        >>> lacks_keypoints("0 .5 .5 .2 .2 .4 .4 .6 1.6".split(), (2, 2))
        'keypoints must be shares of the image, 0 to 1, got 1.6'
    """
    count, width = keypoints
    if len(columns) != 5 + count * width:
        return f"a box and its {count} keypoints have {5 + count * width} columns, got {len(columns)}"
    try:
        values = [float(column) for column in columns[5:]]
    except ValueError:
        return "a keypoint is not a number"
    for place, value in enumerate(values):
        highest = 1 + TOLERANCE if place % width < 2 else float("inf")
        if not -TOLERANCE <= value <= highest:  # so that NaN fails
            what = "keypoints must be shares of the image, 0 to 1" if highest < 2 else "visibility must be 0, 1 or 2"
            return f"{what}, got {value:g}"
    return ""


def parse_row(columns: Sequence[str], polygons: bool) -> tuple[tuple[float, ...], Box]:
    """Return a row's numbers and its box: middle, width, height."""
    try:
        values = tuple(map(float, columns))
    except ValueError:
        bad = next(column for column in columns if not _is_number(column))
        raise BadRowError("not a number", repr(bad)) from None
    if not polygons:
        if len(values) != 5:
            raise BadRowError("a row has 5 columns (class x y width height)", f"{len(values)}: {' '.join(columns)}")
        return values, values[1:]
    if len(values) == 5:
        raise BadRowError("a box in a file that also holds polygons", " ".join(columns))
    if len(values) < 7 or len(values) % 2 == 0:
        raise BadRowError("a polygon has a class and at least 3 pairs of coordinates", f"{len(values)} columns")
    xs, ys = values[1::2], values[2::2]
    if any(value != value for value in values):  # min and max would hide it
        raise BadRowError("not a number", "nan")
    left, right, top, bottom = min(xs), max(xs), min(ys), max(ys)
    return values, ((left + right) / 2, (top + bottom) / 2, right - left, bottom - top)


def refuse_row(label: float, box: Box, classes: int) -> None:
    """Raise if the class or the box of a row is impossible. Written so that NaN fails every test."""
    if not (0 <= label < classes and label == int(label)):
        raise BadRowError(f"the class must be a whole number from 0 to {classes - 1}", f"{label:g}")
    for name, value, low in zip(("x", "y", "width", "height"), box, (-TOLERANCE, -TOLERANCE, 0, 0), strict=True):
        if not low <= value <= 1 + TOLERANCE:
            raise BadRowError(f"{name} must be a share of the image, 0 to 1", f"{value:g}")


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
