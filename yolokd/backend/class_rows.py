"""Rows of the class output that a student takes over from its checkpoint, by name.

Ultralytics takes them over by name itself (`DetectionModel.load`), also where the checkpoint has the classes in another
order. It compares names without letter case and outer spaces, though: of `A` and `a` both would start from the row of
the last of the two, at the start as well as on a resume. That is put right here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from yolokd.errors import UserError
from yolokd.recipe.classes import fold, teacher_of


def in_other_order(own: Mapping[int, str], data: Mapping[int, str]) -> bool:
    """Whether a checkpoint has exactly the classes of the data, in another order.

    Args:
        own: Class index → name of the checkpoint.
        data: Class index → name of the data.
    """
    return dict(own) != dict(data) and sorted(own.values()) == sorted(data.values())


@torch.no_grad()
def keep_apart(model: Any, weights: Any, names: Mapping[int, str]) -> None:
    """Take over class rows again where several names of one side are the same but for letter case or outer spaces.

    Args:
        model: A detector into which `weights` were loaded; changed in place.
        weights: A trained detector.
        names: Class index → name of the data, which are the model's.
    """
    own: dict[int, str] = weights.names
    if all(len({*map(fold, side.values())}) == len(side) for side in (own, names)):
        return
    try:
        pairs = teacher_of(own, names, {})
    except UserError:  # what is ambiguous is not taken over by name; equal names are
        places = {name: index for index, name in names.items()}
        pairs = {index: places[name] for index, name in own.items() if name in places}
    here, there = model.model[-1], weights.model[-1]
    for part in ("cv3", "one2one_cv3"):
        for branch, source in zip(getattr(here, part, None) or (), getattr(there, part, None) or (), strict=False):
            for name in ("weight", "bias"):  # of the last convolution: (K, C, 1, 1) and (K,)
                rows, trained = getattr(branch[-1], name), getattr(source[-1], name)
                if rows.shape[1:] == trained.shape[1:]:
                    rows[list(pairs.values())] = trained[list(pairs)].to(rows)
