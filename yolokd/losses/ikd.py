"""IKD's adversarial term: what the neck makes of adversarial examples shall be what the teacher's neck makes of them.

Source: Liang et al., "Exploring Inconsistent Knowledge Distillation for Object Detection with Data Augmentation",
ACM MM 2023, and the authors' code (JWLiang007/IKD): Σ over levels of the squared distance of the neck features on
examples that raise the teacher's classification loss, without labels. The attack is in `yolokd.augment.ikd`.
Differs: the examples come on every n-th step, with n times the gain, not beforehand for each file.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING

from torch import Tensor, nn

from yolokd.losses.base import Loss, Requirements, Step, adapters
from yolokd.losses.tensors import as_pair, widen, without_autocast

if TYPE_CHECKING:
    from yolokd.recipe import IKDAdversarialConfig


@without_autocast
def feature_gap(student: Tensor, teacher: Tensor) -> Tensor:
    """Return the squared difference of two feature maps, (B, C, H, W), summed over channels: (B, H, W).

    Raises:
        ShapeError: The two maps differ in shape.
    """
    student, teacher = as_pair(student, teacher, rank=4)
    return (student - teacher).square().sum(1)


class IKD(Loss):
    """`feature_gap` of all common levels on adversarial examples; nothing on the steps without."""

    terms = ("ikd",)
    requires = Requirements(adversarial=True, objects=True)

    def __init__(self, config: IKDAdversarialConfig) -> None:
        self.every = config.every

    def build(self, student: Mapping[str, int], teacher: Mapping[str, int]) -> nn.ModuleDict:
        """Return an adapter per common level."""
        return adapters([level for level in student if level in teacher], student, teacher)

    def maps(self, step: Step, parts: nn.ModuleDict, active: Collection[str]) -> dict[str, Tensor]:
        """Return {"ikd": (B, A)}: n times the squared distance, where one step in n has adversarial examples.

        `map.sum(1).mean(0)` is n times the paper's Σ over levels of ‖φ(S(x)) − T(x)‖² / B.
        """
        if step.adversarial is None:
            return {}

        @without_autocast
        def distance(student: Mapping[str, Tensor], teacher: Mapping[str, Tensor]) -> dict[str, Tensor]:
            return {level: feature_gap(parts[level](widen(x)), teacher[level]) for level, x in student.items()}

        return {"ikd": self.every * step.adversarial.compare(distance)}
