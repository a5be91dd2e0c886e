"""Entries of a list in a JSON file, one after the other, so that a file of any size takes little memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import ijson

from yolokd.errors import DataError
from yolokd.inputs import refuse_special

EVERY = 4096  # entries between two calls of `progress`

Progress = Callable[[float], None]  # called with the share of the file that is read


def entries(path: Path, key: str, *, progress: Progress | None = None) -> Iterator[Any]:
    """Yield the entries of the list that the object in a JSON file holds under `key`, in their order.

    Each call reads the file to its end, so that all of it is known to be valid. A key that is missing, or is no list,
    yields nothing. Numbers come as `int` and finite `float`.

    Args:
        path: The file, in UTF-8.
        key: A key of the outermost object.
        progress: Called now and then, and at the end.

    Raises:
        DataError: The file cannot be read or is not JSON; says after which entry.
    """
    count = 0
    try:
        refuse_special(path)
        size = max(path.stat().st_size, 1)
        with path.open("rb") as stream:
            for entry in ijson.items(stream, f"{key}.item", use_float=True):
                count += 1
                yield entry
                if progress is not None and count % EVERY == 0:
                    progress(stream.tell() / size)
    except OSError as error:
        raise DataError(f"'{path}' cannot be read: {error.strerror or error}.") from error
    except (ijson.JSONError, ValueError) as error:  # ValueError: of ijson's parsers in Python
        place = f"after {count} entries of '{key}'" if count else f"before the first entry of '{key}'"
        raise DataError(f"'{path}' is not valid JSON {place}: {_reason(error)}.") from error
    if progress is not None:
        progress(1.0)


def _reason(error: Exception) -> str:
    """What the parser says on its first lines: the fault, and the text around it."""
    text = str(error.args[0].decode("utf-8", "replace") if isinstance(error.args[0], bytes) else error)
    fault, *around = (line.strip() for line in text.splitlines() if line.strip())
    return fault + (f" near {around[0]}" if around and "(right here)" not in around[0] else "")
