"""What yolokd raises. Library code raises these; only the command line prints them and exits.

Exit codes: 2 for a mistake that the user can mend (`UserError`), 1 for a run that failed (`RunError`).
"""

from __future__ import annotations


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
