"""Reading a data YAML before Ultralytics does: clear errors, and no code of the data set's own is run."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from yolokd.errors import DataError
from yolokd.inputs import FormatError, read_yaml

ARCHIVES = (".zip", ".tar", ".gz", ".tgz", ".xz", ".bz2", ".txz", ".tbz2")  # what Ultralytics downloads and unpacks
MOST_CLASSES = 100_000  # Ultralytics makes a name for each class that has none
LONGEST = 200  # letters of a value that a message shows


def load_yaml(path: Path) -> dict[str, Any]:
    """Read the description of a data set and check its form; whether the images are there is not looked at.

    Args:
        path: A data YAML.

    Returns:
        What it says, unchanged.

    Raises:
        DataError: No such file, malformed (with the line), no mapping, or wrong `names`, `nc`, `train` or `val`.
    """
    try:
        data = read_yaml(path)
    except OSError as error:
        raise DataError(f"The data YAML '{path}' cannot be read: {error.strerror or error}.") from error
    except FormatError as error:
        line = f", line {error.line}" if error.line else ""
        raise DataError(f"'{path}'{line} is not valid YAML: {error.reason}.") from error
    except ValueError as error:
        raise DataError(f"The data YAML '{path}' is not text in UTF-8.") from error
    if not isinstance(data, dict):
        raise DataError(
            f"'{path}' holds {_kind(data)}, but a data YAML is a mapping with the keys train, val and names."
        )
    _check_names(data, path)
    _check_splits(data, path)
    keypoints_of(data, path)
    return data


def keypoints_of(data: dict[str, Any], path: Path) -> tuple[int, int]:
    """Return `kpt_shape`, how many keypoints a row of labels has and of how many columns each; (0, 0) without it.

    Raises:
        DataError: It is no such pair.
    """
    if "kpt_shape" not in data:
        return 0, 0
    shape = data["kpt_shape"]
    if not isinstance(shape, list) or [type(value) for value in shape] != [int, int] or min(shape) < 0:
        raise DataError(
            f"'{path}': kpt_shape is the number of keypoints and 2 (x, y) or 3 (x, y, visible), such as [17, 3], got "
            f"{shown(shape)}. Remove the key if the labels have no keypoints."
        )
    return shape[0], shape[1]


def refuse_script(data: dict[str, Any], path: Path) -> None:
    """Refuse a `download:` that Ultralytics would execute, which is everything but the address of an archive.

    Args:
        data: A data YAML's contents.
        path: Where they are from, for the message.

    Raises:
        DataError: `download:` holds Python, a shell command, or no address of an archive.
    """
    download = data.get("download")
    if download is None or download == "":
        return
    address = isinstance(download, str) and re.fullmatch(r"https?://[^\s#]+", download, re.IGNORECASE)
    if not address or not urlsplit(download).path.lower().endswith(ARCHIVES):
        shown = " ".join(str(download).split())
        raise DataError(
            f"'{path}' has a download script, which would be run as code: {shown[:60]}{'…' * (len(shown) > 60)} "
            "Fetch the images yourself and remove the key, or give the address of an archive."
        )


def shown(value: object) -> str:
    """Return a value as a message shows it, cut short if it is long."""
    return _short(repr(value))


def _short(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}…"


def _check_names(data: dict[str, Any], path: Path) -> None:
    names, count = data.get("names"), data.get("nc")
    if names is None and count is None:
        raise DataError(f"'{path}' has neither 'names' nor 'nc'; names is a list of the classes.")
    if count is not None:
        whole = not isinstance(count, bool) and re.fullmatch(r"\d+(\.0*)?", str(count))
        if not whole or float(count) < 1:
            raise DataError(f"'{path}': nc is the number of classes, a whole number from 1, got {shown(count)}.")
        if float(count) > MOST_CLASSES:
            raise DataError(f"'{path}': nc is {shown(count)}, and more than {MOST_CLASSES} classes are not possible.")
    if names is None:
        return
    if not isinstance(names, list | dict) or not names:
        raise DataError(f"'{path}': names must be a list or a mapping from index to name, got {_kind(names)}.")
    labels = list(names.values()) if isinstance(names, dict) else names
    for label in labels:
        if not isinstance(label, str | int | float) or isinstance(label, bool) or not str(label).strip():
            raise DataError(f"'{path}': every class name must be text, got {shown(label)}; put it in quotes.")
    if isinstance(names, dict) and sorted(map(str, names)) != sorted(map(str, range(len(names)))):
        raise DataError(
            f"'{path}': the indices of names must be 0 to {len(names) - 1}, got {_short(', '.join(map(str, names)))}."
        )
    twice = [label for label, n in Counter(map(str, labels)).items() if n > 1]
    if twice:
        raise DataError(f"'{path}': names holds {shown(twice[0])} more than once; every class needs a name of its own.")
    if count is not None and float(count) != len(names):
        raise DataError(f"'{path}': nc is {count}, but names holds {len(names)}.")


def _check_splits(data: dict[str, Any], path: Path) -> None:
    missing = [split for split in ("train", "val") if not data.get(split)]
    if "val" in missing and data.get("validation"):  # Ultralytics takes either word
        missing.remove("val")
    if missing:
        raise DataError(f"'{path}' has no '{missing[0]}'; both train and val name folders of images or lists of them.")
    for key in ("train", "val", "validation", "test"):
        value = data.get(key)
        entries = value if isinstance(value, list) else [value]
        if value is not None and not all(isinstance(entry, str) for entry in entries):
            raise DataError(f"'{path}': {key} must be a path or a list of paths, got {shown(value)}.")
    if not isinstance(data.get("path"), str | None):
        raise DataError(f"'{path}': path must be the folder of the data set, got {shown(data['path'])}.")


def _kind(value: object) -> str:
    kinds = {list: "a list", str: "text", int: "a number", float: "a number", type(None): "nothing", dict: "a mapping"}
    return kinds.get(type(value), type(value).__name__)
