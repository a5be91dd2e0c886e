"""Reading text, JSON and YAML that others wrote: only regular files, and only plain data of a limited size.

A pipe or a device in the place of a file would be waited for without end. JSON and YAML that are nested beyond Python's
limit, numbers of thousands of digits, impossible dates and aliases that unfold into gigabytes are one error each, a
`FormatError`.
"""

from __future__ import annotations

import errno
import json
import math
import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from yaml.constructor import ConstructorError

LARGEST = 16 * 2**20  # bytes of a YAML or JSON file; descriptions of data sets and runs do not come near it
LARGEST_TREE = 1_000_000  # values of a YAML document once its aliases are written out
LARGEST_BITS = 1000  # of a whole number; floats end at 2^1024


class FormatError(ValueError):
    """Text that is not JSON, or not YAML of plain values.

    Attributes:
        reason: What is wrong.
        line: Where, from 1; 0 if it is not known.
    """

    def __init__(self, reason: str, line: int = 0) -> None:
        super().__init__(f"line {line}: {reason}" if line else reason)
        self.reason, self.line = reason, line


def refuse_special(path: str | os.PathLike[str]) -> None:
    """Raise unless a path leads to a regular file.

    Raises:
        FileNotFoundError: There is nothing.
        OSError: It is a folder, a pipe, a socket or a device.
        ValueError: The path holds a null character.
    """
    mode = os.stat(path).st_mode  # noqa: PTH116
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, "a folder", os.fspath(path))
    if not stat.S_ISREG(mode):
        raise OSError(errno.EINVAL, "not a file", os.fspath(path))


def read_text(path: str | os.PathLike[str], *, limit: int | None = None, errors: str = "strict") -> str:
    """Return the text of a regular file in UTF-8, with or without a byte order mark.

    Args:
        path: The file.
        limit: Largest size in bytes; None is without a limit.
        errors: What to do with bytes that are no UTF-8, as `bytes.decode` takes it.

    Raises:
        OSError: As `refuse_special`; it cannot be read, or is larger than the limit.
        ValueError: It is not UTF-8, or the path holds a null character.
    """
    refuse_special(path)
    if limit is not None and os.stat(path).st_size > limit:  # noqa: PTH116
        raise OSError(errno.EFBIG, f"it is larger than {limit // 2**20} MiB", os.fspath(path))
    return Path(path).read_text(encoding="utf-8-sig", errors=errors)


def read_json(path: str | os.PathLike[str], *, limit: int | None = LARGEST) -> Any:
    """Return the plain data of a JSON file; errors as `read_text`, and `FormatError`."""
    return parse_json(read_text(path, limit=limit))


def read_yaml(path: str | os.PathLike[str]) -> Any:
    """Return the plain data of a YAML file; errors as `read_text`, and `FormatError`."""
    return parse_yaml(read_text(path, limit=LARGEST))


Kinds = Mapping[str, type | tuple[type, ...]]  # key → what its value may be


def misfits(plain: Mapping[str, Any], kinds: Kinds) -> dict[str, Any]:
    """Return the entries whose value is of another kind than the one given for their key; keys without a kind fit.

    A truth value is no number here, and NaN and infinity are none either.

    Example:
        >>> misfits({"epochs": "many", "seed": 3, "name": None}, {"epochs": int, "seed": (int, float)})
        {'epochs': 'many'}
    """
    return {key: value for key, value in plain.items() if key in kinds and not _fits(value, kinds[key])}


def _fits(value: Any, kinds: type | tuple[type, ...]) -> bool:
    allowed = kinds if isinstance(kinds, tuple) else (kinds,)
    if isinstance(value, bool):
        return bool in allowed
    return isinstance(value, allowed) and (not isinstance(value, float) or math.isfinite(value))


def parse_json(text: str) -> Any:
    """Return the plain data that a JSON text holds.

    Raises:
        FormatError: It is not JSON, is nested too deeply, or holds a number of thousands of digits.
    """
    try:
        return json.loads(text, parse_int=_whole)
    except RecursionError as error:
        raise FormatError("it is nested too deeply") from error
    except ValueError as error:
        raise FormatError(str(error)) from error


def parse_yaml(text: str) -> Any:
    """Return the plain data that a YAML text holds; None if it is empty.

    Raises:
        FormatError: It is not YAML, is nested too deeply, holds other than plain values, or aliases that unfold into
            more than `LARGEST_TREE` values.

    Example:
        >>> parse_yaml("names: [car, person]")
        {'names': ['car', 'person']}
    """
    try:
        return yaml.load(text, Loader=_Loader)
    except RecursionError as error:
        raise FormatError("it is nested too deeply") from error
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise FormatError(error.problem or str(error), mark.line + 1 if mark else 0) from error
    except yaml.YAMLError as error:  # characters that YAML does not allow
        raise FormatError(" ".join(str(error).split())) from error


class _Loader(yaml.SafeLoader):
    def get_single_node(self) -> yaml.Node | None:
        node: yaml.Node | None = super().get_single_node()
        if node is not None:
            _size(node, {})
        return node

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            value = super().construct_object(node, deep)
            return _refuse_large(value) if isinstance(value, int) else value
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:  # of PyYAML's parsers
            kind, value = node.tag.rpartition(":")[2], str(node.value)[:60]
            raise ConstructorError(None, None, f"'{value}' is no valid {kind}", node.start_mark) from error


def _whole(digits: str) -> int:
    return _refuse_large(int(digits))


def _refuse_large(number: int) -> int:
    """Return a whole number, unless no float comes near it."""
    if number.bit_length() > LARGEST_BITS:
        raise FormatError(f"a whole number of more than {LARGEST_BITS} bits")
    return number


def _size(node: yaml.Node, known: dict[int, int]) -> int:
    """Number of values below a node, an alias counted as what it stands for; raises if there are too many."""
    if isinstance(node, yaml.ScalarNode):
        return 1
    if id(node) in known:
        if not known[id(node)]:
            raise ConstructorError(None, None, "an alias stands for what holds it", node.start_mark)
        return known[id(node)]
    known[id(node)] = 0  # not finished
    inside = node.value if isinstance(node, yaml.SequenceNode) else [part for pair in node.value for part in pair]
    total = 1 + sum(_size(part, known) for part in inside)
    if total > LARGEST_TREE:
        raise ConstructorError(None, None, "its aliases unfold into too many values", node.start_mark)
    known[id(node)] = total
    return total
