"""Stored answers: what teachers see in images, asked once per image and kept for every run that asks the same.

They are kept in yolokd's cache, one folder per teachers and settings, in files that hold arrays only:

    answers/<digest of teachers and settings>/<number>.npz
        images         (I,)    SHA-256 of each image file's bytes, as text
        counts         (I,)    boxes of each image
        boxes          (N, 4)  float32: middle, width, height in shares of the image's sides; all images, one by one
        probabilities  (N, K)  float16, over the teachers' united classes

An image is known by its content, so it may move. A file is written as a whole; what an interruption left out is asked
for again.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from yolokd.files import cache_folder, replacing, sha256, sha256_of
from yolokd.loaders.answers import LOWEST, Answer
from yolokd.locks import locked
from yolokd.teachers.asking import MOST, OVERLAP, BoxModel, ask

FOLDER = "answers"  # in yolokd's cache
FORMAT = 1
PER_FILE = 128  # images

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Question:
    """Who is asked, and how: all that answers depend on, besides the image."""

    teachers: tuple[str, ...]  # SHA-256 of each checkpoint; a `Labeler`'s digest
    imgsz: int
    flip: bool

    @property
    def key(self) -> str:
        """A digest of all of it."""
        settings = {**asdict(self), "lowest": LOWEST, "overlap": OVERLAP, "most": MOST, "format": FORMAT}
        return sha256_of(json.dumps(settings, sort_keys=True))[:32]


class AnswerStore:
    """The answers to one question.

    Args:
        question: Who is asked, and how.
        folder: Where the answers to all questions are; in yolokd's cache if None.
    """

    def __init__(self, question: Question, folder: Path | None = None) -> None:
        self.question = question
        self.folder = (folder or cache_folder(FOLDER)) / question.key

    def collect(
        self, files: Sequence[str], panel: BoxModel, device: torch.device, progress: Progress | None = None
    ) -> dict[str, Answer]:
        """Return the answers for image files; asks for those that are not kept, and keeps them.

        Processes that ask the same at once take turns.

        Args:
            files: Color images.
            panel: Who is asked: the teachers, or a model from `yolokd.teachers.opening`.
            device: Where they are.
            progress: Called now and then with the number of images asked and to be asked about.

        Raises:
            DataError: A file cannot be read as an image.
            OSError: The folder cannot be written.
        """
        names = dict(zip(files, map(sha256, map(Path, files)), strict=True))
        self.folder.mkdir(parents=True, exist_ok=True)
        with locked(self.folder / "lock", wait=True):
            known = self._read(len(panel.names))
            missing = list({name: file for file, name in names.items() if name not in known}.values())
            asked = ask(panel, missing, imgsz=self.question.imgsz, device=device)
            fresh: dict[str, Answer] = {}
            for done, (file, answer) in enumerate(asked, 1):
                fresh[names[file]] = answer
                if len(fresh) == PER_FILE or done == len(missing):
                    self._write(fresh)
                    known |= {name: rounded(one) for name, one in fresh.items()}
                    fresh = {}
                if progress is not None:
                    progress(done, len(missing))
        return {file: known[name] for file, name in names.items()}

    def _read(self, classes: int) -> dict[str, Answer]:
        found: dict[str, Answer] = {}
        for path in sorted(self.folder.glob("*.npz")):
            try:
                with path.open("rb") as stream, np.load(stream, allow_pickle=False) as content:
                    arrays = {key: content[key] for key in ("images", "counts", "boxes", "probabilities")}
                found |= _unpacked(arrays, classes)
            except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
                path.unlink(missing_ok=True)  # damaged: its images are asked about again
        return found

    def _write(self, answers: Mapping[str, Answer]) -> None:
        number = 1 + max((int(path.stem) for path in self.folder.glob("*.npz") if path.stem.isdigit()), default=-1)
        arrays: dict[str, Any] = {
            "images": np.array(list(answers)),
            "counts": np.array([len(one.boxes) for one in answers.values()], np.int32),
            "boxes": np.concatenate([one.boxes for one in answers.values()]).astype(np.float32),
            "probabilities": np.concatenate([one.probabilities for one in answers.values()]).astype(np.float16),
        }
        with replacing(self.folder / f"{number:06d}.npz") as part, part.open("wb") as stream:
            np.savez_compressed(stream, **arrays)


def rounded(answer: Answer) -> Answer:
    """Return an answer as it comes back from a file."""
    return Answer(answer.boxes.astype(np.float32), answer.probabilities.astype(np.float16).astype(np.float32))


def _unpacked(arrays: Mapping[str, np.ndarray], classes: int) -> dict[str, Answer]:
    """Return answers by image; `ValueError` where the arrays do not fit each other."""
    images, counts, boxes, probabilities = (arrays[key] for key in ("images", "counts", "boxes", "probabilities"))
    if boxes.shape != (counts.sum(), 4) or probabilities.shape != (len(boxes), classes) or len(images) != len(counts):
        raise ValueError("arrays of different lengths")
    if not (np.isfinite(boxes).all() and np.isfinite(probabilities).all()):
        raise ValueError("numbers that are not finite")
    ends = counts.cumsum()
    return {
        str(image): Answer(boxes[end - count : end], probabilities[end - count : end].astype(np.float32))
        for image, count, end in zip(images, counts, ends, strict=True)
    }
