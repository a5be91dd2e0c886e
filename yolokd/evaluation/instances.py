"""A COCO ground truth from COCO's own annotations, where the data YAML names them: with crowds and areas of masks.

`yolokd data coco-traffic` writes the key `coco_annotations`, a mapping from split to an instances file beside the data
YAML. Against it, detections in a crowd count neither as found nor as false, and small, medium and large are by COCO's
areas. YOLO labels hold neither.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from yolokd.data.coco_traffic import ANNOTATIONS_KEY
from yolokd.data.description import load_yaml
from yolokd.data.json_stream import entries
from yolokd.errors import DataError
from yolokd.evaluation.ground_truth import coco_ground_truth, picture_size

Truth = dict[str, list[dict[str, Any]]]


def ground_truth(data_yaml: Path, split: str, pictures: Sequence[Path], names: Mapping[int, str]) -> Truth:
    """Return what the detections of a split are scored against; see `coco_ground_truth` for its form.

    Args:
        data_yaml: Names an instances file for the split, or else the YOLO labels count.
        split: Split of the data set.
        pictures: Absolute paths of the split's pictures, from `list_pictures`.
        names: Class index → name.

    Raises:
        DataError: A picture that cannot be read, or an instances file that is missing, malformed or of other pictures
            or classes.
    """
    file = _named(data_yaml, split)
    return coco_ground_truth(pictures, names) if file is None else from_instances(file, pictures, names)


def from_instances(file: Path, pictures: Sequence[Path], names: Mapping[int, str]) -> Truth:
    """Return the ground truth that an instances file holds, in the form of `coco_ground_truth`.

    Args:
        file: COCO's `images` (exactly these pictures, by file name), `annotations` and `categories` (exactly these
            classes, by name).
        pictures: Absolute paths; the place in the list is the picture's id.
        names: Class index → name.

    Raises:
        DataError: See `ground_truth`.
    """
    classes = _match(file, "categories", "name", {name: number for number, name in names.items()}, "class")
    places = _match(file, "images", "file_name", {path.name: n for n, path in enumerate(pictures)}, "picture")
    sizes = {entry["id"]: (entry.get("width"), entry.get("height")) for _, entry in _objects(file, "images")}
    images = []
    for original, place in sorted(places.items(), key=lambda pair: pair[1]):
        width, height = picture_size(pictures[place])
        if {width, height} != {*sizes[original]}:  # whatever the orientation that its EXIF data give
            raise DataError(f"'{pictures[place]}' has {width}×{height} pixels, but '{file}' says otherwise.")
        images.append({"id": place, "file_name": str(pictures[place]), "width": width, "height": height})
    annotations: list[dict[str, Any]] = []
    for number, entry in _objects(file, "annotations"):
        try:
            owner, index = places[entry["image_id"]], classes[entry["category_id"]]
        except (KeyError, TypeError):
            raise DataError(f"'{file}': annotations[{number}] belongs to no known picture or category.") from None
        kept: dict[str, Any] = {key: entry[key] for key in ("bbox", "area", "iscrowd") if key in entry}
        annotations.append({**kept, "id": number + 1, "image_id": owner, "category_id": index})
    categories = [{"id": number, "name": name} for number, name in sorted(names.items())]
    return {"images": images, "annotations": annotations, "categories": categories}


def _named(data_yaml: Path, split: str) -> Path | None:
    """The instances file that a data YAML names for a split."""
    named = load_yaml(data_yaml).get(ANNOTATIONS_KEY)
    if named is None:
        return None
    if not isinstance(named, dict) or not all(isinstance(value, str) for value in named.values()):
        raise DataError(f"'{data_yaml}': {ANNOTATIONS_KEY} must map splits to files, got {named!r}.")
    return data_yaml.absolute().parent / named[split] if split in named else None


def _match(file: Path, key: str, word: str, known: Mapping[str, int], what: str) -> dict[int, int]:
    """COCO's id → the number that the entry's name has in the data; both sides must name the same."""
    found: dict[int, int] = {}
    for place, entry in _objects(file, key):
        name, number = entry.get(word), entry.get("id")
        if not isinstance(name, str) or name not in known or not isinstance(number, int):
            raise DataError(f"'{file}': {key}[{place}] is the {what} {name!r} (id {number!r}), which the data lack.")
        found[number] = known[name]
    if missing := [name for name, number in known.items() if number not in found.values()]:
        raise DataError(f"'{file}' lacks {len(missing)} of the data's {len(known)}, such as the {what} '{missing[0]}'.")
    return found


def _objects(file: Path, key: str) -> Iterator[tuple[int, dict[str, Any]]]:
    for place, entry in enumerate(entries(file, key)):
        if not isinstance(entry, dict):
            raise DataError(f"'{file}': {key}[{place}] must be an object, got {entry!r}.")
        yield place, entry
