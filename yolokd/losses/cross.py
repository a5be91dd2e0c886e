"""Cross-head distillation."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import torch
from torch import Tensor, nn

from yolokd.losses.base import Loss, Requirements, Step
from yolokd.losses.bckd import bckd_cls_map
from yolokd.losses.ld import ld_map
from yolokd.losses.tensors import widen, without_autocast


class Cross(Loss):
    """The student's adapted neck features through the teacher's own head."""

    terms = ("cross_cls", "cross_box")

    def __init__(self, config) -> None:
        self.align = config.align
        self.position = config.position
        self.requires = Requirements(levels=tuple(config.levels or ()), heads=True, classes=True)

    def build(self, student: Mapping[str, int], teacher: Mapping[str, int]) -> nn.ModuleDict:
        """Return an adapter per level."""
        if self.position:
            from yolokd.teachers.detector import HEADS, STUDENTS

            own, other = STUDENTS[0], HEADS[0]
            return nn.ModuleDict(
                {
                    f"{branch}_{level}": nn.Conv2d(
                        getattr(own, branch)[i][-1].in_channels, getattr(other, branch)[i][-1].in_channels, 1
                    )
                    for branch in ("cv2", "cv3")
                    for i, level in enumerate(self.levels)
                }
            )
        return nn.ModuleDict({level: nn.Conv2d(student[level], teacher[level], 1) for level in self.levels})

    @without_autocast
    def maps(self, step: Step, parts: nn.ModuleDict, active: Collection[str]) -> dict[str, Tensor]:
        """Return the two."""
        branch = step.branches[0]
        features = {}
        if self.position:
            crossed = step.cross(self.hidden(step, parts))
            return self.compare(branch, crossed)
        for level in self.levels:
            x, t = parts[level](widen(step.student[level])), widen(step.teacher[level])
            features[level] = self.aligned(x, t)
        return self.compare(branch, step.cross(features))

    def aligned(self, x, t):
        if self.align:
            dims = (0, 2, 3)
            x = (x - x.mean(dims, keepdim=True)) / (x.std(dims, keepdim=True) + 1e-6)
            x = x * t.std(dims, keepdim=True) + t.mean(dims, keepdim=True)
        return x

    def hidden(self, step, parts):
        from yolokd.teachers.detector import HEADS, STUDENTS

        own, other, k = STUDENTS[0], HEADS[0], self.position
        found = {"scores": [], "boxes": []}
        for i, level in enumerate(self.levels):
            for branch, key in (("cv2", "boxes"), ("cv3", "scores")):
                x = getattr(own, branch)[i][:k](step.student[level])
                with torch.no_grad():
                    t = getattr(other, branch)[i][:k](step.teacher[level])
                x = self.aligned(parts[f"{branch}_{level}"](x), t)
                found[key].append(getattr(other, branch)[i][k:](x).flatten(2))
        return {key: torch.cat(parts, 2) for key, parts in found.items()}

    def compare(self, branch, crossed):
        scale = len(branch.student.logits) / branch.expected("positives")
        seen = branch.teacher.logits.sigmoid().amax(-1)
        error = ld_map(crossed.distribution, branch.teacher.distribution, temperature=1.0) * crossed.bins
        return {
            "cross_cls": scale * bckd_cls_map(crossed.logits, branch.teacher.logits),
            "cross_box": seen * error * len(seen) / seen.sum().clamp_min(1e-9),
        }
