from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from yolokd.data.check import DataReport, check_labels
from yolokd.errors import DataError

NAMES = {0: "car", 1: "person"}
BOX = "0 .5 .5 .2 .2\n"


class Set:
    """A small data set to be spoilt."""

    def __init__(self, root: Path) -> None:
        self.root = root
        for split in ("train", "val"):
            for kind in ("images", "labels"):
                (root / kind / split).mkdir(parents=True)
            self.add(f"{split}/ok")

    def add(
        self, name: str, label: str | None = BOX, *, size: tuple[int, int] = (40, 40), suffix: str = ".png"
    ) -> Path:
        """Write an image and its labels; return the path of the labels."""
        cv2.imwrite(str(self.root / "images" / f"{name}{suffix}"), np.zeros((size[1], size[0], 3), np.uint8))
        path = self.root / "labels" / f"{name}.txt"
        if label is not None:
            path.write_text(label, encoding="utf-8")
        return path

    def check(self, *, again: bool = False) -> DataReport:
        splits = {split: [self.root / "images" / split] for split in ("train", "val")}
        return check_labels(splits, NAMES, again=again)


@pytest.fixture
def data(tmp_path: Path) -> Set:
    return Set(tmp_path)


def test_check_labels__counts(data: Set) -> None:
    data.add("train/two", "0 .5 .5 .2 .2\n1 .1 .1 .1 .1\n\n")
    data.add("train/none", None)
    data.add("train/empty", "\n")
    report = data.check()
    train = report.splits["train"]
    assert (train.images, train.labeled, train.background) == (4, 2, 2)
    assert train.objects == {0: 2, 1: 1}
    assert report.splits["val"].images == 1
    assert (report.errors, report.notes) == ([], [])
    report.raise_if_bad()


@pytest.mark.parametrize(
    "row, what, value",
    [
        ("0 .5 .5 .2", "a row has 5 columns", "4: 0 .5 .5 .2"),
        ("2 .5 .5 .2 .2", "the class must be a whole number from 0 to 1", "2"),
        ("0 .5 .5 .2 two", "not a number", "'two'"),
        ("0 .5 nan .2 .2", "y must be a share of the image", "nan"),
        ("0 64 .5 .2 .2", "x must be a share of the image", "64"),
        ("0 .5 .5 -.2 .2", "width must be a share of the image", "-0.2"),
    ],
)
def test_check_labels__an_error_has_file_line_and_value(data: Set, row: str, what: str, value: str) -> None:
    file = data.add("train/bad", f"\n{BOX}{row}\n{BOX.replace('.5', '.6')}")
    (problem,) = data.check().errors
    assert (problem.file, problem.line, problem.value) == (str(file), 3, value)
    assert what in problem.what
    with pytest.raises(DataError) as caught:
        data.check().raise_if_bad()
    assert f"{file}:3: {problem.what}, got {value}" in str(caught.value)
    assert "has 1 error;" in str(caught.value)


def test_check_labels__good_rows_beside_a_bad_one_are_counted(data: Set) -> None:
    data.add("train/bad", f"{BOX}9 .5 .5 .2 .2\n1 .5 .5 .2 .2\n")
    assert data.check().splits["train"].objects == {0: 2, 1: 1}


def test_check_labels__polygons_are_objects(data: Set) -> None:
    data.add("train/polygon", "1 .1 .1 .5 .1 .5 .5\n0 .2 .2 .4 .2 .4 .4 .2 .4\n")
    assert data.check().splits["train"].objects == {0: 2, 1: 1}


def test_check_labels__polygons_of_four_corners_are_counted(data: Set) -> None:
    before = data.check().splits["train"]
    data.add("train/rotated", "1 .1 .1 .5 .1 .5 .5 .1 .5\n0 .2 .2 .4 .2 .4 .4\n")
    found = data.check().splits["train"]
    assert (found.polygons - before.polygons, found.corners - before.corners) == (2, 1)


def test_check_labels__a_byte_order_mark_is_fine(data: Set) -> None:
    data.add("train/bom", "\ufeff" + BOX)
    assert data.check().errors == []


def test_check_labels__labels_that_are_no_text(data: Set) -> None:
    file = data.add("train/binary")
    file.write_bytes(b"\xff\xfe\x00")
    (problem,) = data.check().errors
    assert (problem.file, problem.line) == (str(file), 0)
    assert problem.what.startswith("the labels cannot be read as text: 'utf-8' codec can't decode byte 0xff")


def test_check_labels__repeated_rows_are_a_note(data: Set) -> None:
    file = data.add("train/twice", f"{BOX}1 .5 .5 .2 .2\n0 0.50 .5 .2 .2\n")
    report = data.check()
    (note,) = report.notes
    assert (note.file, note.line) == (str(file), 3)
    assert "repeats line 1" in note.what
    assert report.errors == []


def test_check_labels__a_box_without_an_area_is_a_note(data: Set) -> None:
    file = data.add("train/flat", "0 .5 .5 0 .2\n")
    (note,) = data.check().notes
    assert str(note) == f"{file}:1: a box without an area, got 0 .5 .5 0 .2"


def test_check_labels__labels_without_an_image_are_one_note_per_folder(data: Set) -> None:
    for name in ("a", "b"):
        (data.root / "labels" / "train" / f"{name}.txt").write_text(BOX)
    (note,) = data.check().notes
    assert str(note) == f"{data.root / 'labels' / 'train'}: 2 label files without an image, such as a.txt"


def test_check_labels__a_folder_without_images(data: Set) -> None:
    (data.root / "images" / "val" / "ok.png").unlink()
    (problem,) = data.check().errors
    assert (problem.file, problem.what) == (str(data.root / "images" / "val"), "holds no images")


def test_check_labels__a_folder_that_is_missing(tmp_path: Path) -> None:
    report = check_labels({"train": [tmp_path / "nowhere"]}, NAMES)
    (problem,) = report.errors
    assert str(problem) == f"{tmp_path / 'nowhere'}: the images cannot be listed: No such file or directory"


def test_check_labels__images_without_any_label_say_where_they_belong(data: Set) -> None:
    (data.root / "labels" / "train" / "ok.txt").unlink()
    (problem,) = data.check().errors
    label = data.root / "labels" / "train" / "ok.txt"
    what = f"none of the 1 train images has an object; the labels of this one belong in '{label}'"
    assert str(problem) == f"{data.root / 'images' / 'train' / 'ok.png'}: {what}"


def test_check_labels__a_test_split_may_be_without_labels(data: Set) -> None:
    (data.root / "labels" / "train" / "ok.txt").unlink()
    assert check_labels({"test": [data.root / "images" / "train"]}, NAMES).errors == []


def test_check_labels__a_list_that_names_a_missing_image(data: Set) -> None:
    (data.root / "list.txt").write_text("./images/train/ok.png\n./images/train/gone.png\n")
    (problem,) = check_labels({"train": [data.root / "list.txt"]}, NAMES).errors
    assert problem.what == "names an image that does not exist"
    assert problem.value == str(data.root / "images" / "train" / "gone.png")


def test_check_labels__images_in_two_splits_are_a_note(data: Set) -> None:
    folder = data.root / "images" / "train"
    (note,) = check_labels({"train": [folder], "val": [folder]}, NAMES).notes
    assert str(note) == f"{folder / 'ok.png'}: train and val have this image in common"


def test_check_labels__counts_sizes_by_coco(data: Set) -> None:
    for index, share in enumerate((31 / 200, 33 / 200, 95 / 200, 97 / 200)):
        data.add(f"train/{index}", f"1 .5 .5 {share} {share}\n", size=(200, 200))
    assert data.check().splits["train"].sizes == {"small": 2, "medium": 2, "large": 1}  # ok.png: 8 pixels


def test_check_labels__images_that_cannot_be_used_are_left_out_and_named(data: Set) -> None:
    data.add("train/tiny", "9 wrong\n", size=(9, 40))
    folder = data.root / "images" / "train"
    (folder / "broken.jpg").write_bytes(b"no image")
    (folder / "empty.png").touch()
    (folder / "lost.png").symlink_to("nowhere.png")
    Image.new("RGB", (40, 40)).save(folder / "gif.png", format="GIF")
    report = data.check()
    report.raise_if_bad()
    assert (report.splits["train"].images, report.splits["train"].left_out) == (1, 5)
    assert report.left_out == (
        f"5 images are left out, as Ultralytics does: {folder}/broken.jpg (not an image of a known format), "
        f"{folder}/empty.png (an empty file), {folder}/gif.png (a GIF, which Ultralytics does not read), "
        f"{folder}/lost.png (a link to nothing), {folder}/tiny.png (9×40 pixels, fewer than 10 on a side)"
    )


def test_check_labels__a_split_of_images_that_cannot_be_used(data: Set) -> None:
    path = data.root / "images" / "val" / "ok.png"
    path.write_bytes(b"no image")
    (problem,) = data.check().errors
    assert str(problem) == f"{path}: none of the 1 val images can be used; the first is not an image of a known format"


def test_check_labels__a_jpeg_with_more_after_its_end_is_a_note(data: Set) -> None:
    data.add("train/tail", suffix=".jpg")
    path = data.root / "images" / "train" / "tail.jpg"
    path.write_bytes(path.read_bytes() + b"\0\0")
    before = path.read_bytes()
    report = data.check()
    (note,) = report.notes
    assert note.file == str(path)
    assert "without its end mark" in note.what
    assert report.splits["train"].left_out == 0
    assert path.read_bytes() == before


def test_check_labels__rows_that_are_all_wrong_are_no_lack_of_labels(data: Set) -> None:
    (data.root / "labels" / "val" / "ok.txt").write_text("5 .5 .5 .2 .2\n")
    (problem,) = data.check().errors
    assert "the class must be" in problem.what


def test_check_labels__keypoints_are_dropped(data: Set) -> None:
    for number, row in enumerate(["0 .5 .5 .2 .2 .4 .4 .6 .6", "1 .5 .5 .4 .4 .1 .1 .2 .2"]):
        data.add(f"train/{number}", row + "\n")
    splits = {"train": [data.root / "images" / "train"]}
    report = check_labels(splits, NAMES, keypoints=(2, 2))
    assert (report.errors, report.splits["train"].objects) == ([], {0: 2, 1: 1})
    assert report.splits["train"].sizes == {"small": 3}


def test_check_labels__counts_objects_with_keypoints(data: Set) -> None:
    for number, row in enumerate(["0 .5 .5 .2 .2 .4 .4 .6 .6", "1 .5 .5 .4 .4 .1 .1 .2 1.2", "1 .5 .5 .4 .4"]):
        data.add(f"train/{number}", row + "\n")
    data.add("train/ok", "")
    splits = {"train": [data.root / "images" / "train"]}
    found = check_labels(splits, NAMES, keypoints=(2, 2)).splits["train"]
    assert (found.objects.total(), found.keypoints) == (3, 1)
    assert found.without_keypoints is not None
    assert str(found.without_keypoints).endswith("1.txt:1: keypoints must be shares of the image, 0 to 1, got 1.2")
    found = check_labels({"val": [data.root / "images" / "val"]}, NAMES).splits["val"]
    assert (found.keypoints, found.without_keypoints) == (0, None)


def test_check_labels__a_name_that_is_no_utf8_can_be_printed(data: Set) -> None:
    name = os.fsdecode(b"caf\xe9\n")
    data.add("train/odd", "9 .5 .5 .2 .2\n")
    for kind, suffix in (("images", "png"), ("labels", "txt")):
        (data.root / kind / "train" / f"odd.{suffix}").rename(data.root / kind / "train" / f"{name}.{suffix}")
    (problem,) = data.check().errors
    assert str(problem).startswith(f"{data.root}/labels/train/caf\\xe9\\n.txt:1: ")


def test_check_labels__a_label_file_that_is_a_pipe_is_not_waited_for(data: Set) -> None:
    file = data.add("train/pipe", None)
    os.mkfifo(file)
    (problem,) = data.check().errors
    assert str(problem) == f"{file}: the labels cannot be read as text: not a file"


def test_check_labels__turns_upright_images(data: Set) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (400, 40)).save(data.root / "images" / "train" / "turned.jpg", exif=exif)
    (data.root / "labels" / "train" / "turned.txt").write_text("0 .5 .5 1 .1\n")  # 40 wide and 40 high, as it is shown
    assert data.check().splits["train"].sizes == {"small": 1, "medium": 1}


def test_check_labels__reports_progress_to_the_end(data: Set) -> None:
    for index in range(120):
        data.add(f"train/{index}", None)
    calls: list[tuple[int, int]] = []
    splits = {split: [data.root / "images" / split] for split in ("train", "val")}
    check_labels(splits, NAMES, progress=lambda done, total: calls.append((done, total)))
    assert calls == [(done, 122) for done in range(1, 123)]
    check_labels(splits, NAMES, progress=lambda done, total: calls.append((done, total)))
    assert len(calls) == 122  # nothing is opened again


def test_raise_if_bad__shows_five_and_counts_the_rest(data: Set) -> None:
    file = data.add("train/bad", "7 .5 .5 .2 .2\n" * 8)
    with pytest.raises(DataError) as caught:
        data.check().raise_if_bad()
    lines = str(caught.value).splitlines()
    assert lines[0].startswith("The data set has 8 errors; correct them")
    assert lines[1].strip() == f"{file}:1: the class must be a whole number from 0 to 1, got 7"
    assert lines[6:] == ["  and 3 more"]


def test_import__brings_in_neither_torch_nor_opencv() -> None:
    code = "import sys, yolokd.data.check; print([m for m in ('torch', 'ultralytics', 'cv2') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
