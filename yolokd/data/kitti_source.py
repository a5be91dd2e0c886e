"""Finding the frames of a folder in KITTI's own layout, and splitting them.

Expected is `training/image_2` (PNG or JPEG) and `training/label_2` (text), below the folder given or in it. Links that
lead out of that folder are not followed unless the user says so: whoever hands out a data set should not decide what
else is read.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from yolokd.data.check import Problem
from yolokd.errors import DataError, UserError, printable
from yolokd.files import sha256_of
from yolokd.inputs import read_text

SUFFIXES = frozenset((".png", ".jpg", ".jpeg"))
LABELS = frozenset((".txt",))
LISTS = Path(__file__).parent / "kitti_split"
SPLITS = ("train", "val")
TRAIN_SHARE = 0.8


@dataclass
class Source:
    """The files of a folder in KITTI's layout, by the id of the frame, and what is wrong with them."""

    root: Path  # as given, links resolved
    training: Path  # the folder that holds image_2 and label_2
    images: dict[str, Path] = field(default_factory=dict)
    labels: dict[str, Path] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    @property
    def ids(self) -> list[str]:
        """Frames of which there is an image or a label file."""
        return sorted({*self.images, *self.labels})


@dataclass(frozen=True)
class Frames:
    """Which frames belong to which split, and what the user should know about it."""

    ids: Mapping[str, list[str]]
    notes: tuple[str, ...] = ()


def scan(src: Path, *, follow_links: bool = False) -> Source:
    """List images and label files; nothing is opened.

    Args:
        src: The folder that holds `training`, or `training` itself.
        follow_links: Follow links that lead out of `src` as well.

    Raises:
        DataError: No such layout, a folder that cannot be listed, or a link of a folder that leads out of `src`.
    """
    root = Path(src).expanduser().resolve()
    training = root / "training" if (root / "training").exists() else root
    folders = (training / "image_2", training / "label_2")
    for folder in folders:
        if not folder.is_dir():
            raise DataError(
                f"There is no folder '{folder}'. Give the folder that holds KITTI's training/image_2 (images) and "
                "training/label_2 (text files)."
            )
        if not (follow_links or _is_inside(folder, root)):
            raise DataError(
                f"'{folder}' leads out of '{root}', to '{os.path.realpath(folder)}', and is not followed. If you made "
                "that link, or trust whoever did, add --follow-links."
            )
    source = Source(root, training)
    for folder, suffixes, found in zip(folders, (SUFFIXES, LABELS), (source.images, source.labels), strict=True):
        try:
            _list(folder, None if follow_links else root, suffixes, found, source.problems)
        except OSError as error:
            raise DataError(f"The folder '{folder}' cannot be listed: {error.strerror or error}.") from error
    if not source.ids:
        raise DataError(f"There are neither images in '{folders[0]}' nor labels in '{folders[1]}'.")
    return source


def choose(source: Source, split: str, seed: int | None = None) -> Frames:
    """Split the frames.

    Args:
        source: From `scan`.
        split: `published` (the lists of Chen et al., 3712 and 3769), `random` (8:2), or the paths of two lists of ids,
            `TRAIN,VAL`.
        seed: Of the random split, 0 if None.

    Raises:
        UserError: None of these, or a seed for a split that is not random.
        DataError: A list that is missing or malformed, or names a frame that is not there; an empty split.
    """
    if seed is not None and split != "random":
        raise UserError(f"--seed belongs to --split random; the split '{split}' draws nothing.")
    if split == "random":
        frames = _random(source, seed or 0)
    elif split == "published":
        frames = _published(source)
    else:
        frames = _listed(source, split)
    left = len(source.ids) - sum(map(len, frames.ids.values()))
    if left:
        return Frames(frames.ids, (*frames.notes, f"Frames in neither split, left out: {left}."))
    return frames


def _random(source: Source, seed: int) -> Frames:
    ids = source.ids
    if len(ids) < 2:
        raise DataError(f"'{source.root}' holds a single frame, which cannot be split.")
    # Ordered by a hash: the same on every platform and with every version of Python.
    drawn = sorted(ids, key=lambda frame: sha256_of(f"{seed}:{frame}"))
    cut = min(max(round(TRAIN_SHARE * len(ids)), 1), len(ids) - 1)
    note = "A random split puts frames of one drive on both sides, so that scores on val come out too high."
    return Frames({"train": sorted(drawn[:cut]), "val": sorted(drawn[cut:])}, (note,))


def _published(source: Source) -> Frames:
    lists = {split: (LISTS / f"{split}.txt").read_text(encoding="utf-8").split() for split in SPLITS}
    there = set(source.ids)
    ids = {split: [frame for frame in frames if frame in there] for split, frames in lists.items()}
    for split, frames in ids.items():
        if not frames:
            raise DataError(
                f"'{source.root}' holds none of the {len(lists[split])} frames of the published {split} list. For "
                "frames of your own give --split random, or two files of ids."
            )
    absent = {split: len(lists[split]) - len(ids[split]) for split in SPLITS}
    if not any(absent.values()):
        return Frames(ids)
    note = "The published lists name {} + {} frames (train + val), of which {} + {} are not here; the others were used."
    return Frames(ids, (note.format(*map(len, lists.values()), *absent.values()),))


def _listed(source: Source, split: str) -> Frames:
    files = split.split(",")
    if len(files) != 2 or not all(file.strip() for file in files):
        raise UserError(
            f"--split expects published, random, or two files of ids, TRAIN.txt,VAL.txt (one id a line); got '{split}'."
        )
    there = set(source.ids)
    seen: dict[str, str] = {}
    ids: dict[str, list[str]] = {}
    problems: list[Problem] = []
    for name, file in zip(SPLITS, (Path(file.strip()).expanduser() for file in files), strict=True):
        ids[name] = []
        for number, frame in enumerate(_lines(file), start=1):
            if not frame:
                continue
            if frame not in there:
                problems.append(Problem(str(file), number, f"names a frame that '{source.root}' lacks", frame))
            elif frame in seen:
                problems.append(Problem(str(file), number, f"names a frame that stands in {seen[frame]} too", frame))
            else:
                seen[frame] = f"{file}:{number}"
                ids[name].append(frame)
        if not ids[name] and not problems:
            problems.append(Problem(str(file), 0, "names no frame", ""))
    source.problems += problems
    return Frames({name: sorted(frames) for name, frames in ids.items()})


def _lines(file: Path) -> list[str]:
    try:
        return [line.strip() for line in read_text(file).splitlines()]
    except (OSError, ValueError) as error:
        raise DataError(f"The list of ids '{file}' cannot be read: {getattr(error, 'strerror', error)}.") from error


def _list(
    folder: Path, root: Path | None, suffixes: frozenset[str], found: dict[str, Path], problems: list[Problem]
) -> None:
    """Enter the files of a folder by their stem; hidden files, folders and other kinds of files are passed over.

    Links must not lead out of `root`, unless it is None.
    """
    with os.scandir(folder) as entries:
        files = sorted((entry for entry in entries if not entry.name.startswith(".")), key=lambda entry: entry.name)
    for entry in files:
        path = Path(entry.path)
        if path.suffix.lower() not in suffixes or entry.is_dir(follow_symlinks=False):
            continue
        if root is not None and entry.is_symlink() and not _is_inside(path, root):
            what = f"a link that leads out of '{root}', which is followed only with --follow-links"
            value = os.path.realpath(path)
        elif not path.is_file():
            what, value = "neither a file nor a link to one", ""
        elif printable(entry.name) != entry.name:
            what, value = "the id of a frame must be printable text in UTF-8", ""
        elif path.stem in found:
            what, value = f"a second file of the frame beside {found[path.stem].name}", ""
        else:
            found[path.stem] = path
            continue
        problems.append(Problem(entry.path, 0, what, value))


def _is_inside(path: Path, root: Path) -> bool:
    return Path(os.path.realpath(path)).is_relative_to(root)
