"""Pearson distillation: agree with the teacher up to scale and shift of each channel.

Source: Cao et al., "PKD: General Distillation Framework for Object Detectors via Pearson Correlation Coefficient",
NeurIPS 2022; implementation by its authors in open-mmlab/mmrazor (losses/pkd_loss.py).
Differs: returned per cell instead of averaged, so that instance weights apply.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from yolokd.errors import ShapeError
from yolokd.losses.base import FeatureLoss, Requirements, Step, adapters
from yolokd.losses.tensors import as_pair, widen, without_autocast

if TYPE_CHECKING:
    from yolokd.recipe import PKDConfig

EPSILON = 1e-6


def standardize(feature: Tensor) -> Tensor:
    """Return (x − mean) / (unbiased standard deviation + 1e-6) of each channel over the batch and all cells."""
    std, mean = torch.std_mean(feature, (0, 2, 3), keepdim=True)
    return (feature - mean) / (std + EPSILON)


@without_autocast
def pkd_map(student: Tensor, teacher: Tensor) -> Tensor:
    """Return half the squared difference of the standardized maps, averaged over channels, (B, H, W).

    `.mean()` of it is the loss: 1 − Pearson's r, averaged over channels, up to the factor (n − 1) / n of n = B·H·W.
    Over several processes each standardizes its own share of the batch.

    Args:
        student: Adapted student features, (B, C, H, W).
        teacher: Teacher features, same shape; no gradient flows into it.

    Raises:
        ShapeError: The two maps differ in shape, or have a single place, which has no deviation.

    Example:
        >>> import torch
        >>> teacher = torch.arange(8.0).view(2, 1, 2, 2)
        >>> pkd_map(3 * teacher + 1, teacher).max().item() < 1e-9
        True
        >>> round(pkd_map(-teacher, teacher).mean().item(), 4)  # (n - 1) / n · (1 - r), with r = -1 and n = 8
        1.75
    """
    student, teacher = as_pair(student, teacher, rank=4)
    batch, _, height, width = student.shape
    if batch * height * width < 2:
        raise ShapeError(f"a standard deviation needs at least two places, got maps of shape {tuple(student.shape)}")
    return (standardize(student) - standardize(teacher)).square().mean(1) / 2


class PKD(FeatureLoss):
    """Sum over levels of the mean of `pkd_map`."""

    terms = ("pkd",)

    def __init__(self, config: PKDConfig) -> None:
        self.requires = Requirements(levels=tuple(config.levels or ()))

    def build(self, student: Mapping[str, int], teacher: Mapping[str, int]) -> nn.ModuleDict:
        """Return an adapter per level."""
        return adapters(self.levels, student, teacher)

    def level_maps(self, step: Step, parts: nn.ModuleDict, level: str, active: Collection[str]) -> dict[str, Tensor]:
        """Return {"pkd": (B, H, W)}."""
        error = pkd_map(parts[level](widen(step.student[level])), step.teacher[level])
        return {"pkd": error / error[0].numel()}
