"""A training batch as everything after the loaders sees it: labeled images first, then those without labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

# what the trainer adds to Ultralytics' batch
UNLABELED, FILES, ANSWERS, TEACHER = "unlabeled", "unlabeled_file", "answers", "teacher_img"
PSEUDO, COUNTS = "pseudo", "objects_per_image"


@dataclass(frozen=True)
class Answers:
    """What teachers saw in the images of a batch: N boxes of all of them.

    Attributes:
        images: (N,) long, the image of each, unlabeled ones after the labeled.
        boxes: (N, 4), shares of the sides, middle, width, height.
        probabilities: (N, K), over the data's classes.
        most: Largest number of boxes of an image, where it is known without a wait for the device.
    """

    images: Tensor
    boxes: Tensor
    probabilities: Tensor
    most: int | None = None

    def to(self, device: torch.device) -> Answers:
        """Return them on a device, without a wait where that is a GPU."""
        images, boxes, probabilities = moved((self.images, self.boxes, self.probabilities), device)
        return Answers(images, boxes, probabilities, self.most)


@dataclass(frozen=True)
class PseudoBoxes:
    """The boxes of teachers that act as labels on unlabeled images, and those that take scores out of the loss.

    Attributes:
        images: (N,) long, the image of each confident box, unlabeled ones after the labeled.
        boxes: (N, 4), shares of the sides, middle, width, height.
        classes: (N,) long.
        doubtful_images: (D,) long, of each pair of a doubtful box and a class that it may have.
        doubtful_boxes: (D, 4).
        doubtful_classes: (D,) long.
    """

    images: Tensor
    boxes: Tensor
    classes: Tensor
    doubtful_images: Tensor
    doubtful_boxes: Tensor
    doubtful_classes: Tensor

    def to(self, device: torch.device) -> PseudoBoxes:
        """Return them on a device, without a wait where that is a GPU."""
        doubtful = (self.doubtful_images, self.doubtful_boxes, self.doubtful_classes)
        return PseudoBoxes(*moved((self.images, self.boxes, self.classes, *doubtful), device))


def moved(parts: Sequence[Tensor], device: torch.device) -> list[Tensor]:
    """Return tensors on a device, without a wait where that is a GPU."""
    return [part.to(device, non_blocking=device.type not in {"cpu", "mps"}) for part in parts]


@dataclass(frozen=True)
class TrainingBatch:
    """B labeled images with their objects, and U without labels.

    Attributes:
        labeled: The labeled part as Ultralytics hands it to a model: `img` (B, 3, H, W) in [0, 1], `batch_idx` (N,),
            `cls` (N, 1), `bboxes` (N, 4) in shares of the sides, xywh; `im_file`; see also `with_counts`.
        unlabeled: (U, 3, H, W), or None.
        files: Names of all B + U images, where they are known.
        answers: What was stored of the teachers' answers; None where nothing was.
        larger: All images as the teacher sees them, (B + U, 3, 2H, 2W); None where it sees the student's.
        pseudo: Pseudo-labels that were chosen already; None where the step chooses them.
    """

    labeled: Mapping[str, Any]
    unlabeled: Tensor | None = None
    files: tuple[str, ...] = ()
    answers: Answers | None = None
    larger: Tensor | None = None
    pseudo: PseudoBoxes | None = None

    @classmethod
    def of(cls, batch: Mapping[str, Any]) -> TrainingBatch:
        """Return the typed form of what the trainer hands to the model."""
        files = (*map(str, batch.get("im_file", ())), *map(str, batch.get(FILES, ())))
        own = {UNLABELED, FILES, ANSWERS, TEACHER, PSEUDO}
        labeled = {key: value for key, value in batch.items() if key not in own}
        return cls(labeled, batch.get(UNLABELED), files, batch.get(ANSWERS), batch.get(TEACHER), batch.get(PSEUDO))

    def __len__(self) -> int:
        """B, the number of labeled images."""
        return len(self.labeled["img"])

    @property
    def images(self) -> Tensor:
        """All images, (B + U, 3, H, W), the labeled ones first."""
        labeled: Tensor = self.labeled["img"]
        return labeled if self.unlabeled is None else torch.cat([labeled, self.unlabeled])

    @property
    def teacher_images(self) -> Tensor:
        """All images as the teacher sees them, in the same order."""
        return self.images if self.larger is None else self.larger

    @property
    def has_objects(self) -> bool:
        """Whether any labeled image holds one."""
        return len(self.labeled["cls"]) > 0

    def without_unlabeled(self) -> TrainingBatch:
        """Return the labeled part alone."""
        larger = None if self.larger is None else self.larger[: len(self)]
        return replace(self, unlabeled=None, files=self.files[: len(self)], larger=larger)


def with_larger(batch: Mapping[str, Any], scale: int) -> dict[str, Any]:
    """Return a batch whose images the teacher sees as they are, and the student as the mean of each `scale`² pixels.

    Args:
        batch: With `img`, and the unlabeled images if there are any, both of the teacher's size.
        scale: Side of the teacher's images per side of the student's.
    """
    small = {key: F.avg_pool2d(batch[key], scale) for key in ("img", UNLABELED) if key in batch}
    images = [batch[key] for key in small]
    return {**batch, **small, TEACHER: torch.cat(images) if len(images) > 1 else images[0]}


def with_counts(batch: Mapping[str, Any]) -> dict[str, Any]:
    """Return a batch that carries the number of objects of each image, if its labels lie in the order of the images.

    Args:
        batch: `img` and `batch_idx` as the loader makes them, on the CPU, where counting waits for no device.
    """
    index: Tensor = batch["batch_idx"].flatten().long()
    if bool((index[1:] < index[:-1]).any()):
        return dict(batch)
    return {**batch, COUNTS: tuple(index.bincount(minlength=len(batch["img"])).tolist())}


def counts_of(batch: Mapping[str, Any], images: int) -> list[int]:
    """Return the number of objects of each image; 0 for those without labels, which come last.

    Args:
        batch: With `batch_idx`; without `with_counts` the host waits for the device once.
        images: How many, at least those of the batch.
    """
    known: Sequence[int] | None = batch.get(COUNTS)
    if known is None:
        known = batch["batch_idx"].flatten().long().bincount(minlength=images).tolist()
    return [*known, *[0] * (images - len(known))]


def first_rows(raw: Any, count: int) -> Any:
    """Return a detector's raw output for the first images: these rows of each tensor in its dicts and lists."""
    if isinstance(raw, Tensor):
        return raw[:count]
    if isinstance(raw, Mapping):
        return {key: first_rows(value, count) for key, value in raw.items()}
    if isinstance(raw, (list, tuple)):
        return type(raw)(first_rows(value, count) for value in raw)
    return raw
