"""Checks and conversions that every loss begins with."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from functools import wraps
from typing import ParamSpec, TypeVar

import torch
from torch import Tensor, distributed

from yolokd.errors import ShapeError

P = ParamSpec("P")
T = TypeVar("T")
CACHED = 2**18  # values of one tensor that a CPU works on at a time
LARGE = 2**25  # the same for other devices: 128 MiB in float32
AUTOCAST_DEVICES = ("cpu", "cuda", "mps", "xpu")


def without_autocast(function: Callable[P, T]) -> Callable[P, T]:
    """Make `function` compute in the precision of its tensors, whatever autocast region it is called from."""

    @wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> T:
        with ExitStack() as regions:
            for device in AUTOCAST_DEVICES:
                if torch.is_autocast_enabled(device):
                    regions.enter_context(torch.autocast(device, enabled=False))
            return function(*args, **kwargs)

    return run


def widen(x: Tensor) -> Tensor:
    """Return `x` in float32 if it is of half precision or an integer; float32 and float64 stay as they are."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def same_shape(student: Tensor, teacher: Tensor, *, rank: int | None = None, what: str = "student and teacher") -> None:
    """Raise `ShapeError` unless both tensors have equal shapes (not merely broadcastable) and the given rank."""
    if student.shape != teacher.shape:
        raise ShapeError(f"{what} must have the same shape, got {tuple(student.shape)} and {tuple(teacher.shape)}")
    if rank is not None and student.ndim != rank:
        raise ShapeError(f"{what} must have {rank} dimensions, got {tuple(student.shape)} and {tuple(teacher.shape)}")


def as_pair(student: Tensor, teacher: Tensor, *, rank: int | None = None) -> tuple[Tensor, Tensor]:
    """Check two equal shapes and return (student, teacher) in one dtype, float32 or wider, the teacher detached.

    Raises:
        ShapeError: The shapes differ, or their rank is not the one asked for.
    """
    same_shape(student, teacher, rank=rank)
    dtype = torch.promote_types(widen(student).dtype, widen(teacher).dtype)
    return student.to(dtype), teacher.detach().to(dtype)


def known(value: str | None, options: tuple[str | None, ...], name: str) -> None:
    """Raise `ValueError` that lists the options unless `value` is one of them."""
    if value not in options:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, options))}, got {value!r}")


def portions(x: Tensor) -> list[slice]:
    """Return which images of a batch (B, ...) to work on at a time.

    On a CPU a few: what is made on the way then stays in the cache, which saves a third of the time that a chain of
    elementwise operations takes at the sizes of YOLO's levels. On a GPU as many as keep it busy: that saves memory.
    """
    values = CACHED if x.device.type == "cpu" else LARGE
    step = max(1, values // max(x[0].numel(), 1))
    return [slice(start, start + step) for start in range(0, len(x), step)]


def rank_and_ranks() -> tuple[int, int]:
    """Return the number of this process among those of a distributed run, and how many they are; else 0 and 1."""
    if not (distributed.is_available() and distributed.is_initialized()):
        return 0, 1
    return distributed.get_rank(), distributed.get_world_size()


def mean_over_ranks(x: Tensor) -> Tensor:
    """Return the mean of `x` over the processes of a distributed run, detached; `x` itself without such a run.

    Every rank must call it equally often. A loss that divides by the result gets the gradient of one process on the
    whole batch, since Ultralytics multiplies each rank's loss by the number of ranks and DDP averages gradients.
    """
    _, ranks = rank_and_ranks()
    if ranks == 1:
        return x
    total = x.detach().clone()
    distributed.all_reduce(total)
    return total / ranks
