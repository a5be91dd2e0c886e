"""Class maps: which class of a model is which class of the data. Training and evaluation share this one rule.

A class of the model is the data's class that the map says, or else the one of its own name, whatever the case. Several
classes of a model may be one class of the data; of a teacher's, the largest score counts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from yolokd.errors import UserError
from yolokd.recipe.problems import nearest

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


def partners(model: Mapping[int, str], data: Mapping[int, str], classes: ClassMap) -> dict[int, int]:
    """Return the model's class index → the data's, of the classes that have a partner.

    Args:
        model: Class index → name of the model.
        data: Class index → name of the data.
        classes: A mapping, in which names that one side lacks are passed over, or the name of a shipped map.

    Raises:
        UserError: No shipped map has this name, or it knows none of the data's classes.
    """
    target = {fold(name): index for index, name in data.items()}
    pairs = shipped_map(classes).pairs if isinstance(classes, str) else classes
    if isinstance(classes, str) and not any(fold(name) in target for name in pairs.values()):
        raise UserError(
            f"The class map {classes} is for data with {', '.join(pairs.values())}, but these have "
            f"{', '.join(data.values())}."
        )
    renamed = {fold(name): fold(other) for name, other in pairs.items()}
    found = {index: target.get(renamed.get(fold(name), fold(name))) for index, name in model.items()}
    return {index: partner for index, partner in found.items() if partner is not None}


def unmatched(classes: ClassMap) -> frozenset[str]:
    """Return the data's classes that a shipped map leaves without a partner on purpose, in lower case."""
    return frozenset(map(fold, shipped_map(classes).unmatched)) if isinstance(classes, str) else frozenset()


def fold(name: str) -> str:
    """Return a class name as it is compared: without case and spaces at the ends."""
    return name.strip().lower()
