"""Several detectors as one: their classes united, their scores averaged, their boxes averaged by score.

All see the same image at the same size, so that their anchors are the same places.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from yolokd.recipe.classes import fold


@dataclass(frozen=True)
class United:
    """The classes of several detectors as one list.

    Attributes:
        names: Index → name; those of the first detector come first.
        places: For each detector the united index of each of its classes.
    """

    names: dict[int, str]
    places: tuple[tuple[int, ...], ...]

    @property
    def know(self) -> Tensor:
        """Which detector knows which united class, (T, K) bool."""
        found = torch.zeros(len(self.places), len(self.names), dtype=torch.bool)
        for row, places in zip(found, self.places, strict=True):
            row[list(places)] = True
        return found


def unite(names: Sequence[Mapping[int, str]]) -> United:
    """Unite the classes of several detectors by name, without regard to letter case.

    Example:
        >>> united = unite([{0: "car", 1: "bus"}, {0: "Car", 1: "rider"}])
        >>> united.names, united.places
        ({0: 'car', 1: 'bus', 2: 'rider'}, ((0, 1), (0, 2)))
    """
    found: dict[str, int] = {}
    spelled: dict[int, str] = {}
    places = []
    for one in names:
        own: list[int] = []
        for _, name in sorted(one.items()):
            place = found.setdefault(fold(name), len(spelled))
            if place in own:  # one detector tells its classes apart, whatever it calls them
                place = len(spelled)
            spelled.setdefault(place, name)
            own.append(place)
        places.append(tuple(own))
    return United(spelled, tuple(places))


def fuse(probabilities: Sequence[Tensor], boxes: Sequence[Tensor], know: Tensor) -> tuple[Tensor, Tensor]:
    """Return one answer from several: class probabilities (B, A, K) and boxes (B, A, 4).

    A class's probability is the mean over the detectors that know it. A box is the mean of all boxes, weighted by the
    largest probability of each.

    Args:
        probabilities: Of each detector over the united classes, (B, A, K); those that it does not know are ignored.
        boxes: Of each detector, (B, A, 4), xyxy.
        know: Which detector knows which class, (T, K) bool; each class is known by at least one.
    """
    known = know.to(probabilities[0].device)
    total = torch.zeros_like(probabilities[0])
    weights = []
    for one, mask in zip(probabilities, known, strict=True):
        own = one * mask
        total += own
        weights.append(own.amax(-1, keepdim=True).clamp_min(1e-9))
    weighted = torch.stack([box * weight for box, weight in zip(boxes, weights, strict=True)]).sum(0)
    return total / known.sum(0), weighted / torch.stack(weights).sum(0)
