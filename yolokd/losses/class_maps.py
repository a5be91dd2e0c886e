"""Channel-wise distillation of the head's class maps: where in the image each class is, as a distribution over cells.

Source: Shu et al., "Channel-wise Knowledge Distillation for Dense Prediction", ICCV 2021, which applies it to class
scores; here to the logits of each level of the head.
Differs: returned per cell instead of summed, as `yolokd.losses.cwd` explains.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

from torch import Tensor, nn

from yolokd.errors import RunError
from yolokd.losses.base import Branch, Head, Loss, Requirements, Step
from yolokd.losses.cwd import cwd_map, mass_gap_map
from yolokd.losses.tensors import without_autocast

if TYPE_CHECKING:
    from yolokd.recipe import ClassMapsConfig


class ClassMaps(Loss):
    """Sum over levels of `cwd_map` of the class logits, with cells that are never negative."""

    terms = ("class_maps",)
    requires = Requirements(heads=True, classes=True)
    head_terms = frozenset(terms)

    def __init__(self, config: ClassMapsConfig) -> None:
        self.tau = config.tau

    @without_autocast
    def maps(self, step: Step, parts: nn.ModuleDict, active: Collection[str]) -> dict[str, Tensor]:
        """Return {"class_maps": (B, A)}.

        Raises:
            RunError: The step carries no branch that both heads have.
        """
        if not step.branches:
            raise RunError("the loss `class_maps` needs the heads of student and teacher, but none was captured")
        maps = [branch.weight * self._branch(branch) for branch in step.branches]
        return {"class_maps": sum(maps[1:], maps[0])}

    def _branch(self, branch: Branch) -> Tensor:
        grid = branch.student.grid
        found = {}
        for level in grid.shapes:
            pair = class_map(branch.student, level), class_map(branch.teacher, level)
            found[level] = cwd_map(*pair, tau=self.tau) + mass_gap_map(*pair, tau=self.tau)
        return grid.spread(found)


def class_map(head: Head, level: str) -> Tensor:
    """Return the class logits of one level as an image, (B, K, H, W)."""
    return head.logits[:, head.grid.places(level)].mT.unflatten(2, head.grid.shapes[level])
