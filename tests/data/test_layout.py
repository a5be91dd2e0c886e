from __future__ import annotations

import os
import re
import shutil
from glob import glob
from pathlib import Path

import pytest

from yolokd.data.layout import fingerprint, label_path, pictures


def make(root: Path, names: list[str]) -> Path:
    for name in names:
        path = root / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x" * len(name))
        label = Path(label_path(str(path)))
        label.parent.mkdir(parents=True, exist_ok=True)
        label.write_text("0 .5 .5 .2 .2\n")
    return root / "images"


def test_label_path__equals_ultralytics() -> None:
    from ultralytics.data.utils import img2label_paths

    cases = [
        "/d/images/train/a.jpg",
        "/d/images/x/images/b.tar.png",
        "/images/images/c.PNG",
        "/d/pictures/e.webp",
        "/d/my images/f.jpg",
    ]
    cases = [case.replace("/", os.sep) for case in cases]
    assert [label_path(case) for case in cases] == img2label_paths(cases)


def test_pictures__of_a_folder_equal_ultralytics(tmp_path: Path) -> None:
    from ultralytics.data.utils import IMG_FORMATS

    folder = make(tmp_path, ["b.JPG", "a.png", "sub/deep/c.jpeg", "note.md", ".hidden/d.jpg", ".e.jpg", "noext"])
    found = glob(f"{folder}/**/*.*", recursive=True)  # noqa: PTH207  (what Ultralytics calls)
    expected = sorted(path for path in found if path.rpartition(".")[-1].lower() in IMG_FORMATS)
    assert pictures(folder) == expected
    assert len(expected) == 3


def test_pictures__of_a_list_are_beside_it_or_absolute(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text(
        f"\ufeff./images/b.jpg\n{tmp_path}/images/a.jpg\n./readme.md\n", encoding="utf-8"
    )
    assert pictures(tmp_path / "list.txt") == [str(tmp_path / "images" / name) for name in ("a.jpg", "b.jpg")]


def test_pictures__a_missing_source_is_an_os_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        pictures(tmp_path / "nothing")


def test_fingerprint__does_not_depend_on_the_place(tmp_path: Path) -> None:
    folder = make(tmp_path / "a", ["x/1.jpg", "2.jpg"])
    before = fingerprint({"train": [folder], "val": [folder / "x"]})
    shutil.copytree(tmp_path / "a", tmp_path / "elsewhere" / "b")
    moved = tmp_path / "elsewhere" / "b" / "images"
    assert fingerprint({"val": [moved / "x"], "train": [moved]}) == before
    assert re.fullmatch(r"2:[0-9a-f]{64}", before)


def test_fingerprint__of_a_list_does_not_depend_on_the_place(tmp_path: Path) -> None:
    make(tmp_path / "a", ["1.jpg"])
    (tmp_path / "a" / "list.txt").write_text("./images/1.jpg\n")
    before = fingerprint({"train": [tmp_path / "a" / "list.txt"]})
    moved = (tmp_path / "a").rename(tmp_path / "b")
    assert fingerprint({"train": [moved / "list.txt"]}) == before


def test_fingerprint__changes_with_every_kind_of_change(tmp_path: Path) -> None:
    def at(change: str) -> str:
        folder = make(tmp_path / change, ["1.jpg", "2.jpg"])
        label = Path(label_path(str(folder / "1.jpg")))
        if change == "label":
            label.write_text("0 .5 .5 .2 .3\n")
        elif change == "no label":
            label.unlink()
        elif change == "empty label":
            label.write_text("")
        elif change == "size":
            (folder / "1.jpg").write_bytes(b"longer than before")
        elif change == "name":
            (folder / "1.jpg").rename(folder / "3.jpg")
        return fingerprint({"other" if change == "split" else "train": [folder]})

    changes = ["none", "label", "no label", "empty label", "size", "name", "split"]
    assert len({at(change) for change in changes}) == len(changes)
