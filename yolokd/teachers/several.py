"""Several detectors as one live teacher: class scores and boxes of all, neck features of the first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from yolokd.backend.classes import ClassMatch, match_task
from yolokd.backend.heads import HeadInfo, as_head, raw_of, split_branches
from yolokd.errors import PairError, UserError
from yolokd.losses.base import Grid
from yolokd.recipe.classes import ClassMap, joined_teacher_of, teacher_of
from yolokd.teachers.base import Offer, Teacher, TeacherOutput
from yolokd.teachers.fusion import fuse, unite

EPS = 1e-7  # averaged probabilities keep this distance from 0 and 1


class SeveralTeacher(Teacher):
    """Detectors that see the student's own images; see `yolokd.teachers.fusion` for how they become one.

    Args:
        teachers: The detectors, all of the same levels.
        names: The class names of each.
    """

    def __init__(self, teachers: Sequence[Teacher], names: Sequence[Mapping[int, str]]) -> None:
        super().__init__()
        self.teachers = torch.nn.ModuleList(teachers)
        self.united = unite(names)
        self._places = [torch.tensor(places) for places in self.united.places]
        self._know = self.united.know
        self.offer = offer_of_several(teachers[0].offer)
        self.dtype = teachers[0].dtype

    @torch.no_grad()
    def forward(self, images: Tensor, *, head: bool = True, levels: tuple[str, ...] = ()) -> TeacherOutput:
        """Run the detectors as far as needed, without gradient; see `Teacher.forward`."""
        first: TeacherOutput = self.teachers[0](images, head=head, levels=levels)
        if not head:
            return first
        grid = Grid.of_images(images, self.offer.levels)
        probabilities, boxes = [], []
        self._places = [places.to(images.device) for places in self._places]  # they stay there: copying is a wait
        self._know = self._know.to(images.device)
        for number, (teacher, places) in enumerate(zip(self.teachers, self._places, strict=True)):
            output: TeacherOutput = first if number == 0 else teacher(images)
            one = as_head(split_branches(output.raw or {})["one2many"], grid, None)
            own = one.logits.sigmoid()  # (B, A, own K)
            united = own.new_zeros(*own.shape[:2], len(self.united.names))
            united[..., places] = own
            probabilities.append(united)
            boxes.append(one.boxes)
        mean, mean_boxes = fuse(probabilities, boxes, self._know)
        return TeacherOutput(first.features, raw_of(mean.logit(EPS), mean_boxes, grid))


def offer_of_several(first: Offer) -> Offer:
    """Return what several detectors give, the first of which gives this."""
    return Offer(first.widths, ("one2many",), 1, attackable=False)


def require_same_levels(heads: Mapping[str, HeadInfo]) -> None:
    """Refuse detectors that cannot be fused anchor by anchor.

    Args:
        heads: What the user called each detector → its head.

    Raises:
        PairError: Their levels differ.
    """
    if len({head.levels for head in heads.values()}) > 1:
        raise PairError(
            "Several teachers answer as one, anchor by anchor, and need the same levels: "
            + "; ".join(f"'{spec}' has {', '.join(head.levels)}" for spec, head in heads.items())
            + ". Give teachers of the same levels, or one alone."
        )


def match_teachers(
    data: Mapping[int, str], names: Sequence[Mapping[int, str]], classes: ClassMap, *, joined: bool
) -> ClassMatch:
    """Match the united classes of one detector or several to the data's; see `yolokd.backend.classes.match_task`.

    Args:
        data: Names of the data set, before joining.
        names: The class names of each detector.
        classes: `teacher.classes` of the recipe.
        joined: Whether `train.single_cls` joins the data's classes.

    Raises:
        RecipeError, UserError: As `match_task`; or a class that two detectors share by name means one class of the
            data for one of them and another for the other.
    """
    if len(names) == 1:
        return match_task(data, names[0], classes, joined=joined)
    united = unite(names)
    match = match_task(data, united.names, classes, joined=joined)
    found = {place: own for own, places in zip(match.student, match.teacher, strict=True) for place in places}
    partners = joined_teacher_of if joined else teacher_of
    for one, places in zip(names, united.places, strict=True):
        alone = partners(one, data, classes)
        for (index, name), place in zip(sorted(one.items()), places, strict=True):
            if alone.get(index) != found.get(place):
                raise UserError(
                    f"The teachers disagree about the class '{name}': one of them calls it '{united.names[place]}', "
                    f"and under teacher.classes the two names do not mean the same class of the data. Map both to one "
                    f"class, or take one teacher."
                )
    return match


def of_first(match: ClassMatch, count: int) -> ClassMatch:
    """Return what the first of several detectors knows of the data's classes.

    Args:
        match: From `match_teachers`.
        count: Number of the first detector's classes, which come first among the united ones.
    """
    known = {
        own: tuple(place for place in places if place < count)
        for own, places in zip(match.student, match.teacher, strict=True)
    }
    known = {own: places for own, places in known.items() if places}
    rows = tuple((name, other if index in known else None) for index, (name, other) in enumerate(match.rows))
    return replace(match, rows=rows, student=tuple(known), teacher=tuple(known.values()), teacher_count=count)
