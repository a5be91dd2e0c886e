from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from ultralytics.data.utils import verify_image_label

from tests.helpers.rle import decode
from yolokd.errors import DataError
from yolokd.evaluation.ground_truth import (
    KEYPOINTS,
    SEGMENTATION,
    coco_ground_truth,
    label_path,
    list_images,
    only_images,
    read_labels,
    sample,
    unusable,
)
from yolokd.images.reader import shown_size


def _image(path: Path, size: tuple[int, int] = (64, 48), orientation: int | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.new("RGB", size)
    exif = image.getexif()
    if orientation is not None:
        exif[274] = orientation
    image.save(path, exif=exif)
    return path


def _labels(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_coco_ground_truth__pixel_boxes(tmp_path: Path) -> None:
    image = _image(tmp_path / "images" / "a.jpg", (200, 100))
    _labels(tmp_path / "labels" / "a.txt", "1 0.5 0.5 0.2 0.4\n")
    empty = _image(tmp_path / "images" / "b.jpg", (50, 60))
    truth = coco_ground_truth([image, empty], {0: "car", 1: "bus"})
    assert truth["images"] == [
        {"id": 0, "file_name": str(image), "width": 200, "height": 100},
        {"id": 1, "file_name": str(empty), "width": 50, "height": 60},
    ]
    (annotation,) = truth["annotations"]
    assert annotation.pop("bbox") == pytest.approx([80.0, 30.0, 40.0, 40.0])
    assert annotation.pop("area") == pytest.approx(1600.0)
    assert annotation == {"id": 1, "image_id": 0, "category_id": 1, "iscrowd": 0}
    assert truth["categories"] == [{"id": 0, "name": "car"}, {"id": 1, "name": "bus"}]


@pytest.mark.parametrize(
    "text",
    [
        "0 0.5 0.5 0.2 0.4\n1 0.3 0.3 0.1 0.1\n0 0.5 0.5 0.2 0.4\n",
        "\ufeff0 0.5 0.5 0.2 0.4\n\n",
        "1 0.1 0.2 0.7 0.2 0.4 0.9\n0 0.2 0.2 0.5 0.2 0.5 0.6 0.2 0.6\n1 0.1 0.2 0.7 0.2 0.4 0.9\n",
        "0 1.005 0.5 0.2 0.4\n1 -0.005 0.3 0.1 0.1\n",
        "",
    ],
    ids=["duplicates", "byte-order mark", "outlines", "slack", "empty"],
)
def test_read_labels__equals_ultralytics(tmp_path: Path, text: str) -> None:
    image = _image(tmp_path / "images" / "a.jpg")
    path = _labels(tmp_path / "labels" / "a.txt", text)
    expected = verify_image_label((str(image), str(path), "", False, 2, 0, 0, False))[1]
    rows = read_labels(path)
    assert rows.shape == expected.shape
    order, other = (np.lexsort(np.round(r, 4).T) for r in (rows, expected))
    np.testing.assert_allclose(rows[order], expected[other], atol=1e-6)


def test_read_labels__missing_file_means_no_objects(tmp_path: Path) -> None:
    assert read_labels(tmp_path / "none.txt").shape == (0, 5)


@pytest.mark.parametrize(("orientation", "turned"), [(None, False), (1, False), (3, False), (6, True), (8, True)])
@pytest.mark.parametrize("suffix", ["jpg", "png"])
def test_image_size__follows_the_camera_s_orientation(
    tmp_path: Path, orientation: int | None, turned: bool, suffix: str
) -> None:
    path = _image(tmp_path / f"a.{suffix}", (64, 48), orientation)
    assert shown_size(path) == ((48, 64) if turned else (64, 48))


def test_image_size__names_a_broken_file(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"not an image")
    with pytest.raises(DataError, match=r"a\.jpg' cannot be read as an image"):
        shown_size(tmp_path / "a.jpg")


def test_list_images__each_once_and_sorted(tmp_path: Path) -> None:
    deep = _image(tmp_path / "images" / "deep" / "b.PNG")
    first = _image(tmp_path / "images" / "a.jpg")
    (tmp_path / "images" / "notes.md").write_text("")
    (tmp_path / "list.txt").write_text(f"{deep}\n./images/a.jpg\n")
    assert list_images([tmp_path / "images"]) == [first, deep]
    assert list_images([tmp_path / "list.txt", tmp_path / "images"]) == [first, deep]
    assert [label_path(p) for p in (first, deep)] == [tmp_path / "labels" / "a.txt", tmp_path / "labels/deep/b.txt"]


def test_list_images__names_what_holds_none(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no images in '.*list_images__names"):
        list_images([tmp_path])
    with pytest.raises(DataError, match=r"images cannot be listed: .*gone\.txt"):
        list_images([tmp_path / "gone.txt"])


@pytest.mark.parametrize(
    ("keypoints", "text"),
    [
        ((2, 2), "0 .5 .5 .2 .4 .1 -.01 .9 .9\n1 .5 .5 .2 .4 .1 .1 .9 .9\n0 .5 .5 .2 .4 .1 -.01 .9 .9\n"),
        ((1, 3), "0 .5 .5 .2 .4 .1 .1 2\n0 .5 .5 .2 .4 .1 .2 0\n0 .5 .5 .2 .4 .1 .1 2\n"),
    ],
)
def test_coco_ground_truth__keypoints_equal_ultralytics(tmp_path: Path, keypoints: tuple[int, int], text: str) -> None:
    image = _image(tmp_path / "images" / "a.jpg", (40, 20))
    path = _labels(tmp_path / "labels" / "a.txt", text)
    truth = coco_ground_truth([image], {0: "car", 1: "bus"}, keypoints, beside=[KEYPOINTS])["annotations"]
    found = verify_image_label((str(image), str(path), "", True, 2, *keypoints, False))
    assert len(truth) == len(found[1]) == 2
    points = np.array([entry["keypoints"] for entry in truth]).reshape(2, -1, 3) / [40, 20, 1]
    points[..., 2] = points[..., 2] > 0
    expected = found[4]
    expected[..., 2] = expected[..., 2] > 0
    order = np.lexsort(points.reshape(2, -1).T), np.lexsort(expected.reshape(2, -1).T)
    np.testing.assert_allclose(points[order[0]], expected[order[1]], atol=1e-6)
    for entry in truth:
        assert entry["bbox"] == pytest.approx([16, 6, 8, 8])
    assert truth[0]["area"] == pytest.approx(64)


@pytest.mark.parametrize(
    "text",
    ["0 .5 .5 .2 .4 .1 .1 .9 .9\n", "0 .5 .5 .2 .4\n1 .5 .5 .2 .2 .1 .1 .9 .9\n1 .5 .5 .2 .2 .3 .3 .9 .9\n"],
    ids=["keypoints", "with and without, and equal boxes"],
)
def test_read_labels__with_keypoints_equals_ultralytics(tmp_path: Path, text: str) -> None:
    image = _image(tmp_path / "images" / "a.jpg")
    path = _labels(tmp_path / "labels" / "a.txt", text)
    expected = verify_image_label((str(image), str(path), "", False, 2, 2, 2, False))[1]
    rows = read_labels(path, (2, 2))
    np.testing.assert_allclose(rows[np.lexsort(rows.T)], expected[np.lexsort(expected.T)], atol=1e-6)


def test_list_images__without_those_that_cannot_be_used(tmp_path: Path) -> None:
    fine = _image(tmp_path / "images" / "a.jpg")
    (tmp_path / "images" / "b.jpg").write_text("<html>")
    assert list_images([tmp_path / "images"]) == [fine]
    assert unusable([tmp_path / "images"]) == [tmp_path / "images" / "b.jpg"]
    fine.write_text("")
    with pytest.raises(DataError, match=r"None of the 2 images in '.*' can be used: .*a\.jpg is an empty file"):
        list_images([tmp_path / "images"])


def test_sample__same_images_wherever_they_are() -> None:
    here, there = ([Path(folder) / f"{number}.jpg" for number in range(50)] for folder in ("/a", "/b/c"))
    chosen = sample(here, 10)
    assert len(chosen) == 10
    assert chosen == sorted(chosen)
    assert {path.name for path in chosen} == {path.name for path in sample(reversed(there), 10)}
    assert set(chosen) < set(sample(here, 11))
    assert chosen != here[:10]
    assert sample(here, 99) == sorted(here)
    assert sample([], 3) == []


def test_only_images__keeps_the_ids() -> None:
    images: list[dict[str, Any]] = [{"id": number, "file_name": f"/{number}.jpg"} for number in range(3)]
    boxes: list[dict[str, Any]] = [{"id": number + 1, "image_id": number // 2} for number in range(6)]
    truth = {"images": images, "annotations": boxes, "categories": [{"id": 0, "name": "car"}]}
    kept = only_images(truth, lambda paths: paths[1:])
    assert kept == {"images": images[1:], "annotations": boxes[2:], "categories": truth["categories"]}


def test_coco_ground_truth__masks_of_polygons(tmp_path: Path) -> None:
    image = _image(tmp_path / "images" / "a.jpg", (8, 4))
    _labels(tmp_path / "labels" / "a.txt", "1 0 0 0.5 0 0.5 1 0 1\n1 0 0 0.5 0 0.5 1 0 1\n0 0.5 0 1 0 1 1\n")
    plain = coco_ground_truth([image], {0: "car", 1: "bus"})
    masked = coco_ground_truth([image], {0: "car", 1: "bus"}, beside=[SEGMENTATION])
    first, second = masked["annotations"]
    assert decode(first["segmentation"]).tolist() == [[1] * 4 + [0] * 4] * 4
    assert decode(second["segmentation"])[:, :4].sum() == 0 < decode(second["segmentation"]).sum()
    for entry in masked["annotations"]:
        del entry["segmentation"]
    assert masked == plain
