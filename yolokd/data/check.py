"""Checking the labels of a YOLO data set before a training reads them.

Ultralytics drops a picture whose labels it dislikes and trains on with the rest; here that is an error, with file and
line. A row counts as wrong exactly if `verify_image_label` of Ultralytics would drop the picture for it.
"""

# Plain strings and `os` instead of pathlib: a hundred thousand files in seconds.
# ruff: noqa: PTH112, PTH113, PTH123, PTH208
from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from yolokd.data.description import load_yaml, refuse_script
from yolokd.data.labels import BadRowError, Box, parse_row, refuse_row
from yolokd.data.layout import PICTURES, fingerprint, label_path, pictures
from yolokd.errors import DataError

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["DataReport", "Problem", "Split", "check_labels", "fingerprint", "load_yaml", "refuse_script"]

MIN_PIXELS = 10  # a picture with a smaller side is left out by Ultralytics
SIZES = {
    "small": 32**2,
    "medium": 96**2,
    "large": float("inf"),
}  # COCO's classes of area, pixels, exclusive upper bounds
SHOWN = 5  # problems that an error lists


class Problem(NamedTuple):
    """Something wrong: the file, its line from 1 (0 for the file as a whole), what it is, the value found."""

    file: str
    line: int
    what: str
    value: str

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}" if self.line else self.file
        return f"{place}: {self.what}" + (f", got {self.value}" if self.value else "")


@dataclass
class Split:
    """What one split holds."""

    pictures: int = 0
    labelled: int = 0  # pictures with at least one object
    background: int = 0  # pictures without objects: no label file, or an empty one
    objects: Counter[int] = field(default_factory=Counter)  # by class
    sizes: Counter[str] = field(default_factory=Counter)  # objects by COCO's size classes; deep checks only


@dataclass(frozen=True)
class DataReport:
    """The outcome of a check: counts per split, what makes the set unusable, and what is merely worth knowing."""

    names: Mapping[int, str]
    splits: Mapping[str, Split]
    errors: Sequence[Problem]
    notes: Sequence[Problem]

    def raise_if_bad(self) -> None:
        """Raise if there are errors.

        Raises:
            DataError: Shows the number of errors and the first few, each with its file and line.
        """
        if self.errors:
            count = f"{len(self.errors)} error{'s' * (len(self.errors) > 1)}"
            shown = "".join(f"\n  {problem}" for problem in self.errors[:SHOWN])
            more = f"\n  and {len(self.errors) - SHOWN} more" if len(self.errors) > SHOWN else ""
            raise DataError(f"The data set has {count}; correct them, or remove the pictures concerned:{shown}{more}")


def check_labels(
    splits: Mapping[str, Sequence[Path]],
    names: Mapping[int, str],
    *,
    deep: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> DataReport:
    """Read every label of a detection data set and report what is wrong.

    Args:
        splits: Split → folders of pictures or lists of them.
        names: Class index → name.
        deep: Open the pictures as well: are they readable and large enough, how large are the objects in pixels.
        progress: Called now and then with the number of pictures done and in all.

    Returns:
        The report; nothing is raised for what the data set holds, see `DataReport.raise_if_bad`.
    """
    check = _Check(len(names), deep)
    found = {split: list(check.sources(sources)) for split, sources in splits.items()}
    total = sum(map(len, found.values()))
    done = 0
    for split, paths in found.items():
        check.split = check.splits[split] = Split(pictures=len(paths))
        for path in paths:
            check.picture(path)
            done += 1
            if progress is not None and (done % 100 == 0 or done == total):
                progress(done, total)
        if paths and not check.split.objects and split != "test":
            what = f"none of the {len(paths)} {split} pictures has a label; those of the first belong in"
            check.errors.append(Problem(paths[0], 0, what, label_path(paths[0])))
    check.notes += _shared(found)
    check.notes += _orphans(found)
    return DataReport(names, check.splits, check.errors, check.notes)


class _Check:
    """The state of one check."""

    def __init__(self, classes: int, deep: bool) -> None:
        self.classes, self.deep = classes, deep
        self.splits: dict[str, Split] = {}
        self.split = Split()
        self.errors: list[Problem] = []
        self.notes: list[Problem] = []

    def sources(self, sources: Iterable[Path]) -> Iterable[str]:
        """The pictures of all sources of a split; a source without any is an error."""
        for source in sources:
            try:
                paths = pictures(source)
            except (OSError, UnicodeDecodeError) as error:
                reason = getattr(error, "strerror", None) or str(error)
                self.errors.append(Problem(str(source), 0, f"the pictures cannot be listed: {reason}", ""))
                continue
            if not paths:
                self.errors.append(Problem(str(source), 0, "holds no pictures", ""))
            if not os.path.isdir(source):  # a list may name what is not there
                gone = [path for path in paths if not os.path.isfile(path)]
                self.errors += [Problem(str(source), 0, "names a picture that does not exist", path) for path in gone]
            yield from paths

    def picture(self, path: str) -> None:
        """Check the labels of one picture, and in a deep check the picture."""
        size = self._size(path) if self.deep else None
        file = label_path(path)
        try:
            with open(file, encoding="utf-8-sig") as stream:
                lines = stream.read().splitlines()
        except FileNotFoundError:
            lines = []
        except (OSError, UnicodeDecodeError) as error:
            self.errors.append(Problem(file, 0, "the labels cannot be read as text", str(error)))
            return
        rows = [(number, columns) for number, line in enumerate(lines, 1) if (columns := line.split())]
        if not rows:
            self.split.background += 1
            return
        self.split.labelled += 1
        polygons = any(len(columns) > 6 for _, columns in rows)
        seen: dict[tuple[float, ...], int] = {}
        for number, columns in rows:
            try:
                values, box = parse_row(columns, polygons)
                refuse_row(values[0], box, self.classes)
            except BadRowError as bad:
                self.errors.append(Problem(file, number, *bad.args))
                continue
            self._count(int(values[0]), box, size)
            first = seen.setdefault(values, number)
            if first != number:
                what = f"repeats line {first}; Ultralytics uses it once"
                self.notes.append(Problem(file, number, what, " ".join(columns)))
            elif box[2] == 0 or box[3] == 0:
                self.notes.append(Problem(file, number, "a box without an area", " ".join(columns)))

    def _count(self, label: int, box: Box, size: tuple[int, int] | None) -> None:
        self.split.objects[label] += 1
        if size is not None:
            area = box[2] * size[0] * box[3] * size[1]
            self.split.sizes[next(name for name, limit in SIZES.items() if area < limit)] += 1

    def _size(self, path: str) -> tuple[int, int] | None:
        """Width and height of a picture as it is shown; None, with an error, if it cannot be read."""
        from PIL import Image

        try:
            with Image.open(path) as image:
                width, height = image.size
                kind = str(image.format)
                image.verify()
                turned = _is_turned(image)
        except ModuleNotFoundError:  # Ultralytics looks for a HEIF plug-in where Pillow knows no format
            self.errors.append(Problem(path, 0, "the picture cannot be read: no known format", ""))
            return None
        except Exception as error:  # the decoders raise all sorts of things
            self.errors.append(Problem(path, 0, f"the picture cannot be read: {error}", ""))
            return None
        if kind.lower() not in PICTURES | {"jpeg2000"}:
            self.errors.append(Problem(path, 0, "a kind of picture that Ultralytics does not read", kind))
        if min(width, height) < MIN_PIXELS:
            self.errors.append(Problem(path, 0, f"a picture below {MIN_PIXELS} pixels", f"{width}×{height}"))
        if kind == "JPEG" and not _ends(path):
            self.notes.append(Problem(path, 0, "a JPEG without its end mark, which Ultralytics writes anew", ""))
        return (height, width) if turned else (width, height)


def _is_turned(image: Image.Image) -> bool:
    """Whether the camera was held upright, so that width and height are swapped when the picture is shown."""
    try:
        return image.format in {"JPEG", "MPO", "PNG", "AVIF"} and image.getexif().get(0x0112) in {5, 6, 7, 8}
    except Exception:  # broken metadata means no metadata
        return False


def _ends(path: str) -> bool:
    """Whether a file closes with JPEG's end mark."""
    with open(path, "rb") as stream:
        stream.seek(-2, os.SEEK_END)
        return stream.read() == b"\xff\xd9"


def _shared(found: Mapping[str, Sequence[str]]) -> list[Problem]:
    """A note for every two splits that have pictures in common."""
    notes = []
    for a, b in combinations(found, 2):
        common = sorted(set(found[a]) & set(found[b]))
        if common:
            notes.append(
                Problem(common[0], 0, f"{a} and {b} have pictures in common, this one first", str(len(common)))
            )
    return notes


def _orphans(found: Mapping[str, Sequence[str]]) -> list[Problem]:
    """A note for every folder with label files that no picture uses."""
    used: dict[str, set[str]] = {}
    for paths in found.values():
        for path in paths:
            folder, name = os.path.split(label_path(path))
            used.setdefault(folder, set()).add(name)
    notes = []
    for folder, names in sorted(used.items()):
        if os.path.isdir(folder):
            others = sorted(name for name in os.listdir(folder) if name.endswith(".txt") and name not in names)
            if others:
                what = f"{len(others)} label file{'s' * (len(others) > 1)} without a picture, the first"
                notes.append(Problem(folder, 0, what, others[0]))
    return notes
