from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from tests.helpers import kitti
from yolokd.data.kitti_convert import Conversion, convert
from yolokd.data.kitti_labels import parse_classes
from yolokd.data.kitti_source import scan
from yolokd.errors import DataError, UserError


def _convert(root: Path, classes: str = "3") -> Conversion:
    source = scan(root)
    return convert(source, {"train": source.ids}, parse_classes(classes), lambda: None)


def _one(root: Path, labels: str, classes: str = "3") -> Conversion:
    return _convert(kitti.source(root, {"000001": labels}), classes)


def _numbers(found: Conversion) -> list[list[float]]:
    return [[float(column) for column in row.split()] for row in found.rows["train"]["000001"].splitlines()]


def test_convert__shares_of_the_image(tmp_path: Path) -> None:
    found = _one(tmp_path, kitti.line("Cyclist", (20, 10, 100.5, 60)) + kitti.CAR)
    assert _numbers(found) == [
        [2, pytest.approx(60.25 / 200), pytest.approx(35 / 80), pytest.approx(80.5 / 200), pytest.approx(50 / 80)],
        [0, pytest.approx(60 / 200), pytest.approx(35 / 80), pytest.approx(80 / 200), pytest.approx(50 / 80)],
    ]
    assert found.notes() == ()


def test_convert__counts_what_becomes_a_class_and_what_does_not(tmp_path: Path) -> None:
    others = kitti.line("van", (110, 10, 190, 60)) + kitti.line("Bus", (1, 1, 9, 9)) + kitti.DONT_CARE
    kitti.source(tmp_path, {"000001": kitti.CAR + others, "000002": others, "000003": ""})
    found = _convert(tmp_path)
    counts = found.splits["train"]
    assert (counts.images, counts.labeled, counts.background) == (3, 1, 2)
    assert counts.objects == {0: 1}
    assert found.left_out == {"Van": 2, "Bus": 2}
    assert found.rows["train"]["000002"] == ""


def test_convert__types_that_share_a_class(tmp_path: Path) -> None:
    labels = kitti.line("Bus", (1, 1, 9, 9)) + kitti.CAR + kitti.line("Pedestrian", (20, 10, 30, 60))
    found = _one(tmp_path, labels, "Car=vehicle,Pedestrian=person,bus=vehicle")
    assert [row[0] for row in _numbers(found)] == [0, 0, 1]
    assert found.names == {0: "vehicle", 1: "person"}
    with pytest.raises(UserError, match=r"the type 'Lorry', which is none of KITTI's \(Car, .*\) and in no label"):
        _convert(tmp_path, "Lorry=lorry")
    assert _convert(tmp_path, "Tram=tram").left_out["Bus"] == 1  # KITTI's, though there is none here


def test_convert__boxes_are_cut_at_the_border(tmp_path: Path) -> None:
    found = _one(tmp_path, kitti.line("Car", (-20, 10, 50, 100)) + kitti.line("Car", (0, 0, 200, 80)))
    assert _numbers(found) == [[0, 0.125, 0.5625, 0.25, 0.875], [0, 0.5, 0.5, 1, 1]]
    assert found.notes() == ("Boxes that reached beyond their image and were cut at its border: 1.",)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("Car 0 0 -1.57 1 2 3 4", "expected a type and finite numbers in 15 columns, got 'Car 0 0 -1.57 1 2 3 4'"),
        (kitti.CAR.replace("20.00", "left"), "expected a type and finite numbers"),
        (kitti.line("Car", (100, 10, 20, 60)), "a box without width or height .*, got 100 10 20 60"),
        (kitti.line("Van", (20, 60, 100, 60)), "a box without width or height .*, got 20 60 100 60"),
        (kitti.line("DontCare", (9, 1, 8, 2)), "a box without width or height"),
        (kitti.line("Car", (300, 10, 400, 60)), "a box outside of its image of 200×80 pixels, got 300 10 400 60"),
    ],
)
def test_convert__a_bad_line_has_its_file_and_number(tmp_path: Path, line: str, message: str) -> None:
    with pytest.raises(DataError, match=rf"1 error;.*\n  .*label_2.000001\.txt:3: {message}"):
        _one(tmp_path, f"{kitti.CAR}\n{line}")


def test_convert__labels_that_are_no_text(tmp_path: Path) -> None:
    kitti.source(tmp_path, {"000001": ""})
    (tmp_path / "training" / "label_2" / "000001.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match=r"000001\.txt: the labels cannot be read as text"):
        _convert(tmp_path)


def test_convert__an_image_without_labels_and_the_reverse(tmp_path: Path) -> None:
    kitti.source(tmp_path, {"000001": kitti.CAR, "000002": kitti.CAR, "000003": kitti.CAR})
    (tmp_path / "training" / "image_2" / "000001.png").unlink()
    (tmp_path / "training" / "label_2" / "000002.txt").unlink()
    with pytest.raises(DataError) as caught:
        _convert(tmp_path)
    first, second = str(caught.value).splitlines()[1:]
    assert first.endswith("000001.txt: a label file without an image")
    assert second.endswith("000002.png: an image without a label file")


def test_convert__images_that_cannot_be_used(tmp_path: Path) -> None:
    kitti.source(tmp_path, dict.fromkeys(("000001", "000002", "000003"), kitti.CAR), suffix=".jpg")
    folder = tmp_path / "training" / "image_2"
    (folder / "000001.jpg").write_bytes(b"no image")
    Image.new("RGB", kitti.SIZE).save(folder / "000002.jpg", format="GIF")
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", kitti.SIZE).save(folder / "000003.jpg", exif=exif)
    with pytest.raises(DataError) as caught:
        _convert(tmp_path)
    lines = str(caught.value).splitlines()
    assert "3 errors" in lines[0]
    assert "000001.jpg: the image cannot be read: no known format" in lines[1]
    assert lines[2].endswith("000002.jpg: neither PNG nor JPEG, got GIF")
    assert "000003.jpg: turned by its EXIF orientation" in lines[3]


def test_convert__only_the_frames_asked_for_are_read(tmp_path: Path) -> None:
    kitti.source(tmp_path, {"000001": kitti.CAR, "000002": "nonsense"})
    steps: list[int] = []
    found = convert(scan(tmp_path), {"val": ["000001"]}, parse_classes("3"), lambda: steps.append(1))
    assert list(found.rows["val"]) == ["000001"]
    assert len(steps) == 1
