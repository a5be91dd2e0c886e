from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from yolokd.data import publish
from yolokd.errors import DataError

FILE = "made.json"
MARKER = {"made": 1, "classes": {"a": "b"}}


def _make(out: Path, marker: dict[str, object] = MARKER) -> None:
    with publish.beside(out, FILE, marker) as folder:
        (folder / "sub").mkdir()
        (folder / "sub" / "a.txt").write_text("content")


def test_beside__the_folder_appears_when_it_is_complete(tmp_path: Path) -> None:
    out = tmp_path / "new" / "set"
    with publish.beside(out, FILE, MARKER) as folder:
        (folder / "a.txt").write_text("content")
        assert not out.exists()
        assert folder.parent == out.parent
        assert folder.name.startswith(".set-")
    assert (out / "a.txt").read_text() == "content"
    assert json.loads((out / FILE).read_text()) == MARKER
    assert list(out.parent.iterdir()) == [out]


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_beside__whatever_ends_it_early_leaves_nothing(tmp_path: Path, error: type[BaseException]) -> None:
    def interrupted() -> None:
        with publish.beside(tmp_path / "set", FILE, MARKER) as folder:
            (folder / "a.txt").write_text("content")
            raise error

    with pytest.raises(error):
        interrupted()
    assert list(tmp_path.iterdir()) == []


def test_beside__fills_an_empty_folder_and_one_behind_a_link(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "link").symlink_to("empty")
    _make(tmp_path / "link")
    assert (tmp_path / "empty" / "sub" / "a.txt").is_file()
    assert (tmp_path / "link").is_symlink()


def test_beside__a_place_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"'.*file.set' cannot be written: (Not a directory|File exists)"):
        _make(tmp_path / "file" / "set")


def test_beside__somebody_else_was_faster(tmp_path: Path) -> None:
    with publish.beside(tmp_path / "set", FILE, MARKER):
        _make(tmp_path / "set")
    assert (tmp_path / "set" / "sub" / "a.txt").is_file()

    def too_late() -> None:
        with publish.beside(tmp_path / "other", FILE, MARKER):
            _make(tmp_path / "other", {"made": 2})

    with pytest.raises(DataError, match="cannot be written"):
        too_late()
    assert json.loads((tmp_path / "other" / FILE).read_text()) == {"made": 2}
    assert publish.leftovers(tmp_path / "other") == []


def test_is_there__the_very_set_nothing_or_an_empty_folder(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert not publish.is_there(tmp_path / "empty", FILE, MARKER)
    assert not publish.is_there(tmp_path / "set", FILE, MARKER)
    _make(tmp_path / "set")
    assert publish.is_there(tmp_path / "set", FILE, MARKER)


def test_is_there__another_set_or_something_else(tmp_path: Path) -> None:
    _make(tmp_path / "set")
    with pytest.raises(DataError, match=r"prepared differently \(classes, seed; see '.*made\.json'\)"):
        publish.is_there(tmp_path / "set", FILE, {"made": 1, "classes": {}, "seed": 3})
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "precious").write_text("")
    for taken in ("mine", "mine/precious"):
        with pytest.raises(DataError, match="holds something else already; give a folder that is new or empty"):
            publish.is_there(tmp_path / taken, FILE, MARKER)


def test_leftovers__of_killed_runs_for_this_folder_only(tmp_path: Path) -> None:
    for name in (".set[1]-0123.unfinished", ".other-0123.unfinished", ".set1-0123.unfinished"):
        (tmp_path / name).mkdir()
    assert [path.name for path in publish.leftovers(tmp_path / "set[1]")] == [".set[1]-0123.unfinished"]
    assert publish.leftovers(tmp_path / "no" / "where") == []


def test_leftovers__of_a_folder_with_a_long_name(tmp_path: Path) -> None:
    out = tmp_path / ("long" * 20)
    with publish.beside(out, "set.json", {}) as folder:
        assert publish.leftovers(out) == [folder]


def _jpeg(path: Path, *, more: bytes = b"") -> Path:
    _, data = cv2.imencode(".jpg", np.zeros((16, 16, 3), np.uint8))
    path.write_bytes(data.tobytes() + more)
    return path


def test_place__links_with_an_absolute_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _jpeg(tmp_path / "a.jpg")
    monkeypatch.chdir(tmp_path)
    publish.place(Path("a.jpg"), tmp_path / "b.jpg")
    assert (tmp_path / "b.jpg").readlink() == (tmp_path / "a.jpg").resolve()
    with pytest.raises(FileExistsError):
        publish.place(Path("a.jpg"), tmp_path / "b.jpg")


def test_place__copies_where_links_do_not_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(1, "Operation not permitted")

    monkeypatch.setattr(Path, "symlink_to", refuse)
    source = _jpeg(tmp_path / "a.jpg")
    publish.place(source, tmp_path / "b.jpg")
    assert not (tmp_path / "b.jpg").is_symlink()
    assert (tmp_path / "b.jpg").read_bytes() == source.read_bytes()


def test_place__ultralytics_mends_an_image_without_touching_the_original(tmp_path: Path) -> None:
    from ultralytics.data.utils import check_image

    source = _jpeg(tmp_path / "a.jpg", more=b"\0")
    before = source.read_bytes()
    publish.place(source, tmp_path / "b.jpg")
    message, _ = check_image(str(tmp_path / "b.jpg"))
    assert "corrupt JPEG restored" in message
    assert source.read_bytes() == before


def test_place__a_source_that_is_gone(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        publish.place(tmp_path / "gone.png", tmp_path / "b.png")
    assert list(tmp_path.iterdir()) == []
