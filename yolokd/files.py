"""Files and folders that are complete or not there, digests, and the folder of yolokd's caches.

What is written beside its final place has a hidden name of its own that ends in `.part`, so that two processes never
write the same file; one that is killed leaves it behind.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

PART = ".part"


def unique_beside(path: Path, suffix: str = PART) -> Path:
    """Return the path of a hidden file or folder beside `path` that nobody else uses."""
    return path.with_name(f".{path.name[:50]}-{uuid4().hex[:12]}{suffix}")


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a path to write a file or folder to, and rename that to `path` at the end of the block.

    A kill leaves the old file or the new one. After an exception, the old one is left and what was written is removed.

    Args:
        path: The final place: a file, an empty folder, or nothing.

    Raises:
        OSError: As usual.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     with replacing(Path(folder, "a.txt")) as part:
        ...         _ = part.write_text("whole")
        ...     print(*(file.name for file in Path(folder).iterdir()))
        a.txt
    """
    part = unique_beside(path)
    try:
        yield part
        part.replace(path)
    finally:
        if part.is_dir():
            shutil.rmtree(part, ignore_errors=True)
        else:
            part.unlink(missing_ok=True)


def write_whole(path: Path, content: bytes | str) -> None:
    """Write a file that is complete or not there, text as UTF-8; `OSError` as usual."""
    with replacing(path) as part:
        part.write_bytes(content.encode("utf-8") if isinstance(content, str) else content)


def write_json(path: Path, plain: object) -> None:
    """Write plain data as JSON, in a file that is complete or not there; `OSError` as usual."""
    write_whole(path, json.dumps(plain, indent=2) + "\n")


def sha256(path: Path) -> str:
    """Return the hex SHA-256 of a file, or of the names and contents of all files of a folder."""
    if path.is_dir():
        rows = ((inside, sha256(inside) if inside.is_file() else "folder") for inside in sorted(_walk(path)))
        return sha256_of("".join(f"{inside.relative_to(path).as_posix()}\0{content}\n" for inside, content in rows))
    total = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            total.update(block)
    return total.hexdigest()


def sha256_of(content: bytes | str) -> str:
    r"""Return the hex SHA-256 of bytes, or of text as UTF-8, where names of files keep bytes that are none.

    Example:
        >>> sha256_of("caf\udce9") == sha256_of(b"caf\xe9")
        True
    """
    data = content.encode("utf-8", "surrogateescape") if isinstance(content, str) else content
    return hashlib.sha256(data).hexdigest()


def cache_folder(name: str = "") -> Path:
    """Return a folder for what can be computed again, made if it can be made.

    It is in `$YOLOKD_CACHE`, else in the user's cache folder of the system. Nothing here is shared with Ultralytics.

    Args:
        name: Of a folder inside.
    """
    from platformdirs import user_cache_path

    own = os.environ.get("YOLOKD_CACHE")
    top = Path(own).expanduser() if own else user_cache_path("yolokd", appauthor=False, opinion=False)
    folder = top / name
    with contextlib.suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
    return folder


def link_or_copy(source: Path, target: Path) -> None:
    """Make a symbolic link with an absolute path to a file, or a copy of it where links do not work.

    Raises:
        OSError: The source cannot be read, or the target exists or cannot be written.
    """
    try:
        target.symlink_to(source.absolute())
    except FileExistsError:
        raise
    except OSError:  # no links on this file system, or no right to make them
        shutil.copyfile(source, target)


def _walk(folder: Path) -> Iterator[Path]:
    for inside in folder.iterdir():
        yield inside
        if inside.is_dir() and not inside.is_symlink():
            yield from _walk(inside)
