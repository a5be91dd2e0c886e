"""Where pictures and labels of a YOLO data set lie. The rules are those by which Ultralytics finds them.

A source is a folder, searched with all folders below it (hidden ones are left out), or a text file that lists one
picture per line, where `./` means beside the list. The labels of `…/images/…/a.jpg` are in `…/labels/…/a.txt`: the last
folder called `images` counts; without one they lie beside the picture.
"""

# Plain strings and `os` instead of pathlib: a hundred thousand files in seconds.
# ruff: noqa: PTH100, PTH112, PTH116, PTH120, PTH123
from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

PICTURES = frozenset(("avif", "bmp", "dng", "heic", "heif", "jp2", "jpeg", "jpg", "mpo", "png", "tif", "tiff", "webp"))
_IMAGES, _LABELS = f"{os.sep}images{os.sep}", f"{os.sep}labels{os.sep}"


def pictures(source: Path) -> list[str]:
    """Return the paths of a source's pictures, absolute and sorted; of a list also those that do not exist.

    Raises:
        OSError: The source is missing or cannot be read.
    """
    root = os.path.abspath(source)
    found = _walk(root) if os.path.isdir(root) else _listed(root)
    return sorted(path for path in found if path.rpartition(".")[-1].lower() in PICTURES)


def label_path(picture: str) -> str:
    """Return where the labels of a picture belong."""
    return _LABELS.join(picture.rsplit(_IMAGES, 1)).rsplit(".", 1)[0] + ".txt"


def fingerprint(splits: Mapping[str, Sequence[Path]]) -> str:
    """Return a SHA-256 of what a data set holds: names and sizes of its pictures and all of its labels.

    It does not depend on where the set lies. Pictures are not opened, so that a large set takes seconds.

    Args:
        splits: Split → folders of pictures or lists of them.

    Raises:
        OSError: A source is missing or cannot be read.
    """
    total = hashlib.sha256()
    for split in sorted(splits):
        rows = []
        for source in splits[split]:
            base = os.path.abspath(source if os.path.isdir(source) else os.path.dirname(source))
            for picture in pictures(source):
                name = os.path.relpath(picture, base).replace(os.sep, "/")
                rows.append(f"{name}\0{_size(picture)}\0{_label_hash(picture)}")
        total.update("\n".join([split, *sorted(rows), ""]).encode("utf-8", "surrogateescape"))
    return total.hexdigest()


def _walk(folder: str) -> Iterator[str]:
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if entry.is_dir():
                yield from _walk(entry.path)
            else:
                yield entry.path


def _listed(file: str) -> Iterator[str]:
    with open(file, encoding="utf-8-sig") as stream:
        lines = stream.read().strip().splitlines()
    beside = os.path.dirname(file) + os.sep
    for line in lines:
        path = line.replace("./", beside, 1) if line.startswith("./") else line
        yield os.path.abspath(path.replace("/", os.sep))


def _size(picture: str) -> int:
    try:
        return os.stat(picture).st_size
    except OSError:
        return -1


def _label_hash(picture: str) -> str:
    try:
        with open(label_path(picture), "rb") as stream:
            return hashlib.sha256(stream.read()).hexdigest()
    except OSError:
        return "-"
