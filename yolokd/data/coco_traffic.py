"""COCO-traffic: the street scenes of COCO 2017 in YOLO's layout, as the authors of AID define them.

    OUT/data.yaml                                what `--data` takes
    OUT/images/{train,val}/000000000139.jpg      links to the images with traffic, see `yolokd.data.coco_instances`
    OUT/labels/{train,val}/000000000139.txt      YOLO labels of the 13 classes, without crowds
    OUT/annotations/instances_{train,val}.json   COCO's own annotations of these images and classes, less the masks:
                                                 `eval` takes crowds and areas from them, which YOLO labels cannot hold
    OUT/counts.json                              how many images and objects there are
    OUT/coco-traffic.json                        what the set was made of

In labels, boxes are cut at the border of their image, and those without an area are left out.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from yolokd.data import publish
from yolokd.data.check import DataReport, Split
from yolokd.data.coco_convert import Conversion, Counts, convert
from yolokd.data.coco_instances import NAMES, Instances, read_instances
from yolokd.errors import DataError
from yolokd.files import sha256
from yolokd.inputs import read_json, refuse_special

VERSION = 1  # goes up whenever the same source gives another set
MARKER = "coco-traffic.json"
COUNTS = "counts.json"
ANNOTATIONS_KEY = "coco_annotations"  # of a data YAML: split → the instances file that `eval` scores against
SPLITS = ("train", "val")
EVERY = 256  # images between two calls of `progress`
HEADER = f"""\
# COCO-traffic: the images of COCO 2017 (Lin et al., ECCV 2014; cocodataset.org) with traffic, prepared by yolokd.
# COCO's annotations are licensed CC BY 4.0, its images by their owners. Paths are relative to this file.
# {ANNOTATIONS_KEY} is what eval scores against: COCO's own boxes, with crowds and areas.
"""

Progress = Callable[[str, float], None]  # called with what is being done and the share that is done


@dataclass(frozen=True)
class Prepared:
    """A COCO-traffic set in YOLO's layout."""

    path: Path  # of the data YAML
    is_new: bool  # False: the very set was there already
    counts: Mapping[str, Counts]  # by split
    notes: tuple[str, ...]

    @property
    def report(self) -> DataReport:
        """The counts in the form of a check's report."""
        splits = {
            split: Split(
                images=found.images,
                labeled=found.images - found.background,
                background=found.background,
                objects=Counter({NAMES.index(name): count for name, count in found.labels.items()}),
            )
            for split, found in self.counts.items()
        }
        return DataReport(dict(enumerate(NAMES)), splits, (), ())


def prepare(src: Path, out: Path, *, progress: Progress | None = None) -> Prepared:
    """Take the images with traffic out of COCO 2017; `out` appears when it is complete, see `yolokd.data.publish`.

    Args:
        src: The folder that holds `annotations/instances_{train,val}2017.json`, and the images in `train2017` and
            `val2017` or in `images/train2017` and `images/val2017`.
        out: The folder to make. It may exist if it is empty or holds this very set.
        progress: Called with what is being done and its share.

    Raises:
        DataError: A source that is missing or malformed (all problems of a list at once, each with its place), or an
            `out` that holds something else or cannot be written.
    """
    tell = progress or _unheard
    sources = {split: _find(Path(src).expanduser(), split) for split in SPLITS}
    marker = {
        "prepared by": "yolokd data coco-traffic",
        "version": VERSION,
        "pictures": {split: str(source.images) for split, source in sources.items()},
        "sha256 of the annotations": {split: _digest(source.instances) for split, source in sources.items()},
    }
    out = Path(out).expanduser().absolute()
    is_new = not publish.is_there(out, MARKER, marker)
    if is_new:
        found = {s: read_instances(source.instances, partial(tell, f"Reading {s}")) for s, source in sources.items()}
        sets = {split: convert(found[split], source.images) for split, source in sources.items()}
        with publish.beside(out, MARKER, marker) as folder:
            for split in SPLITS:
                _write(folder, split, found[split], sets[split], partial(tell, f"Writing {split}"))
            _describe(folder, {split: converted.counts for split, converted in sets.items()})
    counts = _read_counts(out / COUNTS)
    return Prepared(out / "data.yaml", is_new, counts, (*_notes(counts), *publish.leftover_notes(out)))


def _unheard(task: str, share: float) -> None:
    """Progress that nobody asked for."""


class _Source(NamedTuple):
    """Where one split of COCO lies."""

    instances: Path
    images: Path


def _find(src: Path, split: str) -> _Source:
    instances = src / "annotations" / f"instances_{split}2017.json"
    if not instances.is_file():
        raise DataError(
            f"There is no file '{instances}'. Give the folder that holds COCO 2017's annotations/ (instances_train2017"
            ".json and instances_val2017.json), train2017/ and val2017/."
        )
    folders = [src / f"{split}2017", src / "images" / f"{split}2017"]
    images = next((folder for folder in folders if folder.is_dir()), None)
    if images is None:
        raise DataError(f"The {split} images of COCO 2017 are neither in '{folders[0]}' nor in '{folders[1]}'.")
    return _Source(instances, images.resolve())


def _digest(file: Path) -> str:
    try:
        refuse_special(file)
        return sha256(file)
    except OSError as error:
        raise DataError(f"'{file}' cannot be read: {error.strerror or error}.") from error


def _write(
    folder: Path, split: str, found: Instances, converted: Conversion, progress: Callable[[float], None]
) -> None:
    images, labels, annotations = folder / "images" / split, folder / "labels" / split, folder / "annotations"
    for new in (images, labels, annotations):
        new.mkdir(parents=True, exist_ok=True)
    for done, (name, rows) in enumerate(converted.rows.items(), start=1):
        publish.place(converted.folder / name, images / name)
        lines = (f"{index} {x:.6f} {y:.6f} {w:.6f} {h:.6f}\n" for index, x, y, w, h in rows)
        (labels / name).with_suffix(".txt").write_text("".join(lines), encoding="utf-8")
        if done % EVERY == 0 or done == len(converted.rows):
            progress(done / len(converted.rows))
    kept = json.dumps(_filtered(found), separators=(",", ":"))
    (annotations / f"instances_{split}.json").write_text(kept, encoding="utf-8")


def _filtered(found: Instances) -> dict[str, Any]:
    """The traffic part as an instances file, with COCO's ids and boxes."""
    classes = found.classes()
    return {
        "info": {"description": "The part of COCO 2017 with traffic, without masks; prepared by yolokd."},
        "images": [
            {"id": p.id, "file_name": p.file, "width": p.width, "height": p.height} for p in found.images_with_traffic
        ],
        "annotations": [
            {
                "id": a.id,
                "image_id": a.image_id,
                "category_id": a.category,
                "bbox": a.box,
                "area": a.area,
                "iscrowd": int(a.crowd),
            }
            for image in found.images_with_traffic
            for a in found.annotations.get(image.id, ())
        ],
        "categories": [{"id": number, "name": NAMES[index]} for number, index in classes.items()],
    }


def _describe(folder: Path, counts: Mapping[str, Counts]) -> None:
    content: dict[str, Any] = {split: f"images/{split}" for split in SPLITS}
    content[ANNOTATIONS_KEY] = {split: f"annotations/instances_{split}.json" for split in SPLITS}
    content["names"] = dict(enumerate(NAMES))
    text = HEADER + yaml.safe_dump(content, allow_unicode=True, sort_keys=False)
    (folder / "data.yaml").write_text(text, encoding="utf-8")
    plain = {split: asdict(found) for split, found in counts.items()}
    (folder / COUNTS).write_text(json.dumps(plain, indent=1), encoding="utf-8")


def _read_counts(file: Path) -> dict[str, Counts]:
    try:
        return {split: Counts(**found) for split, found in read_json(file).items()}
    except (AttributeError, OSError, TypeError, ValueError) as error:
        raise DataError(f"'{file}' is damaged ({error}); remove the folder and prepare the set again.") from error


def _notes(counts: Mapping[str, Counts]) -> list[str]:
    """What the user should know about each split."""
    notes = []
    for split, found in counts.items():
        notes.append(f"{split}: {found.images} of COCO's {found.source_images} images hold traffic.")
        if crowds := sum(found.crowds.values()):
            notes.append(f"{split}: {crowds} crowds are no labels; eval ignores detections in them, as COCO does.")
        if found.without_area:
            first = f"annotation {found.without_area[0]}"
            notes.append(f"{split}: {len(found.without_area)} boxes without an area are no labels, such as {first}.")
        if found.cut:
            notes.append(f"{split}: {found.cut} boxes reached beyond their image and were cut at its border.")
    return notes
