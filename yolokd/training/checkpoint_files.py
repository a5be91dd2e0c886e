"""Checkpoints of a run: written so that a kill or a full disk costs none, and reduced to plain students in the end."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from yolokd.backend.api import strip_optimizer
from yolokd.backend.checkpoints import load
from yolokd.training.settings import KEY, RunSettings


@contextmanager
def written_beside(trainer: Any) -> Iterator[None]:
    """Let Ultralytics write the trainer's checkpoints beside their places, and move them there if nothing failed."""
    # best first: a kill between the two repeats the epoch instead of forgetting the best one
    final = {name: getattr(trainer, name) for name in ("best", "last")}
    beside = {name: path.with_suffix(".pt.part") for name, path in final.items()}
    for name, path in beside.items():
        setattr(trainer, name, path)
    try:
        yield
        for name, path in beside.items():
            if path.exists():
                path.replace(final[name])
    finally:
        for name, path in final.items():
            setattr(trainer, name, path)
            beside[name].unlink(missing_ok=True)


def finish_checkpoints(folder: Path, settings: RunSettings) -> None:
    """Reduce last.pt and best.pt to plain half-precision students with the recipe under the key `yolokd`.

    `last.pt` goes last, so that a kill in between leaves a run that can be resumed and finished. A numbered checkpoint
    that has a recipe already keeps it.
    """
    updates: dict[str, Any] = {KEY: settings.to_dict()}
    if (folder / "last.pt").exists():
        updates["train_results"] = load(folder / "last.pt")[1].get("train_results")
    numbered = sorted(folder.glob("epoch*.pt")) if settings.teacher is not None else []
    for path in (*numbered, folder / "best.pt", folder / "last.pt"):
        if not path.exists() or (path in numbered and KEY in load(path)[1]):  # of a run that was in the folder before
            continue
        beside = path.with_suffix(".pt.part")
        try:
            if strip_optimizer(path, s=str(beside), updates=updates):
                beside.replace(path)
        finally:
            beside.unlink(missing_ok=True)
