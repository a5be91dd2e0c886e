"""Generators: small networks that rebuild a teacher's map from what is left of a masked student's; how they run.

Source: Yang et al., "Masked Generative Distillation", ECCV 2022; the separable kind after Howard et al., "MobileNets",
2017.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from yolokd.losses.tensors import known


def generator_block(channels: int, kind: str = "conv") -> nn.Sequential:
    """Return the small network that fills the holes: 3×3 convolution, ReLU, 3×3 convolution.

    Args:
        channels: C, in and out.
        kind: "conv", as published; "separable" has a depthwise 3×3 and a 1×1 convolution in place of each 3×3 one
            and half as many channels in between: the same reach at about a
            sixteenth of the products.

    Raises:
        ValueError: An unknown kind.
    """
    known(kind, ("conv", "separable"), "kind")
    between = channels if kind == "conv" else math.ceil(channels / 2)
    return nn.Sequential(mixing(channels, between, kind), nn.ReLU(inplace=True), mixing(between, channels, kind))


def mixing(inputs: int, outputs: int, kind: str) -> nn.Module:
    """Return what mixes the 3×3 cells around each and all channels; a depthwise bias would be one too many."""
    if kind == "conv":
        return nn.Conv2d(inputs, outputs, 3, padding=1)
    depthwise = nn.Conv2d(inputs, inputs, 3, padding=1, groups=inputs, bias=False)
    return nn.Sequential(depthwise, nn.Conv2d(inputs, outputs, 1))


def generators(levels: Sequence[str], teacher: Mapping[str, int], kind: str) -> nn.ModuleDict:
    """Return a `generator_block` per level, as wide as the teacher."""
    return nn.ModuleDict({level: generator_block(teacher[level], kind) for level in levels})


def without_hidden(block: nn.Module, feature: Tensor, channels: Tensor) -> Tensor:
    """Return what the first part of a `generator_block` makes of a feature with hidden channels, (B, C, H, W).

    A hidden channel needs no product. On a CPU it is left out, image by image, where a map has so many cells that
    this costs less than picking the weights.

    Args:
        block: First part of a `generator_block`.
        feature: (B, C, H, W).
        channels: 1 for channels that are seen, 0 for hidden ones, (B, C).
    """
    cells, width = feature[0, 0].numel(), feature.shape[1]
    if feature.device.type != "cpu" or cells < width or not bool(channels.any(1).all()):
        return mix(block, feature * channels[..., None, None])
    pairs = zip(feature, channels.bool(), strict=True)
    return torch.stack([mix(block, one[seen], seen=seen) for one, seen in pairs])


def channels_last(feature: Tensor) -> Tensor:
    """Return a feature with its channels side by side in memory, in which separable convolutions are a third faster.

    Its gradient comes back as the feature lies now, so that the student's own layers run as before.
    """
    result = feature.contiguous(memory_format=torch.channels_last)
    if result.requires_grad:
        result.register_hook(torch.Tensor.contiguous)  # type: ignore[no-untyped-call]
    return result


def mix(block: nn.Module, feature: Tensor, *, seen: Tensor | None = None, factor: Tensor | float = 1.0) -> Tensor:
    """Return `factor` times what one part of a `generator_block` makes of a feature, (B, C, H, W).

    The factor multiplies the weights, which are fewer than the cells.

    Args:
        block: First or last part of a `generator_block`.
        feature: (B, C, H, W) or (C, H, W), or the seen channels of it.
        seen: Which channels those are, (C,) of bool; None for all.
        factor: A scalar.
    """
    last: Any = block
    if isinstance(block, nn.Sequential):
        first: Any
        first, last = block
        weight = first.weight if seen is None else first.weight[seen]
        feature = F.conv2d(feature, weight, padding=first.padding, groups=len(weight))
    weight = last.weight if seen is None else last.weight[:, seen]
    return F.conv2d(feature, weight * factor, last.bias * factor, padding=last.padding)
