"""Teachers' boxes on their way through the augmentation: beside the labels, and apart from them again in the batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from yolokd.errors import DataError
from yolokd.loaders.batch import Answers

Floats = NDArray[np.float32]

LOWEST = 0.03  # least probability of a box that counts
LARGEST = 2**24  # whole numbers up to here are exact in the float32 of a label's class


@dataclass(frozen=True)
class Answer:
    """What was seen in one image."""

    boxes: Floats  # (N, 4), middle, width, height in shares of the image's sides
    probabilities: Floats  # (N, K)


@dataclass(frozen=True)
class AnswerTable:
    """The answers of a run, over the data's classes, as the loaders and the step use them.

    Attributes:
        boxes: File → (N, 4), shares of the image's sides, middle, width, height.
        first: File → row of its first box in `probabilities`.
        probabilities: Of all boxes, (R, K), over the data's classes; 0 for those that the teacher does not know.
    """

    boxes: Mapping[str, Floats]
    first: Mapping[str, int]
    probabilities: Tensor

    @classmethod
    def of(
        cls, answers: Mapping[str, Answer], columns: Sequence[tuple[int, Sequence[int]]], classes: int
    ) -> AnswerTable:
        """Return the table of some answers.

        Args:
            answers: File → answer.
            columns: For each of the data's classes that the teachers know, its index and theirs, of which the largest
                probability counts.
            classes: Number of the data's classes.

        Raises:
            DataError: More boxes than a label's class can number.
        """
        boxes, first, rows, start = {}, {}, [], 0
        for file, answer in answers.items():
            own = over_classes(answer, columns, classes)
            boxes[file], first[file] = own.boxes, start
            rows.append(own.probabilities)
            start += len(own.boxes)
        if start + classes > LARGEST:
            raise DataError(f"There are {start} boxes in stored answers; a run takes {LARGEST - classes} at most.")
        joined = np.concatenate(rows) if rows else np.zeros((0, classes), np.float32)
        return cls(boxes, first, torch.from_numpy(joined))

    def of_file(self, file: str) -> tuple[Floats, Tensor]:
        """Return the boxes of one image, (N, 4), and their probabilities, (N, K)."""
        boxes = self.boxes[file]
        return boxes, self.probabilities[self.first[file] : self.first[file] + len(boxes)]


def over_classes(answer: Answer, columns: Sequence[tuple[int, Sequence[int]]], classes: int) -> Answer:
    """Return an answer over the data's classes; a box of a class that the data do not have is none.

    Args:
        answer: Over the teachers' classes.
        columns: For each of the data's classes that the teachers know, its index and theirs, of which the largest
            probability counts.
        classes: Number of the data's classes.
    """
    own = np.zeros((len(answer.boxes), classes), np.float32)
    for index, theirs in columns:
        own[:, index] = answer.probabilities[:, list(theirs)].max(1, initial=0.0)
    kept = own.max(1, initial=0.0) >= LOWEST
    return Answer(answer.boxes[kept], own[kept])


def with_answers(label: dict[str, Any], table: AnswerTable, classes: int) -> None:
    """Append the teachers' boxes of an image to its label, before Ultralytics makes instances of it.

    Args:
        label: `im_file`, `cls` (N, 1), `bboxes` (N, 4) in shares of the sides, xywh, `segments`.
        table: The answers.
        classes: Number of the data's classes; a teacher's box of row r gets the class `classes` + r.
    """
    boxes = table.boxes[label["im_file"]]
    first = table.first[label["im_file"]]
    rows = np.arange(first, first + len(boxes), dtype=np.float32)[:, None] + classes
    if label["segments"]:  # polygons are as many as boxes: those of the teachers are rectangles
        label["segments"] = [*label["segments"], *map(rectangle, boxes)]
    label["cls"] = np.concatenate((label["cls"], rows.astype(np.float32)))
    label["bboxes"] = np.concatenate((label["bboxes"], boxes.astype(np.float32)))


def rectangle(box: Floats) -> Floats:
    """Return the corners of a box, (4, 2), from its middle, width and height."""
    x, y, width, height = box
    left, top, right, bottom = x - width / 2, y - height / 2, x + width / 2, y + height / 2
    return np.array([[left, top], [right, top], [right, bottom], [left, bottom]], np.float32)


def parted(batch: Mapping[str, Any], table: AnswerTable, classes: int) -> tuple[dict[str, Any], Answers]:
    """Return a batch with its labels alone, and the teachers' boxes in it.

    Args:
        batch: `batch_idx` (N,), `cls` (N, 1) and `bboxes` (N, 4) as the loader makes them, on the CPU.
        table: The answers.
        classes: Number of the data's classes.
    """
    labels = batch["cls"].flatten() < classes
    rows = (batch["cls"].flatten()[~labels] - classes).long()
    answers = Answers(
        images=batch["batch_idx"].flatten()[~labels].long(),
        boxes=batch["bboxes"][~labels],
        probabilities=table.probabilities[rows],
    )
    alone = {key: batch[key][labels] for key in ("batch_idx", "cls", "bboxes")}
    return {**batch, **alone}, answers


def joined(first: Answers | None, second: Answers | None, images: int) -> Answers | None:
    """Return the answers of two parts of a batch as one; the first part has so many images."""
    if first is None or second is None:
        only = first or second
        return only if second is None or only is None else shifted(only, images)
    later = shifted(second, images)
    return Answers(
        torch.cat((first.images, later.images)),
        torch.cat((first.boxes, later.boxes)),
        torch.cat((first.probabilities, later.probabilities)),
    )


def shifted(answers: Answers, images: int) -> Answers:
    """Return the answers for images that come after so many others."""
    place: Tensor = answers.images + images
    return Answers(place, answers.boxes, answers.probabilities)
