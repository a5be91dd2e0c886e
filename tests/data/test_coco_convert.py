from __future__ import annotations

from pathlib import Path

import pytest

from yolokd.data.coco_convert import convert
from yolokd.data.coco_instances import Annotation, Box, ImageEntry, Instances
from yolokd.errors import DataError

SIZE = (100, 50)


def found(*boxes: Box, crowd: bool = False, names: tuple[str, ...] = ("a.jpg",)) -> Instances:
    """One image with boxes of cars, and perhaps others without."""
    return Instances(
        file=Path("instances.json"),
        categories={3: "car", 44: "bottle"},
        images={n: ImageEntry(n, name, *SIZE) for n, name in enumerate(names)}
        | {99: ImageEntry(99, "other.jpg", *SIZE)},
        with_traffic=set(range(len(names))),
        annotations={0: [Annotation(10 + n, 0, 3, box, 1.0, crowd, n) for n, box in enumerate(boxes)]},
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("a.jpg", "b.jpg", "a.png"):
        (tmp_path / name).write_bytes(b"x")
    return tmp_path


def test_convert__boxes_become_shares_of_their_image(folder: Path) -> None:
    done = convert(found((10, 10, 40, 20), names=("a.jpg", "b.jpg")), folder)
    assert done.rows == {"a.jpg": [pytest.approx((2, 0.3, 0.4, 0.4, 0.4))], "b.jpg": []}
    counts = done.counts
    assert (counts.source_images, counts.images, counts.background, counts.cut) == (3, 2, 1, 0)
    assert counts.labels["car"] == sum(counts.labels.values()) == 1


def test_convert__boxes_are_cut_at_the_border(folder: Path) -> None:
    done = convert(found((-10, 40, 30, 20), (0, 0, 100, 50.01), (0, 0, 100, 50)), folder)
    assert done.rows["a.jpg"] == [
        pytest.approx((2, 0.1, 0.9, 0.2, 0.2)),
        (2, 0.5, 0.5, 1.0, 1.0),
        (2, 0.5, 0.5, 1.0, 1.0),
    ]
    assert done.counts.cut == 2


def test_convert__what_is_no_label_is_counted(folder: Path) -> None:
    done = convert(found((1, 1, 0, 5), (1, 1, 5, 0), (1, 1, 5, 5)), folder)
    assert (len(done.rows["a.jpg"]), done.counts.without_area, done.counts.labels["car"]) == (1, [10, 11], 1)
    done = convert(found((1, 1, 5, 5), (500, 1, 5, 5), crowd=True), folder)
    assert (done.rows["a.jpg"], done.counts.crowds["car"], done.counts.background) == ([], 2, 1)


def test_convert__a_box_outside_of_its_image_is_an_error(folder: Path) -> None:
    with pytest.raises(DataError) as error:
        convert(found((1, 1, 5, 5), (100, 1, 5, 5)), folder)
    assert "instances.json: annotations[1]: a box outside of its image of 100×50, got (100, 1, 5, 5)" in str(
        error.value
    )


def test_convert__a_missing_image_is_an_error_unless_it_is_not_needed(folder: Path) -> None:
    (folder / "b.jpg").unlink()
    with pytest.raises(DataError) as error:
        convert(found(names=("a.jpg", "b.jpg")), folder)
    assert f"{folder / 'b.jpg'}: the image is missing" in str(error.value)
    assert "other.jpg" not in str(error.value)


def test_convert__names_that_differ_by_their_ending_would_share_labels(folder: Path) -> None:
    with pytest.raises(DataError, match=r"image 1: has the name of image 0, got a\.png"):
        convert(found(names=("a.jpg", "a.png")), folder)


def test_convert__a_link_that_leads_out_of_the_folder_is_not_followed(folder: Path) -> None:
    inner = folder / "inner"
    inner.mkdir()
    (inner / "a.jpg").symlink_to(folder / "a.jpg")
    with pytest.raises(DataError, match="a link that leads out of"):
        convert(found(), inner)
    (inner / "b.jpg").write_bytes(b"x")
    (inner / "a.jpg").unlink()
    (inner / "a.jpg").symlink_to(inner / "b.jpg")
    assert list(convert(found(), inner).rows) == ["a.jpg"]
