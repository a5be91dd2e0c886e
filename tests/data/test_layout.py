from __future__ import annotations

import hashlib
import os
import re
import shutil
from glob import glob
from pathlib import Path

import pytest

from yolokd.data.layout import fingerprint, images_of, label_path
from yolokd.errors import printable


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
        "/d/images/e.webp",
        "/d/my images/f.jpg",
    ]
    cases = [case.replace("/", os.sep) for case in cases]
    assert [label_path(case) for case in cases] == img2label_paths(cases)


def test_images__of_a_folder_equal_ultralytics(tmp_path: Path) -> None:
    from ultralytics.data.utils import IMG_FORMATS

    folder = make(tmp_path, ["b.JPG", "a.png", "sub/deep/c.jpeg", "note.md", ".hidden/d.jpg", ".e.jpg", "noext"])
    found = glob(f"{folder}/**/*.*", recursive=True)  # noqa: PTH207  (what Ultralytics calls)
    expected = sorted(path for path in found if path.rpartition(".")[-1].lower() in IMG_FORMATS)
    assert images_of(folder) == expected
    assert len(expected) == 3


def test_images__of_a_list_are_beside_it_or_absolute(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text(
        f"\ufeff./images/b.jpg\n{tmp_path}/images/a.jpg\n./readme.md\n", encoding="utf-8"
    )
    assert images_of(tmp_path / "list.txt") == [str(tmp_path / "images" / name) for name in ("a.jpg", "b.jpg")]


def test_images__a_missing_source_is_an_os_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        images_of(tmp_path / "nothing")


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


def test_images__a_link_that_leads_back_is_an_error_and_not_followed(tmp_path: Path) -> None:
    folder = make(tmp_path, ["a/1.jpg"])
    (folder / "a" / "again").symlink_to(folder)
    with pytest.raises(OSError, match="leads back to a folder above") as error:
        images_of(folder)
    assert error.value.filename == str(folder / "a" / "again")


def test_images__links_to_themselves_are_images_that_cannot_be_read(tmp_path: Path) -> None:
    folder = make(tmp_path, ["1.jpg"])
    (folder / "self.jpg").symlink_to("self.jpg")
    assert [Path(path).name for path in images_of(folder)] == ["1.jpg", "self.jpg"]


@pytest.mark.parametrize(
    "name, shown",
    [
        (b"caf\xe9.jpg", r"caf\xe9.jpg"),
        ("café.jpg".encode(), "café.jpg"),
        (b"a\nb\t.jpg", r"a\nb\t.jpg"),
        (b"a b", "a b"),
    ],
)
def test_printable(name: bytes, shown: str) -> None:
    assert printable(os.fsdecode(name)) == shown


def test_fingerprint__survives_that_ultralytics_writes_a_jpeg_anew(tmp_path: Path) -> None:
    from PIL import Image
    from ultralytics.data.utils import verify_image_label

    folder = make(tmp_path, ["1.jpg", "2.jpg"])
    Image.new("RGB", (40, 30)).save(folder / "1.jpg")
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (60, 30)).save(folder / "2.jpg", exif=exif)
    for name in ("1.jpg", "2.jpg"):
        (folder / name).write_bytes((folder / name).read_bytes() + b"\0\0")
    before, old = fingerprint({"train": [folder]}), fingerprint({"train": [folder]}, like="old")
    for name in ("1.jpg", "2.jpg"):
        message = verify_image_label((str(folder / name), "none", "", False, 1, 0, 0, False))[-1]
        assert "restored and saved" in message
    assert fingerprint({"train": [folder]}) == before
    assert fingerprint({"train": [folder]}, like="old") != old
    Image.new("RGB", (41, 30)).save(folder / "1.jpg")
    assert fingerprint({"train": [folder]}) != before


def test_fingerprint__like_an_old_one_is_what_that_was(tmp_path: Path) -> None:
    folder = make(tmp_path, ["1.jpg"])
    label = hashlib.sha256(b"0 .5 .5 .2 .2\n").hexdigest()
    old = hashlib.sha256(f"train\n1.jpg\0{len('1.jpg')}\0{label}\n".encode()).hexdigest()
    assert fingerprint({"train": [folder]}, like="0" * 64) == old
    new = fingerprint({"train": [folder]})
    assert fingerprint({"train": [folder]}, like=new) == new != old
