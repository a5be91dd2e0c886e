"""Paths that Ultralytics would alter before it opens them, and how a file is loaded under its own path all the same.

For a checkpoint it takes apostrophes and outer spaces out of the path, and puts a `u` into names such as `yolov5s.pt`
(`attempt_download_asset` and `check_yolov5u_filename`, 8.4.190); then it opens whatever is there, or looks for it on
the network. A question mark, also one written as %3F, begins a query, so that the suffix before it counts
(`check_suffix`).
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import unquote

from ultralytics.utils import clean_url
from ultralytics.utils.checks import check_yolov5u_filename

from yolokd.errors import UserError
from yolokd.files import link_or_copy


def altered(path: str | Path) -> str | None:
    """Return the path that Ultralytics would open instead of this one; None if it is the same.

    Args:
        path: Of a checkpoint, or of a YAML, in which apostrophes stay.
    """
    text = str(path)
    found = text.strip()
    if not found.lower().endswith((".yaml", ".yml")):
        found = found.replace("'", "")
    found = str(check_yolov5u_filename(found, verbose=False))
    cleaned = str(clean_url(found))
    if _suffix(cleaned) != _suffix(found):
        found = cleaned
    return None if found == text else found


def _suffix(path: str) -> str:
    return path.rpartition(".")[-1].lower().strip()


@contextmanager
def unaltered(path: Path) -> Iterator[Path]:
    """Give a path of the same file that Ultralytics opens as it is: the path itself, or a link in a temporary folder.

    Raises:
        UserError: The system's folder for temporary files has a path that would be altered as well.
    """
    if altered(path) is None:
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="yolokd-") as folder:
        yield link(path, Path(folder))


def link(path: Path, folder: Path) -> Path:
    """Return a new link to a checkpoint (a copy where links do not work), below `folder`; errors as `unaltered`."""
    place = Path(tempfile.mkdtemp(dir=folder)) / "checkpoint.pt"
    if altered(place) is not None:
        raise UserError(
            f"'{path}' cannot be opened: Ultralytics alters its path, and that of the temporary folder '{folder}'. "
            f"Set TMPDIR to a folder whose path holds neither an apostrophe nor a question mark."
        )
    link_or_copy(path, place)
    return place


def refuse_altered(path: Path, what: str, remedy: str) -> None:
    """Raise `UserError` where Ultralytics would alter a path that cannot be given otherwise.

    Args:
        path: A file that Ultralytics is going to open.
        what: Its description, at the start of the message.
        remedy: What the user can do, a sentence.
    """
    other = altered(path)
    if other is None:
        return
    if "'" in str(path) and "'" not in other:
        reason = "its path holds an apostrophe ('), which Ultralytics takes out before it looks for a file"
    elif "?" in unquote(str(path)) and "?" not in other:
        reason = "its path holds a question mark (?), which Ultralytics takes for the beginning of a query"
    else:
        reason = f"Ultralytics would look for '{other}' instead"
    raise UserError(f"{what} '{path}' cannot be used: {reason}. {remedy}")
