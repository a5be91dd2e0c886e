from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.helpers.panels import panel
from tests.helpers.unlabeled import make_images
from yolokd.data.layout import images_of
from yolokd.teachers import answers as module
from yolokd.teachers.answers import AnswerStore, Question, rounded
from yolokd.teachers.asking import ask

CPU = torch.device("cpu")
QUESTION = Question(("0" * 64,), 64, flip=False)


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    return images_of(make_images(tmp_path / "images", 7))


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The files that the teacher was asked about."""
    found: list[str] = []

    def counted(panel: Any, files: Any, **options: Any) -> Any:
        found.extend(files)
        return ask(panel, files, **options)

    monkeypatch.setattr(module, "ask", counted)
    return found


def test_key__depends_on_teachers_size_and_flip() -> None:
    others = [replace(QUESTION, imgsz=96), replace(QUESTION, flip=True), replace(QUESTION, teachers=("1" * 64,))]
    assert len({question.key for question in (QUESTION, *others)}) == 4
    assert Question(("0" * 64,), 64, flip=False).key == QUESTION.key


def test_collect__asks_once_per_image_and_keeps_it(files: list[str], asked: list[str], tmp_path: Path) -> None:
    first = AnswerStore(QUESTION, tmp_path / "kept").collect(files, panel(), CPU)
    assert sorted(asked) == files
    direct = {file: rounded(answer) for file, answer in ask(panel(), files, imgsz=64, device=CPU)}
    again = AnswerStore(QUESTION, tmp_path / "kept").collect([*files[3:], *files[:3]], panel("11"), CPU)
    assert len(asked) == len(files)
    for file in files:
        for found in (first[file], again[file]):
            np.testing.assert_array_equal(found.boxes, direct[file].boxes)
            np.testing.assert_array_equal(found.probabilities, direct[file].probabilities)


def test_collect__an_image_is_known_by_its_content(files: list[str], asked: list[str], tmp_path: Path) -> None:
    store = AnswerStore(QUESTION, tmp_path / "kept")
    store.collect(files[:2], panel(), CPU)
    moved = tmp_path / "elsewhere.png"
    shutil.copy(files[0], moved)
    store.collect([str(moved), str(files[0])], panel(), CPU)
    assert sorted(asked) == files[:2]
    shutil.copy(files[2], files[0])  # another image under the old name
    store.collect([files[0]], panel(), CPU)
    assert asked[2:] == [files[0]]


def test_collect__goes_on_after_an_interruption(
    files: list[str], asked: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PER_FILE", 2)

    def stop(done: int, total: int) -> None:
        if done == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        AnswerStore(QUESTION, tmp_path / "kept").collect(files, panel(), CPU, stop)
    asked.clear()
    shown: list[tuple[int, int]] = []
    found = AnswerStore(QUESTION, tmp_path / "kept").collect(files, panel(), CPU, lambda *now: shown.append(now))
    assert len(asked) == 3  # four were kept, in files of two
    assert shown[-1] == (3, 3)
    assert list(found) == files


@pytest.mark.parametrize("damage", [b"", b"PK\x03\x04", b"no archive"])
def test_collect__a_damaged_file_is_asked_for_again(
    files: list[str], asked: list[str], tmp_path: Path, damage: bytes
) -> None:
    store = AnswerStore(QUESTION, tmp_path / "kept")
    store.collect(files, panel(), CPU)
    (kept,) = store.folder.glob("*.npz")
    kept.write_bytes(damage)
    asked.clear()
    assert list(store.collect(files, panel(), CPU)) == files
    assert sorted(asked) == files


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("boxes", np.zeros((1, 4), np.float32)),
        ("probabilities", np.zeros((1, 3), np.float16)),
        ("counts", np.array([1], np.int32)),
        ("images", np.array([{}], dtype=object)),
    ],
)
def test_collect__arrays_that_do_not_fit_or_hold_objects_are_refused(
    files: list[str], asked: list[str], tmp_path: Path, key: str, value: Any
) -> None:
    store = AnswerStore(QUESTION, tmp_path / "kept")
    expected = store.collect(files, panel(), CPU)
    (kept,) = store.folder.glob("*.npz")
    with np.load(kept) as content:
        arrays = {**content, key: value}
    np.savez_compressed(kept, **arrays)
    asked.clear()
    found = store.collect(files, panel(), CPU)
    assert sorted(asked) == files
    np.testing.assert_array_equal(found[files[0]].boxes, expected[files[0]].boxes)
