"""How sensitive a detector is to each spatial frequency: the Fourier heat map that motivates IKD's augmentation.

Source: Yin et al., "A Fourier Perspective on Model Robustness in Computer Vision", NeurIPS 2019, section 3: one wave of
a fixed L2 norm is added to the image, and the model's error is noted.
Differs: for one image at a time, on a coarse grid of frequencies that covers the whole plane; waves are gray, without
a random sign per channel, whose colors would make neighboring frequencies hard to compare; the error is that of a
detector's scores against its own scores on the clean image, so that labels are not needed.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from yolokd.backend.heads import split_branches
from yolokd.teachers.base import Teacher

REACH = 7  # frequencies on either side of zero, in each direction
STRENGTH = 8 / 255  # root mean square of a wave over the values of the image


@dataclass(frozen=True)
class HeatMap:
    """Rise of a loss by frequency."""

    rise: npt.NDArray[np.float64]  # (2·REACH + 1, 2·REACH + 1), zero frequency in the middle; rows: vertical, downwards
    spacing: float  # cycles per pixel between neighbors
    strength: float  # root mean square of each wave


def wave(row: int, column: int, size: tuple[int, int]) -> Tensor:
    """Return the wave of so many cycles per image, downwards and to the right: (H, W) of L2 norm 1, float64."""
    height, width = size
    y = torch.arange(height, dtype=torch.float64)[:, None] * row / height
    x = torch.arange(width, dtype=torch.float64) * column / width
    pattern = (2 * math.pi * (y + x)).cos()
    unit: Tensor = pattern / pattern.norm()
    return unit


def heat_map(
    loss_fn: Callable[[Tensor], Tensor],
    image: Tensor,
    *,
    strength: float = STRENGTH,
    reach: int = REACH,
    batch: int = 8,
) -> HeatMap:
    """Measure how much a loss rises under each frequency.

    Waves of opposite frequencies are the same, so half of the plane is measured. Values are not clipped to [0, 1], so
    that every wave keeps its norm.

    Args:
        loss_fn: Images (B, 3, S, S) to the loss of each, (B,).
        image: The clean one, (1, 3, S, S) in [0, 1], S at least 2 · `reach` + 2.
        strength: Root mean square of a wave in each channel; its L2 norm there is `strength` · S.
        reach: Frequencies on either side of zero, evenly spaced up to the finest that the pixels can show.
        batch: Waves at a time.
    """
    side = image.shape[-1]
    spacing = (side // 2 - 1) // reach
    half = [(i, j) for i in range(reach + 1) for j in range(-reach, reach + 1) if (i, j) >= (0, 0)]
    rise = torch.zeros(2 * reach + 1, 2 * reach + 1, dtype=torch.float64)
    with torch.no_grad():
        clean = loss_fn(image)
        for start in range(0, len(half), batch):
            some = half[start : start + batch]
            waves = torch.stack([wave(i * spacing, j * spacing, (side, side)) for i, j in some])[:, None]
            rises = loss_fn(image + (waves * strength * side).to(image)) - clean
            for (i, j), value in zip(some, rises.tolist(), strict=True):
                rise[reach + i, reach + j] = rise[reach - i, reach - j] = value
    return HeatMap(rise.numpy(), spacing / side, strength)


def moved_scores(teacher: Teacher, clean: Tensor) -> Callable[[Tensor], Tensor]:
    """Return the teacher's classification loss with its own scores on a clean image as labels, as a loss of images.

    It is the cross-entropy summed over anchors and classes of the one-to-many branch, (B,); its rise over the clean
    image is the divergence KL(clean ‖ changed) of the scores.
    """

    def logits(images: Tensor) -> Tensor:
        scores: Tensor = split_branches(teacher(images).raw)["one2many"]["scores"].float()
        return scores  # (B, K, A)

    labels = logits(clean).sigmoid()

    def loss(images: Tensor) -> Tensor:
        out = logits(images)
        return F.binary_cross_entropy_with_logits(out, labels.expand_as(out), reduction="none").sum((1, 2))

    return loss
