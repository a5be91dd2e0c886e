"""Where the host waits for the GPU in a training step, counted by source file."""

from __future__ import annotations

import traceback
import warnings
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torchvision
from gpu_steps import Prepared

import yolokd
from yolokd.bench.models import Setting

PACKAGE = Path(yolokd.__file__).resolve().parent
# The number of places that AID and soft labels act at is read from the device once, as Ultralytics' own box loss does.
KNOWN = {"aid": 1, "everything": 1, "soft": 1}
WARM_UP = 3  # steps; the first measures automatic gains and copies small tables to the device


@dataclass(frozen=True)
class Waits:
    """Waits of one step."""

    total: int
    own: int  # caused by a line of the package itself
    places: dict[str, int]  # the package's innermost line on the stack → number


def waits(prepared: Prepared, setting: Setting) -> Waits:
    """Return the waits of an ordinary step: no attack, no measuring of gradient ratios."""
    model = prepared.model
    for step in range(WARM_UP):
        _step(prepared, setting, step)
    stacks: list[traceback.StackSummary] = []

    def keep(message: Any, *_: Any, **__: Any) -> None:
        if "synchroniz" in str(message):
            stacks.append(traceback.extract_stack())

    model.zero_grad(set_to_none=True)
    torch.cuda.synchronize()
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = keep
        torch.cuda.set_sync_debug_mode("warn")
        try:
            _step(prepared, setting, WARM_UP - 1)
        finally:
            torch.cuda.set_sync_debug_mode("default")
    return counted(stacks)


def _step(prepared: Prepared, setting: Setting, number: int) -> None:
    prepared.begin(0, number, 100, 1)
    with setting.autocast():
        loss = prepared.model.loss(prepared.batch)[0].sum()
    loss.backward()


def counted(stacks: list[traceback.StackSummary]) -> Waits:
    """Sort stacks by the package's innermost line; a line of the package that is the last one outside torch is its own.

    Lines of torch itself are left out, since they wait for whoever calls them.
    """
    places: Counter[str] = Counter()
    own = 0
    for stack in stacks:
        frames = [frame for frame in stack if not _is_between(frame.filename)]
        inside = [frame for frame in frames if PACKAGE in Path(frame.filename).resolve().parents]
        if inside and inside[-1] is frames[-1]:
            own += 1
            name = Path(inside[-1].filename).resolve().relative_to(PACKAGE.parent).as_posix()
            places[f"{name}:{inside[-1].lineno}"] += 1
        elif frames:
            through = f" from {Path(inside[-1].filename).name}:{inside[-1].lineno}" if inside else ""
            places[f"{Path(frames[-1].filename).name}:{frames[-1].lineno}{through}"] += 1
    return Waits(len(stacks), own, dict(places))


def _is_between(file: str) -> bool:
    """Whether a file is torch's, or one of those through which a warning comes here."""
    if file in {__file__, warnings.__file__}:
        return True
    return not {Path(torch.__file__).parent, Path(torchvision.__file__).parent}.isdisjoint(Path(file).parents)
