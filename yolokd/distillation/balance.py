"""Gradient ratio of each distillation term at the neck to the detection loss, and gains that keep it at a share.

Measured every few steps by gradients with respect to the student's neck features only: that goes back through head and
adapters, not through the network, so it costs little.
"""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping, Sequence
from typing import Any

import torch
from torch import Tensor

from yolokd.errors import RunError
from yolokd.losses.tensors import mean_over_ranks

SMOOTHING = 0.8  # share of the old ratio in the new one
FLOOR = 0.01  # of a term's first ratio: an almost finished term is not blown up without end
SCALE = 1024.0  # keeps half-precision gradients from vanishing; cancels in the ratio


class Balance:
    """Ratios ‖∇term‖ / ‖∇detection loss‖ at the neck, before gains, smoothed; and the gains that follow from them.

    Args:
        auto: Terms whose gain is kept so that their gradient is `share` of the detection loss's.
        share: That share.
        every: Steps between two measurements.
        state: A plain dict that is saved with the run; ratios survive a resume in it.
    """

    def __init__(self, auto: Sequence[str], *, share: float, every: int, state: MutableMapping[str, Any]) -> None:
        self.auto = tuple(auto)
        self.share = share
        self.every = every
        self.ratios: dict[str, float] = state.setdefault("gradient_ratio", {})
        self._first: dict[str, float] = state.setdefault("first_gradient_ratio", {})

    def due(self, number: int, terms: Sequence[str]) -> bool:
        """Whether to measure these terms in the step with this number, from 1.

        Every so often, the first included, and where an automatic term has no ratio yet.
        """
        return (number - 1) % self.every == 0 or any(t in self.auto and t not in self.ratios for t in terms)

    def measure(self, detection: Tensor, values: Mapping[str, Tensor], features: Sequence[Tensor]) -> None:
        """Update the ratios.

        Args:
            detection: Detection loss of the batch, divided by the batch size, ().
            values: Each active term before its gain, ().
            features: The student's neck features, which all of them depend on.
        """
        features = [feature for feature in features if feature.requires_grad]
        if not features:  # everything up to the neck is frozen
            if self.auto:
                raise RunError("gain: auto is measured at the neck, but all layers up to it are frozen; give a number.")
            return
        base = _norm(detection, features)
        norms = [_norm(value, features) for value in values.values()]
        ratios = mean_over_ranks(torch.stack(norms) / base.clamp(min=1e-12)).tolist()
        for term, ratio in zip(values, ratios, strict=True):
            if ratio <= 0 or ratio != ratio or ratio == float("inf"):
                continue
            first = self._first.setdefault(term, ratio)
            old = self.ratios.get(term, ratio)
            self.ratios[term] = max(SMOOTHING * old + (1 - SMOOTHING) * ratio, FLOOR * first)

    def gain(self, term: str) -> float:
        """The automatic gain of a term; 0 before its first measurement."""
        ratio = self.ratios.get(term)
        return self.share / ratio if ratio else 0.0


def _norm(value: Tensor, features: Sequence[Tensor]) -> Tensor:
    if not value.requires_grad:
        return value.new_zeros(())
    gradients = torch.autograd.grad(value * SCALE, list(features), retain_graph=True, allow_unused=True)
    squares = [g.float().square().sum() for g in gradients if g is not None]
    return torch.stack(squares).sum().sqrt() if squares else value.new_zeros(())
