"""The task that networks are scored on: all classes of the data, some of them, or all joined to one.

`train.single_cls` trains a network of one class, `item`, on the labels of all classes; `train.classes` leaves the
labels of other classes out. Networks of `single_cls` are scored as they were trained, on joined labels, and so is every
other network beside them: its classes that the data know are joined too, and of boxes that overlap only the best is
kept, as NMS within one class would.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torchvision.ops import nms

from yolokd.backend.networks import Identity
from yolokd.errors import DataError
from yolokd.evaluation.detections import NMS_IOU, Detection
from yolokd.recipe.classes import ITEM

Truth = dict[str, list[dict[str, Any]]]  # of COCO: images, annotations, categories


@dataclass(frozen=True)
class Task:
    """What counts as an object."""

    names: Mapping[int, str]  # class index of the data → name, before joining
    joined: bool = False  # all classes are one
    classes: tuple[int, ...] | None = None  # those whose objects count; None: all
    source: str = field(default="", compare=False)  # name of a network that was trained so

    @property
    def counted(self) -> dict[int, str]:
        """Class index → name of the classes that are scored."""
        if self.joined:
            return {0: ITEM}
        return {index: name for index, name in self.names.items() if self.classes is None or index in self.classes}

    def index(self, label: int) -> int | None:
        """Return the class that a label counts as; None if it does not count."""
        if self.classes is not None and label not in self.classes:
            return None
        return 0 if self.joined else label

    def apply(self, truth: Truth) -> Truth:
        """Return the ground truth of this task, its annotations numbered as before."""
        labels = [(self.index(entry["category_id"]), entry) for entry in truth["annotations"]]
        return {
            **truth,
            "annotations": [{**entry, "category_id": index} for index, entry in labels if index is not None],
            "categories": [{"id": index, "name": name} for index, name in sorted(self.counted.items())],
        }

    def note(self, identity: Identity) -> str | None:
        """Return what a reader must know of a network's score under this task; None if it is the data's own."""
        own = identity.is_joined(self.names)
        text = ""
        if self.joined:
            whose = "as it was trained with train.single_cls" if own else f"as {self.source} was (train.single_cls)"
            text = f"scored on the classes of the data joined to one, '{ITEM}', {whose}"
        if self.classes is not None:
            listed = ", ".join(self.names.get(index, str(index)) for index in self.classes)
            text += ("; " if text else "") + f"only objects of {listed} count (train.classes)"
        return text or None


def task_of(
    identities: Mapping[str, Identity],
    data: Mapping[int, str],
    *,
    single_cls: bool | None = None,
    classes: Collection[int] | None = None,
) -> Task:
    """Return the one task that all networks are scored on.

    Args:
        identities: Name of each network → what it tells apart.
        data: Class index → name of the data.
        single_cls: Join all classes; None is where one of the networks was trained so.
        classes: Classes of the data whose objects count; None is all, or what joined networks were trained on.

    Raises:
        DataError: Joined networks were trained on objects of different classes.
    """
    single = {name: identity for name, identity in identities.items() if identity.is_joined(data)}
    joined = bool(single) if single_cls is None else single_cls
    if classes is None and joined:
        trained = {identity.classes: name for name, identity in single.items() if identity.single_cls}
        if len(trained) > 1:
            each = ", ".join(f"{name} on {_listed(key, data)}" for key, name in trained.items())
            raise DataError(
                f"The networks were trained with train.single_cls on objects of different classes ({each}), so they "
                f"have no task in common. Score each by itself."
            )
        classes = next(iter(trained), None)
    source = next(iter(single), "the students" if joined else "")
    return Task(dict(data), joined, None if classes is None else tuple(sorted(classes)), source)


def kept_places(boxes: Sequence[Detection]) -> list[int]:
    """Return the places of the detections that NMS within one class leaves of each image, in order."""
    places: dict[str, list[int]] = {}
    for place, (image, *_) in enumerate(boxes):
        places.setdefault(image, []).append(place)
    kept: set[int] = set()
    for own in places.values():
        corners = torch.tensor([[x, y, x + w, y + h] for x, y, w, h in (boxes[place][2] for place in own)])
        scores = torch.tensor([boxes[place][3] for place in own])
        kept.update(own[place] for place in nms(corners, scores, NMS_IOU).tolist())
    return sorted(kept)


def _listed(classes: Collection[int] | None, data: Mapping[int, str]) -> str:
    return "all" if classes is None else "/".join(data.get(index, str(index)) for index in classes)
