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
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
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
UNREADABLE = (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile)  # of a file of answers

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Question:
    """Who is asked, and how: all that answers depend on, besides the image."""

    teachers: tuple[str, ...]  # SHA-256 of each checkpoint
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
        """Return the answers for image files; arguments and errors as `each`."""
        return dict(self.each(digests_of(files), panel, device, progress))

    def each(
        self, images: Mapping[str, str], panel: BoxModel, device: torch.device, progress: Progress | None = None
    ) -> Iterator[tuple[str, Answer]]:
        """Yield the answers for image files, in their order; ask for those that are not kept, and keep them.

        A few files of answers are in memory at a time. Processes that ask the same at once take turns.

        Args:
            images: Color images: file → SHA-256, from `digests_of`.
            panel: The teachers.
            device: Where they are.
            progress: Called now and then with the number of images asked and to be asked about.

        Raises:
            DataError: A file cannot be read as an image.
            OSError: The folder cannot be written.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        with locked(self.folder / "lock", wait=True):
            classes = len(panel.names)
            known = self._known(classes)
            missing = set(images.values()) - known.keys()
            total, done = len(missing), 0

            def asked(count: int) -> None:
                if progress is not None:
                    progress(done + count, total)

            shelf = lru_cache(maxsize=2)(lambda path: self._read(path, classes))
            ordered = list(images)
            for start in range(0, len(ordered), PER_FILE):
                part = ordered[start : start + PER_FILE]
                fresh = {images[file]: file for file in reversed(part) if images[file] in missing}
                if fresh:
                    path = self._ask(fresh, panel, device, asked)
                    known |= dict.fromkeys(fresh, path)
                    missing -= fresh.keys()
                    done += len(fresh)
                for file in part:
                    yield file, shelf(known[images[file]])[images[file]]

    def _ask(
        self, images: Mapping[str, str], panel: BoxModel, device: torch.device, progress: Callable[[int], None]
    ) -> Path:
        """Ask about images, digest → file, and return the file that keeps the answers."""
        names = {file: name for name, file in sorted(images.items(), key=lambda pair: pair[1])}
        answers = {}
        for file, answer in ask(panel, list(names), imgsz=self.question.imgsz, device=device):
            answers[names[file]] = answer
            progress(len(answers))
        return self._write(answers)

    def _known(self, classes: int) -> dict[str, Path]:
        """Where the answer for each image is that is kept, by its digest; damaged files are removed."""
        found: dict[str, Path] = {}
        for path in sorted(self.folder.glob("*.npz")):
            try:
                found |= dict.fromkeys(self._read(path, classes), path)
            except UNREADABLE:
                path.unlink(missing_ok=True)  # its images are asked about again
        return found

    @staticmethod
    def _read(path: Path, classes: int) -> dict[str, Answer]:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as content:
            arrays = {key: content[key] for key in ("images", "counts", "boxes", "probabilities")}
        return unpacked(arrays, classes)

    def _write(self, answers: Mapping[str, Answer]) -> Path:
        number = 1 + max((int(path.stem) for path in self.folder.glob("*.npz") if path.stem.isdigit()), default=-1)
        arrays: dict[str, Any] = {
            "images": np.array(list(answers)),
            "counts": np.array([len(one.boxes) for one in answers.values()], np.int32),
            "boxes": np.concatenate([one.boxes for one in answers.values()]).astype(np.float32),
            "probabilities": np.concatenate([one.probabilities for one in answers.values()]).astype(np.float16),
        }
        path = self.folder / f"{number:06d}.npz"
        with replacing(path) as part, part.open("wb") as stream:
            np.savez_compressed(stream, **arrays)
        return path


def digests_of(files: Iterable[str]) -> dict[str, str]:
    """Return file → SHA-256, in the order of the files; `OSError` where one cannot be read."""
    return {file: sha256(Path(file)) for file in files}


def rounded(answer: Answer) -> Answer:
    """Return an answer as it comes back from a file."""
    return Answer(answer.boxes.astype(np.float32), answer.probabilities.astype(np.float16).astype(np.float32))


def unpacked(arrays: Mapping[str, np.ndarray], classes: int) -> dict[str, Answer]:
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
