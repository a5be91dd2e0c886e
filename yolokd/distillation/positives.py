"""Running averages of what the student's assignment finds per labeled image: they normalize the losses on the head.

A loss divided by the positives of its own batch counts a batch of backgrounds up to 70 times as much as others. These
averages follow the run instead: exponential, corrected for their start, equal on all processes, kept over a resume.
"""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import Any

import torch
from torch import Tensor

from yolokd.distillation.assignment import Assigned
from yolokd.losses.base import Averages
from yolokd.losses.tensors import mean_over_ranks

DECAY = 0.99  # per step
KEY = "positives"  # of the saved state


class PositiveCounts:
    """Averages by branch of the head.

    Args:
        state: A plain dict that is saved with the run; `save` writes the sums into it.
    """

    def __init__(self, state: MutableMapping[str, Any]) -> None:
        self._state: dict[str, list[float]] = state.setdefault(KEY, {})
        self._sums: dict[str, Tensor] = {}  # branch → decayed sums of images, positives, mass of the soft labels, (3,)

    def update(self, branch: str, assigned: Assigned) -> Averages:
        """Add a step and return the averages per labeled image, each (); without a wait for the device.

        Until the run has met its first object, one positive per image is assumed. A step that is not finite is left
        out, since it would never leave the averages again, while Ultralytics recovers the student from a checkpoint.
        Every process must call it equally often.
        """
        positives = assigned.positives
        found = positives.sum().float()
        mass = assigned.target_scores_sum.float() * (found > 0)  # the assignment's own is at least 1
        step = torch.stack([found.new_full((), float(len(positives))), found, mass])
        old = self._sums.get(branch)
        if old is None:
            old = step.new_tensor(self._state.get(branch, [0.0, 0.0, 0.0]))
        step = mean_over_ranks(step)
        sums = self._sums[branch] = torch.where(step.isfinite().all(), DECAY * old + step, old)
        means = sums[1:] / sums[0]
        means = torch.where(means > 0, means, torch.ones_like(means))
        return {"positives": means[0], "target_scores": means[1]}

    def save(self) -> None:
        """Write the sums into the state; waits for the device."""
        self._state.update({branch: sums.tolist() for branch, sums in self._sums.items()})
