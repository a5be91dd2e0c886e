"""Adds up loss maps, under their weights; takes gradients at once, so that one loss's memory is freed for the next."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from yolokd.distillation.instance_weights import Weights
from yolokd.distillation.state import reduce_map
from yolokd.losses.base import Grid, add


class LossAccumulator:
    """The distillation terms of one step.

    Args:
        grid: Where the anchors lie.
        weights: Weights of the places; None weighs everything 1.
        head_terms: Terms that compare head outputs, whose weights are others than those of features.

    Attributes:
        maps: Term → its loss map under the weights, (B, A), or (B,) without a place; no gradient.
        levels: Term → what each level adds to its value, (L,), or (1,) without a place; no gradient.
        values: Term → the value of that map, (), with gradient.
    """

    def __init__(self, grid: Grid, weights: Weights | None, head_terms: Collection[str]) -> None:
        self.grid, self.weights, self.head_terms = grid, weights, head_terms
        self.maps: dict[str, Tensor] = {}
        self.levels: dict[str, Tensor] = {}
        self.values: dict[str, Tensor] = {}

    def add(self, maps: Mapping[str, Tensor], inputs: Sequence[tuple[Tensor, Tensor]] = ()) -> None:
        """Add maps, or pieces of them.

        Args:
            maps: Of some terms. Fewer rows than weights belong to the first images, as with adversarial examples.
            inputs: What to settle the values for, see `settle`; none keeps their graph.
        """
        if self.weights is not None:
            weights = {t: self.weights.of(m.ndim, head=t in self.head_terms) for t, m in maps.items()}
            maps = {term: values * weights[term][: len(values)] for term, values in maps.items()}
        levels = {term: reduce_map(values, self.grid) for term, values in maps.items()}
        values = {term: parts.sum() for term, parts in levels.items()}
        add(self.maps, {term: values.detach() for term, values in maps.items()})
        add(self.levels, {term: parts.detach() for term, parts in levels.items()})
        add(self.values, settle(values, inputs) if inputs else values)


def settle(values: Mapping[str, Tensor], inputs: Sequence[tuple[Tensor, Tensor]]) -> dict[str, Tensor]:
    """Return equal values that hold their gradients instead of all that it takes to compute them.

    The sum of many losses then needs the memory of the largest, not of all.

    Args:
        values: Scalars by name.
        inputs: All leaves that they depend on and that may need a gradient, each with the tensor that is to get it: its
            origin, or itself. In float32, since gradients are taken here before a scaler could keep those of half
            precision from vanishing.

    Raises:
        ValueError: A value needs a gradient, but not one with respect to any of the leaves.
    """
    leaves = [leaf for leaf, _ in inputs if leaf.requires_grad]
    origins = [origin for leaf, origin in inputs if leaf.requires_grad]
    settled = {name: value for name, value in values.items() if not value.requires_grad}
    left = len(values) - len(settled)
    for name, value in values.items():
        if name in settled:
            continue
        left -= 1
        found = torch.autograd.grad(value, leaves, retain_graph=left > 0, allow_unused=True)
        held = [(gradient, x) for gradient, x in zip(found, origins, strict=True) if gradient is not None]
        if not held:
            raise ValueError(f"{name} depends on nothing that it is settled for, but needs a gradient")
        settled[name] = _Held.apply(value.detach(), len(held), *[g for g, _ in held], *[x for _, x in held])
    return settled


class _Held(torch.autograd.Function):
    """A value with the gradients that it has."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, count: int, *tensors: Tensor) -> Tensor:
        """Keep the gradients, which come first, until the backward pass; the tensors that are to get them follow."""
        ctx.save_for_backward(*tensors[:count])
        return value.clone()

    @staticmethod
    def backward(ctx: Any, outer: Tensor) -> tuple[Tensor | None, ...]:
        """Return them, times the gradient of what the value went into."""
        gradients = [gradient * outer for gradient in ctx.saved_tensors]
        return None, None, *[None] * len(gradients), *gradients
