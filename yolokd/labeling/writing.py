"""Writing a labeled set, image by image, and counting on the way."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from yolokd.data import publish
from yolokd.errors import DataError
from yolokd.files import sha256, write_json
from yolokd.labeling.answer_file import AnswerWriter
from yolokd.labeling.frames import Frames
from yolokd.labeling.panel import Teachers
from yolokd.loaders.answers import Answer
from yolokd.teachers.answers import digests_of

FOUND = "teacher.json"
SPLITS = ("train", "val")
HEADER = "# Made by `yolokd data label`: the labels are a teacher's, so a score on them is agreement with it, not AP.\n"
BINS = 20  # of the histogram of scores, over [0, 1]

Progress = Callable[[str, int, int], None]  # called with what is done, how many images of how many


@dataclass
class _Counts:
    """What is counted on the way."""

    names: Sequence[str]
    boxes: dict[str, dict[str, int]] = field(default_factory=dict)  # split → class → boxes
    images: dict[str, int] = field(default_factory=lambda: dict.fromkeys(SPLITS, 0))
    scores: NDArray[np.int64] = field(init=False)

    def __post_init__(self) -> None:
        self.boxes = {split: dict.fromkeys(self.names, 0) for split in SPLITS}
        self.scores = np.zeros((len(self.names), BINS), np.int64)

    def add(self, split: str, answer: Answer, kinds: NDArray[np.int64], sure: NDArray[np.bool_]) -> None:
        self.images[split] += 1
        for kind in kinds[sure].tolist():
            self.boxes[split][self.names[kind]] += 1
        bins = np.minimum((answer.probabilities.max(1, initial=0.0) * BINS).astype(int), BINS - 1)
        np.add.at(self.scores, (kinds, bins), 1)


def write_set(
    folder: Path,
    frames: Frames,
    asked: Teachers,
    thresholds: Mapping[str, float],
    source: Path,
    show: Progress,
) -> None:
    """Write images, labels, answers, `teacher.json` and `data.yaml` into a folder.

    Args:
        folder: Where.
        frames: What is labeled.
        asked: Who is asked.
        thresholds: Class of the set → score from which on a box is an object.
        source: Where the images are from, for a message.
        show: Called with what is done and how many images are done and in all.

    Raises:
        DataError: No object in any training image.
        OSError: The folder cannot be written.
    """
    names = list(thresholds)
    least = np.array([thresholds[name] for name in names], np.float32)
    counts = _Counts(names)
    by_file = {frame.file: frame for frame in frames.frames}
    with ExitStack() as stack:
        writers = {split: _writer(folder, split, len(names), stack) for split in SPLITS}
        digests = digests_of(by_file)
        answers = asked.answers(digests, lambda done, total: show("asking the teacher about", done, total))
        for done, (file, answer) in enumerate(answers, 1):
            frame = by_file[file]
            kinds = answer.probabilities.argmax(1)
            sure = answer.probabilities.max(1, initial=0.0) >= least[kinds]
            publish.place(Path(file), folder / "images" / frame.split / frame.name)
            rows = zip(kinds[sure].tolist(), answer.boxes[sure].tolist(), strict=True)
            text = "".join(f"{kind} {' '.join(f'{value:.6f}' for value in box)}\n" for kind, box in rows)
            (folder / "labels" / frame.split / f"{Path(frame.name).stem}.txt").write_text(text, encoding="utf-8")
            writers[frame.split].add(frame.name, digests[file], answer)
            counts.add(frame.split, answer, kinds, sure)
            show("labeling", done, len(by_file))
        for split, writer in writers.items():
            writer.finish(folder / f"answers-{split}.npz")
            (folder / "spool" / split).rmdir()
    (folder / "spool").rmdir()
    if not sum(counts.boxes["train"].values()):
        raise DataError(
            f"The teachers see no object in the training images of '{source}' with these thresholds; lower "
            f"--conf, ask at another --imgsz, or check --classes."
        )
    write_json(folder / FOUND, _found(frames, asked, thresholds, counts))
    content = {
        "train": "images/train",
        "val": "images/val",
        "names": dict(enumerate(names)),
        "labeled_by": FOUND,
    }
    text = HEADER + yaml.safe_dump(content, allow_unicode=True, sort_keys=False)
    (folder / "data.yaml").write_text(text, encoding="utf-8")


def _writer(folder: Path, split: str, classes: int, stack: ExitStack) -> AnswerWriter:
    """Make the folders of a split, and what writes its answers, which is closed with the stack."""
    for kind in ("images", "labels", "spool"):
        (folder / kind / split).mkdir(parents=True)
    writer = AnswerWriter(folder / "spool" / split, classes)
    stack.callback(writer.close)
    return writer


def _found(frames: Frames, asked: Teachers, thresholds: Mapping[str, float], counts: _Counts) -> dict[str, Any]:
    return {
        "teachers": [
            {
                "path": str(labeler.path.absolute()),
                "sha256": sha256(labeler.path),
                "classes": len(labeler.names),
            }
            for labeler in asked.labelers
        ],
        "imgsz": asked.imgsz,
        "flip": asked.flip,
        "classes": asked.united_names(),
        "thresholds": dict(thresholds),
        "images": {**counts.images, "between the splits": frames.at_borders},
        "boxes": counts.boxes,
        "scores": {
            "edges": [round(i / BINS, 3) for i in range(BINS + 1)],
            "boxes": {name: row.tolist() for name, row in zip(counts.names, counts.scores, strict=True)},
        },
    }
