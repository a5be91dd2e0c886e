"""Which class of a model is which class of the data: by name, or as the user says."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from yolokd.errors import DataError, UserError
from yolokd.recipe.classes import ITEM, ClassMap, find_name, joined_teacher_of, shipped_map, teacher_of

if TYPE_CHECKING:
    from yolokd.backend.networks import Identity


def match_classes(
    model: Mapping[int, str], data: Mapping[int, str], classes: ClassMap, name: str, *, joined: bool = False
) -> dict[int, int]:
    """Return the model's class index → the data's, by name as `yolokd.recipe.classes`, `classes` taking precedence.

    Args:
        model: Class index → name of the model.
        data: Class index → name of the data.
        classes: The model's name → the data's, where they differ; names that this model does not have are passed over.
            Or the name of a shipped map.
        name: What to call the model in the error.
        joined: The data's classes are joined to one, 0; see `yolokd.recipe.classes.joined_teacher_of`.

    Raises:
        DataError: They have no class in common.
        UserError: No shipped map has this name, it knows none of the data's classes, or names are ambiguous.
    """
    found = (joined_teacher_of if joined else teacher_of)(model, data, classes)
    if not found:
        raise DataError(
            f"'{name}' and the data have no class in common. The model knows {_list(model.values())}; the data has "
            f"{_list(data.values())}. Name equal ones: --classes MODEL_NAME=DATA_NAME."
        )
    return found


def check_mapping(
    classes: ClassMap, models: Iterable[Mapping[int, str]], data: Mapping[int, str], *, joined: bool = False
) -> None:
    """Check what the user says.

    Args:
        classes: A model's name → the data's, or the name of a shipped map.
        models: Class index → name of each model.
        data: Class index → name of the data.
        joined: The data's classes are joined to one, `item`, which may be named too.

    Raises:
        UserError: A name that no model has, or that the data does not have, or that could mean several of their names;
            or no shipped map.
    """
    if isinstance(classes, str):
        shipped_map(classes)
        return
    theirs = [list(names.values()) for names in models]
    for word, other in classes.items():
        if find_name(other, data.values()) is None and not (joined and other == ITEM):
            raise UserError(f"--classes {word}={other}: the data has no class '{other}', but {_list(data.values())}.")
        if not any(find_name(word, names) for names in theirs):
            raise UserError(f"--classes {word}={other}: no model here has a class '{word}'.")


def _list(words: Iterable[str]) -> str:
    shown = list(words)
    return ", ".join(shown[:10]) + (f", … ({len(shown)} in all)" if len(shown) > 10 else "")


def lacking(
    per_class: Mapping[str, float],
    names: Mapping[int, str],
    identity: Identity,
    teacher_of: Mapping[int, int],
    *,
    mean: bool,
) -> tuple[str, ...]:
    """Name the classes with objects that a network does not know or was never trained on."""
    known = {names[target] for target in teacher_of.values() if target in names}
    trained = {
        names[target]
        for index, target in teacher_of.items()
        if target in names and (identity.single_cls or identity.classes is None or index in identity.classes)
    }
    unknown = [word for word, ap in per_class.items() if word not in known and ap >= 0]
    untrained = [word for word, ap in per_class.items() if word in known - trained and ap >= 0]
    rest = [ap for word, ap in per_class.items() if word in trained and ap >= 0]
    others = f"; AP over the others is {100 * statistics.mean(rest):.1f}" if rest and mean else ""
    notes = []
    if untrained:
        notes.append(f"was never trained on {', '.join(untrained)} (train.classes){others}")
    if unknown:
        notes.append(f"does not know {', '.join(unknown)} (counted as missed{others})")
    return tuple(notes)
