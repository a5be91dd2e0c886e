"""Which images are labeled, what they are called in the new set, and which of them are for validation.

Frames of a camera resemble their neighbors, so whole scenes go to one split: a scene is a run of consecutive frames of
one clip. Frames belong to one clip if their names differ only in a number at the end, as `yolokd data frames` writes
them and as cameras do. Which scenes are for validation follows from a hash of clip and place: it depends neither on
chance nor on where the images are.
"""

from __future__ import annotations

import os
import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from yolokd.errors import DataError, UserError
from yolokd.files import sha256_of
from yolokd.images.reader import left_out
from yolokd.loaders.unlabeled import images_at

SCENE = 32  # consecutive frames, at most
LEAST_SCENES = 10  # are made of a set that is large enough
BORDER = 8  # of scenes of so many frames, the first and last are not validated on: they resemble their neighbors
NUMBER = re.compile(r"[-_ .]?(\d+(?:\.\d+)?)s?$")  # at the end of a frame's name


class Frame(NamedTuple):
    """An image on its way into the set."""

    file: str  # where it is, absolute
    name: str  # what it is called in the set, with suffix
    split: str  # "train" or "val"


class Frames(NamedTuple):
    """All images of a set to be made."""

    frames: tuple[Frame, ...]
    left_out: str  # a sentence that names those that cannot be used; "" if all can
    at_borders: int  # how many are in no split, since they lie between the two


def find_frames(source: Path, share: float) -> Frames:
    """List the images of a folder, or of a text file with one path a line, and split them.

    Args:
        source: The folder or the list.
        share: Of the scenes that are for validation, in (0, 1).

    Raises:
        DataError: There is no such source, or it holds fewer than two images that can be used.
    """
    source = source.expanduser().absolute()
    checks = images_at(source)
    files = [file for file, check in checks.items() if check.usable]
    excluded = left_out(checks)
    if len(files) < 2:
        raise DataError(
            f"A set takes two images at least, one of them to validate on; '{source}' holds {len(files)} that can be "
            f"used{f': {excluded}' if excluded else ''}."
        )
    base = source if source.is_dir() else Path(os.path.commonpath(files))
    places = {file: os.path.relpath(file, base).replace(os.sep, "/") for file in files}
    splits = split_scenes(places, share)
    names = unique_names(places)
    frames = tuple(Frame(file, names[file], splits[file]) for file in files if file in splits)
    return Frames(frames, excluded, len(files) - len(frames))


def check_share(share: float) -> None:
    """Raise `UserError` unless a share of the scenes can be for validation."""
    if not 0 < share < 1:
        raise UserError(f"--val is the share of the images that are for validation, between 0 and 1, got {share:g}.")


def clip_of(place: str) -> tuple[str, float]:
    """Return the clip that a frame is of, and its number there.

    Args:
        place: Path of the image, with slashes, from the folder of all.

    Example:
        >>> clip_of("day1/gate_000012.500s.jpg"), clip_of("0000000007.png"), clip_of("a/tree.jpg")
        (('day1/gate', 12.5), ('', 7.0), ('a/tree', 0.0))
    """
    stem = place.rpartition(".")[0]
    number = NUMBER.search(stem)
    return (stem, 0.0) if number is None else (stem[: number.start()], float(number[1]))


def split_scenes(places: Mapping[str, str], share: float) -> dict[str, str]:
    """Return the split of each image that is in one: the frames of a scene share it.

    Args:
        places: Image → path from the folder of all; two at least.
        share: Of the images whose scenes are for validation, those of the smallest hashes; one at least, never all.
    """
    clips: dict[str, list[tuple[float, str, str]]] = defaultdict(list)
    for file, place in places.items():
        clip, number = clip_of(place)
        clips[clip].append((number, place, file))
    length = min(SCENE, max(1, len(places) // LEAST_SCENES))
    scenes: dict[tuple[str, int], list[str]] = {}
    for clip, members in clips.items():
        ordered = [file for *_, file in sorted(members)]
        for start in range(0, len(ordered), length):
            scenes[clip, start // length] = ordered[start : start + length]
    ranked = sorted(scenes, key=lambda scene: sha256_of(f"{scene[0]}\0{scene[1]}"))
    judged, wanted = set[tuple[str, int]](), share * len(places)
    while ranked[1:] and (not judged or sum(len(scenes[scene]) for scene in judged) < wanted):
        judged.add(ranked.pop(0))
    found: dict[str, str] = {}
    for (clip, number), scene in scenes.items():
        if (clip, number) not in judged:
            found |= dict.fromkeys(scene, "train")
            continue
        before, after = ((clip, other) in scenes.keys() - judged for other in (number - 1, number + 1))
        cut = length >= BORDER
        found |= dict.fromkeys(scene[before and cut : len(scene) - (after and cut)], "val")
    return found


def unique_names(places: Mapping[str, str]) -> dict[str, str]:
    """Return a file name for each image, without folders; no two share a stem, since labels have it too.

    Example:
        >>> unique_names({"/x/a/1.jpg": "a/1.jpg", "/x/b/1.jpg": "b/1.jpg"})
        {'/x/a/1.jpg': 'a__1.jpg', '/x/b/1.jpg': 'b__1.jpg'}
    """
    flat = {file: place.replace("../", "").replace("/", "__") for file, place in places.items()}
    counts = Counter(name.rpartition(".")[0].lower() for name in flat.values())
    return {
        file: name if counts[name.rpartition(".")[0].lower()] == 1 else _marked(name, places[file])
        for file, name in flat.items()
    }


def _marked(name: str, place: str) -> str:
    stem, _, suffix = name.rpartition(".")
    return f"{stem}-{sha256_of(place)[:8]}.{suffix}"


def digest_of(frames: Sequence[Frame]) -> str:
    """Return a SHA-256 of which images are in which split under which name, and of their sizes in bytes."""
    rows = (f"{frame.split}/{frame.name}\0{Path(frame.file).stat().st_size}\n" for frame in frames)
    return sha256_of("".join(rows))
