"""Levels of a detector and their names: p2 has 4 pixels per cell, p3 has 8, and each further one twice as many."""

from __future__ import annotations

STRIDES = {f"p{power}": 2**power for power in range(2, 8)}  # level → pixels per cell, from fine to coarse
_LEVELS = {stride: level for level, stride in STRIDES.items()}


def level_of(stride: float) -> str:
    """Return the name of the level with this many pixels per cell.

    Raises:
        ValueError: No level has that stride.

    Example:
        >>> level_of(8)
        'p3'
    """
    if stride not in _LEVELS:
        raise ValueError(f"no level has stride {stride:g}; known: {', '.join(map(str, _LEVELS))}")
    return _LEVELS[int(stride)]
