"""Reading what the student's own label assignment decided, while its detection loss is computed."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from yolokd.backend.api import E2ELoss
from yolokd.losses.base import Grid


@dataclass(frozen=True)
class Assigned:
    """One branch's assignment: positives (B, A) bool, and the mass of their soft labels, () and at least 1."""

    positives: Tensor
    target_scores_sum: Tensor


def branch_criteria(criterion: Any) -> dict[str, tuple[Any, float]]:
    """Return each branch's criterion and its weight in the detection loss."""
    if isinstance(criterion, E2ELoss):
        return {"one2many": (criterion.one2many, criterion.o2m), "one2one": (criterion.one2one, criterion.o2o)}
    return {"one2many": (criterion, 1.0)}


@contextmanager
def watch(criterion: Any, grid: Grid, levels: Collection[str]) -> Iterator[dict[str, Assigned]]:
    """Record the assignment of each branch during one detection loss; nothing stays behind on the criterion.

    Args:
        criterion: The student's.
        grid: Where its anchors lie.
        levels: Those whose anchors are recorded.
    """
    seen: dict[str, Assigned] = {}

    def recorder(name: str) -> Any:
        def record(module: nn.Module, inputs: Any, output: tuple[Tensor, ...]) -> None:
            _, _, scores, foreground, _ = output
            scores = grid.pick(scores, levels)
            seen[name] = Assigned(grid.pick(foreground.bool(), levels), scores.sum().clamp(min=1))

        return record

    handles = [
        part.assigner.register_forward_hook(recorder(name)) for name, (part, _) in branch_criteria(criterion).items()
    ]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()
