"""Focal and global distillation: features weighted by objects and by the teacher's attention, and global context.

Source: Yang et al., "Focal and Global Knowledge Distillation for Detectors", CVPR 2022, and the authors' code
(yzd-v/FGD): a box covers the cells from floor to ceil inclusive, and both context blocks are trained.
Differs: returned per cell instead of summed, so that instance weights apply; the difference of the channel attentions
has no place and is a value per image.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from yolokd.errors import RunError, ShapeError
from yolokd.losses.base import FeatureLoss, Requirements, Step, adapters
from yolokd.losses.samkd import channel_attention, spatial_attention
from yolokd.losses.tensors import as_pair, widen, without_autocast

if TYPE_CHECKING:
    from yolokd.recipe import FGDConfig

NOWHERE = -1e6  # pixels, of the corners of a box that covers no cell


def box_masks(boxes_xyxy_px: Tensor, *, image_size: tuple[int, int], grid: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Return where the objects of one image are and how much each of their cells counts, and the rest.

    Args:
        boxes_xyxy_px: (N, 4) in pixels of the input image; N may be 0.
        image_size: (h, w) of that image.
        grid: (H, W), cells of the level.

    Returns:
        Foreground (H, W): the largest of 1 / (cells of the box) over the boxes that cover a cell, 0 outside all boxes.
        A box covers the cells from floor to ceil inclusive, as far as they exist; its size counts unclipped.
        Background (H, W): equal on all cells without foreground and 1 in sum, or 0 everywhere if there are none.
        Float32 or wider.

    Raises:
        ShapeError: The boxes are not (N, 4).

    Example:
        >>> import torch
        >>> boxes = torch.tensor([[0.0, 0.0, 15.0, 15.0]])
        >>> foreground, background = box_masks(boxes, image_size=(32, 32), grid=(4, 4))
        >>> foreground
        tensor([[0.1111, 0.1111, 0.1111, 0.0000],
                [0.1111, 0.1111, 0.1111, 0.0000],
                [0.1111, 0.1111, 0.1111, 0.0000],
                [0.0000, 0.0000, 0.0000, 0.0000]])
        >>> round(background.sum().item(), 4)
        1.0
    """
    if boxes_xyxy_px.ndim != 2 or boxes_xyxy_px.shape[1] != 4:
        raise ShapeError(f"boxes_xyxy_px must have shape (N, 4), got {tuple(boxes_xyxy_px.shape)}")
    foreground, background = _masks(boxes_xyxy_px[None], image_size, grid)
    return foreground[0], background[0]


def batch_masks(
    boxes_xyxy_px: Sequence[Tensor], *, image_size: tuple[int, int], grid: tuple[int, int]
) -> tuple[Tensor, Tensor]:
    """Return `box_masks` of several images at once, (B, H, W) each; arguments and result of each are those.

    A GPU then starts as many operations for a batch as for one image.
    """
    padded = torch.nn.utils.rnn.pad_sequence(list(boxes_xyxy_px), batch_first=True, padding_value=NOWHERE)
    return _masks(padded, image_size, grid)


def _masks(boxes: Tensor, image_size: tuple[int, int], grid: tuple[int, int]) -> tuple[Tensor, Tensor]:
    boxes = F.pad(widen(boxes.detach()), (0, 0, 0, 1), value=NOWHERE)  # (B, N, 4), N at least 1
    sides = []
    for axis, (pixels, cells) in enumerate(zip(reversed(image_size), reversed(grid), strict=True)):  # x, then y
        first, last = (boxes[..., axis] / pixels * cells).floor(), (boxes[..., axis + 2] / pixels * cells).ceil()
        places = torch.arange(cells, device=boxes.device)
        inside = (places >= first.unsqueeze(-1)) & (places <= last.unsqueeze(-1))  # (B, N, cells)
        sides.append((inside, (last - first + 1).clamp(min=1)))
    (in_columns, width), (in_rows, height) = sides
    covered = in_rows.unsqueeze(3) & in_columns.unsqueeze(2)  # (B, N, H, W)
    foreground = (covered / (height * width)[..., None, None]).amax(1)  # (B, H, W)
    background = (foreground == 0).to(foreground.dtype)
    return foreground, background / background.sum((1, 2), keepdim=True).clamp(min=1)


@without_autocast
def focal_map(student: Tensor, teacher: Tensor, weight: Tensor, *, tau: float = 0.5) -> Tensor:
    """Return weight · Σ_C of the squared error under the teacher's spatial and channel attention, (B, H, W).

    Args:
        student: Adapted student features, (B, C, H, W).
        teacher: Teacher features, same shape; no gradient flows into it.
        weight: (B, H, W), what each cell counts.
        tau: Temperature of both attentions; above 0.

    Raises:
        ShapeError: The two maps differ in shape.
        ValueError: `tau` is not above 0.
    """
    student, teacher = as_pair(student, teacher, rank=4)
    channels = channel_attention(teacher, tau=tau)[..., None, None]
    return weight * spatial_attention(teacher, tau=tau) * ((student - teacher).square() * channels).sum(1)


def with_context(feature: Tensor, attend: nn.Module, transform: nn.Module) -> Tensor:
    """Add to every cell the same transform of the attended mean over all cells, (B, C, H, W)."""
    share = attend(feature).flatten(2).softmax(-1)  # (B, 1, H·W)
    context = feature.flatten(2) @ share.transpose(1, 2)  # (B, C, 1)
    added: Tensor = transform(context.unsqueeze(-1))
    return feature + added


def context_block(channels: int) -> nn.ModuleDict:
    """Return the parts of `with_context`; as its last convolution starts at zero, it starts as the identity."""
    inner = max(channels // 2, 1)
    attend, last = nn.Conv2d(channels, 1, 1), nn.Conv2d(inner, channels, 1)
    for parameter in (*attend.parameters(), *last.parameters()):
        nn.init.zeros_(parameter)
    nn.init.kaiming_normal_(attend.weight, mode="fan_in", nonlinearity="relu")
    transform = nn.Sequential(nn.Conv2d(channels, inner, 1), nn.LayerNorm([inner, 1, 1]), nn.ReLU(inplace=True), last)
    return nn.ModuleDict({"attend": attend, "transform": transform})


class FGD(FeatureLoss):
    """Per cell: objects and background, spatial attention and global context; per image: channel attention."""

    terms = ("fgd", "fgd_channel")

    def __init__(self, config: FGDConfig) -> None:
        self.config = config
        self.requires = Requirements(levels=tuple(config.levels or ()), boxes=True)

    def build(self, student: Mapping[str, int], teacher: Mapping[str, int]) -> nn.ModuleDict:
        """Return an adapter and two context blocks per level, one for each partner."""
        blocks = {
            who: nn.ModuleDict({level: context_block(teacher[level]) for level in self.levels})
            for who in ("student", "teacher")
        }
        return nn.ModuleDict({"adapter": adapters(self.levels, student, teacher), **blocks})

    def level_maps(self, step: Step, parts: nn.ModuleDict, level: str, active: Collection[str]) -> dict[str, Tensor]:
        """Return the active ones of "fgd", (B, H, W), and "fgd_channel", (B,).

        Raises:
            RunError: The step does not carry the boxes of every image.
        """
        student = parts.get_submodule(f"adapter.{level}")(widen(step.student[level]))
        teacher = widen(step.teacher[level].detach())
        maps = {}
        if "fgd" in active:
            maps["fgd"] = self._cells(step, parts, level, student, teacher)
        if "fgd_channel" in active:
            tau = self.config.tau
            gap = (channel_attention(student, tau=tau) - channel_attention(teacher, tau=tau)).abs().sum(1)
            maps["fgd_channel"] = gap * self.config.attention
        return maps

    def _cells(self, step: Step, parts: nn.ModuleDict, level: str, student: Tensor, teacher: Tensor) -> Tensor:
        """Return all that has a place on one level, (B, H, W)."""
        config = self.config
        focal = focal_map(student, teacher, self._weight(step, level, len(student)), tau=config.tau)
        gap = (spatial_attention(student, tau=config.tau) - spatial_attention(teacher, tau=config.tau)).abs()
        whole = [
            with_context(
                x, parts.get_submodule(f"{who}.{level}.attend"), parts.get_submodule(f"{who}.{level}.transform")
            )
            for who, x in (("student", student), ("teacher", teacher))
        ]
        relation = (whole[0] - whole[1]).square().sum(1)
        return focal + gap * config.attention + relation * config.relation

    def _weight(self, step: Step, level: str, batch: int) -> Tensor:
        """Return the weight of each cell, (B, H, W), from the boxes of each image."""
        if len(step.boxes_xyxy_px) != batch:
            raise RunError(f"the loss `fgd` needs the boxes of {batch} images, got those of {len(step.boxes_xyxy_px)}")
        (height, width), stride = step.grid.shapes[level], step.grid.strides[level]
        size = (height * stride, width * stride)
        foreground, background = batch_masks(step.boxes_xyxy_px, image_size=size, grid=(height, width))
        return self.config.foreground * foreground + self.config.background * background
