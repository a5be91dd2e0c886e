"""Several labelers as one: their boxes fused, their classes united and turned into those of the set."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from yolokd.backend.checkpoints import Spec
from yolokd.errors import UserError
from yolokd.labeling.classes import Columns
from yolokd.loaders.answers import Answer, over_classes
from yolokd.teachers.answers import AnswerStore, Question
from yolokd.teachers.asking import Labeler
from yolokd.teachers.box_fusion import fuse_boxes
from yolokd.teachers.fusion import United
from yolokd.teachers.opening import open_labeler


@dataclass(frozen=True)
class Teachers:
    """Who is asked, how, and what their classes become."""

    labelers: Sequence[Labeler]
    united: United
    columns: Columns
    imgsz: int
    flip: bool
    device: torch.device

    def answers(self, images: Mapping[str, str], progress: Callable[[int, int], None]) -> Iterator[tuple[str, Answer]]:
        """Yield the answers of all teachers as one, over the classes of the set, for image files in their order.

        Args:
            images: File → SHA-256, from `yolokd.teachers.answers.digests_of`.
            progress: Called with how many images the first teacher has been asked about, and how many it will be.
        """
        kept = []
        for number, labeler in enumerate(self.labelers):
            store = AnswerStore(Question((labeler.digest,), self.imgsz, self.flip))
            kept.append(store.each(images, labeler, self.device, progress if number == 0 else None))
        pairs = list(enumerate(self.columns.values()))
        for of_file in zip(*kept, strict=True):
            file = of_file[0][0]
            yield file, over_classes(self._one(file, [answer for _, answer in of_file]), pairs, len(self.columns))

    def united_names(self) -> dict[str, list[str]]:
        """Return for each class of the set the teachers' classes that are one of it."""
        return {name: [self.united.names[index] for index in places] for name, places in self.columns.items()}

    def _one(self, file: str, answers: Sequence[Answer]) -> Answer:
        if len(answers) == 1:
            return answers[0]
        spread = []
        for answer, places in zip(answers, self.united.places, strict=True):
            wide = np.zeros((len(answer.boxes), len(self.united.names)), np.float32)
            wide[:, list(places)] = answer.probabilities
            spread.append(Answer(answer.boxes, wide))
        return fuse_boxes(spread, self.united.know)


def open_teachers(
    specs: Sequence[Spec], device: torch.device, *, flip: bool, prompts: Sequence[str] | None
) -> list[Labeler]:
    """Open the teachers; arguments and errors as `yolokd.labeling.label.label` and `open_labeler`."""
    if not specs:
        raise UserError("Give the teacher: --teacher yolov8x; several are fused.")
    labelers = [open_labeler(spec, device, flip=flip, classes=prompts) for spec in specs]
    digests = [labeler.digest for labeler in labelers]
    if twice := [str(spec) for spec, digest in zip(specs, digests, strict=True) if digests.count(digest) > 1]:
        raise UserError(f"The teacher '{twice[0]}' is given twice; give each teacher once.")
    return labelers
