"""Instances that the teacher is sure of, one anchor for each, and loss maps over them.

An instance is an anchor at which the teacher's largest class score reaches a limit and no more confident anchor's box
covers its own.

Source: the parallel ("fast") NMS is that of Bolya et al., "YOLACT: Real-time Instance Segmentation", ICCV 2019.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from yolokd.errors import RunError, ShapeError
from yolokd.losses.base import Branch, Loss, Step, add
from yolokd.losses.tensors import widen, without_autocast

if TYPE_CHECKING:
    from yolokd.recipe.losses import InstanceConfig

CANDIDATES = 16  # anchors per instance, the most confident of an image, among which the instances are sought


@torch.no_grad()
@without_autocast
def confident_anchors(
    scores: Tensor, boxes: Tensor, *, confidence: float = 0.25, iou: float = 0.7, most: int = 32
) -> tuple[Tensor, Tensor]:
    """Return the anchors that stand for an instance, (B, N) long, and which of these slots are taken, (B, N) bool.

    Anchors of one image are distinct, from the most confident on; N is `most`, or A if that is less. An anchor whose
    box overlaps that of a more confident one counts as the same instance, whether or not that one is kept itself.
    They are sought among the 16 · N most confident anchors. No step waits for a GPU.

    Args:
        scores: Largest class probability at each anchor, (B, A).
        boxes: (B, A, 4) xyxy in any unit.
        confidence: Least score of an instance.
        iou: Largest overlap with a more confident anchor's box; 1 keeps all.
        most: Largest number of instances of an image, at least 1.

    Raises:
        ShapeError: Scores and boxes do not fit each other.
        ValueError: `most` is below 1.

    Example:
        >>> import torch
        >>> boxes = torch.tensor([[[0.0, 0.0, 4.0, 4.0], [0.0, 0.0, 4.0, 3.9], [8.0, 8.0, 9.0, 9.0]]])
        >>> anchors, taken = confident_anchors(torch.tensor([[0.8, 0.9, 0.1]]), boxes, most=2)
        >>> anchors[taken].tolist()
        [1]
    """
    if most < 1:
        raise ValueError(f"most must be at least 1, got {most}")
    if boxes.shape != (*scores.shape, 4) or scores.ndim != 2:
        raise ShapeError(f"scores must be (B, A), boxes (B, A, 4), got {tuple(scores.shape)} and {tuple(boxes.shape)}")
    top, index = widen(scores).topk(min(CANDIDATES * most, scores.shape[1]))  # (B, C), falling
    overlap = pairwise_iou(pick(widen(boxes), index))
    covered = (overlap.triu(diagonal=1) > iou).any(1)  # (B, C)
    taken = (top >= confidence) & ~covered
    first, place = top.masked_fill(~taken, -torch.inf).topk(min(most, scores.shape[1]))
    return index.gather(1, place), first > -torch.inf


def pairwise_iou(boxes: Tensor) -> Tensor:
    """Return the IoU of every two boxes of an image, (B, C, C), of boxes (B, C, 4) xyxy; 0 for boxes without area."""
    low = torch.maximum(boxes[:, :, None, :2], boxes[:, None, :, :2])
    high = torch.minimum(boxes[:, :, None, 2:], boxes[:, None, :, 2:])
    overlap = (high - low).clamp_min(0).prod(-1)  # (B, C, C)
    area = (boxes[..., 2:] - boxes[..., :2]).clamp_min(0).prod(-1)  # (B, C)
    return overlap / (area[:, :, None] + area[:, None] - overlap).clamp_min(torch.finfo(boxes.dtype).tiny)


def pick(values: Tensor, index: Tensor) -> Tensor:
    """Return the rows of some anchors, (B, N, C), of values (B, A, C); the index is (B, N) long."""
    return values.gather(1, index[..., None].expand(-1, -1, values.shape[-1]))


def mean_map(values: Tensor, anchors: Tensor, taken: Tensor, places: int) -> Tensor:
    """Return a map (B, A) whose sum over an image is the mean of its instances' values; 0 at all other anchors.

    Args:
        values: One per slot, (B, N).
        anchors: From `confident_anchors`, (B, N) long.
        taken: From there too, (B, N) bool.
        places: A.

    Example:
        >>> import torch
        >>> taken = torch.tensor([[True, True, False]])
        >>> mean_map(torch.tensor([[2.0, 4.0, 8.0]]), torch.tensor([[3, 0, 1]]), taken, 4).tolist()
        [[2.0, 0.0, 0.0, 1.0]]
    """
    values = values / taken.sum(1, keepdim=True).clamp_min(1)
    values = torch.where(taken, values, torch.zeros_like(values))
    return values.new_zeros(len(values), places).scatter(1, anchors, values)


class InstanceLoss(Loss):
    """Terms at the anchors of the teacher's instances; an image counts by the mean over its instances."""

    config: InstanceConfig

    @abstractmethod
    def values(self, branch: Branch, anchors: Tensor, active: Collection[str]) -> Mapping[str, Tensor]:
        """Return the value of each active term for each slot, (B, N).

        Args:
            branch: One pair of heads.
            anchors: From `confident_anchors`, (B, N) long.
            active: Terms.
        """

    @without_autocast
    def maps(self, step: Step, parts: nn.ModuleDict, active: Collection[str]) -> dict[str, Tensor]:
        """Return the map of each active term, (B, A): an instance's value at its anchor.

        Divided by the number of the image's instances, so that a map's sum is their mean; weighted and summed over
        branches.

        Raises:
            RunError: The step carries no branch that both heads have.
        """
        if not step.branches:
            name = type(self).__name__.lower()
            raise RunError(f"the loss `{name}` needs the heads of student and teacher, but no branch was captured")
        maps: dict[str, Tensor] = {}
        for branch in step.branches:
            add(maps, {term: branch.weight * values for term, values in self._branch(branch, active).items()})
        return maps

    def _branch(self, branch: Branch, active: Collection[str]) -> dict[str, Tensor]:
        teacher, config = branch.teacher, self.config
        scores, boxes = teacher.logits.detach().sigmoid().amax(-1), teacher.boxes.detach()
        anchors, taken = confident_anchors(
            scores, boxes, confidence=config.confidence, iou=config.iou, most=config.instances
        )
        found = self.values(branch, anchors, active)
        return {term: mean_map(values, anchors, taken, scores.shape[1]) for term, values in found.items()}
