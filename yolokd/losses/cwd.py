"""Channel-wise distillation: where each channel looks, as a distribution over cells.

Source: Shu et al., "Channel-wise Knowledge Distillation for Dense Prediction", ICCV 2021.
Differs: returned per cell instead of summed, so that instance weights apply; see `CWD` for what weights demand.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING

from torch import Tensor, nn

from yolokd.losses.base import FeatureLoss, Requirements, Step, adapters
from yolokd.losses.tensors import as_pair, widen, without_autocast

if TYPE_CHECKING:
    from yolokd.recipe import CWDConfig


@without_autocast
def cwd_map(student: Tensor, teacher: Tensor, *, tau: float = 1.0) -> Tensor:
    """Return tau² · KL(teacher ‖ student) of every cell, averaged over channels, (B, H, W).

    A single cell may be negative; `.sum((1, 2)).mean()` is the loss and is not.

    Args:
        student: Adapted student features, (B, C, H, W).
        teacher: Teacher features, same shape; no gradient flows into it.
        tau: Temperature of the softmax over the cells of a channel; above 0.

    Raises:
        ShapeError: The two maps differ in shape.
        ValueError: `tau` is not above 0.

    Example:
        >>> import torch
        >>> student = torch.zeros(1, 1, 1, 2)  # 1 : 1
        >>> teacher = torch.tensor([[[[1.0, 3.0]]]]).log()  # 1 : 3
        >>> loss = cwd_map(student, teacher)
        >>> loss.shape, round(loss.sum((1, 2)).mean().item(), 4)
        (torch.Size([1, 1, 2]), 0.1308)
    """
    log_s, log_t = log_distributions(student, teacher, tau)
    kl = log_t.exp() * (log_t - log_s)  # (B, C, H·W)
    return tau**2 * kl.mean(1).view_as(student[:, 0])


@without_autocast
def mass_gap_map(student: Tensor, teacher: Tensor, *, tau: float = 1.0) -> Tensor:
    """Return tau² · (student's share − teacher's share) of every cell, averaged over channels, (B, H, W).

    It sums to 0 over the cells of an image. Arguments and errors are those of `cwd_map`.
    """
    log_s, log_t = log_distributions(student, teacher, tau)
    gap = log_s.exp() - log_t.exp()  # (B, C, H·W)
    return tau**2 * gap.mean(1).view_as(student[:, 0])


def log_distributions(student: Tensor, teacher: Tensor, tau: float) -> tuple[Tensor, Tensor]:
    """Return the logarithms of both softmaxes over the cells of each channel, (B, C, H·W) ×2."""
    if tau <= 0:
        raise ValueError(f"tau must be above 0, got {tau}")
    student, teacher = as_pair(student, teacher, rank=4)
    return (student.flatten(2) / tau).log_softmax(-1), (teacher.flatten(2) / tau).log_softmax(-1)


class CWD(FeatureLoss):
    """Sum over levels of `cwd_map`, with cells that are never negative.

    The cells of a KL divergence balance each other: weighted one by one, their sum could be lowered by moving away
    from the teacher. With the gap of the shares added, each cell is smallest where student and teacher agree, and the
    unweighted sum and its gradient stay what they were.
    """

    terms = ("cwd",)

    def __init__(self, config: CWDConfig) -> None:
        self.requires = Requirements(levels=tuple(config.levels or ()))
        self.tau = config.tau

    def build(self, student: Mapping[str, int], teacher: Mapping[str, int]) -> nn.ModuleDict:
        """Return an adapter per level."""
        return adapters(self.levels, student, teacher)

    def level_maps(self, step: Step, parts: nn.ModuleDict, level: str, active: Collection[str]) -> dict[str, Tensor]:
        """Return {"cwd": (B, H, W)}."""
        pair = parts[level](widen(step.student[level])), step.teacher[level]
        return {"cwd": cwd_map(*pair, tau=self.tau) + mass_gap_map(*pair, tau=self.tau)}
