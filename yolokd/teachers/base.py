"""What a teacher is: whatever answers, in pixels of the student's images, what the losses ask for.

A kind of teacher is a class in a file of this folder and a line in `yolokd.teachers.table`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from yolokd.backend.heads import HeadInfo
from yolokd.backend.tasks import KeypointLayout, Reader, no_extras


@dataclass(frozen=True)
class Offer:
    """What a teacher can give, at the anchors of its own levels.

    Attributes:
        widths: Level → channels of its neck features there, from fine to coarse; a level that is missing has none.
        branches: Of "one2many" and "one2one", those whose class scores and boxes it gives; () for none.
        bins: Distribution bins per side of a box; 1 for plain distances.
        head_levels: Levels at whose anchors it gives class scores and boxes; None for those of its neck features.
        attackable: Whether its loss has a gradient with respect to the student's images.
        stored: Whether it has answered before training.
        extras: What its heads give beside class scores and boxes, as `yolokd.losses.base.Requirements` names it.
        keypoints: How they write keypoints, where they give any.
        read: Reads what they give beside class scores and boxes from a branch's raw output.
    """

    widths: Mapping[str, int]
    branches: tuple[str, ...]
    bins: int
    head_levels: tuple[str, ...] | None = None
    attackable: bool = True
    stored: bool = False
    extras: tuple[str, ...] = ()
    keypoints: KeypointLayout | None = None
    read: Reader = no_extras

    @property
    def levels(self) -> tuple[str, ...]:
        """Levels at whose anchors it gives class scores and boxes, from fine to coarse."""
        return tuple(self.widths) if self.head_levels is None else self.head_levels

    @classmethod
    def of_head(cls, head: HeadInfo) -> Offer:
        """Return what a detector with this head gives at its own size."""
        return cls(head.widths, head.branches, head.bins, extras=head.extras, keypoints=head.keypoints, read=head.read)

    def __str__(self) -> str:
        """The parts, as a message lists them."""
        given = [f"neck features of {', '.join(self.widths)}"] if self.widths else []
        if self.branches:
            given.append("class scores and boxes")
        if self.branches and self.bins > 1:
            given.append(f"box distributions of {self.bins} bins")
        given += self.extras
        return ", ".join(given) or "stored answers only"


@dataclass(frozen=True)
class TeacherOutput:
    """What one pass gave, at the anchors of the teacher's levels on the student's images.

    Attributes:
        features: Level → neck features, (B, C, H, W).
        raw: Branch → `scores` (B, K, A) and `boxes` (B, 4·R, A), or those of a single branch, as Ultralytics' heads
            give them in training mode; with R = 1, distances in cells. None where nobody asked.
    """

    features: dict[str, Tensor]
    raw: dict[str, Any] | None


class Teacher(nn.Module, ABC):
    """A frozen model that is only looked at: no gradients, no updates of statistics, never saved.

    Attributes:
        offer: What it can give.
        dtype: Precision of its pass.
    """

    offer: Offer
    dtype: torch.dtype

    @abstractmethod
    def forward(self, images: Tensor, *, head: bool = True, levels: tuple[str, ...] = ()) -> TeacherOutput:
        """Answer for a batch, without gradient.

        Args:
            images: (B, 3, H, W) in [0, 1].
            head: Whether the head's outputs are needed.
            levels: Levels whose features are needed.
        """
