"""Where images and labels of a YOLO data set are. The rules are those by which Ultralytics finds them.

A source is a folder, searched with all folders below it (hidden ones are left out), or a text file that lists one
image per line, where `./` means beside the list. The labels of `…/images/…/a.jpg` are in `…/labels/…/a.txt`: the last
folder called `images` counts; without one they lie beside the image.
"""

# Plain strings and `os` instead of pathlib: a hundred thousand files in seconds.
# ruff: noqa: PTH100, PTH112, PTH116, PTH120, PTH123
from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from yolokd.files import sha256_of
from yolokd.images.reader import SUFFIXES
from yolokd.inputs import read_text, refuse_special

VERSION = 2  # of the fingerprint
_IMAGES, _LABELS = f"{os.sep}images{os.sep}", f"{os.sep}labels{os.sep}"


def images_of(source: Path) -> list[str]:
    """Return the paths of a source's images, absolute and sorted; of a list also those that do not exist.

    Raises:
        OSError: The source is missing or cannot be read, or a link in it leads back to a folder above.
        UnicodeDecodeError: A list that is not UTF-8.
    """
    root = os.path.abspath(source)
    found = _walk(root) if os.path.isdir(root) else _listed(root)
    return sorted(path for path in found if path.rpartition(".")[-1].lower() in SUFFIXES)


def label_path(image: str) -> str:
    """Return where the labels of an image belong."""
    return _LABELS.join(image.rsplit(_IMAGES, 1)).rsplit(".", 1)[0] + ".txt"


def fingerprint(splits: Mapping[str, Sequence[Path]], *, like: str | None = None) -> str:
    """Return a version and a SHA-256 of what a data set holds: names and sizes of its images and all of its labels.

    It does not depend on where the set is. The size of a JPEG is that in pixels, since Ultralytics writes some anew
    when it first reads a set; that of any other file is in bytes.

    Args:
        splits: Split → folders of images or lists of them.
        like: A fingerprint to be compared with: the result is of its version.

    Raises:
        OSError: A source is missing or cannot be read.
    """
    if like and ":" not in like:  # without a version: all sizes in bytes, from before there were versions
        return _digest(splits, _size)
    from yolokd.images.reader import check_images

    checks = check_images(image for sources in splits.values() for source in sources for image in images_of(source))

    def size(image: str) -> str | int:
        found = checks[image]
        return f"{found.width}x{found.height}" if found.usable and found.format == "JPEG" else _size(image)

    return f"{VERSION}:{_digest(splits, size)}"


def _digest(splits: Mapping[str, Sequence[Path]], size: Callable[[str], str | int]) -> str:
    parts = list[str]()
    for split in sorted(splits):
        rows = []
        for source in splits[split]:
            base = os.path.abspath(source if os.path.isdir(source) else os.path.dirname(source))
            for image in images_of(source):
                name = os.path.relpath(image, base).replace(os.sep, "/")
                rows.append(f"{name}\0{size(image)}\0{_label_hash(image)}")
        parts += [split, *sorted(rows)]
    return sha256_of("\n".join([*parts, ""]))


def _walk(folder: str, above: tuple[str, ...] = ()) -> Iterator[str]:
    above = (*above, os.path.realpath(folder))
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if not _is_folder(entry):
                yield entry.path
                continue
            if os.path.realpath(entry.path) in above:
                raise OSError(errno.ELOOP, "a link that leads back to a folder above it", entry.path)
            yield from _walk(entry.path, above)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _listed(file: str) -> Iterator[str]:
    lines = read_text(file).strip().splitlines()
    beside = os.path.dirname(file) + os.sep
    for line in lines:
        path = line.replace("./", beside, 1) if line.startswith("./") else line
        yield os.path.abspath(path.replace("/", os.sep))


def _size(image: str) -> int:
    try:
        return os.stat(image).st_size
    except (OSError, ValueError):  # the latter of a name with a null character
        return -1


def _label_hash(image: str) -> str:
    try:
        labels = label_path(image)
        refuse_special(labels)
        with open(labels, "rb") as stream:
            return sha256_of(stream.read())
    except (OSError, ValueError):
        return "-"
