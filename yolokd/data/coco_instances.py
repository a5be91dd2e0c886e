"""Reading a COCO instances file entry by entry: the images with traffic, their boxes, and all that is wrong.

What counts as traffic is the definition published with the follow-up of AID ("Gradient-Guided Knowledge Distillation
for Object Detectors", Lan and Tian, WACV 2024): an image with at least one annotation, crowd or not, of a trigger
category; of its annotations those of 13 categories.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Any, NamedTuple

from yolokd.data.check import DataReport, Problem
from yolokd.data.json_stream import entries
from yolokd.errors import DataError
from yolokd.images.reader import SUFFIXES

TRIGGERS = (
    *("bicycle", "car", "motorcycle", "bus", "train", "truck"),
    *("traffic light", "fire hydrant", "stop sign"),
)
NAMES = ("person", *TRIGGERS, "parking meter", "cat", "dog")  # in COCO's order, which gives the class indices
PASSES = 3  # over the file: categories stand last in COCO's

Box = tuple[float, float, float, float]  # x, y of the upper left corner, width, height, in pixels


class ImageEntry(NamedTuple):
    """An entry of `images`; sides in pixels."""

    id: int
    file: str
    width: int
    height: int


class Annotation(NamedTuple):
    """An entry of `annotations` of one of the 13 categories."""

    id: int
    image_id: int
    category: int  # COCO's id
    box: Box
    area: float  # of the mask, in square pixels
    crowd: bool  # a region of objects that are not told apart
    place: int  # in the file's list, from 0


@dataclass
class Instances:
    """The traffic part of an instances file."""

    file: Path
    categories: dict[int, str] = field(default_factory=dict)  # COCO's id → name, of all categories
    images: dict[int, ImageEntry] = field(default_factory=dict)  # of all images
    with_traffic: set[int] = field(default_factory=set)  # ids of images
    annotations: dict[int, list[Annotation]] = field(default_factory=dict)  # image → those of the 13 categories

    @property
    def images_with_traffic(self) -> list[ImageEntry]:
        """The images with traffic, in the order of their ids."""
        return [self.images[number] for number in sorted(self.with_traffic)]

    def classes(self) -> dict[int, int]:
        """COCO's category id → class index, of the 13 categories."""
        return {number: NAMES.index(name) for number, name in self.categories.items() if name in NAMES}


class BadEntryError(Exception):
    """An entry that cannot be used: what is wrong, and the value found."""


def read_instances(file: Path, progress: Callable[[float], None]) -> Instances:
    """Read an instances file; no more than its boxes of the 13 categories is kept in memory.

    Args:
        file: `instances_*.json`.
        progress: Called with the share that is done.

    Raises:
        DataError: Unreadable, no JSON, a category that is missing, or entries that are wrong, each with its place in
            `categories`, `images` or `annotations`.
    """
    reader = _Reader(Instances(file), progress)
    reader.read("categories", reader.category)
    known = reader.found.categories.values()
    if missing := [name for name in NAMES if name not in known]:
        raise DataError(f"'{file}' lacks the categories {', '.join(missing)}; COCO's instances files have them.")
    reader.read("images", reader.image)
    reader.prepare()
    reader.read("annotations", reader.annotation)
    if not reader.found.with_traffic:
        raise DataError(f"'{file}' holds no image with traffic: no annotation is of {', '.join(TRIGGERS)}.")
    return reader.found


class _Reader:
    """Checks the entries of a file and keeps what is needed."""

    def __init__(self, found: Instances, progress: Callable[[float], None]) -> None:
        self.found, self.progress = found, progress
        self.passes = 0
        self.kept: set[int] = set()  # ids of the annotations
        self.wanted: Mapping[int, int] = {}
        self.triggers: set[int] = set()

    def read(self, key: str, take: Callable[[int, dict[str, Any]], None]) -> None:
        """Hand each entry of a list to `take`, and raise what that objects to, all at once."""
        problems = []
        for place, entry in enumerate(entries(self.found.file, key, progress=self._advance)):
            try:
                if not isinstance(entry, dict):
                    raise BadEntryError("must be an object", repr(entry))
                take(place, entry)
            except BadEntryError as bad:
                problems.append(Problem(f"{self.found.file}: {key}[{place}]", 0, *bad.args))
        self.passes += 1
        DataReport({}, {}, problems, []).raise_if_bad()

    def prepare(self) -> None:
        """Note which categories are wanted, now that they are known."""
        self.wanted = self.found.classes()
        self.triggers = {number for number, name in self.found.categories.items() if name in TRIGGERS}

    def category(self, _: int, entry: dict[str, Any]) -> None:
        """Take an entry of `categories`."""
        number, name = _whole(entry, "id"), entry.get("name")
        if number in self.found.categories or name in self.found.categories.values():
            raise BadEntryError("repeats an id or a name", f"{number}, {name!r}")
        self.found.categories[number] = str(name)

    def image(self, _: int, entry: dict[str, Any]) -> None:
        """Take an entry of `images`."""
        number, file = _whole(entry, "id"), entry.get("file_name")
        if number in self.found.images:
            raise BadEntryError("repeats the id of another image", str(number))
        if (
            not isinstance(file, str)
            or PurePath(file).name != file
            or PurePath(file).suffix.lower()[1:] not in SUFFIXES
        ):
            raise BadEntryError("file_name must be the name of an image, without folders", repr(file))
        sides = [_whole(entry, side) for side in ("width", "height")]
        if min(sides) < 1:
            raise BadEntryError("width and height must be at least 1", f"{sides[0]}×{sides[1]}")
        self.found.images[number] = ImageEntry(number, file, *sides)

    def annotation(self, place: int, entry: dict[str, Any]) -> None:
        """Take an entry of `annotations`; of a category that is not wanted only what it refers to is checked."""
        image_id, category = _whole(entry, "image_id"), _whole(entry, "category_id")
        if image_id not in self.found.images:
            raise BadEntryError("image_id names no entry of images", str(image_id))
        if category not in self.found.categories:
            raise BadEntryError("category_id names no entry of categories", str(category))
        if category in self.triggers:
            self.found.with_traffic.add(image_id)
        if category not in self.wanted:
            return
        number, box = _whole(entry, "id"), _box(entry.get("bbox"))
        if number in self.kept:
            raise BadEntryError("repeats the id of another annotation", str(number))
        self.kept.add(number)
        area, crowd = entry.get("area", box[2] * box[3]), entry.get("iscrowd", 0)
        if not _is_number(area) or area < 0:
            raise BadEntryError("area must be a number from 0", repr(area))
        if crowd not in (0, 1):
            raise BadEntryError("iscrowd must be 0 or 1", repr(crowd))
        kept = Annotation(number, image_id, category, box, area, bool(crowd), place)
        self.found.annotations.setdefault(image_id, []).append(kept)

    def _advance(self, share: float) -> None:
        self.progress((self.passes + share) / PASSES)


def _whole(entry: dict[str, Any], key: str) -> int:
    value = entry.get(key)
    if not isinstance(value, int) or isinstance(value, bool):
        raise BadEntryError(f"{key} must be a whole number", repr(value))
    return value


def _box(box: object) -> Box:
    if not isinstance(box, list) or len(box) != 4 or not all(map(_is_number, box)):
        raise BadEntryError("bbox must be four finite numbers (x, y, width, height)", repr(box))
    x, y, width, height = map(float, box)
    if width < 0 or height < 0:
        raise BadEntryError("bbox has a negative side", repr(box))
    return x, y, width, height


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
