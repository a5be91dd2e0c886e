"""Checking the images and labels of a YOLO data set before a training reads them.

Ultralytics drops an image whose labels it dislikes and trains on with the rest; here that is an error, with file and
line. A row counts as wrong exactly if `verify_image_label` of Ultralytics would drop the image for it. An image that it
cannot read is left out, as Ultralytics does, and named; one that it would fail on during the training is an error.
"""

# Plain strings and `os` instead of pathlib: a hundred thousand files in seconds.
# ruff: noqa: PTH110, PTH112, PTH208
from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import NamedTuple

from yolokd.data.description import load_yaml, refuse_script
from yolokd.data.labels import (
    NO_KEYPOINTS,
    BadRowError,
    Box,
    Keypoints,
    drop_keypoints,
    lacks_keypoints,
    parse_row,
    read_rows,
    refuse_row,
)
from yolokd.data.layout import fingerprint, images_of, label_path
from yolokd.errors import DataError, printable
from yolokd.images.reader import ImageCheck, check_images, left_out

__all__ = ["DataReport", "Problem", "Split", "check_labels", "fingerprint", "load_yaml", "refuse_script"]

SIZES = {
    "small": 32**2,
    "medium": 96**2,
    "large": float("inf"),
}  # COCO's classes of area, pixels, exclusive upper bounds
JOINED_CLASSES = 2**24  # classes of labels that are joined; up to there Ultralytics' float32 tells them apart
CORNERS = 8  # columns of a polygon of four corners
SHOWN = 5  # problems that an error lists
LONGEST = 200  # letters of a value that a problem shows


class Problem(NamedTuple):
    """Something wrong: the file, its line from 1 (0 for the file as a whole), what it is, the value found."""

    file: str
    line: int
    what: str
    value: str

    def __str__(self) -> str:
        place = printable(self.file) + (f":{self.line}" if self.line else "")
        return f"{place}: {self.what}" + (f", got {_short(printable(self.value))}" if self.value else "")


def _short(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}…"


@dataclass
class Split:
    """What one split holds."""

    images: int = 0  # without those that are left out
    labeled: int = 0  # images with at least one object
    background: int = 0  # images without objects: no label file, or an empty one
    left_out: int = 0  # images that cannot be used
    objects: Counter[int] = field(default_factory=Counter)  # by class
    sizes: Counter[str] = field(default_factory=Counter)  # objects by COCO's size classes
    polygons: int = 0  # objects that are labeled as polygons
    corners: int = 0  # of them those of four corners, such as rotated boxes
    keypoints: int = 0  # objects that are labeled with keypoints, as many as the data YAML says
    without_keypoints: Problem | None = None  # the first object that is not, where it says so


@dataclass(frozen=True)
class DataReport:
    """The outcome of a check: counts per split, what makes the set unusable, and what is merely worth knowing."""

    names: Mapping[int, str]
    splits: Mapping[str, Split]
    errors: Sequence[Problem]
    notes: Sequence[Problem]
    left_out: str = ""  # a sentence that names the images that cannot be used

    def raise_if_bad(self) -> None:
        """Raise if there are errors.

        Raises:
            DataError: Shows the number of errors and the first few, each with its file and line.
        """
        if self.errors:
            count = "1 error; correct it, or remove the image concerned"
            if len(self.errors) > 1:
                count = f"{len(self.errors)} errors; correct them, or remove the images concerned"
            shown = "".join(f"\n  {problem}" for problem in self.errors[:SHOWN])
            more = f"\n  and {len(self.errors) - SHOWN} more" if len(self.errors) > SHOWN else ""
            raise DataError(f"The data set has {count}:{shown}{more}")


def check_labels(
    splits: Mapping[str, Sequence[Path]],
    names: Mapping[int, str],
    *,
    keypoints: Keypoints = NO_KEYPOINTS,
    joined: bool = False,
    again: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> DataReport:
    """Open every image of a detection data set, read every label, and report what is wrong.

    Args:
        splits: Split → folders of images or lists of them.
        names: Class index → name.
        keypoints: `kpt_shape` of the data YAML.
        joined: All classes are one (`train.single_cls`), so that labels may have a class beyond the names.
        again: Open also the images of which is known, from an earlier check, that they are as they were.
        progress: Called now and then with the number of images opened and to be opened.

    Returns:
        The report; nothing is raised for what the data set holds, see `DataReport.raise_if_bad`.
    """
    check = _Check(JOINED_CLASSES if joined else len(names), keypoints)
    found = {split: list(check.sources(sources)) for split, sources in splits.items()}
    images = check_images((path for paths in found.values() for path in paths), again=again, progress=progress)
    for split, paths in found.items():
        check.split = check.splits[split] = Split()
        for path in paths:
            check.examine(path, images[path])
        if paths and not check.split.images and check.split.left_out:
            what = f"none of the {len(paths)} {split} images can be used; the first is {images[paths[0]].problem}"
            check.errors.append(Problem(paths[0], 0, what, ""))
        elif 0 < check.split.images == check.split.background and split != "test":
            what = f"none of the {len(paths)} {split} images has an object; the labels of this one belong in"
            check.errors.append(Problem(paths[0], 0, f"{what} '{printable(label_path(paths[0]))}'", ""))
    check.notes += _shared(found)
    check.notes += _orphans(found)
    out = left_out({path: images[path] for path in images if path not in check.missing and not images[path].fatal})
    return DataReport(names, check.splits, check.errors, check.notes, out)


class _Check:
    """The state of one check."""

    def __init__(self, classes: int, keypoints: Keypoints) -> None:
        self.classes, self.keypoints = classes, keypoints
        self.missing: set[str] = set()  # images that a list names
        self.splits: dict[str, Split] = {}
        self.split = Split()
        self.errors: list[Problem] = []
        self.notes: list[Problem] = []

    def sources(self, sources: Iterable[Path]) -> Iterable[str]:
        """The images of all sources of a split; a source without any is an error."""
        for source in sources:
            try:
                paths = images_of(source)
            except (OSError, ValueError) as error:  # the latter of a list that is not UTF-8
                place = getattr(error, "filename", None) or source
                reason = getattr(error, "strerror", None) or str(error)
                self.errors.append(Problem(str(place), 0, f"the images cannot be listed: {reason}", ""))
                continue
            if not paths:
                self.errors.append(Problem(str(source), 0, "holds no images", ""))
            if not os.path.isdir(source):  # a list may name what is not there
                gone = [path for path in paths if not os.path.exists(path)]
                self.errors += [Problem(str(source), 0, "names an image that does not exist", path) for path in gone]
                self.missing.update(gone)
            yield from paths

    def examine(self, path: str, image: ImageCheck) -> None:
        """Check one image and its labels, unless it is left out."""
        if image.fatal:
            self.errors.append(Problem(path, 0, image.problem, ""))
        elif image.unended and image.usable:
            what = "a JPEG without its end mark, which Ultralytics writes anew when it first reads the set"
            self.notes.append(Problem(path, 0, what, ""))
        if not image.usable:
            self.split.left_out += path not in self.missing and not image.fatal
            return
        self.split.images += 1
        file = label_path(path)
        try:
            whole, _ = read_rows(file)
        except FileNotFoundError:
            whole = []
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            self.errors.append(Problem(file, 0, f"the labels cannot be read as text: {reason}", ""))
            return
        rows = [(number, drop_keypoints(columns, self.keypoints)) for number, columns in whole]
        polygons = any(len(columns) > 6 for _, columns in rows)
        if not rows:
            self.split.background += 1
            return
        self.split.labeled += 1
        seen: dict[tuple[float, ...], int] = {}
        for (number, columns), (_, row) in zip(rows, whole, strict=True):
            try:
                values, box = parse_row(columns, polygons)
                refuse_row(values[0], box, self.classes)
            except BadRowError as bad:
                self.errors.append(Problem(file, number, *bad.args))
                continue
            self._count(int(values[0]), box, image)
            self.split.polygons += polygons
            self.split.corners += polygons and len(values) == 1 + CORNERS
            self._count_keypoints(file, number, row)
            first = seen.setdefault(values, number)
            if first != number:
                what = f"repeats line {first}, so that Ultralytics uses it once: {' '.join(columns)}"
                self.notes.append(Problem(file, number, what, ""))
            elif box[2] == 0 or box[3] == 0:
                self.notes.append(Problem(file, number, "a box without an area", " ".join(columns)))

    def _count_keypoints(self, file: str, number: int, row: Sequence[str]) -> None:
        if not self.keypoints[0]:
            return
        lacking = lacks_keypoints(row, self.keypoints)
        self.split.keypoints += not lacking
        if lacking and self.split.without_keypoints is None:
            self.split.without_keypoints = Problem(file, number, lacking, "")

    def _count(self, label: int, box: Box, image: ImageCheck) -> None:
        self.split.objects[label] += 1
        area = box[2] * image.width * box[3] * image.height
        self.split.sizes[next(name for name, limit in SIZES.items() if area < limit)] += 1


def _shared(found: Mapping[str, Sequence[str]]) -> list[Problem]:
    """A note for every two splits that have images in common."""
    notes = []
    for a, b in combinations(found, 2):
        common = sorted(set(found[a]) & set(found[b]))
        if common:
            what = "this image" if len(common) == 1 else f"{len(common)} images, this one first"
            notes.append(Problem(common[0], 0, f"{a} and {b} have {what} in common", ""))
    return notes


def _orphans(found: Mapping[str, Sequence[str]]) -> list[Problem]:
    """A note for every folder with label files that no image uses."""
    used: dict[str, set[str]] = {}
    for paths in found.values():
        for path in paths:
            folder, name = os.path.split(label_path(path))
            used.setdefault(folder, set()).add(name)
    notes = []
    for folder, names in sorted(used.items()):
        try:
            others = sorted(name for name in os.listdir(folder) if name.endswith(".txt") and name not in names)
        except (OSError, ValueError):  # there is none, it cannot be listed, or its name holds a null character
            continue
        if others:
            files = "1 label file" if len(others) == 1 else f"{len(others)} label files"
            notes.append(Problem(folder, 0, f"{files} without an image, such as {printable(others[0])}", ""))
    return notes
