"""Adaptive masking at several scales: hide what the teacher looks at, rebuild it, and compare logits where they differ.

Source: Zhang et al., "SAMKD: Spatial-aware Adaptive Masking Knowledge Distillation for Object Detection",
arXiv 2501.07101. No code and no hyper-parameters could be found, so the formulation is yolokd's own, built from
the abstract and from what it rests on: generators as in MGD (ECCV 2022), attention as in FGD (CVPR 2022).

A ladder of switches leads from MGD to the whole: random spatial masks at scale 1 are MGD exactly; then spatial masks by
attention, a second branch with channel masks, more scales, masked logits.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from yolokd.errors import RunError, ShapeError
from yolokd.losses.base import Branch, FeatureLoss, Requirements, Step, adapters
from yolokd.losses.bckd import score_gap
from yolokd.losses.generators import channels_last, generators, mix, without_hidden
from yolokd.losses.mgd import MaskStream, own_random_mask, reconstruction_map, share
from yolokd.losses.tensors import as_pair, known, mean_over_ranks, widen, without_autocast

if TYPE_CHECKING:
    from yolokd.recipe import SAMKDConfig


@without_autocast
def spatial_attention(feature: Tensor, *, tau: float = 0.5) -> Tensor:
    """Return H·W · softmax over cells of mean_C |feature| / tau, (B, H, W): sums to H·W per image.

    Args:
        feature: (B, C, H, W); the gradient flows into it.
        tau: Temperature; above 0.

    Raises:
        ShapeError: The feature is not 4D.
        ValueError: `tau` is not above 0.

    Example:
        >>> import torch
        >>> feature = torch.tensor([[[[0.0, 0.0], [0.0, 1.0]]]])
        >>> attention = spatial_attention(feature)
        >>> attention.shape, round(attention.sum().item(), 4)
        (torch.Size([1, 2, 2]), 4.0)
        >>> attention.argmax().item()
        3
    """
    energy = cell_energy(feature)
    return attention(energy.flatten(1), tau).view(energy.shape)


@without_autocast
def channel_attention(feature: Tensor, *, tau: float = 0.5) -> Tensor:
    """Return C · softmax over channels of mean_HW |feature| / tau, (B, C): sums to C per image.

    Arguments and errors are those of `spatial_attention`.

    Example:
        >>> import torch
        >>> channel_attention(torch.zeros(1, 3, 2, 2))
        tensor([[1., 1., 1.]])
    """
    return attention(channel_energy(feature), tau)


def cell_energy(feature: Tensor) -> Tensor:
    """Return mean_C |feature|, (B, H, W)."""
    return magnitude(feature).mean(1)


def channel_energy(feature: Tensor) -> Tensor:
    """Return mean_HW |feature|, (B, C)."""
    return magnitude(feature).mean((2, 3))


def magnitude(feature: Tensor) -> Tensor:
    """Return |feature| in float32 or wider; `ShapeError` unless it is 4D."""
    if feature.ndim != 4:
        raise ShapeError(f"feature must have shape (B, C, H, W), got {tuple(feature.shape)}")
    return widen(feature).abs()


def attention(energy: Tensor, tau: float) -> Tensor:
    """Return n · softmax(energy / tau) over the n places of each image, (B, n); `ValueError` unless tau is above 0."""
    if tau <= 0:
        raise ValueError(f"tau must be above 0, got {tau}")
    return energy.shape[-1] * (energy / tau).softmax(-1)


def top_mask(attention: Tensor, ratio: float) -> Tensor:
    """Hide the largest values of each image.

    Args:
        attention: (B, ...), any number of places per image.
        ratio: Share of the n places to hide, in [0, 1]; exactly ceil(ratio · n − 1e-9) of them are.

    Returns:
        0 on the largest values, of equal ones on the first, and 1 elsewhere; same shape, float32 or wider, no gradient.

    Raises:
        ValueError: `ratio` is not a share.

    Example:
        >>> import torch
        >>> top_mask(torch.tensor([[0.1, 0.9, 0.3, 0.7]]), 0.5)
        tensor([[1., 0., 1., 0.]])
    """
    share(ratio)
    values = widen(attention.detach()).flatten(1)  # (B, n)
    hidden = math.ceil(ratio * values.shape[1] - 1e-9)
    order = values.argsort(dim=1, descending=True, stable=True)
    return torch.ones_like(values).scatter(1, order[:, :hidden], 0).view(attention.shape)


@without_autocast
def bernoulli_kl_map(student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
    """Return the sum over classes of KL(teacher ‖ student) between independent scores, (B, A); 0 where they agree.

    Args:
        student_logits: (B, A, K).
        teacher_logits: Same shape; no gradient flows into it.

    Raises:
        ShapeError: The shapes differ.
    """
    student, teacher = as_pair(student_logits, teacher_logits, rank=3)
    present = teacher.sigmoid() * (F.logsigmoid(teacher) - F.logsigmoid(student))
    absent = (-teacher).sigmoid() * (F.logsigmoid(-teacher) - F.logsigmoid(-student))
    return (present + absent).sum(-1)


def divergence_where(weight: Tensor, student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
    """Return `bernoulli_kl_map` where the weight (B, A) is not 0; elsewhere anything finite.

    On a CPU it is 0 elsewhere and costs nothing there; a GPU would have to wait for the count of places.
    """
    if weight.device.type != "cpu":
        return bernoulli_kl_map(student_logits, teacher_logits)
    seen = weight != 0
    values = bernoulli_kl_map(student_logits[seen].unsqueeze(0), teacher_logits[seen].unsqueeze(0))
    return torch.zeros_like(weight, dtype=values.dtype).masked_scatter(seen, values)


@without_autocast
def gap_weight(gap: Tensor, *, kind: str = "hard", ratio: float = 0.1, tau: float = 0.1) -> Tensor:
    """Return how much each anchor's logits count, from the gap between the two models' scores, (B, A), no gradient.

    Args:
        gap: (B, A), at least 0.
        kind: "hard" takes the share `ratio` of anchors with the largest gaps, without those where it is 0;
            "soft" weighs all by A · softmax(gap / tau), which sums to A per image.
        ratio: In [0, 1]; of "hard" only.
        tau: Temperature, above 0; of "soft" only.

    Raises:
        ValueError: An unknown kind, or a number out of its range.
    """
    known(kind, ("hard", "soft"), "kind")
    gap = widen(gap.detach())
    return attention(gap, tau) if kind == "soft" else (1 - top_mask(gap, ratio)) * (gap > 0)


def spread_pooled(pooled: Tensor, scale: int, size: tuple[int, int]) -> Tensor:
    """Spread each pooled cell's value evenly over the cells that it covers, (B, h, w) → (B, H, W).

    Args:
        pooled: One value per window of scale × scale cells; windows at the lower and right edge may be cut off.
        scale: Cells per side of a window.
        size: (H, W), of which h and w are the quotients by the scale, rounded up.
    """
    height, width = size
    rows, columns = (
        (n - torch.arange(0, n, scale, device=pooled.device)).clamp(max=scale) for n in size
    )  # cells that a window covers along each axis, (h,) and (w,)
    each = pooled / (rows.unsqueeze(1) * columns)
    return each.repeat_interleave(scale, 1).repeat_interleave(scale, 2)[:, :height, :width]


class SAMKD(FeatureLoss):
    """Rebuilt features at every scale, and masked logits."""

    terms = ("samkd", "samkd_logits")
    head_terms = frozenset({"samkd_logits"})

    def __init__(self, config: SAMKDConfig) -> None:
        self.config = config
        logits = config.logits != 0
        self.requires = Requirements(levels=tuple(config.levels or ()), heads=logits, classes=logits)
        self.masks = MaskStream(config.seed)

    def build(self, student: Mapping[str, int], teacher: Mapping[str, int]) -> nn.ModuleDict:
        """Return adapters and generators per level; with a channel branch also its generators and the blend."""
        parts = nn.ModuleDict({"adapter": adapters(self.levels, student, teacher)})
        for branch in ("spatial", "channel") if self.config.channel else ("spatial",):
            parts[branch] = generators(self.levels, teacher, self.config.generator)
        if self.config.channel:
            parts["blend"] = nn.ParameterDict({level: nn.Parameter(torch.zeros(())) for level in self.levels})
        return parts

    def pieces(self, step: Step, parts: nn.ModuleDict, active: Collection[str]) -> Iterator[dict[str, Tensor]]:
        """Give "samkd" one level after the other, then "samkd_logits", (B, A) each; what is active of them.

        Raises:
            RunError: The logits are wanted, but the step carries no branch that both heads have.
        """
        if "samkd" in active:
            self.masks.go_to(step.number, step.student[self.levels[0]].device)
            yield from super().pieces(step, parts, active)
        if "samkd_logits" in active:
            if not step.branches:
                raise RunError("the loss `samkd` compares logits, but no branch of the two heads was captured")
            yield {"samkd_logits": torch.stack([self._logits(branch) for branch in step.branches]).sum(0)}

    def level_maps(self, step: Step, parts: nn.ModuleDict, level: str, active: Collection[str]) -> dict[str, Tensor]:
        """Return {"samkd": (B, H, W)}, the errors of all scales on the cells; each scale weighs k² / |K|."""
        feature, teacher = widen(step.student[level]), widen(step.teacher[level])
        if self.config.generator == "separable" and feature.device.type == "cpu":
            feature, teacher = channels_last(feature), channels_last(teacher)
        student = parts.get_submodule(f"adapter.{level}")(feature)
        errors = []
        for scale in self.config.scales:
            coarse, target = (x if scale == 1 else F.max_pool2d(x, scale, ceil_mode=True) for x in (student, teacher))
            error = reconstruction_map(self._rebuild(coarse, target, parts, level), target)
            errors.append(scale**2 * spread_pooled(error, scale, step.grid.shapes[level]))
        return {"samkd": torch.stack(errors).mean(0)}

    def _rebuild(self, student: Tensor, teacher: Tensor, parts: nn.ModuleDict, level: str) -> Tensor:
        """Return what the generators make of the masked student, (B, C, h, w)."""
        config = self.config
        sign = 1 if config.hide == "important" else -1
        if config.spatial == "random":
            batch, _, height, width = student.shape
            cells = own_random_mask((batch, height, width), config.ratio, generator=self.masks.numbers)
        else:  # the largest energy is the largest attention, whatever its temperature
            cells = top_mask(sign * cell_energy(teacher), config.ratio).unsqueeze(1)
        spatial: Any = parts.get_submodule(f"spatial.{level}")
        if not config.channel:
            return spatial(student * cells)  # type: ignore[no-any-return]
        channels = top_mask(sign * channel_energy(teacher), config.ratio)
        blend = parts.get_parameter(f"blend.{level}").sigmoid()
        channelwise: Any = parts.get_submodule(f"channel.{level}")
        rebuilt = mix(spatial[2], spatial[:2](student * cells), factor=blend)
        begun = spatial[1](without_hidden(channelwise[0], student, channels))
        return rebuilt.add_(mix(channelwise[2], begun, factor=1 - blend))

    def _logits(self, branch: Branch) -> Tensor:
        config, student, teacher = self.config, branch.student.logits, branch.teacher.logits
        weight = gap_weight(
            score_gap(student, teacher), kind=config.logits_weight, ratio=config.logits_ratio, tau=config.logits_tau
        )
        total = mean_over_ranks(weight.sum()).clamp(min=1)
        return divergence_where(weight, student, teacher) * weight * (branch.weight * len(weight) / total)
