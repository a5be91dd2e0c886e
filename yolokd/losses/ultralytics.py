"""The built-in distillation of Ultralytics: squared error of neck features, weighted by the teacher's scores.

Source: `ultralytics/nn/distill_model.py` of Ultralytics 8.4.190, `DistillationModel.loss_sl2` and its projector.
Differs: returned per cell instead of summed, so that instance weights apply; computed in float32 under autocast.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING

from torch import Tensor, nn

from yolokd.errors import RunError
from yolokd.losses.base import FeatureLoss, Requirements, Step
from yolokd.losses.tensors import as_pair, same_shape, widen, without_autocast

if TYPE_CHECKING:
    from yolokd.recipe import UltralyticsConfig


@without_autocast
def score_weighted_l2_map(student: Tensor, teacher: Tensor, teacher_score: Tensor) -> Tensor:
    """Return B · Σ_C (s − t)² · q / (C · Σq + 1e-9) of every cell, (B, H, W), q being the teacher's score.

    Σq runs over the whole batch, so `map.sum((1, 2)).mean()` is the built-in loss.
    Over several processes each takes its own share of the batch, as the built-in does.

    Args:
        student: Projected student features, (B, C, H, W).
        teacher: Teacher features, same shape; no gradient flows into them.
        teacher_score: q, the teacher's largest class score at each cell, (B, H, W) in [0, 1]; no gradient either.

    Raises:
        ShapeError: The features differ in shape or are not 4D, or the scores do not fit them.

    Example:
        >>> import torch
        >>> student, teacher = torch.zeros(1, 4, 1, 2), torch.ones(1, 4, 1, 2)
        >>> loss = score_weighted_l2_map(student, teacher, torch.tensor([[[0.75, 0.25]]]))
        >>> [round(value, 4) for value in loss.flatten().tolist()]
        [0.75, 0.25]
    """
    student, teacher = as_pair(student, teacher, rank=4)
    same_shape(student[:, 0], teacher_score, what="a channel of the features and teacher_score")
    score = teacher_score.detach().to(student.dtype)
    batch, channels = student.shape[:2]
    return (student - teacher).square().sum(1) * score * (batch / (channels * score.sum() + 1e-9))


class Ultralytics(FeatureLoss):
    """The built-in loss, each student level behind a projector of two 1×1 convolutions."""

    terms = ("ultralytics",)

    def __init__(self, config: UltralyticsConfig) -> None:
        self.requires = Requirements(levels=tuple(config.levels or ()), teacher_scores=True)

    def build(self, student: Mapping[str, int], teacher: Mapping[str, int]) -> nn.ModuleDict:
        """Make the built-in's projectors, in its order, so that equal seeds give equal weights."""
        return nn.ModuleDict(
            {
                level: nn.Sequential(
                    nn.Conv2d(student[level], teacher[level], 1),
                    nn.ReLU(inplace=True),
                    nn.Conv2d(teacher[level], teacher[level], 1),
                )
                for level in self.levels
            }
        )

    def level_maps(self, step: Step, parts: nn.ModuleDict, level: str, active: Collection[str]) -> dict[str, Tensor]:
        """Return {"ultralytics": (B, H, W)}, whose sum over cells and mean over the batch is the built-in's value.

        Raises:
            RunError: The step carries no scores of the teacher.
        """
        if step.teacher_scores is None:
            raise RunError("the loss `ultralytics` needs the teacher's class scores, but none were computed")
        score = step.teacher_scores[:, step.grid.places(level)]
        score = score.reshape(-1, *step.grid.shapes[level])  # (B, H, W)
        projected = parts[level](widen(step.student[level]))
        return {"ultralytics": score_weighted_l2_map(projected, step.teacher[level], score)}
