"""What `yolokd predict` shows to Ultralytics: the files of a folder that it can read, and whose names it can write.

Ultralytics' predictor dies of a file whose name is not UTF-8 (OpenCV ends the process), takes a name with `*` for a
pattern, and passes over an image that it cannot read.
"""

from __future__ import annotations

import glob
from collections.abc import Sequence
from pathlib import Path

from yolokd.data.images import check_images, read_image
from yolokd.data.layout import PICTURES, printable
from yolokd.errors import DataError, UserError

SHOWN = 5  # files that a note names
RENAME = "whose name is not UTF-8 or has unprintable characters, which Ultralytics cannot handle; rename it"


def list_sources(source: Path, folder: Path) -> tuple[Path, list[str]]:
    """Return what to give to Ultralytics, and notes on the files that are passed over.

    Args:
        source: An image, a video, a folder of them, or a list of files.
        folder: Where a list may be written.

    Raises:
        UserError: No file is left, or the folder cannot be listed.
    """
    if source.is_dir():
        try:
            files = sorted(
                path for path in source.absolute().iterdir() if path.suffix and not path.name.startswith(".")
            )
        except OSError as error:
            raise UserError(f"The folder '{printable(source)}' cannot be listed: {error.strerror or error}.") from error
    elif source.suffix.lower() in {".txt", ".csv"}:
        return source, []
    else:
        files = [source.absolute()]
    from ultralytics.data.utils import VID_FORMATS

    known = [path for path in files if path.suffix.lower()[1:] in PICTURES | VID_FORMATS]
    if not known:
        raise UserError(f"There are no images or videos in '{printable(source)}'.")
    problems = dict(zip(known, _problems(known), strict=True))
    notes = [f"'{printable(path)}' is passed over: a file {what}" for path, what in problems.items() if what]
    chosen = [path for path, what in problems.items() if not what]
    if not chosen:
        raise UserError(f"None of the files in '{printable(source)}' can be used: {notes[0]}.")
    if len(notes) > SHOWN:
        notes[SHOWN:] = [f"{len(notes) - SHOWN} more are passed over"]
    # A name with a star would be taken for a pattern, unless it is written as one that means itself alone.
    lines = [glob.escape(str(path)) if "*" in str(path) else str(path) for path in chosen]
    written = folder / "sources.txt"
    written.write_text("\n".join(lines), encoding="utf-8-sig")
    return written, notes


def _problems(paths: Sequence[Path]) -> list[str]:
    """Why each file cannot be used; "" if it can."""
    images = [str(path) for path in paths if path.suffix.lower()[1:] in PICTURES]
    checks = check_images(images)
    found = []
    for path in paths:
        check = checks.get(str(path))
        if printable(path) != str(path):
            found.append(RENAME)
        elif check is None or check.usable or _is_readable(path):
            found.append("")
        else:
            found.append(f"that cannot be read ({check.problem})")
    return found


def _is_readable(path: Path) -> bool:
    """Whether an image can be predicted on that could not be trained on, such as one of 8 pixels."""
    try:
        read_image(path)
    except DataError:
        return False
    return path.is_file()
