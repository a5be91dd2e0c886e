"""What a score is called: on labels that a teacher has made it is agreement with the teacher, not AP."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from yolokd.backend.dataset import locate
from yolokd.data.description import load_yaml
from yolokd.errors import DataError

Words = Callable[[str], str]
Thing = TypeVar("Thing")

KEY = "labeled_by"  # of a data YAML
NOTE = "The labels of these data are a teacher's: a score on them is agreement with that teacher, not accuracy."
WORD = re.compile(r"\bm?AP(50|75|s|m|l)?\b")


def words_for(data: str | Path) -> Words:
    """Return what puts the right words into a text about scores on a data set."""
    return as_agreement if is_labeled_by_teacher(data) else str


def is_labeled_by_teacher(data: str | Path) -> bool:
    """Whether a data YAML says that a teacher has made the labels; no for data that cannot be read."""
    try:
        return bool(load_yaml(locate(str(data))).get(KEY))
    except DataError:
        return False


def as_agreement(text: str) -> str:
    """Return a text about AP as one about agreement.

    Example:
        >>> as_agreement("Δ AP, AP50 and mAP in percent; no CAP")
        'Δ agreement, agreement50 and agreement in percent; no CAP'
    """
    return WORD.sub(r"agreement\1", text)


def everywhere(thing: Thing, words: Words) -> Thing:
    """Return plain data or dataclasses with the words put into every text, and into SVG images."""
    found: Any = thing
    if isinstance(thing, str):
        found = words(thing)
    elif isinstance(thing, bytes) and thing.lstrip()[:100].startswith((b"<?xml", b"<svg")):
        found = words(thing.decode()).encode()
    elif isinstance(thing, (list, tuple)):
        found = type(thing)(everywhere(one, words) for one in thing)
    elif is_dataclass(thing) and not isinstance(thing, type):
        changed: dict[str, Any] = {one.name: everywhere(getattr(thing, one.name), words) for one in fields(thing)}
        found = replace(thing, **changed)
    return found  # type: ignore[no-any-return]
