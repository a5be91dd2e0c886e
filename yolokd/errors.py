"""What yolokd raises. Library code raises these; only the command line prints them and exits.

Exit codes: 2 for a mistake that the user can mend (`UserError`), 1 for a run that failed (`RunError`).
"""

from __future__ import annotations

import os
from collections.abc import Iterable


class YolokdError(Exception):
    """Base of every error that yolokd raises on purpose. Its text is one short paragraph for the user."""

    exit_code = 1


class UserError(YolokdError):
    """The user's mistake: what was wrong, the value that came, what to do next."""

    exit_code = 2


class RecipeError(UserError):
    """A recipe that does not exist, cannot be read, or holds wrong keys or values. Lists every problem at once."""


class DataError(UserError):
    """A data set that is missing, malformed, or whose labels contradict its description."""


class WeightsError(UserError):
    """A checkpoint that is missing, unreadable, unsafe to load, or not a YOLO detector."""


class PairError(UserError):
    """A teacher and a student that cannot be distilled into each other: strides, levels, heads or classes."""


class RunError(YolokdError):
    """A run that started and failed: a term that is not finite or stays zero, a disk that is full."""


class ShapeError(YolokdError, ValueError):
    """Two tensors that must have the same shape, or a tensor of the wrong rank; names both shapes."""


def nearest(word: str, known: Iterable[str]) -> str | None:
    """Return the first of `nearest_all`; None if none is close.

    Example:
        >>> nearest("Epcohs", ["epochs", "device"])
        'epochs'
    """
    return next(iter(nearest_all(word, known)), None)


def nearest_all(word: str, known: Iterable[str]) -> list[str]:
    """Return up to three known words that are spelt like `word`, those with the same letters first."""
    from difflib import get_close_matches

    lower = {option.lower(): option for option in known}
    found = get_close_matches(word.lower(), lower)
    return [lower[option] for option in sorted(found, key=lambda option: sorted(option) != sorted(word.lower()))]


def printable(path: str | os.PathLike[str]) -> str:
    r"""Return a path as text that can be printed: what is no UTF-8 and what is no visible character is escaped.

    Example:
        >>> printable("caf\udce9\n.jpg")
        'caf\\xe9\\n.jpg'
    """
    return "".join(letter if letter.isprintable() else _escaped(letter) for letter in str(path))


def _escaped(letter: str) -> str:
    """An unprintable character as text; a byte that is no UTF-8, which Python keeps as U+DC80 and up, as that byte."""
    if "\udc80" <= letter <= "\udcff":
        return f"\\x{ord(letter) & 0xFF:02x}"
    return letter.encode("unicode_escape").decode()
