"""Putting a prepared data set in its place: written beside, then renamed, so that nobody meets half of one.

A prepared folder holds a marker, a JSON file written last, that says what the folder was asked to hold. The same
request again finds it and does nothing; whatever else is at that place is left alone.

    if not publish.is_there(out, "kitti.json", marker):
        with publish.beside(out, "kitti.json", marker) as folder:   # a hidden folder next to `out`
            (folder / "images").mkdir()
            publish.place(source, folder / "images" / source.name)  # a link, or a copy
            ...                                                     # renamed to `out` here, removed on any exception
"""

from __future__ import annotations

import errno
import glob
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from yolokd.errors import DataError
from yolokd.files import link_or_copy, unique_beside
from yolokd.inputs import read_json

UNFINISHED = ".unfinished"


def is_there(out: Path, file: str, marker: Mapping[str, Any]) -> bool:
    """Return whether the very set is there already; False if there is nothing, or an empty folder.

    Args:
        out: The folder asked for.
        file: Name of the marker in it.
        marker: What was asked for; plain data that JSON gives back unchanged.

    Raises:
        DataError: Something else is there.
    """
    out = _resolve(out)
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return False
    found = _read(out / file)
    if found == marker:
        return True
    if found is None:
        raise DataError(f"'{out}' holds something else already; give a folder that is new or empty.")
    differing = [key for key in {**marker, **found} if found.get(key) != marker.get(key)]
    raise DataError(
        f"'{out}' holds a set that was prepared differently ({', '.join(differing)}; see '{out / file}'); give another "
        "folder, or remove that one."
    )


@contextmanager
def beside(out: Path, file: str, marker: Mapping[str, Any]) -> Iterator[Path]:
    """Give a new folder beside `out` to write the set into, then write the marker and rename the folder to `out`.

    Whatever ends the block early, `KeyboardInterrupt` included, removes the folder; `out` is not touched. A process
    that is killed leaves the folder behind, see `leftovers`.

    Args:
        out: The folder to make; `is_there` has said that it is free.
        file: Name of the marker.
        marker: What was asked for.

    Raises:
        DataError: The folder cannot be written (any `OSError` of the block counts), or `out` is taken by now.
    """
    out = _resolve(out)
    folder = unique_beside(out, UNFINISHED)
    try:
        folder.mkdir(parents=True)
        yield folder
        (folder / file).write_text(json.dumps(marker, indent=1), encoding="utf-8")
        _swap_in(folder, out, file, marker)
    except OSError as error:
        place = f" ({error.filename})" if error.filename else ""
        raise DataError(f"'{out}' cannot be written: {error.strerror or error}{place}.") from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def place(source: Path, target: Path) -> None:
    """Put a file of the user's at `target`: a symbolic link with an absolute path, or a copy where links do not work.

    Raises:
        OSError: The source cannot be read or the target cannot be written.
    """
    real = Path(os.path.realpath(source))
    if not real.is_file():
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(source))
    link_or_copy(real, target)


def leftovers(out: Path) -> list[Path]:
    """Return the folders that killed runs for the same `out` left beside it; one may still be at work."""
    out = _resolve(out)
    beginning, digits, _ = unique_beside(out, "").name.rpartition("-")
    return sorted(out.parent.glob(f"{glob.escape(beginning + digits)}*{UNFINISHED}")) if out.parent.is_dir() else []


def leftover_notes(out: Path) -> list[str]:
    """Tell the user of each of the `leftovers`."""
    notified = "was left behind by a run that was killed, unless one is at work; it can be removed."
    return [f"'{folder}' {notified}" for folder in leftovers(out)]


def _resolve(out: Path) -> Path:
    """Where the folder really is, so that renaming works where `out` is a link to an empty folder."""
    return Path(out).expanduser().resolve()


def _read(file: Path) -> dict[str, Any] | None:
    try:
        found = read_json(file)
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def _swap_in(folder: Path, out: Path, file: str, marker: Mapping[str, Any]) -> None:
    """Rename the finished folder; somebody else may have finished the same set meanwhile."""
    if out.is_dir() and not any(out.iterdir()):
        out.rmdir()
    try:
        folder.rename(out)
    except OSError:
        if _read(out / file) != marker:
            raise
