from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest

from yolokd.errors import DataError
from yolokd.labeling.answer_file import AnswerWriter, read_answers
from yolokd.loaders.answers import Answer


def some(count: int, classes: int, seed: int) -> Answer:
    rng = np.random.default_rng(seed)
    boxes = rng.random((count, 4), dtype=np.float32)
    return Answer(boxes, rng.random((count, classes), dtype=np.float32).astype(np.float16).astype(np.float32))


def write(folder: Path, answers: dict[str, Answer], classes: int = 3) -> Path:
    folder.mkdir()
    writer = AnswerWriter(folder, classes)
    for name, answer in answers.items():
        writer.add(name, hashlib.sha256(name.encode()).hexdigest(), answer)
    writer.finish(folder / "answers.npz")
    return folder / "answers.npz"


ANSWERS = {"a.jpg": some(4, 3, 0), "b.jpg": some(0, 3, 1), "c.jpg": some(2, 3, 2)}


def test_write__comes_back_as_it_was(tmp_path: Path) -> None:
    path = write(tmp_path / "x", ANSWERS)
    found = read_answers(path, 3)
    assert list(found) == list(ANSWERS)
    for name, answer in ANSWERS.items():
        np.testing.assert_array_equal(found[name].boxes, answer.boxes)
        np.testing.assert_array_equal(found[name].probabilities, answer.probabilities)
    with np.load(path, allow_pickle=False) as content:
        assert content["images"].tolist() == [hashlib.sha256(name.encode()).hexdigest() for name in ANSWERS]
        assert content["files"].tolist() == list(ANSWERS)


def test_write__the_same_bytes_again_and_nothing_else_left(tmp_path: Path) -> None:
    first, second = write(tmp_path / "x", ANSWERS), write(tmp_path / "y", ANSWERS)
    assert first.read_bytes() == second.read_bytes()
    assert {path.name for path in first.parent.iterdir()} == {"answers.npz"}


def test_write__no_image(tmp_path: Path) -> None:
    assert read_answers(write(tmp_path / "x", {}), 3) == {}


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"text"])
def test_read__damaged(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "answers.npz"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"answers\.npz"):
        read_answers(path, 3)


def test_read__other_number_of_classes_or_objects(tmp_path: Path) -> None:
    path = write(tmp_path / "x", ANSWERS)
    with pytest.raises(DataError):
        read_answers(path, 4)
    with np.load(path) as content:
        arrays = {**content, "files": np.array([{}] * 3, dtype=object)}
    np.savez(path, **arrays)
    with pytest.raises(DataError):
        read_answers(path, 3)


def test_read__missing(tmp_path: Path) -> None:
    with pytest.raises(DataError):
        read_answers(tmp_path / "answers.npz", 3)
