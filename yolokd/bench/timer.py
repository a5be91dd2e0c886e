"""Timing in alternation: every arm once per round, in a changing order, so that drift of the machine hits all alike."""

from __future__ import annotations

import random
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakIdKeyDictionary


@dataclass(frozen=True)
class Time:
    """One measurement, in milliseconds."""

    wall: float
    cpu: float  # processor time of all threads of this process; on a GPU the host's share of the work


class Timer:
    """Collects times by name. On a GPU it waits for the device before and after what it times.

    Attributes:
        times: Name → one time per round.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.times: dict[str, list[Time]] = {}

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        """Time what is done inside."""
        self.wait()
        wall, cpu = time.perf_counter(), time.process_time()
        yield
        self.wait()
        spent = Time(1e3 * (time.perf_counter() - wall), 1e3 * (time.process_time() - cpu))
        self.times.setdefault(name, []).append(spent)

    def wait(self) -> None:
        """Let the device finish what it was asked to do."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        elif self.device.type == "mps":
            torch.mps.synchronize()


Arm = Callable[[Timer], None]  # does one thing, once, and times those parts of it that count


def in_turn(
    arms: Sequence[Arm],
    device: torch.device,
    *,
    rounds: int,
    warm_up: int,
    report: Callable[[float], None] = lambda share: None,
) -> Timer:
    """Run every arm once per round, each round in another order, and return what was timed after the warm-up.

    Args:
        arms: What to time.
        device: Where it runs.
        rounds: Rounds that count.
        warm_up: Rounds before them that do not.
        report: Called after each arm with the share that is done. Nothing else may run meanwhile: threads of a progress
            bar would count as processor time.
    """
    order, shuffle = list(arms), random.Random(0).shuffle
    timer = Timer(device)
    for number in range(warm_up + rounds):
        if number == warm_up:
            timer = Timer(device)
        shuffle(order)
        for place, arm in enumerate(order, start=1):
            arm(timer)
            report((number + place / len(order)) / (warm_up + rounds))
    return timer


def peak_bytes(run: Callable[[], object], device: torch.device) -> int:
    """Return how far the memory of tensors rises above its start while `run` runs.

    On a GPU by torch's allocator; elsewhere by the tensors that operators return, without what they need inside.
    """
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        run()
        torch.cuda.synchronize(device)
        return int(torch.cuda.max_memory_allocated(device) - before)
    tracker = _Tracker()
    with tracker:
        run()
    return tracker.peak


class _Tracker(TorchDispatchMode):
    """Counts the bytes of tensors that are made and not yet freed."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._seen: Any = WeakIdKeyDictionary()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        for storage in _storages((args, kwargs)):
            self._seen[storage] = None  # was there before, or is counted already
        result = func(*args, **kwargs)
        for storage in _storages(result):
            if storage not in self._seen:
                self._seen[storage] = None
                self._count(storage.nbytes())
                weakref.finalize(storage, self._count, -storage.nbytes())
        return result

    def _count(self, size: int) -> None:
        self.now += size
        self.peak = max(self.peak, self.now)


def _storages(tree: Any) -> list[Any]:
    return [leaf.untyped_storage() for leaf in tree_leaves(tree) if isinstance(leaf, torch.Tensor)]


def held_bytes(*modules: nn.Module | None) -> int:
    """Return the bytes of all parameters and buffers of some modules, each tensor once."""
    tensors = {id(t): t for m in modules if m is not None for t in (*m.parameters(), *m.buffers())}
    return sum(t.numel() * t.element_size() for t in tensors.values())
