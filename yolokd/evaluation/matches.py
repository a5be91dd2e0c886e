"""Detections of one network, matched to the objects of each image: all that AP over any choice of the images needs.

Within an image nothing depends on the other images, so detections are matched once: by COCO's rules for all sizes of
objects, at most 100 detections of an image and class, crowds included. What is kept of a detection is its image, its
rank within its class, and two bits per IoU threshold. Detections below the last one that finds anything change no AP
and are dropped.

The file is an npz archive of whole numbers, read without pickle: `images`, how many there are; `detections` and
`objects`, how many of each class; `image`, `found` and `ignored` of all detections, class by class and the best first;
`object_image` of all objects; `sha256` of the checkpoint.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile, ZipFile

import numpy as np
from numpy.typing import NDArray

from yolokd.files import write_whole
from yolokd.inputs import refuse_special

Truth = Mapping[str, Iterable[Mapping[str, Any]]]
Detections = Iterable[Mapping[str, Any]]
Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]
Records = list[Mapping[str, Any]]
Overlap = Callable[[Records, Records, Flags], Floats]  # detections, objects, which of them are crowds → (D, G)
LeftOut = Callable[[Mapping[str, Any]], bool]

THRESHOLDS = np.linspace(0.5, 0.95, 10)  # of IoU
MOST = 100  # detections of an image and class
LARGEST = 2**30  # bytes of a file's arrays; 5000 images of COCO take 2 % of it
DAMAGED = (  # what numpy and zipfile say of a damaged file
    OSError, ValueError, LookupError, EOFError, MemoryError, RuntimeError, BadZipFile, zlib.error, struct.error,
)  # fmt: skip
ARRAYS = {
    "images": np.int64, "detections": np.int64, "objects": np.int64, "image": np.int32, "found": np.uint16,
    "ignored": np.uint16, "object_image": np.int32,
}  # fmt: skip


@dataclass(frozen=True, eq=False)
class ClassMatches:
    """D detections of one class, the best first, and its G objects that are no crowds."""

    image: NDArray[np.int32]  # (D,): place of the image
    found: NDArray[np.uint16]  # (D,): bit t is set where the detection finds an object at `THRESHOLDS[t]`
    ignored: NDArray[np.uint16]  # (D,): likewise where it lies in a crowd instead, and counts as neither
    objects: NDArray[np.int32]  # (G,): places of their images


@dataclass(frozen=True, eq=False)
class Matches:
    """One network's detections on some images, class by class."""

    images: int
    classes: tuple[ClassMatches, ...]

    def same_objects(self, other: Matches) -> bool:
        """Whether both were matched to the same objects of the same images, as far as is kept of them."""
        return (self.images, len(self.classes)) == (other.images, len(other.classes)) and all(
            np.array_equal(np.sort(one.objects), np.sort(two.objects))
            for one, two in zip(self.classes, other.classes, strict=True)
        )


def box_overlap(found: Records, objects: Records, crowds: Flags) -> Floats:
    """Return the IoU of each detection's box with each object's, (D, G); of a crowd the share of the detection in it.

    Args:
        found: D detections.
        objects: G objects.
        crowds: Which of the objects are crowds, (G,).
    """
    ours, theirs = (np.array([record["bbox"] for record in records], np.float64) for records in (found, objects))
    low = np.maximum(ours[:, None, :2], theirs[None, :, :2])
    high = np.minimum(ours[:, None, :2] + ours[:, None, 2:], theirs[None, :, :2] + theirs[None, :, 2:])
    common = np.clip(high - low, 0, None).prod(axis=2)
    own, other = ours[:, None, 2:].prod(axis=2), theirs[None, :, 2:].prod(axis=2)
    whole = np.where(crowds[None], own, own + other - common)
    overlap: Floats = common / np.maximum(whole, np.spacing(1))
    return overlap


def no_object(record: Mapping[str, Any]) -> bool:
    """Return False: every object counts."""
    return False


def match(
    truth: Truth,
    detections: Detections,
    overlap: Overlap = box_overlap,
    most: int = MOST,
    left_out: LeftOut = no_object,
) -> Matches:
    """Match detections to objects, class by class.

    Args:
        truth: COCO's ground truth, valid for `yolokd.evaluation.coco.score`; images are placed in the order of ids.
        detections: COCO's results.
        overlap: Of detections with objects.
        most: Detections of an image and class that count, the best ones.
        left_out: Whether an object is neither found nor missed; a detection that finds no other counts as neither too.
    """
    places = {number: place for place, number in enumerate(sorted(entry["id"] for entry in truth["images"]))}
    objects = _grouped(truth["annotations"], places)
    found = _grouped(detections, places)
    classes = (
        _match_class(objects.get(entry["id"], {}), found.get(entry["id"], {}), overlap, most, left_out)
        for entry in truth["categories"]
    )
    return Matches(len(places), tuple(classes))


def write_matches(path: Path, matches: Matches, sha256: str) -> None:
    """Write a file that `read_matches` reads, complete or not at all; `OSError` as usual.

    Args:
        path: Name of the file, ending in .npz.
        matches: What to write.
        sha256: Of the checkpoint that made the detections.
    """
    arrays = {
        "images": np.array(matches.images),
        "detections": np.array([len(one.image) for one in matches.classes], np.int64),
        "objects": np.array([len(one.objects) for one in matches.classes], np.int64),
        "image": _joined([one.image for one in matches.classes], np.int32),
        "found": _joined([one.found for one in matches.classes], np.uint16),
        "ignored": _joined([one.ignored for one in matches.classes], np.uint16),
        "object_image": _joined([one.objects for one in matches.classes], np.int32),
        "sha256": np.array(sha256),
    }
    content = io.BytesIO()
    np.savez_compressed(content, **arrays)  # type: ignore[arg-type]  # numpy's stub takes the names for an option
    write_whole(path, content.getvalue())


def read_matches(path: Path, sha256: str) -> Matches | None:
    """Return the matches of a checkpoint; None if there is no such file, or it is damaged or another checkpoint's."""
    try:
        refuse_special(path)
        with ZipFile(path) as archive:
            if sum(entry.file_size for entry in archive.infolist()) > LARGEST:
                return None
        with np.load(path, allow_pickle=False) as kept:
            if str(kept["sha256"]) != sha256:
                return None
            arrays = {name: kept[name] for name in ARRAYS}
    except DAMAGED:
        return None
    return _unpacked(arrays) if _are_valid(arrays) else None


def _are_valid(arrays: Mapping[str, NDArray[Any]]) -> bool:
    if any(arrays[name].dtype != kind or arrays[name].ndim != (name != "images") for name, kind in ARRAYS.items()):
        return False
    images, detections, objects = (arrays[name] for name in ("images", "detections", "objects"))
    if len(detections) != len(objects) or (detections < 0).any() or (objects < 0).any():
        return False
    lengths = {"image": detections.sum(), "found": detections.sum(), "ignored": detections.sum()}
    lengths["object_image"] = objects.sum()
    return all(len(arrays[name]) == length for name, length in lengths.items()) and all(
        ((arrays[name] >= 0) & (arrays[name] < images)).all() for name in ("image", "object_image")
    )


def _unpacked(arrays: Mapping[str, NDArray[Any]]) -> Matches:
    ends, object_ends = (np.cumsum(arrays[name])[:-1] for name in ("detections", "objects"))
    if not len(arrays["detections"]):
        return Matches(int(arrays["images"]), ())
    columns = [np.split(arrays[name], ends) for name in ("image", "found", "ignored")]
    objects = np.split(arrays["object_image"], object_ends)
    return Matches(int(arrays["images"]), tuple(map(ClassMatches, *columns, objects)))


def _joined(parts: list[NDArray[Any]], kind: type[Any]) -> NDArray[Any]:
    return np.concatenate([np.zeros(0, kind), *parts]).astype(kind)


Grouped = dict[int, dict[int, Records]]


def _grouped(records: Iterable[Mapping[str, Any]], places: Mapping[Any, int]) -> Grouped:
    """Records by class, then by the place of their image."""
    found: Grouped = {}
    for record in records:
        found.setdefault(record["category_id"], {}).setdefault(places[record["image_id"]], []).append(record)
    return found


def _match_class(
    objects: Mapping[int, Records], found: Mapping[int, Records], overlap: Overlap, most: int, left_out: LeftOut
) -> ClassMatches:
    scores, image, hits, ignored = [np.zeros(0)], [np.zeros(0, np.int32)], [], []
    empty = np.zeros((len(THRESHOLDS), 0), np.bool_)
    for place in sorted(found):
        best = sorted(found[place], key=lambda record: -record["score"])[:most]
        matched, crowd = _match_image(best, objects.get(place, []), overlap, left_out)
        scores.append(np.array([record["score"] for record in best], np.float64))
        image.append(np.full(len(best), place, np.int32))
        hits.append(matched)
        ignored.append(crowd)
    order = np.argsort(-np.concatenate(scores), kind="stable")
    matched = np.hstack([empty, *hits])[:, order]  # (10, D)
    useful = 1 + int(np.flatnonzero(matched.any(axis=0)).max(initial=-1))
    real = [
        place for place, own in objects.items() for record in own if not (record.get("iscrowd") or left_out(record))
    ]
    return ClassMatches(
        np.concatenate(image)[order][:useful],
        _packed(matched[:, :useful]),
        _packed(np.hstack([empty, *ignored])[:, order][:, :useful]),
        np.array(real, np.int32),
    )


def _packed(flags: Flags) -> NDArray[np.uint16]:
    """One bit per threshold, (10, D) → (D,)."""
    bits = 1 << np.arange(len(THRESHOLDS), dtype=np.uint16)
    packed: NDArray[np.uint16] = (flags * bits[:, None]).sum(axis=0).astype(np.uint16)
    return packed


def _match_image(found: Records, objects: Records, overlap: Overlap, left_out: LeftOut) -> tuple[Flags, Flags]:
    """Return which detections, the best first, find an object and which lie in one that does not count, (10, D) each.

    A crowd takes any number of detections, every other object one.
    """
    matched = np.zeros((len(THRESHOLDS), len(found)), np.bool_)
    ignored = matched.copy()
    if not objects:
        return matched, ignored
    crowds = np.array([bool(record.get("iscrowd")) for record in objects])
    counted = ~crowds & ~np.array([left_out(record) for record in objects])
    free = np.ones((len(THRESHOLDS), len(objects)), np.bool_)  # (10, G)
    rows = np.arange(len(THRESHOLDS))
    for place, own in enumerate(overlap(found, objects, crowds)):
        near = free & (own >= THRESHOLDS[:, None])
        hit, best = _best(near & counted, own)
        other, second = _best(near & ~counted, own)
        other &= ~hit
        matched[:, place], ignored[:, place] = hit, other
        free[rows[hit], best[hit]] = False
        free[rows[other], second[other]] = crowds[second[other]]
    return matched, ignored


def _best(allowed: Flags, overlap: Floats) -> tuple[Flags, NDArray[np.intp]]:
    """Return at which thresholds there is an object that is allowed, (10, G), and the one of largest overlap, (10,)."""
    choice = np.where(allowed, overlap, -1.0)[:, ::-1]
    return choice.max(axis=1) >= 0, choice.shape[1] - 1 - choice.argmax(axis=1)  # of equal ones the last, as COCO does
