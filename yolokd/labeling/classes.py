"""What the words after `--classes` and `--conf` mean."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from yolokd.errors import UserError, nearest
from yolokd.loaders.answers import LOWEST
from yolokd.recipe.classes import find_name, fold
from yolokd.teachers.thresholds import DEFAULT

AUTO = "auto"

Columns = dict[str, tuple[int, ...]]  # class of the set → the teachers' united classes that are one of it


def parse_classes(asked: Sequence[str]) -> dict[str, str]:
    """Return the teacher's class → the set's, in the order given.

    Args:
        asked: Words of `--classes`: names with commas between, or TEACHER=SET where the set calls a class differently.

    Raises:
        UserError: An empty name, or one given twice.

    Example:
        >>> parse_classes(["car,motorcycle=motorbike", "van=car"])
        {'car': 'car', 'motorcycle': 'motorbike', 'van': 'car'}
    """
    found: dict[str, str] = {}
    for word in ",".join(asked).split(",") if asked else ():
        theirs, equals, own = (part.strip() for part in word.partition("="))
        own = own if equals else theirs
        if not theirs or not own:
            raise UserError(f"--classes takes names with commas between, such as car,person=pedestrian, got '{word}'.")
        if fold(theirs) in map(fold, found):
            raise UserError(f"--classes names '{theirs}' twice.")
        found[theirs] = own
    return found


def columns_of(asked: Mapping[str, str], united: Mapping[int, str], like: Mapping[int, str] | None = None) -> Columns:
    """Return the classes of the set and which of the teachers' each is made of.

    Args:
        asked: From `parse_classes`; empty for all of the teachers' classes, or those that `like` has.
        united: The teachers' classes.
        like: Classes of the data set that the new one is to match, in its order.

    Raises:
        UserError: A name that no teacher knows, that `like` does not have, or no class in common.
    """
    numbers = {name: index for index, name in united.items()}
    found: dict[str, list[int]] = {}
    if like is not None:
        found = {name: [] for _, name in sorted(like.items())}
    pairs = dict(asked) or {name: name for name in (united.values() if like is None else like.values())}
    for theirs, own in pairs.items():
        known = find_name(theirs, united.values())
        target = own if like is None else find_name(own, like.values())
        if target is None:
            raise _unknown(own, found, "--like has")
        if known is None and (asked or like is None):
            raise _unknown(theirs, united.values(), "the teachers know")
        if known is not None:
            found.setdefault(target, []).append(numbers[known])
    if like is not None and asked:  # classes that are named alike need not be listed
        taken = {index for places in found.values() for index in places}
        for name, places in found.items():
            known = find_name(name, united.values())
            if not places and known is not None and numbers[known] not in taken:
                places.append(numbers[known])
    if not any(found.values()):
        raise UserError(
            f"No class of --like ({', '.join(found)}) is called as the teachers call theirs; give pairs with "
            f"--classes, such as motorcycle=motorbike."
        )
    return {name: tuple(places) for name, places in found.items()}


def parse_conf(asked: str, names: Sequence[str]) -> dict[str, float] | None:
    """Return the score from which on a box of each class is an object; None where they are to be found (`auto`).

    Args:
        asked: Of `--conf`: a number, `auto`, or CLASS=NUMBER with commas between; classes left out have 0.3.
        names: Classes of the set.

    Raises:
        UserError: No number between 0.03 and 1, or a class that the set does not have or that is named twice.

    Example:
        >>> parse_conf("car=0.5", ["car", "bus"])
        {'car': 0.5, 'bus': 0.3}
    """
    if asked.strip() == AUTO:
        return None
    if "=" not in asked:
        return dict.fromkeys(names, _threshold(asked))
    found: dict[str, float] = {}
    for word in asked.split(","):
        name, _, number = (part.strip() for part in word.partition("="))
        known = find_name(name, names)
        if known is None:
            raise _unknown(name, names, "the set has", option="--conf")
        if known in found:
            raise UserError(f"--conf names '{known}' twice.")
        found[known] = _threshold(number)
    return dict.fromkeys(names, DEFAULT) | found


def _threshold(word: str) -> float:
    try:
        value = float(word)
    except ValueError:
        value = float("nan")
    if not LOWEST <= value < 1:
        raise UserError(
            f"--conf takes scores from {LOWEST} to below 1, for all classes (0.3), for some (car=0.4,person=0.25), or "
            f"auto, got '{word.strip()}'."
        )
    return value


def _unknown(name: str, known: Iterable[str], who: str, option: str = "--classes") -> UserError:
    names = list(known)
    near = nearest(name, names)
    shown = ", ".join(names[:12]) + (", …" if len(names) > 12 else "")
    hint = f"did you mean '{near}'?" if near else f"{who} {shown}."
    return UserError(f"{option} names '{name}', which is none of the classes that {who}: {hint}")
