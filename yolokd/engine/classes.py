"""Which class of the teacher is which class of the data: by name, or as the recipe says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from yolokd.errors import PairError, RecipeError


@dataclass(frozen=True)
class ClassMatch:
    """The classes that both partners know. `student` and `teacher` are class indices of equal length."""

    rows: tuple[tuple[str, str | None], ...]  # the data's name, the teacher's name or None
    student: tuple[int, ...]
    teacher: tuple[int, ...]
    teacher_count: int

    @property
    def complete(self) -> bool:
        """Whether the teacher knows every class of the data."""
        return len(self.student) == len(self.rows)

    @property
    def identical(self) -> bool:
        """Whether both lists of classes are the same, so that nothing needs to be selected."""
        return self.complete and self.teacher == tuple(range(self.teacher_count))

    def table(self) -> str:
        """The names side by side, as text for an error."""
        width = max(len(name) for name, _ in self.rows)
        return "\n".join(f"  {name:<{width}}  {teacher or '- missing -'}" for name, teacher in self.rows)


def match_classes(data: Mapping[int, str], teacher: Mapping[int, str], mapping: Mapping[str, str]) -> ClassMatch:
    """Match the teacher's classes to the data's by name, ignoring case and spaces at the ends.

    Args:
        data: Names of the data set, which are the student's.
        teacher: Names that the teacher was trained on.
        mapping: `teacher.classes` of the recipe: the teacher's name → the data's name; takes precedence.

    Raises:
        RecipeError: The mapping names a class that one side does not have, or gives one class two partners.
    """
    own = {_key(name): index for index, name in teacher.items()}
    wanted = {_key(name) for name in data.values()}
    partner: dict[str, str] = {}
    problems = []
    for source, target in mapping.items():
        if _key(source) not in own:
            problems.append(f"teacher.classes.{source}: the teacher has no class '{source}'")
        if _key(target) not in wanted:
            problems.append(f"teacher.classes.{source}: the data has no class '{target}'")
        if _key(target) in partner:
            problems.append(f"teacher.classes.{source}: '{target}' has a partner already")
        partner[_key(target)] = _key(source)
    if problems:
        names = f"the teacher knows {_list(teacher)}; the data has {_list(data)}"
        raise RecipeError("; ".join(problems) + f". {names}.")
    rows, left, right = [], [], []
    for index, name in sorted(data.items()):
        found = own.get(partner.get(_key(name), _key(name)))
        rows.append((name, None if found is None else teacher[found]))
        if found is not None:
            left.append(index)
            right.append(found)
    return ClassMatch(tuple(rows), tuple(left), tuple(right), len(teacher))


def require_classes(match: ClassMatch, *, allow_partial: bool, teacher: str, data: str) -> None:
    """Refuse a teacher that lacks classes of the data, unless the user allows it.

    Raises:
        PairError: With the table of names and what to do: map them, allow it, or fine-tune the teacher first.
    """
    if match.complete or (allow_partial and match.student):
        return
    known = f"{len(match.student)} of the data's {len(match.rows)} classes"
    partial = " or distil only the common ones with --allow-partial" if match.student else ""
    raise PairError(
        f"The teacher knows {known} by name, and the recipe has losses on class scores:\n{match.table()}\n"
        f"Map names in the recipe (teacher.classes: {{teacher's name: data's name}}){partial}. Or fine-tune the "
        f"teacher on this data first: yolokd train --recipe baseline --student {teacher} --data {data}"
    )


def _key(name: str) -> str:
    return name.strip().lower()


def _list(names: Mapping[int, str]) -> str:
    shown = [names[i] for i in sorted(names)]
    return ", ".join(shown[:12]) + (f", … ({len(shown)} in all)" if len(shown) > 12 else "")
