"""Class maps: which class of a model is which class of the data. Training and evaluation share this one rule.

A class of the model is the data's class that the map says, or else the one of its own name. Equal names belong
together; only names that have no equal on the other side are compared without letter case and outer spaces, and where
that leaves more than one possibility, it is an error. Several classes of a model may be one class of the data; of a
teacher's, the largest score counts.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from yolokd.errors import UserError, nearest

ITEM = "item"  # Ultralytics' name of the one class to which train.single_cls joins all
ClassMapName = Literal["coco-to-kitti"]
ClassMap = Mapping[str, str] | str  # a model's class name → the data's; or the name of a shipped map


@dataclass(frozen=True)
class ShippedMap:
    """A map between two known lists of classes. What a model or a data set lacks of them is passed over."""

    pairs: Mapping[str, str]
    unmatched: frozenset[str]  # classes of the data that are known to have no partner


SHIPPED: Mapping[str, ShippedMap] = {
    # No partner: COCO's bicycle is not KITTI's Cyclist, whose box holds the rider too; COCO tells neither vans from
    # cars nor who sits; and a bus is no Truck. docs/methods.md has the scores behind this.
    "coco-to-kitti": ShippedMap(
        pairs={"car": "Car", "truck": "Truck", "person": "Pedestrian", "train": "Tram"},
        unmatched=frozenset({"Van", "Person_sitting", "Cyclist", "Misc"}),
    ),
}


def shipped_map(name: str) -> ShippedMap:
    """Return a shipped map.

    Raises:
        UserError: None has this name.
    """
    if name not in SHIPPED:
        near = nearest(name, SHIPPED)
        hint = f"; did you mean {near}?" if near else "."
        raise UserError(f"No shipped class map is called '{name}'{hint} Shipped: {', '.join(SHIPPED)}.")
    return SHIPPED[name]


def teacher_of(model: Mapping[int, str], data: Mapping[int, str], classes: ClassMap) -> dict[int, int]:
    """Return the model's class index → the data's, of the classes that have a partner.

    Args:
        model: Class index → name of the model.
        data: Class index → name of the data.
        classes: A mapping, in which names that one side lacks are passed over, or the name of a shipped map.

    Raises:
        UserError: No shipped map has this name, or it knows none of the data's classes; or names differ only by letter
            case or outer spaces, so that it is not known which belong together.
    """
    pairs = shipped_map(classes).pairs if isinstance(classes, str) else classes
    if isinstance(classes, str) and not {*map(fold, pairs.values())} & {*map(fold, data.values())}:
        raise UserError(
            f"The class map {classes} is for data with {', '.join(pairs.values())}, but these have "
            f"{', '.join(data.values())}."
        )
    if not pairs and dict(model) == dict(data):  # also where the data give two classes the same name
        return {index: index for index in model}
    keys = match_names(model.values(), pairs, "of the model", "of the class map")
    targets = {name: find_name(pairs[key], data.values()) for name, key in keys.items()}
    unmapped = [name for name in model.values() if name not in targets]
    targets |= match_names(unmapped, data.values(), "of the model", "of the data")
    indices: dict[str, list[int]] = {}
    for index, name in data.items():
        indices.setdefault(name, []).append(index)
    if twice := [name for name in targets.values() if name is not None and len(indices[name]) > 1]:
        raise UserError(
            f"The data have {len(indices[twice[0]])} classes that are called '{twice[0]}', so it is not known which "
            f"the model's is. Give each class of the data a name of its own."
        )
    found = {index: targets.get(name) for index, name in model.items()}
    return {index: indices[name][0] for index, name in found.items() if name is not None}


def joined_teacher_of(model: Mapping[int, str], data: Mapping[int, str], classes: ClassMap) -> dict[int, int]:
    """Return the model's class index → 0, of the classes that are among the data's when these are joined to one.

    That is each class that has a partner in the data, that the mapping names as `item`, or that is `item` itself.
    Arguments and errors as `teacher_of`.
    """
    mapping = {} if isinstance(classes, str) else classes
    to_item = {name: other for name, other in mapping.items() if find_name(other, data.values()) is None}
    rest = classes if isinstance(classes, str) else {k: v for k, v in mapping.items() if k not in to_item}
    found = teacher_of(model, data, rest) | teacher_of(model, {0: ITEM}, to_item)
    return dict.fromkeys(sorted(found), 0)


def match_names(ours: Iterable[str], theirs: Iterable[str], our_side: str, their_side: str) -> dict[str, str]:
    """Return our names → theirs, of those that have a partner: equal names first, the others by `fold`.

    Args:
        ours: Names of one side.
        theirs: Names of the other.
        our_side: What to call the first side in an error, such as "of the model".
        their_side: Likewise the second.

    Raises:
        UserError: Among the names without an equal, several of one side fold to the same as one of the other.
    """
    left, right = dict.fromkeys(ours), dict.fromkeys(theirs)
    found = {name: name for name in left if name in right}
    groups = [_folded(name for name in side if name not in found) for side in (left, right)]
    for word, names in groups[0].items():
        others = groups[1].get(word, [])
        if others and (len(names) > 1 or len(others) > 1):
            raise UserError(
                f"The class names {_quoted(names)} {our_side} and {_quoted(others)} {their_side} differ only by letter "
                f"case or outer spaces, so it is not known which belong together. Rename them, or map each by its "
                f"exact name (eval: --classes MODEL_NAME=DATA_NAME; recipes: teacher.classes, "
                f"student.classes)."
            )
        if others:
            found[names[0]] = others[0]
    return found


def find_name(word: str, names: Iterable[str]) -> str | None:
    """Return the name that `word` means: the equal one, or else the one that folds to the same; None if there is none.

    Raises:
        UserError: None is equal, and several fold to the same.
    """
    known = list(dict.fromkeys(names))
    if word in known:
        return word
    alike = [name for name in known if fold(name) == fold(word)]
    if len(alike) > 1:
        raise UserError(
            f"The class name '{word}' could mean {' or '.join(map(repr, alike))}, which differ only by letter case or "
            f"outer spaces. Write the one that is meant exactly."
        )
    return alike[0] if alike else None


def unmatched(classes: ClassMap) -> frozenset[str]:
    """Return the data's classes that a shipped map leaves without a partner on purpose, in lower case."""
    return frozenset(map(fold, shipped_map(classes).unmatched)) if isinstance(classes, str) else frozenset()


def fold(name: str) -> str:
    """Return a class name as it is compared: without case and spaces at the ends."""
    return name.strip().lower()


def _folded(names: Iterable[str]) -> dict[str, list[str]]:
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(fold(name), []).append(name)
    return groups


def _quoted(names: Iterable[str]) -> str:
    return ", ".join(f"'{name}'" for name in names)
