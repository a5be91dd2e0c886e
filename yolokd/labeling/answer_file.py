"""The answers that lie beside the labels of a set: what teachers saw in its images, with the scores of all classes.

One file per split, arrays only, so that reading it runs nothing:

    answers-train.npz
        files          (I,)    name of each image below images/train
        images         (I,)    SHA-256 of each image file's bytes, as text
        counts         (I,)    boxes of each image
        boxes          (N, 4)  float32: middle, width, height in shares of the image's sides; all images, one by one
        probabilities  (N, K)  float16, over the classes of data.yaml; 0 for those that no teacher knows
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from shutil import copyfileobj
from typing import IO

import numpy as np
from numpy.typing import NDArray

from yolokd.errors import DataError
from yolokd.loaders.answers import Answer
from yolokd.teachers.answers import UNREADABLE, unpacked


class AnswerWriter:
    """Writes answers one by one; memory does not grow with their boxes.

    Args:
        folder: For what is not complete yet.
        classes: Number of classes.
    """

    def __init__(self, folder: Path, classes: int) -> None:
        self._spools = {"boxes": folder / ".boxes", "probabilities": folder / ".probabilities"}
        self._streams = {name: path.open("wb") for name, path in self._spools.items()}
        self._files: list[str] = []
        self._images: list[str] = []
        self._counts: list[int] = []
        self.classes = classes

    def add(self, name: str, digest: str, answer: Answer) -> None:
        """Take the answer for one image, called `name` in the set; `digest` is the SHA-256 of its file."""
        self._files.append(name)
        self._images.append(digest)
        self._counts.append(len(answer.boxes))
        self._streams["boxes"].write(np.ascontiguousarray(answer.boxes, "<f4").tobytes())
        self._streams["probabilities"].write(np.ascontiguousarray(answer.probabilities, "<f2").tobytes())

    def finish(self, path: Path) -> None:
        """Write the file, the same bytes for the same answers."""
        self.close()
        rows = sum(self._counts)
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, values in (("files", self._files), ("images", self._images)):
                _put(archive, name, np.array(values, np.str_))
            _put(archive, "counts", np.array(self._counts, "<i4"))
            for name, (width, kind) in {"boxes": (4, "<f4"), "probabilities": (self.classes, "<f2")}.items():
                with _entry(archive, name) as target, self._spools[name].open("rb") as source:
                    header = {"descr": kind, "fortran_order": False, "shape": (rows, width)}
                    np.lib.format.write_array_header_1_0(target, header)
                    copyfileobj(source, target)
        for spool in self._spools.values():
            spool.unlink()

    def close(self) -> None:
        """Close what is open, without writing the file."""
        for stream in self._streams.values():
            stream.close()


def read_answers(path: Path, classes: int) -> dict[str, Answer]:
    """Return the answers of a file by the name of their image.

    Args:
        path: From `AnswerWriter.finish`.
        classes: Number of the set's classes.

    Raises:
        DataError: It cannot be read, holds other than plain arrays, or arrays that do not fit each other.
    """
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as content:
            arrays = {key: content[key] for key in ("files", "counts", "boxes", "probabilities")}
        return unpacked({**arrays, "images": arrays["files"]}, classes)
    except UNREADABLE as error:
        raise DataError(f"'{path}' holds no answers that can be read: {error}") from error


@contextmanager
def _entry(archive: zipfile.ZipFile, name: str) -> Iterator[IO[bytes]]:
    """A member whose bytes depend on nothing but its contents: `ZipInfo` dates it 1980."""
    info = zipfile.ZipInfo(f"{name}.npy")
    info.compress_type = zipfile.ZIP_DEFLATED
    with archive.open(info, "w", force_zip64=True) as target:
        yield target


def _put(archive: zipfile.ZipFile, name: str, array: NDArray[np.generic]) -> None:
    with _entry(archive, name) as target:
        np.lib.format.write_array(target, array, allow_pickle=False)
