"""Attention-guided and non-local distillation: what adaptive instance distillation was published on.

Source: Zhang and Ma, "Improve Object Detection with Feature-based Knowledge Distillation: Towards Accurate and
Efficient Detectors", ICLR 2021; defaults as in open-mmlab/mmrazor (losses/fbkd_loss.py,
architectures/connectors/fbkd_connector.py), whose feature term uses the spatial mask only.
Differs: norms are taken per image and averaged, not over the whole batch, and are split over the cells, so that
instance weights apply; no adapter of features where both partners are equally wide; the non-local blocks carry no
batch normalization and start as the identity.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING, Any

import torch.nn.functional as F
from torch import Tensor, nn

from yolokd.losses.base import FeatureLoss, Requirements, Step, adapters
from yolokd.losses.levels import STRIDES
from yolokd.losses.samkd import spatial_attention
from yolokd.losses.tensors import as_pair, widen, without_autocast

if TYPE_CHECKING:
    from yolokd.recipe import FBKDConfig

FINE = ("p2", "p3")  # levels of many cells, whose non-local blocks are made smaller
REDUCTION = {level: 4 if level in FINE else 2 for level in STRIDES}  # channels of a non-local block are divided by it
POOLING = REDUCTION  # cells per side that a non-local block joins on the side that is looked at


def norm_map(squares: Tensor) -> Tensor:
    """Split the norm √Σe of each image over its cells: e / √Σe, same shape.

    The sum over the cells is the norm and has its gradient. Under weights w the gradient of a cell is that of
    w · e / 2√Σe: were the denominator differentiated too, cells of low weight would be pushed away from the teacher.
    Where all errors are 0 the value and the gradient are 0.

    Args:
        squares: e, squared errors, (B, H, W), at least 0.
    """
    total = squares.sum((1, 2), keepdim=True)  # (B, 1, 1)
    half = squares / (2 * total.detach().where(total > 0, 1.0).sqrt())
    return half + half.detach()


@without_autocast
def non_local(feature: Tensor, parts: nn.ModuleDict, pooling: int) -> Tensor:
    """Add to every cell what it gathers from all cells by dot products, (B, C, H, W).

    x + out(value · (keyᵀ · query) / n), n being the number of cells that are looked at, those left by max-pooling.

    Args:
        feature: (B, C, H, W), float32 or wider.
        parts: 1×1 convolutions "query", "key", "value" and "out", of `non_local_block`.
        pooling: Cells per side of the pooling; cut down to the size of a small map.
    """
    height, width = feature.shape[-2:]
    window = (min(pooling, height), min(pooling, width))
    query = parts["query"](feature).flatten(2)  # (B, I, H·W)
    key = F.max_pool2d(parts["key"](feature), window).flatten(2)  # (B, I, n)
    value = F.max_pool2d(parts["value"](feature), window).flatten(2)  # (B, I, n)
    # Without a softmax in between the small I × I product may come first.
    gathered = (value @ key.transpose(1, 2) / key.shape[-1]) @ query  # (B, I, H·W)
    added: Tensor = parts["out"](gathered.unflatten(-1, (height, width)))
    return feature + added


def non_local_block(channels: int, reduction: int) -> nn.ModuleDict:
    """Return the parts of `non_local`, which starts as the identity."""
    inner = max(channels // reduction, 1)
    parts = nn.ModuleDict({name: nn.Conv2d(channels, inner, 1) for name in ("query", "key", "value")})
    for parameter in parts.parameters():
        nn.init.normal_(parameter, std=0.01) if parameter.ndim > 1 else nn.init.zeros_(parameter)
    parts["out"] = nn.Conv2d(inner, channels, 1)
    for parameter in parts["out"].parameters():
        nn.init.zeros_(parameter)
    return parts


@without_autocast
def attended_norm_map(student: Tensor, adapted: Tensor, teacher: Tensor, *, tau: float = 0.5) -> Tensor:
    """Return the norm of the error under the mean of both spatial attentions, split over the cells, (B, H, W).

    Args:
        student: Student features, (B, C_s, H, W), of which only the attention is taken, without gradient.
        adapted: The same behind an adapter, (B, C, H, W).
        teacher: Teacher features, (B, C, H, W); no gradient flows into it.
        tau: Temperature of the attention; above 0.

    Raises:
        ShapeError: `adapted` and `teacher` differ in shape.
        ValueError: `tau` is not above 0.
    """
    adapted, teacher = as_pair(adapted, teacher, rank=4)
    mask = (spatial_attention(teacher, tau=tau) + spatial_attention(student.detach(), tau=tau)) / 2
    return norm_map((adapted - teacher).square().sum(1) * mask)


class FBKD(FeatureLoss):
    """Norms of the errors of features, spatial means, non-local relations, and channel means; the last per image."""

    terms = ("fbkd_feature", "fbkd_spatial", "fbkd_relation", "fbkd_channel")

    def __init__(self, config: FBKDConfig) -> None:
        self.config = config
        self.requires = Requirements(levels=tuple(config.levels or ()))

    def build(self, student: Mapping[str, int], teacher: Mapping[str, int]) -> nn.ModuleDict:
        """Return, per level, the adapters of the four terms and the two partners' non-local blocks."""

        def per_level(make: Callable[[str], nn.Module]) -> nn.ModuleDict:
            return nn.ModuleDict({level: make(level) for level in self.levels})

        return nn.ModuleDict(
            {
                "feature": adapters(self.levels, student, teacher),
                "channel": per_level(lambda level: nn.Linear(student[level], teacher[level])),
                "spatial": per_level(lambda level: nn.Conv2d(1, 1, 3, padding=1)),
                "relation": per_level(lambda level: nn.Conv2d(student[level], teacher[level], 1)),
                "student": per_level(lambda level: non_local_block(student[level], REDUCTION[level])),
                "teacher": per_level(lambda level: non_local_block(teacher[level], REDUCTION[level])),
            }
        )

    def level_maps(self, step: Step, parts: nn.ModuleDict, level: str, active: Collection[str]) -> dict[str, Tensor]:
        """Return the active terms: "fbkd_channel" is (B,), the others are (B, H, W)."""
        student, teacher = widen(step.student[level]), widen(step.teacher[level].detach())
        own = {name: parts.get_submodule(f"{name}.{level}") for name in parts}
        return {
            term: self._term(term.removeprefix("fbkd_"), student, teacher, own, POOLING[level])
            for term in self.terms
            if term in active
        }

    def _term(self, term: str, student: Tensor, teacher: Tensor, own: dict[str, Any], pooling: int) -> Tensor:
        """Return one term of one level, (B, H, W); (B,) for the channels."""
        if term == "feature":
            return attended_norm_map(student, own["feature"](student), teacher, tau=self.config.tau)
        if term == "spatial":
            error = own["spatial"](student.mean(1, keepdim=True)) - teacher.mean(1, keepdim=True)
        elif term == "relation":
            error = own["relation"](non_local(student, own["student"], pooling)) - non_local(
                teacher, own["teacher"], pooling
            )
        else:
            error = (own["channel"](student.mean((2, 3))) - teacher.mean((2, 3)))[..., None, None]
            return norm_map(error.square().sum(1)).flatten(1).squeeze(1)
        return norm_map(error.square().sum(1))
