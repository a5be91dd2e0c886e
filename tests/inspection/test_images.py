"""Images and their labels, against Ultralytics' own data set."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from ultralytics.data.dataset import YOLODataset
from ultralytics.utils import IterableSimpleNamespace

from tests.helpers.models import training_args
from tests.helpers.tiny import data_set
from yolokd.errors import DataError, UserError
from yolokd.inspection.images import LIMIT, find_images, read_labeled_image, read_labels, shrink


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Landscape and portrait images with labels."""
    return data_set(tmp_path_factory.mktemp("images"), images=4).parent / "images" / "val"


def test_read_photo__equals_a_sample_of_ultralytics(images: Path) -> None:
    hyp: IterableSimpleNamespace = training_args()
    names = {0: "car", 1: "person", 2: "truck"}
    dataset = YOLODataset(
        img_path=str(images), imgsz=96, augment=False, rect=False, hyp=hyp, data={"names": names, "channels": 3}
    )
    for index, file in enumerate(dataset.im_files):
        sample = dataset[index]
        image = read_labeled_image(Path(file), 96, 3)
        assert image.labels is not None
        torch.testing.assert_close(image.square[0], sample["img"].float() / 255)
        torch.testing.assert_close(image.labels[:, 1:], sample["bboxes"], rtol=0, atol=1e-5)
        assert image.labels[:, :1].tolist() == sample["cls"].tolist()


def test_read_photo__area_is_where_the_image_lies(images: Path, tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "wide.png"), np.full((30, 120, 3), 250, np.uint8))
    image = read_labeled_image(tmp_path / "wide.png", 64, 3)
    assert image.area == (0, 24, 64, 40)
    bright = (image.square[0, 0] > 0.9).nonzero()
    assert (bright.min(0).values.tolist(), bright.max(0).values.tolist()) == ([24, 0], [39, 63])
    assert image.labels is None
    assert len(image.batch(torch.device("cpu"))["cls"]) == 0


def test_read_photo__what_is_no_image(tmp_path: Path) -> None:
    for name, content in (("text.jpg", b"not an image"), ("empty.png", b"")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UserError, match=f"{name}' cannot be read as an image"):
            read_labeled_image(tmp_path / name, 64, 3)


def test_read_labels__boxes_polygons_repeats_and_nothing(tmp_path: Path) -> None:
    file = tmp_path / "labels.txt"
    assert read_labels(file, 3) is None
    file.write_text("")
    assert read_labels(file, 3) == []
    file.write_text("1 .5 .5 .2 .4\n\n1 .5 .5 .2 .4\n2 .1 .1 .1 .1\n")
    assert read_labels(file, 3) == [(1, (0.5, 0.5, 0.2, 0.4)), (2, (0.1, 0.1, 0.1, 0.1))]
    file.write_text("0 .2 .2 .4 .2 .4 .8\n")
    rows = read_labels(file, 3)
    assert rows is not None
    assert rows[0][1] == pytest.approx((0.3, 0.5, 0.2, 0.6))


@pytest.mark.parametrize(
    ("text", "words"),
    [("3 .5 .5 .1 .1", "from 0 to 2, got 3"), ("0 .5 .5 .1", "5 columns"), ("0 .5 x .1 .1", "not a number, got 'x'")],
)
def test_read_labels__impossible_rows_are_named(tmp_path: Path, text: str, words: str) -> None:
    file = tmp_path / "labels.txt"
    file.write_text("0 .5 .5 .1 .1\n" + text)
    with pytest.raises(DataError, match=rf"labels.txt:2: .*{words}"):
        read_labels(file, 3)


def test_read_labels__not_text(tmp_path: Path) -> None:
    (tmp_path / "labels.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match="cannot be read as text"):
        read_labels(tmp_path / "labels.txt", 3)


def test_find_photos__files_and_folders(images: Path, tmp_path: Path) -> None:
    one = images / "000002.png"
    found, notes = find_images([str(one), images])
    assert found == [one, *sorted(images.iterdir())]
    assert notes == []
    for number in range(LIMIT + 3):
        (tmp_path / f"{number:02}.jpg").touch()
    found, notes = find_images([tmp_path])
    assert [path.name for path in found] == [f"{number:02}.jpg" for number in range(LIMIT)]
    assert notes == [f"'{tmp_path}' holds {LIMIT + 3} images: the first {LIMIT} are taken, name others singly"]


def test_find_photos__nothing_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no image or folder 'gone\.jpg'"):
        find_images(["gone.jpg"])
    (tmp_path / "notes.txt").write_text("no image")
    with pytest.raises(UserError, match="no images in the folder"):
        find_images([tmp_path])


def test_shrink__only_what_is_too_large() -> None:
    image = np.arange(40 * 90 * 3, dtype=np.uint8).reshape(40, 90, 3)
    assert shrink(image, 90).tolist() == image.tolist()
    assert shrink(image, 45).shape == (20, 45, 3)
    assert shrink(np.zeros((1, 500, 3), np.uint8), 50).shape == (1, 50, 3)
