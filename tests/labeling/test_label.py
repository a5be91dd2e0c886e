"""Data sets made by tiny teachers with random weights, whose boxes are what they are."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

import yolokd
from tests.helpers.models import save
from tests.helpers.panels import seeing
from tests.helpers.unlabeled import state_of
from yolokd.backend.dataset import resolve
from yolokd.errors import DataError, UserError
from yolokd.labeling.answer_file import AnswerWriter, read_answers
from yolokd.labeling.label import label
from yolokd.loaders.answers import Answer, over_classes
from yolokd.teachers import answers as store
from yolokd.teachers.asking import Panel, ask
from yolokd.teachers.detector import DetectorTeacher
from yolokd.teachers.thresholds import DEFAULT, FEW

pytestmark = pytest.mark.usefixtures("cache")
SETTINGS: dict[str, Any] = {"imgsz": 64, "flip": False, "conf": "0.1", "val": 0.3, "device": "cpu"}


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("YOLOKD_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def other(tmp_path: Path) -> Path:
    """A detector that shares one class with the teacher."""
    model = seeing("11", 2)
    model.names = {0: "class1", 1: "tree", 2: "dog"}
    return save(model, tmp_path / "other.pt")


def contents(folder: Path) -> dict[str, str]:
    """Relative path → digest of every file, or where a link leads."""
    return {
        path.relative_to(folder).as_posix(): str(path.readlink())
        if path.is_symlink()
        else hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_symlink() or path.is_file()
    }


def test_label__makes_a_set_of_the_confident_boxes(frames: Path, seeing_pt: Path, tmp_path: Path) -> None:
    before = state_of(frames)
    out = tmp_path / "out"
    made = label(frames, out, [seeing_pt], **SETTINGS)
    assert made.is_new
    assert state_of(frames) == before
    data = resolve(str(out / "data.yaml"))
    assert data.names == {0: "class0", 1: "class1", 2: "class2"}
    assert made.report.splits["train"].images + made.report.splits["val"].images == 10
    panel = Panel([DetectorTeacher(seeing("v8", 1))], [dict(data.names)])
    total = 0
    for split in ("train", "val"):
        kept = read_answers(out / f"answers-{split}.npz", 3)
        assert set(kept) == {path.name for path in (out / "images" / split).iterdir()}
        for path in (out / "images" / split).iterdir():
            ((_, direct),) = ask(panel, [str(path)], imgsz=64, device=torch.device("cpu"))
            expected = over_classes(store.rounded(direct), [(i, (i,)) for i in range(3)], 3)
            np.testing.assert_allclose(kept[path.name].boxes, expected.boxes, atol=1e-5)
            np.testing.assert_allclose(kept[path.name].probabilities, expected.probabilities, atol=2e-3)
            sure = kept[path.name].probabilities.max(1) >= np.float32(0.1)
            rows = (out / "labels" / split / f"{path.stem}.txt").read_text().splitlines()
            assert len(rows) == sure.sum()
            assert [int(row.split()[0]) for row in rows] == kept[path.name].probabilities.argmax(1)[sure].tolist()
            total += len(rows)
    found = json.loads((out / "teacher.json").read_text())
    assert sum(sum(counts.values()) for counts in found["boxes"].values()) == total > 0
    scores = sum(sum(row) for row in found["scores"]["boxes"].values())
    assert scores == sum(
        len(a.boxes) for s in ("train", "val") for a in read_answers(out / f"answers-{s}.npz", 3).values()
    )
    assert found["teachers"][0]["sha256"] == hashlib.sha256(seeing_pt.read_bytes()).hexdigest()


def test_label__from_python(frames: Path, seeing_pt: Path, tmp_path: Path) -> None:
    found = yolokd.label(str(frames), tmp_path / "out", [seeing_pt], **SETTINGS)
    assert found == tmp_path / "out" / "data.yaml"
    assert set(resolve(str(found)).splits) == {"train", "val"}


def test_label__two_runs_give_the_same_files(frames: Path, seeing_pt: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        label(frames, tmp_path / name, [seeing_pt], **SETTINGS)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


def test_label__the_same_again_is_found_and_another_refused(frames: Path, seeing_pt: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    label(frames, out, [seeing_pt], **SETTINGS)
    before = contents(out)
    assert not label(frames, out, [seeing_pt], **SETTINGS).is_new
    assert contents(out) == before
    for change in ({"conf": "0.11"}, {"imgsz": 96}, {"flip": True}, {"val": 0.5}, {"classes": ["class1"]}):
        with pytest.raises(DataError, match="prepared differently"):
            label(frames, out, [seeing_pt], **{**SETTINGS, **change})
    assert contents(out) == before


def test_label__goes_on_after_an_interruption(
    frames: Path, seeing_pt: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "PER_FILE", 4)
    asked: list[str] = []

    def counted(panel: Any, files: Any, **options: Any) -> Any:
        asked.extend(files)
        return ask(panel, files, **options)

    monkeypatch.setattr(store, "ask", counted)

    def stop(what: str, done: int, total: int) -> None:
        if (what, done) == ("labeling", 6):
            raise KeyboardInterrupt

    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        label(frames, out, [seeing_pt], **SETTINGS, progress=stop)
    assert not out.exists()
    assert not list(tmp_path.glob(".out*"))
    assert len(asked) == 8
    made = label(frames, out, [seeing_pt], **SETTINGS)
    assert made.is_new
    assert len(asked) == 10
    fresh = tmp_path / "fresh"
    label(frames, fresh, [seeing_pt], **SETTINGS)
    assert contents(out) == contents(fresh)


def test_label__other_thresholds_ask_nobody(
    frames: Path, seeing_pt: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    label(frames, tmp_path / "a", [seeing_pt], **SETTINGS)
    monkeypatch.setattr(store, "ask", lambda *_, **__: pytest.fail("asked again"))
    made = label(frames, tmp_path / "b", [seeing_pt], **{**SETTINGS, "conf": "class1=0.05,class2=0.05"})
    assert made.thresholds == {"class0": 0.3, "class1": 0.05, "class2": 0.05}


def test_label__memory_holds_few_answers(
    frames: Path, seeing_pt: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Answers are read from their files as they are needed, two files at most at a time."""
    monkeypatch.setattr(store, "PER_FILE", 1)
    label(frames, tmp_path / "a", [seeing_pt], **SETTINGS)
    alive: set[int] = set()
    most = 0
    original = store.unpacked

    class Counted(dict[str, Any]):
        def __init__(self, *given: Any) -> None:
            super().__init__(*given)
            alive.add(id(self))

        def __del__(self) -> None:
            alive.discard(id(self))

    def unpacked(arrays: Any, classes: int) -> Any:
        nonlocal most
        found = Counted(original(arrays, classes))
        most = max(most, len(alive))
        return found

    monkeypatch.setattr(store, "unpacked", unpacked)
    label(frames, tmp_path / "b", [seeing_pt], **SETTINGS)
    assert 1 <= most <= 4  # two kept, the one that is read, one that is handed on


def test_label__teachers_are_fused_and_their_classes_united(
    frames: Path, seeing_pt: Path, other: Path, tmp_path: Path
) -> None:
    made = label(frames, tmp_path / "out", [seeing_pt, other], **SETTINGS)
    assert list(made.thresholds) == ["class0", "class1", "class2", "tree", "dog"]
    assert sum(made.report.splits["train"].objects.values()) > 0
    with pytest.raises(UserError, match="given twice"):
        label(frames, tmp_path / "twice", [seeing_pt, seeing_pt], **SETTINGS)


def test_label__classes_are_chosen_renamed_and_joined(frames: Path, seeing_pt: Path, tmp_path: Path) -> None:
    made = label(
        frames, tmp_path / "out", [seeing_pt], **{**SETTINGS, "classes": ["class2=thing,class0=thing", "class1"]}
    )
    assert made.classes == {"thing": ["class2", "class0"], "class1": ["class1"]}
    assert yaml.safe_load((tmp_path / "out" / "data.yaml").read_text())["names"] == {0: "thing", 1: "class1"}


def test_label__auto_takes_the_thresholds_of_the_largest_f1(
    frames: Path, seeing_pt: Path, tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A teacher that finds every labeled object with a score of 0.6, and as many that are none with 0.4."""

    def oracle(panel: Any, files: Any, **options: Any) -> Iterator[tuple[str, Answer]]:
        for file in files:
            labels = Path(file.replace("/images/", "/labels/")).with_suffix(".txt")
            rows = np.loadtxt(labels, ndmin=2) if labels.exists() else np.array([[0, 0.5, 0.5, 0.2, 0.2]])
            right, wrong = 0.6 * np.eye(3)[rows[:, 0].astype(int)], 0.4 * np.eye(3)[rows[:, 0].astype(int)]
            boxes = np.concatenate((rows[:, 1:], rows[:, 1:] * [1, 1, 0.3, 0.3]))
            yield file, Answer(boxes.astype(np.float32), np.concatenate((right, wrong)).astype(np.float32))

    monkeypatch.setattr(store, "ask", oracle)
    made = label(frames, tmp_path / "out", [seeing_pt], **{**SETTINGS, "conf": None}, like=str(tiny_data))
    assert list(made.thresholds) == ["class0", "class1", "class2"]
    labels = [np.loadtxt(path, ndmin=2) for path in (tiny_data.parent / "labels" / "train").iterdir()]
    counts = np.bincount(np.concatenate(labels)[:, 0].astype(int), minlength=3)
    expected = [0.6 if count >= FEW else DEFAULT for count in counts]
    assert 0.6 in expected
    assert list(made.thresholds.values()) == pytest.approx(expected, abs=1e-3)
    assert sum(split.objects.total() for split in made.report.splits.values()) == (20 if expected[0] < 0.4 else 10)


def test_label__auto_with_other_labels_is_another_request(
    frames: Path, seeing_pt: Path, tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("yolokd.labeling.label.best_thresholds", lambda *_: [0.1] * 3)
    words: dict[str, Any] = {**SETTINGS, "like": str(tiny_data)}
    for out, conf in (("auto", None), ("given", "0.1")):
        label(frames, tmp_path / out, [seeing_pt], **{**words, "conf": conf})
    changed = next((tiny_data.parent / "labels" / "train").iterdir())
    changed.write_text(f"0 0.5 0.5 0.3 0.3\n{changed.read_text()}")
    with pytest.raises(DataError, match=r"prepared differently \(labels of like;"):
        label(frames, tmp_path / "auto", [seeing_pt], **{**words, "conf": None})
    assert not label(frames, tmp_path / "given", [seeing_pt], **{**words, "conf": "0.1"}).is_new


def test_label__no_box_leaves_nothing(frames: Path, seeing_pt: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="see no object"):
        label(frames, tmp_path / "out", [seeing_pt], **{**SETTINGS, "conf": "0.99"})
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("place", ["frames", "frames/deep/set"])
def test_label__out_inside_its_source(frames: Path, seeing_pt: Path, tmp_path: Path, place: str) -> None:
    with pytest.raises(UserError, match="inside its own source"):
        label(frames, tmp_path / place, [seeing_pt], **SETTINGS)


def test_label__full_disk(frames: Path, seeing_pt: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(AnswerWriter, "finish", full)
    with pytest.raises(DataError, match="No space left"):
        label(frames, tmp_path / "out", [seeing_pt], **SETTINGS)
    assert not (tmp_path / "out").exists()


def test_label__no_teacher_and_auto_without_labels(frames: Path, seeing_pt: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--teacher"):
        label(frames, tmp_path / "out", [], **SETTINGS)
    with pytest.raises(UserError, match="--like"):
        label(frames, tmp_path / "out", [seeing_pt], **{**SETTINGS, "conf": "auto"})
