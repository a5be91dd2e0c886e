"""A teacher and a student that fit each other."""

from __future__ import annotations

from collections.abc import Mapping

from yolokd.backend.heads import HeadInfo
from yolokd.errors import PairError
from yolokd.losses.base import Loss, requirements


def check_pair(losses: Mapping[str, Loss], student: HeadInfo, teacher: HeadInfo, notes: list[str]) -> None:
    """Raise `PairError` where a loss cannot compare these heads; add to the notes what is left out."""
    for name, loss in losses.items():
        if loss.requires.distributions and (student.bins != teacher.bins or student.bins == 1):
            raise PairError(
                f"The loss '{name}' compares box distributions, but the student's head has reg_max {student.bins} and "
                f"the teacher's {teacher.bins}. Use bckd's box term, which works on decoded boxes."
            )
    if len(student.branches) != len(teacher.branches) and requirements(losses.values()).teacher_head:
        notes.append("one partner has a single head: only the one-to-many branch is distilled")
