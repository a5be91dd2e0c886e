"""Masked generative distillation: rebuild the teacher's whole map from a student map with random holes.

Source: Yang et al., "Masked Generative Distillation", ECCV 2022, and the authors' code (yzd-v/MGD).
Differs: returned per cell instead of summed, so that instance weights apply; masks come from a stream of their own.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from yolokd.losses.base import FeatureLoss, Requirements, Step, adapters
from yolokd.losses.generators import generators
from yolokd.losses.tensors import as_pair, rank_and_ranks, widen, without_autocast

if TYPE_CHECKING:
    from yolokd.recipe import MGDConfig

SEED_STRIDE = 1_000_003  # steps of a run before its masks repeat those of the next seed


def random_mask(shape: tuple[int, int, int], ratio: float, *, generator: torch.Generator) -> Tensor:
    """Draw one mask per image, shared by all channels.

    Args:
        shape: (B, H, W).
        ratio: Probability of each cell, on its own, to be hidden; in [0, 1].
        generator: Where the numbers come from; the mask lies on its device.

    Returns:
        (B, 1, H, W), float32: 0 where a cell is hidden, 1 elsewhere.

    Raises:
        ValueError: `ratio` is not a share.

    Example:
        >>> import torch
        >>> mask = random_mask((2, 4, 4), 0.5, generator=torch.Generator().manual_seed(0))
        >>> mask.shape, sorted(mask.unique().tolist())
        (torch.Size([2, 1, 4, 4]), [0.0, 1.0])
    """
    share(ratio)
    batch, height, width = shape
    numbers = torch.rand((batch, 1, height, width), generator=generator, device=generator.device)
    return (numbers < 1 - ratio).float()


def own_random_mask(shape: tuple[int, int, int], ratio: float, *, generator: torch.Generator) -> Tensor:
    """Draw `random_mask` for the images of all processes of a distributed run and return those of this one.

    The generator stands the same in every process; so each has masks of its own, and a batch has the same masks
    whether one process has it or several share it. Arguments, result and errors are those of `random_mask`.
    """
    (rank, ranks), batch = rank_and_ranks(), shape[0]
    return random_mask((ranks * batch, *shape[1:]), ratio, generator=generator)[rank * batch : (rank + 1) * batch]


@without_autocast
def reconstruction_map(reconstructed: Tensor, teacher: Tensor) -> Tensor:
    """Return the squared error of every cell, summed over channels, (B, H, W); the paper's sum is its `.sum()`.

    Args:
        reconstructed: What a generator made of the masked student, (B, C, H, W).
        teacher: Teacher features, same shape; no gradient flows into it.

    Raises:
        ShapeError: The two maps differ in shape.

    Example:
        >>> import torch
        >>> teacher = torch.ones(1, 3, 2, 2)
        >>> reconstruction_map(torch.zeros(1, 3, 2, 2), teacher)
        tensor([[[3., 3.],
                 [3., 3.]]])
    """
    reconstructed, teacher = as_pair(reconstructed, teacher, rank=4)
    return (reconstructed - teacher).square().sum(1)


def share(ratio: float) -> None:
    """Raise `ValueError` unless `ratio` lies in [0, 1]."""
    if not 0 <= ratio <= 1:
        raise ValueError(f"ratio must lie between 0 and 1, got {ratio}")


class MaskStream:
    """Random numbers for masks that depend on a seed and on the number of the step only.

    Nothing else draws from it, and nothing of it is saved.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.numbers = torch.Generator()

    def go_to(self, number: int, device: torch.device) -> torch.Generator:
        """Make `numbers` those of the step with this number, and return them."""
        self.numbers = torch.Generator(device).manual_seed(self.seed * SEED_STRIDE + number)
        return self.numbers


class MGD(FeatureLoss):
    """Sum over levels of the squared error between the rebuilt student and the teacher."""

    terms = ("mgd",)

    def __init__(self, config: MGDConfig) -> None:
        self.requires = Requirements(levels=tuple(config.levels or ()))
        self.ratio = config.ratio
        self.kind = config.generator
        self.masks = MaskStream(config.seed)

    def build(self, student: Mapping[str, int], teacher: Mapping[str, int]) -> nn.ModuleDict:
        """Return an adapter and a generator per level."""
        return nn.ModuleDict(
            {
                "adapter": adapters(self.levels, student, teacher),
                "generator": generators(self.levels, teacher, self.kind),
            }
        )

    def pieces(self, step: Step, parts: nn.ModuleDict, active: Collection[str]) -> Iterator[dict[str, Tensor]]:
        """Give one level after the other, under masks of this step."""
        self.masks.go_to(step.number, step.student[self.levels[0]].device)
        yield from super().pieces(step, parts, active)

    def level_maps(self, step: Step, parts: nn.ModuleDict, level: str, active: Collection[str]) -> dict[str, Tensor]:
        """Return {"mgd": (B, H, W)}."""
        student = parts.get_submodule(f"adapter.{level}")(widen(step.student[level]))
        batch, _, height, width = student.shape
        holes = own_random_mask((batch, height, width), self.ratio, generator=self.masks.numbers)
        rebuilt = parts.get_submodule(f"generator.{level}")(student * holes)
        return {"mgd": reconstruction_map(rebuilt, step.teacher[level])}
