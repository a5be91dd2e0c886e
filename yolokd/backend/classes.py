"""Which class of the teacher is which class of the data: by name, or as the recipe says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from yolokd.errors import PairError, RecipeError
from yolokd.recipe.classes import ITEM, SHIPPED, ClassMap, find_name, fold, joined_teacher_of, teacher_of, unmatched


@dataclass(frozen=True)
class ClassMatch:
    """The classes that both partners know.

    Attributes:
        rows: Each of the data's names with the names of the teacher's classes that are the same, or None.
        student: Indices of the data's classes that have a partner, in their order.
        teacher: For each of these the indices of the teacher's classes, of which the largest score counts; one that
            bears the same name comes first.
        teacher_count: Number of the teacher's classes.
        excused: Names of the data's classes that a shipped map leaves without a partner on purpose.
    """

    rows: tuple[tuple[str, str | None], ...]
    student: tuple[int, ...]
    teacher: tuple[tuple[int, ...], ...]
    teacher_count: int
    excused: tuple[str, ...] = ()

    @property
    def missing(self) -> tuple[str, ...]:
        """The data's classes that the teacher does not know."""
        return tuple(name for name, other in self.rows if other is None)

    @property
    def complete(self) -> bool:
        """Whether the teacher knows every class of the data."""
        return not self.missing

    @property
    def identical(self) -> bool:
        """Whether both lists of classes are the same, so that nothing needs to be selected."""
        return self.complete and self.teacher == tuple((index,) for index in range(self.teacher_count))

    @property
    def columns(self) -> list[int] | list[list[int]]:
        """Return `teacher` as an index for `yolokd.backend.heads.as_head`: (K,), or (K, M) with the first repeated."""
        most = max(map(len, self.teacher), default=1)
        if most == 1:
            return [first for (first,) in self.teacher]
        return [[*several, *several[:1] * (most - len(several))] for several in self.teacher]

    @property
    def places(self) -> list[int]:
        """The place of each of the data's classes among those that have a partner, −1 for one that has none."""
        return [self.student.index(index) if index in self.student else -1 for index in range(len(self.rows))]

    def table(self) -> str:
        """The names side by side, as text for an error."""
        width = max(len(name) for name, _ in self.rows)
        return "\n".join(f"  {name:<{width}}  {teacher or '- missing -'}" for name, teacher in self.rows)


def match_classes(
    data: Mapping[int, str], teacher: Mapping[int, str], classes: ClassMap, *, of: str = "teacher"
) -> ClassMatch:
    """Match the teacher's classes to the data's by name, as `yolokd.recipe.classes.teacher_of` does.

    Args:
        data: Names of the data set, which are the student's.
        teacher: Names that the teacher was trained on.
        classes: `teacher.classes` of the recipe: the teacher's name → the data's name, which takes precedence; or the
            name of a shipped map.
        of: The recipe's section that the mapping is from: the model is the teacher, or the student's checkpoint.

    Raises:
        RecipeError: The mapping names a class that one side does not have.
        UserError: No shipped map has this name, it knows none of the data's classes, or names are ambiguous.
    """
    if not isinstance(classes, str):
        _check(classes, data, teacher, of)
    same: dict[int, list[int]] = {}
    for index, target in teacher_of(teacher, data, classes).items():
        same.setdefault(target, []).append(index)
    for target, several in same.items():
        several.sort(
            key=lambda index: (teacher[index] != data[target], fold(teacher[index]) != fold(data[target]), index)
        )
    return ClassMatch(
        rows=tuple(
            (name, " + ".join(teacher[i] for i in same.get(index, ())) or None) for index, name in sorted(data.items())
        ),
        student=tuple(sorted(same)),
        teacher=tuple(tuple(same[index]) for index in sorted(same)),
        teacher_count=len(teacher),
        excused=tuple(name for name in data.values() if fold(name) in unmatched(classes)),
    )


def match_task(
    data: Mapping[int, str], teacher: Mapping[int, str], classes: ClassMap, *, joined: bool, of: str = "teacher"
) -> ClassMatch:
    """Match as `match_classes`; where `train.single_cls` joins the data's classes, all that the teacher knows are.

    Args:
        data: Names of the data set, before joining.
        teacher: Names that the teacher was trained on.
        classes: `teacher.classes` of the recipe, which may also map to `item`.
        joined: Whether the classes are joined.
        of: As for `match_classes`.

    Raises:
        RecipeError, UserError: As `match_classes`.
    """
    if not joined:
        return match_classes(data, teacher, classes, of=of)
    if not isinstance(classes, str):
        _check(classes, {**data, -1: ITEM}, teacher, of)
    to_item = {teacher[index]: ITEM for index in joined_teacher_of(teacher, data, classes)}
    return match_classes({0: ITEM}, teacher, to_item)


def require_classes(match: ClassMatch, *, allow_partial: bool, teacher: str, data: str) -> None:
    """Refuse a teacher that lacks classes of the data, unless the user allows it or a shipped map says so.

    Raises:
        PairError: With the table of names and what to do: map them, allow it, or fine-tune the teacher first.
    """
    if match.student and (allow_partial or set(match.missing) <= set(match.excused)):
        return
    known = f"{len(match.student)} of the data's {len(match.rows)} classes"
    partial = " or distill only the common ones with --allow-partial" if match.student else ""
    raise PairError(
        f"The teacher knows {known} by name, and the recipe has losses on class scores:\n{match.table()}\n"
        f"Map names in the recipe (teacher.classes: {{teacher's name: data's name}}){_advice(match)}{partial}. Or "
        f"fine-tune the teacher on this data first: yolokd train --recipe baseline --student {teacher} --data {data}"
    )


def _advice(match: ClassMatch) -> str:
    """The shipped maps that are made for the data's classes."""
    names = {fold(name) for name, _ in match.rows}
    fitting = [name for name, found in SHIPPED.items() if names <= {*map(fold, found.pairs.values()), *unmatched(name)}]
    return "".join(f" or take a shipped map (--set teacher.classes={name})" for name in fitting)


def partial_note(match: ClassMatch) -> str | None:
    """Say which classes get no distilled scores; None if the teacher knows all."""
    if match.complete:
        return None
    why = " (the class map has no partner for them)" if set(match.missing) <= set(match.excused) else ""
    return f"the teacher does not know {', '.join(match.missing)}{why}: their scores are learned from the labels alone"


def _check(classes: Mapping[str, str], data: Mapping[int, str], teacher: Mapping[int, str], of: str) -> None:
    problems, model = [], "the student's checkpoint" if of == "student" else "the teacher"
    for source, target in classes.items():
        if find_name(source, teacher.values()) is None:
            problems.append(f"{of}.classes.{source}: {model} has no class '{source}'")
        if find_name(target, data.values()) is None:
            problems.append(f"{of}.classes.{source}: the data has no class '{target}'")
    if problems:
        names = f"{model} knows {_list(teacher)}; the data has {_list(data)}"
        raise RecipeError("; ".join(problems) + f". {names}.")


def _list(names: Mapping[int, str]) -> str:
    shown = [names[i] for i in sorted(names)]
    return ", ".join(shown[:12]) + (f", … ({len(shown)} in all)" if len(shown) > 12 else "")
