"""A COCO ground truth from COCO's own annotations, where the data YAML names them: with crowds and areas of masks.

`yolokd data coco-traffic` writes the key `coco_annotations`, a mapping from split to an instances file beside the data
YAML. Against it, detections in a crowd count neither as found nor as false, and small, medium and large are by COCO's
areas. YOLO labels hold neither.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from yolokd.data.coco_traffic import ANNOTATIONS_KEY
from yolokd.data.description import keypoints_of, load_yaml
from yolokd.data.json_stream import entries
from yolokd.errors import DataError, printable
from yolokd.evaluation.ground_truth import coco_ground_truth
from yolokd.images.reader import shown_size

Truth = dict[str, list[dict[str, Any]]]


def ground_truth(
    data_yaml: Path,
    split: str,
    paths: Sequence[Path],
    names: Mapping[int, str],
    *,
    left_out: Collection[Path] = (),
    beside: Collection[str] = (),
) -> Truth:
    """Return what the detections of a split are scored against; see `coco_ground_truth` for its form.

    Args:
        data_yaml: Names an instances file for the split, or else the YOLO labels count.
        split: Split of the data set.
        paths: Absolute paths of the split's paths, from `list_images`.
        names: Class index → name.
        left_out: Images of the split that are not scored; an instances file may name them.
        beside: As `coco_ground_truth` takes it, for YOLO labels; annotations of an instances file have boxes alone.

    Raises:
        DataError: An image that cannot be read, or an instances file that is missing, malformed or of other images
            or classes.
    """
    content = load_yaml(data_yaml)
    file = _named(content, data_yaml, split)
    if file is None:
        return coco_ground_truth(paths, names, keypoints_of(content, data_yaml), beside=beside)
    return from_instances(file, paths, names, left_out=left_out)


def from_instances(
    file: Path, paths: Sequence[Path], names: Mapping[int, str], *, left_out: Collection[Path] = ()
) -> Truth:
    """Return the ground truth that an instances file holds, in the form of `coco_ground_truth`.

    Args:
        file: COCO's `images` (exactly these, and any of `left_out`), `annotations` and `categories` (exactly these
            classes, by name). A `file_name` is a path from the folder of the split, or any other part of the image's
            path that ends with its name and is enough to tell it from the others.
        paths: Absolute paths; the place in the list is the image's id.
        names: Class index → name.
        left_out: Absolute paths of images whose entries are passed over.

    Raises:
        DataError: See `ground_truth`.
    """
    numbers = {name: number for number, name in names.items()}
    classes = _match(file, "categories", "name", numbers.get, "class")
    _refuse_missing(file, classes, {number: name for name, number in numbers.items()}, "class")
    everything = [*paths, *left_out]
    places = _match(file, "images", "file_name", _Finder(file, everything), "image")
    _refuse_missing(file, places, dict(enumerate(map(printable, paths))), "image")
    _refuse_twice(file, places, everything)
    skipped = {original for original, place in places.items() if place >= len(paths)}
    places = {original: place for original, place in places.items() if original not in skipped}
    sizes = {entry["id"]: (entry.get("width"), entry.get("height")) for _, entry in _objects(file, "images")}
    images = []
    for original, place in sorted(places.items(), key=lambda pair: pair[1]):
        width, height = shown_size(paths[place])
        if sorted((width, height)) != _sorted(sizes[original]):  # whatever the orientation that its EXIF data give
            raise DataError(f"'{printable(paths[place])}' has {width}×{height} pixels, but '{file}' says otherwise.")
        images.append({"id": place, "file_name": str(paths[place]), "width": width, "height": height})
    annotations: list[dict[str, Any]] = []
    for number, entry in _objects(file, "annotations"):
        try:
            if entry["image_id"] in skipped:
                continue
            owner, index = places[entry["image_id"]], classes[entry["category_id"]]
        except (KeyError, TypeError):
            raise DataError(f"'{file}': annotations[{number}] belongs to no known image or category.") from None
        kept = _numbers(file, number, entry)
        annotations.append({**kept, "id": number + 1, "image_id": owner, "category_id": index})
    categories = [{"id": number, "name": name} for number, name in sorted(names.items())]
    return {"images": images, "annotations": annotations, "categories": categories}


def has_instances(data_yaml: Path, split: str) -> bool:
    """Whether a data YAML names an instances file for a split, which holds boxes and no masks."""
    return _named(load_yaml(data_yaml), data_yaml, split) is not None


def _named(content: Mapping[str, Any], data_yaml: Path, split: str) -> Path | None:
    """The instances file that a data YAML names for a split."""
    named = content.get(ANNOTATIONS_KEY)
    if named is None:
        return None
    if not isinstance(named, dict) or not all(isinstance(value, str) for value in named.values()):
        raise DataError(f"'{data_yaml}': {ANNOTATIONS_KEY} must map splits to files, got {named!r}.")
    return data_yaml.absolute().parent / named[split] if split in named else None


class _Finder:
    """Finds the image that a `file_name` means: its path, or the end of its path, by whole folders."""

    def __init__(self, file: Path, images: Sequence[Path]) -> None:
        self.file, self.images = file, images
        self.by_name: dict[str, list[int]] = {}
        for place, path in enumerate(images):
            self.by_name.setdefault(path.name, []).append(place)

    def __call__(self, name: str) -> int | None:
        """Return its place; None if there is none.

        Raises:
            DataError: Several images are meant.
        """
        wanted = PurePosixPath(name).parts
        meant = [place for place in self.by_name.get(PurePosixPath(name).name, ()) if self._ends(place, wanted)]
        if len(meant) > 1:  # the one nearest to the folder of the split, such as val/1.png beside val/a/1.png
            depth = min(len(self.images[place].parts) for place in meant)
            meant = [place for place in meant if len(self.images[place].parts) == depth]
        if len(meant) > 1:
            both = " and ".join(f"'{printable(self.images[place])}'" for place in meant[:2])
            raise DataError(
                f"'{self.file}' names an image '{printable(name)}', which may be {both}. Write each file_name as the "
                f"path from the folder of the split."
            )
        return meant[0] if meant else None

    def _ends(self, place: int, wanted: Sequence[str]) -> bool:
        return self.images[place].parts[-len(wanted) :] == tuple(wanted)


def _match(file: Path, key: str, word: str, find: Callable[[str], int | None], what: str) -> dict[int, int]:
    """COCO's id → the number that the entry's name has in the data."""
    found: dict[int, int] = {}
    for place, entry in _objects(file, key):
        name, number = entry.get(word), entry.get("id")
        known = find(name) if isinstance(name, str) else None
        if known is None or not isinstance(number, int):
            raise DataError(f"'{file}': {key}[{place}] is the {what} {name!r} (id {number!r}), which the data lack.")
        if number in found:
            raise DataError(f"'{file}': {key}[{place}] is the second with the id {number}.")
        found[number] = known
    return found


def _refuse_missing(file: Path, found: Mapping[int, int], known: Mapping[int, str], what: str) -> None:
    named = set(found.values())
    if missing := [name for number, name in known.items() if number not in named]:
        raise DataError(f"'{file}' lacks {len(missing)} of the data's {len(known)}, such as the {what} '{missing[0]}'.")


def _refuse_twice(file: Path, places: Mapping[int, int], images: Sequence[Path]) -> None:
    seen: dict[int, int] = {}
    for original, place in places.items():
        first = seen.setdefault(place, original)
        if first != original:
            raise DataError(
                f"'{file}' names the image '{printable(images[place])}' twice, with the ids {first} and {original}. "
                f"Write each file_name as the path from the folder of the split."
            )


def _sorted(size: tuple[Any, Any]) -> list[Any]:
    return sorted(value if isinstance(value, (int, float)) else -1 for value in size)


def _numbers(file: Path, number: int, entry: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of an annotation that scores depend on."""
    box, area, crowd = entry.get("bbox"), entry.get("area"), entry.get("iscrowd", 0)
    values = [*box, area] if isinstance(box, list) and len(box) == 4 else []
    if not values or not all(isinstance(v, (int, float)) and math.isfinite(v) for v in values) or crowd not in (0, 1):
        raise DataError(
            f"'{file}': annotations[{number}] needs bbox (x, y, width, height), area and iscrowd (0 or 1), got bbox "
            f"{box!r}, area {area!r}, iscrowd {crowd!r}."
        )
    return {"bbox": box, "area": area, "iscrowd": int(crowd)}


def _objects(file: Path, key: str) -> Iterator[tuple[int, dict[str, Any]]]:
    for place, entry in enumerate(entries(file, key)):
        if not isinstance(entry, dict):
            raise DataError(f"'{file}': {key}[{place}] must be an object, got {entry!r}.")
        yield place, entry
