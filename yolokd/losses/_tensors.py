"""Checks and conversions that every loss begins with."""

from __future__ import annotations

import torch
from torch import Tensor

from yolokd.errors import ShapeError

WIDE = (torch.float32, torch.float64)


def widen(x: Tensor) -> Tensor:
    """Return `x` in float32 if it is of half precision or an integer; float32 and float64 stay as they are."""
    return x if x.dtype in WIDE else x.float()


def same_shape(student: Tensor, teacher: Tensor, *, rank: int | None = None, what: str = "student and teacher") -> None:
    """Raise `ShapeError` unless both tensors have equal shapes (not merely broadcastable) and the given rank."""
    if student.shape != teacher.shape:
        raise ShapeError(f"{what} must have the same shape, got {tuple(student.shape)} and {tuple(teacher.shape)}")
    if rank is not None and student.ndim != rank:
        raise ShapeError(f"{what} must have {rank} dimensions, got {tuple(student.shape)} and {tuple(teacher.shape)}")


def as_pair(student: Tensor, teacher: Tensor, *, rank: int | None = None) -> tuple[Tensor, Tensor]:
    """Check two equal shapes and return (student, teacher) in float32 or wider, the teacher detached.

    Raises:
        ShapeError: The shapes differ, or their rank is not the one asked for.
    """
    same_shape(student, teacher, rank=rank)
    return widen(student), widen(teacher.detach())


def known(value: str | None, options: tuple[str | None, ...], name: str) -> None:
    """Raise `ValueError` that lists the options unless `value` is one of them."""
    if value not in options:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, options))}, got {value!r}")
