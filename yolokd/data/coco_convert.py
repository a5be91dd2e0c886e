"""COCO's boxes as YOLO's rows, in memory, and the images that they belong to."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from yolokd.data.check import DataReport, Problem
from yolokd.data.coco_instances import NAMES, Annotation, ImageEntry, Instances
from yolokd.errors import DataError

Row = tuple[int, float, float, float, float]  # class, x and y of the middle, width, height, as shares of the image


@dataclass
class Counts:
    """What one split holds; plain data."""

    source_images: int = 0  # in COCO's file
    images: int = 0
    background: int = 0  # images without a label: all of their objects are in crowds, or without an area
    labels: dict[str, int] = field(default_factory=lambda: dict.fromkeys(NAMES, 0))
    crowds: dict[str, int] = field(default_factory=lambda: dict.fromkeys(NAMES, 0))  # regions, which are no labels
    without_area: list[int] = field(default_factory=list)  # ids of annotations, which are no labels
    cut: int = 0  # boxes that reached beyond their image


@dataclass(frozen=True)
class Conversion:
    """One split in YOLO's terms."""

    folder: Path  # of the images
    rows: dict[str, list[Row]]  # file name of an image → its labels
    counts: Counts


def convert(found: Instances, folder: Path) -> Conversion:
    """Turn the annotations of images with traffic into rows.

    Args:
        found: From `read_instances`.
        folder: Where the images are.

    Raises:
        DataError: Lists what is wrong: an image that is missing or would share its labels with another, a box outside
            of its image.
    """
    images, classes = found.images_with_traffic, found.classes()
    problems = [*_missing(images, folder), *_clashing(images, found.file)]
    counts = Counts(source_images=len(found.images), images=len(images))
    rows: dict[str, list[Row]] = {}
    for image in images:
        labels = rows[image.file] = []
        for annotation in found.annotations.get(image.id, ()):
            index = classes[annotation.category]
            if annotation.crowd:
                counts.crowds[NAMES[index]] += 1
            elif annotation.box[2] == 0 or annotation.box[3] == 0:
                counts.without_area.append(annotation.id)
            elif (box := _shares(annotation, image)) is None:
                place = f"{found.file}: annotations[{annotation.place}]"
                size = f"{image.width}×{image.height}"
                problems.append(Problem(place, 0, f"a box outside of its image of {size}", str(annotation.box)))
            else:
                labels.append((index, *box))
                counts.labels[NAMES[index]] += 1
                counts.cut += _reaches_beyond(annotation, image)
        counts.background += not labels
    DataReport({}, {}, problems, []).raise_if_bad()
    return Conversion(folder, rows, counts)


def _missing(images: Iterable[ImageEntry], folder: Path) -> Iterator[Problem]:
    """The images that are not there, or are links that lead out of their folder: whose are they?"""
    try:
        with os.scandir(folder) as listed:
            links = {entry.name: entry.is_symlink() for entry in listed if entry.is_file()}
    except OSError as error:
        raise DataError(f"The folder '{folder}' cannot be listed: {error.strerror or error}.") from error
    root = os.path.realpath(folder)
    for image in images:
        file = folder / image.file
        if image.file not in links:
            yield Problem(str(file), 0, "the image is missing", "")
        elif links[image.file] and not Path(os.path.realpath(file)).is_relative_to(root):
            what = f"a link that leads out of '{root}', which is not followed"
            yield Problem(str(file), 0, what, os.path.realpath(file))


def _clashing(images: Iterable[ImageEntry], file: Path) -> Iterator[Problem]:
    """Images whose names differ by their ending at most, so that they would share a label file."""
    seen: dict[str, ImageEntry] = {}
    for image in images:
        first = seen.setdefault(Path(image.file).stem, image)
        if first is not image:
            yield Problem(f"{file}: image {image.id}", 0, f"has the name of image {first.id}", image.file)


def _shares(annotation: Annotation, image: ImageEntry) -> tuple[float, float, float, float] | None:
    """Middle and sides of the part of a box that lies in the image; None if there is none."""
    x, y, width, height = annotation.box
    left, right = (min(max(edge, 0.0), image.width) / image.width for edge in (x, x + width))
    top, bottom = (min(max(edge, 0.0), image.height) / image.height for edge in (y, y + height))
    if right <= left or bottom <= top:
        return None
    return (left + right) / 2, (top + bottom) / 2, right - left, bottom - top


def _reaches_beyond(annotation: Annotation, image: ImageEntry) -> bool:
    x, y, width, height = annotation.box
    return min(x, y) < 0 or x + width > image.width or y + height > image.height
