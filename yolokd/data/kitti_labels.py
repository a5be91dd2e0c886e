"""Lines of the KITTI object benchmark's label and result files, and which type of object becomes which class.

A line has 15 columns: type, truncation (0 to 1), occlusion (0 to 3), alpha, left, top, right, bottom (pixels), height,
width, length, x, y, z, rotation. A result line has the score as the 16th. Source: the readme of the development kit.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from yolokd.errors import UserError
from yolokd.inputs import read_yaml

TYPES = ("Car", "Van", "Truck", "Pedestrian", "Person_sitting", "Cyclist", "Tram", "Misc")
DONT_CARE = "DontCare"  # a region whose objects are not labeled
PRESETS = {"3": ("Car", "Pedestrian", "Cyclist"), "8": TYPES}
COLUMNS = 15

_KNOWN = {word.lower(): word for word in (*TYPES, DONT_CARE)}


class BadLineError(Exception):
    """A line that is no KITTI object: what is wrong, and the value found."""


class Line(NamedTuple):
    """One object. `xyxy_px` is left, top, right, bottom; `score` is None in labels."""

    type: str
    truncation: float
    occlusion: int
    xyxy_px: tuple[float, float, float, float]
    score: float | None = None


def parse_line(line: str, *, scored: bool = False) -> Line:
    """Return one object of a label line or, with `scored`, of a result line; further columns are passed over.

    Raises:
        BadLineError: Too few columns, or a number that is none or not finite.
    """
    columns = line.split()
    try:
        numbers = [float(column) for column in columns[1 : COLUMNS + scored]]
    except ValueError:
        numbers = []
    if len(numbers) < COLUMNS - 1 + scored or not all(map(math.isfinite, numbers)):
        kind = "16 columns, the last a score" if scored else "15 columns"
        raise BadLineError(f"expected a type and finite numbers in {kind}", f"'{line.strip()}'")
    left, top, right, bottom = numbers[3:7]
    score = numbers[COLUMNS - 1] if scored else None
    return Line(columns[0], numbers[0], int(numbers[1]), (left, top, right, bottom), score)


def proper_type(word: str) -> str:
    """Return KITTI's spelling of a type, which its evaluation compares whatever the case; other words as they are."""
    return _KNOWN.get(word.strip().lower(), word.strip())


def parse_classes(text: str) -> dict[str, str]:
    """Return KITTI's type → class of the data, in the order of the classes.

    Args:
        text: `3` (Car, Pedestrian, Cyclist), `8` (all types), pairs such as `Car=vehicle,Van=vehicle`, or the path of
            a YAML file with such pairs. Types that are not named are left out of the labels.

    Raises:
        UserError: None of these, a type named twice, or DontCare, which is no object.
    """
    if text in PRESETS:
        return {word: word for word in PRESETS[text]}
    pairs = _read_pairs(Path(text)) if _is_file(text) else _split_pairs(text)
    classes: dict[str, str] = {}
    for word, name in pairs:
        word, name = proper_type(word), name.strip()
        if not word or not name:
            raise UserError(f"--classes: '{word}={name}' lacks a name; pairs look like Van=Car.")
        if word == DONT_CARE:
            raise UserError("--classes: DontCare marks regions without labels and cannot be a class.")
        if word.lower() in map(str.lower, classes):
            raise UserError(f"--classes names the type {word} twice.")
        classes[word] = name
    if len({name.lower() for name in classes.values()}) < len(set(classes.values())):
        raise UserError(f"--classes: two classes differ by case only: {', '.join(dict.fromkeys(classes.values()))}.")
    return classes


def class_names(classes: Mapping[str, str]) -> dict[int, str]:
    """Return class index → name of a mapping from `parse_classes`."""
    return dict(enumerate(dict.fromkeys(classes.values())))


def _is_file(text: str) -> bool:
    try:
        return Path(text).is_file()
    except OSError:  # pairs that are longer than a name may be
        return False


def _split_pairs(text: str) -> list[tuple[str, str]]:
    if "=" not in text:
        raise UserError(
            f"--classes expects 3, 8, pairs such as Car=vehicle,Van=vehicle, or a YAML file of such pairs; got '{text}'"
            f"{', which is no file here' if text.endswith(('.yaml', '.yml')) else ''}."
        )
    pairs = [pair.partition("=") for pair in text.split(",")]
    return [(word, name) for word, _, name in pairs]


def _read_pairs(path: Path) -> list[tuple[str, str]]:
    try:
        pairs = read_yaml(path)
    except (OSError, ValueError) as error:
        raise UserError(f"The class mapping '{path}' cannot be read: {error}") from error
    if not isinstance(pairs, dict) or not pairs or not all(isinstance(v, str) for kv in pairs.items() for v in kv):
        raise UserError(f"The class mapping '{path}' must hold lines such as 'Van: Car', a KITTI type and a class.")
    return list(pairs.items())
