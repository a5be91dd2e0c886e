"""What was found on images, kept on disk so that unchanged files are not opened again.

There is a JSON file per folder of images in yolokd's cache, since commands that only read data have no folder of their
own to write to. An entry holds for one size and time of change of its file, and for these versions of the decoders.
Only what can be used is kept: why an image cannot be read may lie in rights, in a disk or in memory, and pass although
the file stays as it is. A store that is damaged, of another format or not writable costs time only.
"""

# Plain strings and `os` instead of pathlib: a hundred thousand files in seconds.
# ruff: noqa: PTH120
from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from yolokd.files import cache_folder, sha256_of, write_whole
from yolokd.images.reader import ImageCheck

FOLDER = "images"  # in yolokd's cache
FORMAT = 1

Stamp = tuple[int, int]  # size in bytes and time of change in nanoseconds
KINDS = [int, int, str, str, bool, bool]  # of the fields of `ImageCheck`

_known: dict[str, tuple[Stamp, ImageCheck]] = {}  # of this process


class ImageStore:
    """The entries of this process, and those on disk."""

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = cache_folder(FOLDER) if folder is None else folder
        self.header = {"format": FORMAT, "versions": _versions()}

    def get(self, stamps: Mapping[str, Stamp]) -> dict[str, ImageCheck]:
        """Return what is known of files that are as they were."""
        unknown = [path for path, stamp in stamps.items() if _known.get(path, ((), None))[0] != stamp]
        for folder in {os.path.dirname(path) for path in unknown}:
            _known.update(self._read(folder))
        return {path: _known[path][1] for path, stamp in stamps.items() if path in _known and _known[path][0] == stamp}

    def put(self, found: Mapping[str, tuple[Stamp, ImageCheck]]) -> None:
        """Keep what was found; files that do not exist are not entered."""
        there = {path: entry for path, entry in found.items() if entry[0][0] >= 0}
        _known.update(there)
        by_folder: dict[str, dict[str, tuple[Stamp, ImageCheck]]] = {}
        for path, entry in there.items():
            by_folder.setdefault(os.path.dirname(path), {})[path] = entry
        for folder, entries in by_folder.items():
            with contextlib.suppress(OSError):
                self._write(folder, {**self._read(folder), **entries})

    def _read(self, folder: str) -> dict[str, tuple[Stamp, ImageCheck]]:
        """Return the entries of a folder that can be understood."""
        try:
            plain = json.loads(self._file(folder).read_text(encoding="utf-8"))
            if {key: plain[key] for key in self.header} != self.header or plain["folder"] != folder:
                return {}
            images = plain["images"].items()
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return {}
        entries = ((os.path.join(folder, name), _entry(row)) for name, row in images)  # noqa: PTH118
        return {path: entry for path, entry in entries if entry is not None and entry[1].usable}

    def _write(self, folder: str, entries: Mapping[str, tuple[Stamp, ImageCheck]]) -> None:
        """Write beside and rename, so that readers find the old file or the new one."""
        images = {
            os.path.basename(path): [*stamp, *check]  # noqa: PTH119
            for path, (stamp, check) in entries.items()
            if check.usable
        }
        self.folder.mkdir(parents=True, exist_ok=True)
        write_whole(self._file(folder), json.dumps({**self.header, "folder": folder, "images": images}))

    def _file(self, folder: str) -> Path:
        return self.folder / f"{sha256_of(folder)[:20]}.json"


def _entry(row: Any) -> tuple[Stamp, ImageCheck] | None:
    """A stored row, or None if it is none."""
    if not isinstance(row, list) or [type(value) for value in row] != [int, int, *KINDS]:
        return None
    return (row[0], row[1]), ImageCheck(*row[2:])


def _versions() -> list[str]:
    import cv2
    import PIL
    import ultralytics

    return [ultralytics.__version__, PIL.__version__, cv2.__version__]
