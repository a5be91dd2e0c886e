"""A teacher that sees the images at twice the student's size, and answers on the student's grid.

Source: the shifted levels of Qi et al., "Multi-Scale Aligned Distillation for Low-Resolution Detection", CVPR 2021.
Differs: class scores and boxes as well; each cell of the student takes them from the best of the teacher's cells at its
place. In the student's pixels a cell of the teacher's level has half of its stride:

    student   same cell of the teacher   four cells of the teacher that it covers
    p3        p4                         p3
    p4        p5                         p4
    p5        -                          p5

A p2 of the student takes p3 alone, where the teacher has no p2.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from yolokd.backend.heads import as_head, raw_of, split_branches
from yolokd.losses.base import Grid
from yolokd.losses.levels import STRIDES
from yolokd.teachers.base import Offer, Teacher, TeacherOutput

SCALE = 2  # side of the teacher's images per side of the student's
COARSER = dict(pairwise(STRIDES))  # level of the student → of the teacher with the same cells


class ScaledTeacher(Teacher):
    """A teacher of any live kind whose images are twice as large as the student's.

    Args:
        inner: The teacher.
        student: Levels of the student's head.
        classes: Places of its classes by which a cell is chosen; None for all.
    """

    def __init__(self, inner: Teacher, student: Collection[str], classes: Sequence[int] | None = None) -> None:
        super().__init__()
        self.inner = inner
        self.classes = None if classes is None else torch.tensor(sorted(set(classes)))
        self._cells: dict[tuple[Any, ...], Tensor] = {}  # for one size of images at a time
        self.offer = scaled_offer(inner.offer, student)
        self.dtype = inner.dtype

    @torch.no_grad()
    def forward(self, images: Tensor, *, head: bool = True, levels: tuple[str, ...] = ()) -> TeacherOutput:
        """Answer on the grid of images of half the size.

        Args:
            images: (B, 3, 2H, 2W) in [0, 1], for a student that sees (B, 3, H, W).
            head: Whether the head's outputs are needed.
            levels: The student's levels whose features are needed, of those that the offer has features of.
        """
        output: TeacherOutput = self.inner(images, head=head, levels=tuple(COARSER[level] for level in levels))
        features = {level: output.features[COARSER[level]] for level in levels}
        if output.raw is None:
            return TeacherOutput(features, None)
        fine = Grid.of_images(images, self.inner.offer.levels)
        grid = Grid.of_images(images[..., ::SCALE, ::SCALE], self.offer.levels)
        cells = self._cells_of(fine, images.device)
        raw = {}
        for name, branch in split_branches(output.raw).items():
            answer = as_head(branch, fine, None)
            judged = answer.logits if self.classes is None else answer.logits[..., self.classes]
            logits, boxes = choose(judged.amax(-1), answer.logits, answer.boxes, cells)
            raw[name] = raw_of(logits, boxes / SCALE, grid)
        return TeacherOutput(features, raw if len(raw) > 1 else raw["one2many"])

    def _cells_of(self, fine: Grid, device: torch.device) -> Tensor:
        """Return `candidates` on a device; the copy, which the host waits for, is made once for each size."""
        key = (*fine.shapes.values(), device)
        if key not in self._cells:
            self._cells = {key: candidates(fine, self.offer.levels).to(device)}
            self.classes = None if self.classes is None else self.classes.to(device)
        return self._cells[key]


def scaled_offer(inner: Offer, student: Collection[str]) -> Offer:
    """Return what a teacher gives at the student's levels when it sees the images at twice the size."""
    same = {level: COARSER.get(level, "") for level in STRIDES if level in student}
    widths = {level: inner.widths[coarser] for level, coarser in same.items() if coarser in inner.widths}
    levels = tuple(level for level, coarser in same.items() if {level, coarser} & set(inner.levels))
    return Offer(widths, inner.branches, 1, head_levels=levels, attackable=False)


def candidates(fine: Grid, levels: Sequence[str]) -> Tensor:
    """Return the teacher's anchors that each of the student's anchors chooses from, (A, 5).

    Where there is no same cell, or no cells that it covers, one of the others stands in its place.

    Args:
        fine: The teacher's grid.
        levels: Those of the student, each of which has candidates.
    """
    numbers = {
        level: torch.arange(h * w).view(h, w) + fine.places(level).start for level, (h, w) in fine.shapes.items()
    }
    rows = []
    for level in levels:
        same, own = numbers.get(COARSER.get(level, "")), numbers.get(level)
        parts = [] if same is None else [same.reshape(-1, 1)]
        if own is not None:
            covered = own.unflatten(0, (-1, SCALE)).unflatten(2, (-1, SCALE)).transpose(1, 2)  # (h, w, 2, 2)
            parts.append(covered.flatten(2).flatten(0, 1))  # (h·w, 4)
        found = torch.cat(parts, 1)
        rows.append(torch.cat((found[:, :1].expand(-1, 1 + SCALE**2 - found.shape[1]), found), 1))
    return torch.cat(rows)


def choose(scores: Tensor, logits: Tensor, boxes: Tensor, cells: Tensor) -> tuple[Tensor, Tensor]:
    """Return logits (B, A, K) and boxes (B, A, 4) of the candidate with the largest score; of equal ones the first.

    Args:
        scores: Of the teacher's anchors, (B, T).
        logits: (B, T, K).
        boxes: (B, T, 4).
        cells: The candidates of each of the student's anchors, (A, 5).
    """
    best = scores[:, cells].argmax(-1, keepdim=True)  # (B, A, 1)
    picked = cells.expand(len(scores), -1, -1).gather(2, best)  # (B, A, 1)
    return (
        logits.gather(1, picked.expand(-1, -1, logits.shape[-1])),
        boxes.gather(1, picked.expand(-1, -1, 4)),
    )
