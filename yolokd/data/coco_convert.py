"""COCO's boxes as YOLO's rows, in memory, and the pictures that they belong to."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from yolokd.data.check import DataReport, Problem
from yolokd.data.coco_instances import NAMES, Annotation, Instances, Picture
from yolokd.errors import DataError

Row = tuple[int, float, float, float, float]  # class, x and y of the middle, width, height, as shares of the picture


@dataclass
class Counts:
    """What one split holds; plain data."""

    source_pictures: int = 0  # in COCO's file
    pictures: int = 0
    background: int = 0  # pictures without a label: all of their objects are in crowds, or without an area
    labels: dict[str, int] = field(default_factory=lambda: dict.fromkeys(NAMES, 0))
    crowds: dict[str, int] = field(default_factory=lambda: dict.fromkeys(NAMES, 0))  # regions, which are no labels
    without_area: list[int] = field(default_factory=list)  # ids of annotations, which are no labels
    cut: int = 0  # boxes that reached beyond their picture


@dataclass(frozen=True)
class Conversion:
    """One split in YOLO's terms."""

    folder: Path  # of the pictures
    rows: dict[str, list[Row]]  # file name of a picture → its labels
    counts: Counts


def convert(found: Instances, folder: Path) -> Conversion:
    """Turn the annotations of pictures with traffic into rows.

    Args:
        found: From `read_instances`.
        folder: Where the pictures are.

    Raises:
        DataError: Lists what is wrong: a picture that is missing or would share its labels with another, a box outside
            of its picture.
    """
    pictures, classes = found.pictures, found.classes()
    problems = [*_missing(pictures, folder), *_clashing(pictures, found.file)]
    counts = Counts(source_pictures=len(found.images), pictures=len(pictures))
    rows: dict[str, list[Row]] = {}
    for picture in pictures:
        labels = rows[picture.file] = []
        for annotation in found.annotations.get(picture.id, ()):
            index = classes[annotation.category]
            if annotation.crowd:
                counts.crowds[NAMES[index]] += 1
            elif annotation.box[2] == 0 or annotation.box[3] == 0:
                counts.without_area.append(annotation.id)
            elif (box := _shares(annotation, picture)) is None:
                place = f"{found.file}: annotations[{annotation.place}]"
                size = f"{picture.width}×{picture.height}"
                problems.append(Problem(place, 0, f"a box outside of its picture of {size}", str(annotation.box)))
            else:
                labels.append((index, *box))
                counts.labels[NAMES[index]] += 1
                counts.cut += _reaches_beyond(annotation, picture)
        counts.background += not labels
    DataReport({}, {}, problems, []).raise_if_bad()
    return Conversion(folder, rows, counts)


def _missing(pictures: Iterable[Picture], folder: Path) -> Iterator[Problem]:
    """The pictures that are not there, or are links that lead out of their folder: whose are they?"""
    try:
        with os.scandir(folder) as listed:
            links = {entry.name: entry.is_symlink() for entry in listed if entry.is_file()}
    except OSError as error:
        raise DataError(f"The folder '{folder}' cannot be listed: {error.strerror or error}.") from error
    root = os.path.realpath(folder)
    for picture in pictures:
        file = folder / picture.file
        if picture.file not in links:
            yield Problem(str(file), 0, "the picture is missing", "")
        elif links[picture.file] and not Path(os.path.realpath(file)).is_relative_to(root):
            what = f"a link that leads out of '{root}', which is not followed"
            yield Problem(str(file), 0, what, os.path.realpath(file))


def _clashing(pictures: Iterable[Picture], file: Path) -> Iterator[Problem]:
    """Pictures whose names differ by their ending at most, so that they would share a label file."""
    seen: dict[str, Picture] = {}
    for picture in pictures:
        first = seen.setdefault(Path(picture.file).stem, picture)
        if first is not picture:
            yield Problem(f"{file}: image {picture.id}", 0, f"has the name of image {first.id}", picture.file)


def _shares(annotation: Annotation, picture: Picture) -> tuple[float, float, float, float] | None:
    """Middle and sides of the part of a box that lies in the picture; None if there is none."""
    x, y, width, height = annotation.box
    left, right = (min(max(edge, 0.0), picture.width) / picture.width for edge in (x, x + width))
    top, bottom = (min(max(edge, 0.0), picture.height) / picture.height for edge in (y, y + height))
    if right <= left or bottom <= top:
        return None
    return (left + right) / 2, (top + bottom) / 2, right - left, bottom - top


def _reaches_beyond(annotation: Annotation, picture: Picture) -> bool:
    x, y, width, height = annotation.box
    return min(x, y) < 0 or x + width > picture.width or y + height > picture.height
