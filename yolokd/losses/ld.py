"""Localization distillation: the teacher's distribution of each box side, at the student's positives.

Source: Zheng et al., "Localization Distillation for Dense Object Detection", CVPR 2022, and the authors' code
(HikariTJU/LD).
Differs: at the student's own positives only, without the paper's second region, which depends on anchors of one
detector family; Σw is scaled to the average number of positives over the run, so that one object in a batch of
backgrounds does not count as much as all objects of another (`average: batch` is the published form).
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from yolokd.errors import PairError, RunError, ShapeError
from yolokd.losses.base import Branch, Loss, Requirements, Step
from yolokd.losses.tensors import as_pair, mean_over_ranks, without_autocast

if TYPE_CHECKING:
    from yolokd.recipe import LDConfig


@without_autocast
def ld_map(student_dist: Tensor, teacher_dist: Tensor, *, temperature: float = 10.0) -> Tensor:
    """Return T² · mean over bins of the terms of KL(teacher ‖ student), averaged over the four sides, (B, A).

    Args:
        student_dist: Logits of the distances' distribution, (B, A, 4, R), R at least 2.
        teacher_dist: The teacher's, same shape; no gradient flows into it.
        temperature: T, by which the logits are divided; above 0.

    Raises:
        ShapeError: The shapes differ, or there are no four sides or no distribution.
        ValueError: `temperature` is not above 0.

    Example:
        >>> import torch
        >>> teacher = torch.zeros(1, 2, 4, 16)
        >>> student = teacher.clone()
        >>> student[:, 1, :, 0] = 5.0
        >>> [round(value, 4) for value in ld_map(student, teacher)[0].tolist()]
        [0.0, 0.0531]
    """
    if temperature <= 0:
        raise ValueError(f"temperature must be above 0, got {temperature}")
    student, teacher = as_pair(student_dist, teacher_dist, rank=4)
    if student.shape[2] != 4 or student.shape[3] < 2:
        raise ShapeError(f"distributions must have shape (B, A, 4, R) with R at least 2, got {tuple(student.shape)}")
    log_s = (student / temperature).log_softmax(-1)  # (B, A, 4, R)
    log_t = (teacher / temperature).log_softmax(-1)
    kl = log_t.exp() * (log_t - log_s)
    return temperature**2 * kl.mean((-2, -1))


class LD(Loss):
    """`ld_map` at the student's positives, averaged with the student's largest score as weight."""

    terms = ("ld",)
    requires = Requirements(heads=True, distributions=True, objects=True)
    head_terms = frozenset(terms)

    def __init__(self, config: LDConfig) -> None:
        self.temperature = config.temperature
        self.average = config.average

    @without_autocast
    def maps(self, step: Step, parts: nn.ModuleDict, active: Collection[str]) -> dict[str, Tensor]:
        """Return {"ld": (B, A)}.

        Raises:
            PairError: The two heads do not predict distributions over the same bins.
            RunError: The step carries no branch that both heads have.
        """
        if not step.branches:
            raise RunError("the loss `ld` needs the heads of student and teacher, but no branch of them was captured")
        return {"ld": torch.stack([self._branch(branch) for branch in step.branches]).sum(0)}

    def _branch(self, branch: Branch) -> Tensor:
        student, teacher = branch.student, branch.teacher
        if student.bins != teacher.bins or student.bins < 2:
            raise PairError(
                f"ld compares distributions of box sides, but the student's head has {student.bins} bins per side and "
                f"the teacher's {teacher.bins} (1 means plain distances); use the box term of bckd instead."
            )
        weight = student.logits.detach().sigmoid().amax(-1) * branch.positives  # (B, A)
        total, count = mean_over_ranks(torch.stack([weight.sum(), branch.positives.sum().to(weight)]))
        if self.average == "run":  # Σw of a batch that holds as many positives as the run's average
            total = total / count.clamp_min(1) * branch.expected("positives") * branch.labeled
        error = ld_map(student.distribution, teacher.distribution, temperature=self.temperature)
        scale: Tensor = branch.weight * len(weight) / total.clamp_min(1e-9)
        return weight * scale * error
