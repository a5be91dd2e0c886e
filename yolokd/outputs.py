"""Where results are written: never over an input, and never over a file that yolokd did not make.

A folder of results holds `.yolokd.json`, the digest of every file that was written there. A file is yolokd's own as
long as its digest is that one: the same command again replaces it, while a file that somebody else has put there, or
has changed since, stays, and the result gets a number (`car-2.jpg`). A single file that an option names (`--json`,
`--plot`) is replaced only if its content shows that it is a result of yolokd; anything else is refused, except that
`--json` keeps a JSON file of somebody else under another name (`found.json.bak`) and takes its place.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from yolokd.errors import UserError
from yolokd.files import replacing, sha256, sha256_of, write_json, write_whole

RECORD = ".yolokd.json"
LARGEST = 64 * 2**20  # bytes; no JSON of results comes near it
FORMS = (  # keys of the results that `--json` writes, of the whole or of each of a list
    {"name", "path", "AP", "AP50", "latency_ms"},  # eval
    {"name", "path", "rotated", "latency_ms"},  # eval of OBB models
    {"format", "precision", "before", "after", "parity"},  # export
    {"comparison", "budget", "seeds", "arms"},  # compare
    {"conditions", "plain", "built_in", "recipes"},  # bench
    {"student", "evidence", "diagnosis", "thresholds"},  # diagnose
)
SOFTWARE = "yolokd"  # of a PNG's metadata, with the command


class OutputFolder:
    """A folder that results are moved into, each under a name that overwrites nothing but an earlier result."""

    def __init__(self, folder: Path, inputs: Iterable[Path] = ()) -> None:
        """Read what was written there before.

        Args:
            folder: The folder; it exists.
            inputs: Files that the command reads, which are never replaced.
        """
        self.folder = folder
        self._inputs = {_identity(path) for path in inputs} - {None}
        self._taken: set[str] = set()  # names of this call
        self._digests = _read_record(folder / RECORD)

    def choose(self, stem: str, suffix: str) -> Path:
        """Return the path for a result: `stem` + `suffix`, with a number where that is somebody else's."""
        name, number = f"{stem}{suffix}", 2
        while name in self._taken or not self._may_replace(self.folder / name):
            name, number = f"{stem}-{number}{suffix}", number + 1
        return self.folder / name

    def take(self, written: Path, stem: str, suffix: str) -> Path:
        """Move a finished file or folder here under the name that `choose` gives, and return its path.

        Raises:
            OSError: It cannot be written; what was there before is still there.
        """
        target = self.choose(stem, suffix)
        with replacing(target) as part:
            shutil.move(written, part)
            if target.is_dir():  # an earlier result, unchanged since
                shutil.rmtree(target)
        self._taken.add(target.name)
        self._digests[target.name] = sha256(target)
        self._save()
        return target

    def put(self, name: str, content: bytes) -> None:
        """Write a file of exactly this name, complete or not at all; errors as usual.

        Args:
            name: From `own_names`, or of a file that is not there.
            content: What to write.
        """
        write_whole(self.folder / name, content)
        self._taken.add(name)
        self._digests[name] = sha256_of(content)
        self._save()

    def remove(self, names: Iterable[str]) -> None:
        """Remove files of this folder that are in `own_names`; others stay."""
        own = self.own_names()
        for name in names:
            if name in own:
                (self.folder / name).unlink()
                del self._digests[name]
        self._save()

    def own_names(self) -> set[str]:
        """Return the names of what was written here before and is still as it was."""
        return {
            name for name in self._digests if (self.folder / name).is_file() and self._may_replace(self.folder / name)
        }

    def _may_replace(self, path: Path) -> bool:
        if not os.path.lexists(path):
            return True
        if path.is_symlink() or _identity(path) in self._inputs or path.name not in self._digests:
            return False
        return self._digests[path.name] == sha256(path)

    def _save(self) -> None:
        file = self.folder / RECORD
        if file.exists() and not _is_record(file):
            return
        here = {name: value for name, value in sorted(self._digests.items()) if (self.folder / name).exists()}
        write_json(file, {"written by": "yolokd", "files": here})


def open_folder(folder: Path, inputs: Iterable[Path], *, option: str = "--out", what: str = "results") -> OutputFolder:
    """Make a folder for results, apart from those that the inputs are in.

    Args:
        folder: The folder asked for; it may exist.
        inputs: Files that the command reads.
        option: The option that names the folder.
        what: What is written, for messages.

    Raises:
        UserError: It is a file, cannot be made or written to, or an input lies in it, also through links.
    """
    asked, inputs = folder, list(inputs)
    real = os.path.realpath(folder)
    for path in inputs:
        if real in {os.path.dirname(os.path.realpath(path)), os.path.realpath(path.absolute().parent)}:  # noqa: PTH120
            raise UserError(
                f"{option} '{asked}' is the folder that '{path.name}' is read from, and nothing is written there. "
                f"Give another folder with {option}."
            )
    if folder.exists() and not folder.is_dir():
        raise UserError(f"The {what} cannot be written to '{asked}': it is a file. Give a folder with {option}.")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"The {what} cannot be written to '{asked}': {error.strerror}.") from error
    if not os.access(folder, os.W_OK | os.X_OK):
        raise UserError(f"The {what} cannot be written to '{asked}': you may not write there.")
    return OutputFolder(folder, inputs)


def check_file(file: str | None, option: str) -> None:
    """Check, before any work, that an option may write its file.

    Args:
        file: What the user gave; None and "-" (stdout) pass.
        option: `--json` or `--plot`, for messages.

    Raises:
        UserError: Its folder does not exist, it is a folder itself, or a file is there that is no result of yolokd.
    """
    if file in {None, "-"}:
        return
    path = Path(str(file))
    try:
        if not path.absolute().parent.is_dir():
            raise UserError(
                f"{option} '{file}' cannot be written: there is no such folder, '{path.parent}' does not exist."
            )
        if path.is_dir():
            raise UserError(f"{option} '{file}' cannot be written: it is a folder. Give the name of a file.")
        own = not path.is_file() or _is_own(path) or (option == "--json" and _read_json(path) is not None)
    except OSError as error:
        raise UserError(f"{option} '{file}' cannot be written: {error.strerror or error}.") from error
    if not own:
        raise UserError(
            f"{option} '{file}' names a file that is there and holds no results of yolokd, so it is not overwritten. "
            f"Give another name, or remove it."
        )


def write_file(file: str, content: bytes, option: str) -> Path | None:
    """Write the file of an option, complete or not at all; errors as `check_file`, or it cannot be written.

    Returns:
        Where a JSON file that was there and is not yolokd's is kept; None if there was none.
    """
    check_file(file, option)
    path = Path(file)
    kept = None
    try:
        if path.exists() and not path.is_file():  # a device or a pipe
            path.write_bytes(content)
        else:
            real = Path(os.path.realpath(path))
            if real.is_file() and not _is_own(real):
                kept = _keep(real)
            write_whole(real, content)
    except OSError as error:
        raise UserError(f"{option} '{file}' cannot be written: {error.strerror or error}.") from error
    return kept


def _identity(path: Path) -> tuple[int, int] | None:
    """Device and inode, the same for all names of a file."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes()) if path.stat().st_size <= LARGEST else None
    except (OSError, ValueError, RecursionError):
        return None


def _is_record(path: Path) -> bool:
    found = _read_json(path)
    return isinstance(found, dict) and found.get("written by") == "yolokd" and isinstance(found.get("files"), dict)


def _read_record(path: Path) -> dict[str, str]:
    return dict(_read_json(path)["files"]) if _is_record(path) else {}


def _keep(path: Path) -> Path:
    """Rename a file to the first free name with `.bak` at its end, and return that."""
    kept, number = path.with_name(f"{path.name}.bak"), 2
    while os.path.lexists(kept):
        kept, number = path.with_name(f"{path.name}.bak{number}"), number + 1
    path.rename(kept)
    return kept


def _is_own(path: Path) -> bool:
    """Whether a file is empty or a result of yolokd."""
    return path.stat().st_size == 0 or _is_png(path) or _is_json(path)


def _is_json(path: Path) -> bool:
    found = _read_json(path)
    rows = found if isinstance(found, list) else [found]
    return bool(rows) and all(isinstance(row, dict) and any(form <= row.keys() for form in FORMS) for row in rows)


def _is_png(path: Path) -> bool:
    with path.open("rb") as file:
        if file.read(8) != b"\x89PNG\r\n\x1a\n":
            return False
    from PIL import Image

    try:
        with Image.open(path) as image:
            return str(image.info.get("Software", "")).startswith(SOFTWARE)
    except Exception:  # a damaged PNG may fail anywhere
        return False
