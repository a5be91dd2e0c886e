"""What a node of a Ray cluster executes, without Ray."""

from __future__ import annotations

from pathlib import Path

from yolokd.comparison.executors.ray_node import Progress, pack, relocated, unpack


def test_relocated__models_and_nothing_else() -> None:
    plan = {
        "teacher": "/a/t.pt",
        "students": {"yolov8n": {"spec": "yolov8n", "digest": "d"}, "own": {"spec": "own.yaml", "digest": "e"}},
        "recipes": {"baseline": {"train": {}}, "two": {"teacher": {"models": ["/a/t.pt", "yolo11m"], "scale": 1}}},
        "models": {"/a/t.pt": "f"},
        "seeds": [0],
    }
    assert relocated(plan, {"/a/t.pt": "/n/t.pt", "yolov8n": "/n/yolov8n.pt"}) == {
        "teacher": "/n/t.pt",
        "students": {"yolov8n": {"spec": "/n/yolov8n.pt", "digest": "d"}, "own": {"spec": "own.yaml", "digest": "e"}},
        "recipes": {"baseline": {"train": {}}, "two": {"teacher": {"models": ["/n/t.pt", "yolo11m"], "scale": 1}}},
        "models": {"/n/t.pt": "f"},
        "seeds": [0],
    }


def test_progress__news_are_taken_once() -> None:
    progress = Progress()
    progress.add("a", 0, b"one ")
    progress.add("a", 2, b"two")
    assert progress.take() == {"a": (2, b"one two")}
    assert progress.take() == {}
    progress.add("a", 3, b"three")
    assert progress.take() == {"a": (3, b"three")}


def test_unpack__what_was_packed(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "c").write_bytes(b"c")
    unpack(pack(tmp_path, ["a/b"]), tmp_path / "there")
    assert [path.name for path in (tmp_path / "there").rglob("*")] == ["a", "b", "c"]
    assert (tmp_path / "there" / "a" / "b" / "c").read_bytes() == b"c"
