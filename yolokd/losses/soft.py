"""Soft labels: a teacher's boxes with the probabilities of all classes, as targets of the student's own assignment.

Source: the classification loss of task-aligned detectors (Feng et al., "TOOD", ICCV 2021), whose targets are alignment
× one-hot, with the one-hot replaced by a teacher's probabilities as in Hinton et al., "Distilling the Knowledge in a
Neural Network", 2015.
Differs: divided by the average mass of the targets over the run, so that a batch of empty images counts no more than
others; boxes weigh by alignment × the teacher's largest probability.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import complete_box_iou_loss

from yolokd.errors import RunError, ShapeError
from yolokd.losses.base import Answered, Loss, Requirements, Step
from yolokd.losses.tensors import widen, without_autocast

if TYPE_CHECKING:
    from yolokd.recipe import SoftConfig


@torch.no_grad()
def soft_targets(alignment: Tensor, box_index: Tensor, probabilities: Tensor) -> Tensor:
    """Return alignment × the class probabilities of the box that each anchor got, (B, A, K); 0 without a box.

    Args:
        alignment: How well the student's prediction at an anchor fits its box, (B, A), in [0, 1]; 0 without a box.
        box_index: The box of each anchor, (B, A) long, from 0 to M − 1; any where the alignment is 0.
        probabilities: Of the boxes of each image, (B, M, K).

    Raises:
        ShapeError: The three do not fit each other.

    Example:
        >>> import torch
        >>> alignment = torch.tensor([[0.0, 0.5]])
        >>> index = torch.tensor([[0, 1]])
        >>> soft_targets(alignment, index, torch.tensor([[[1.0, 0.0], [0.5, 0.25]]])).tolist()
        [[[0.0, 0.0], [0.25, 0.125]]]
    """
    if alignment.ndim != 2 or alignment.shape != box_index.shape or probabilities.ndim != 3:
        raise ShapeError(
            f"alignment and box_index must be (B, A) and probabilities (B, M, K), got {tuple(alignment.shape)}, "
            f"{tuple(box_index.shape)} and {tuple(probabilities.shape)}"
        )
    if len(probabilities) != len(alignment):
        raise ShapeError(f"alignment is of {len(alignment)} images, probabilities of {len(probabilities)}")
    wide, chances = widen(alignment), widen(probabilities)
    if not chances.shape[1]:
        return chances.new_zeros(*alignment.shape, chances.shape[2])
    index = box_index.long().clamp(0, chances.shape[1] - 1)
    index = index + chances.shape[1] * torch.arange(len(chances), device=index.device)[:, None]
    picked = chances.flatten(0, 1).index_select(0, index.flatten())  # whole rows: gather is three times as slow
    return picked.view(*alignment.shape, -1) * wide[..., None]


class Soft(Loss):
    """Cross-entropy against soft targets and complete IoU with the teacher's boxes, on every branch of the student."""

    terms = ("soft_cls", "soft_box")
    requires = Requirements(answers=True, classes=True)
    head_terms = frozenset(terms)

    def __init__(self, config: SoftConfig) -> None:
        self.config = config

    @without_autocast
    def maps(self, step: Step, parts: nn.ModuleDict, active: Collection[str]) -> dict[str, Tensor]:
        """Return the active ones of "soft_cls" and "soft_box", (B, A): map · B / N, weighted and summed over branches.

        N is the mass of the targets that a batch of this size holds on average over the run.

        Raises:
            RunError: The step carries no answers.
        """
        if not step.answered:
            raise RunError("the loss `soft` compares with stored answers of the teacher, but the step carries none")
        maps: dict[str, Tensor] = {}
        for answered in step.answered:
            for term, values in self._branch(answered, active).items():
                maps[term] = maps[term] + values if term in maps else values
        return maps

    @staticmethod
    def _branch(answered: Answered, active: Collection[str]) -> dict[str, Tensor]:
        student, targets = answered.student, answered.targets
        scale = answered.weight * len(targets) / answered.mass
        maps = {}
        if "soft_cls" in active:
            entropy = F.binary_cross_entropy_with_logits(student.logits, targets, reduction="none")
            maps["soft_cls"] = entropy.sum(-1) * scale
        if "soft_box" in active:
            weight = targets.amax(-1)  # (B, A)
            where = (weight > 0).nonzero(as_tuple=True)
            losses = complete_box_iou_loss(student.boxes_at(*where), answered.boxes[where], reduction="none")
            spread = torch.zeros_like(weight).index_put(where, losses * weight[where])
            maps["soft_box"] = spread * scale
        return maps
