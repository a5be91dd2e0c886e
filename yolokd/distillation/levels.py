"""Which levels student and teacher have in common, and where their anchors lie.

Both heads may have any levels. Losses see those of both alone: `Grid.pick` and `Head.at` take the anchors of the common
levels out of each side's own, so that anchor a of the one is at the place of anchor a of the other.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from torch import Tensor

from yolokd.errors import PairError
from yolokd.losses.base import FeatureLoss, Grid, Loss
from yolokd.losses.levels import STRIDES
from yolokd.teachers.base import Offer


@dataclass(frozen=True)
class Grids:
    """Where anchors lie on the images of a step."""

    student: Grid
    teacher: Grid
    common: Grid


@dataclass(frozen=True)
class Levels:
    """Levels of a pair, each from fine to coarse.

    Attributes:
        student: Those of the student's head.
        teacher: At whose anchors the teacher gives class scores and boxes; with stored answers, the student's own.
        common: Those of both, on which losses compare.
        features: Of the common ones, those whose neck features the teacher gives.
    """

    student: tuple[str, ...]
    teacher: tuple[str, ...]
    common: tuple[str, ...]
    features: tuple[str, ...]

    @classmethod
    def of(cls, student: Collection[str], teacher: Offer) -> Levels:
        """Return the levels of a student with these, and of its teacher."""
        own = tuple(student)
        given = own if teacher.stored else teacher.levels
        common = tuple(level for level in own if level in given)
        return cls(own, given, common, tuple(level for level in common if level in teacher.widths))

    def grids(self, images: Tensor) -> Grids:
        """Return the grids of a step's images as the student sees them, (B, C, H, W)."""
        student = Grid.of_images(images, self.student)
        return Grids(student, Grid.of_images(images, self.teacher), student.at(self.common))

    def check(self, losses: Mapping[str, Loss], teacher: Offer) -> list[str]:
        """Return what the losses leave out.

        Args:
            losses: By method.
            teacher: Of the pair.

        Raises:
            PairError: There is no common level, or a loss compares neck features of others.
        """
        if not losses:
            return []
        if not self.common:
            raise PairError(
                "Student and teacher have no level in common, so no loss can compare them (level and stride):\n"
                f"  student  {_with_strides(self.student)}\n"
                f"  teacher  {_with_strides(self.teacher)}"
            )
        for name, loss in losses.items():
            if isinstance(loss, FeatureLoss):
                self._check_features(name, loss, teacher)
        notes = []
        for who, levels, other in (("student", self.student, "teacher"), ("teacher", self.teacher, "student")):
            if alone := [level for level in levels if level not in self.common]:
                notes.append(
                    f"the {who}'s {', '.join(alone)} {'is' if len(alone) == 1 else 'are'} left out of all losses: the "
                    f"{other} has no such level"
                )
        return notes

    def _check_features(self, name: str, loss: FeatureLoss, teacher: Offer) -> None:
        lacking = [level for level in loss.levels if level not in self.features]
        if loss.levels and not lacking:
            return
        if not self.features:
            raise PairError(
                f"The loss '{name}' compares neck features, but the teacher gives {teacher}, and the student has "
                f"levels {', '.join(self.student)}. Take another loss."
            )
        strange = [level for level in lacking if level not in self.student]
        lacks = "the student has no such level" if strange else f"the teacher gives {teacher}"
        raise PairError(
            f"The loss '{name}' compares neck features of {', '.join(loss.levels)}, but {lacks}. Leave "
            f"{', '.join(strange or lacking)} out (losses.{name}.levels); both have {', '.join(self.features)}."
        )


def _with_strides(levels: Collection[str]) -> str:
    return ", ".join(f"{level} {STRIDES[level]}" for level in levels)
