from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.helpers import coco
from yolokd.data.coco_instances import NAMES, TRIGGERS, Instances, read_instances
from yolokd.errors import DataError


def read(folder: Path, content: dict[str, Any]) -> Instances:
    file = folder / "instances.json"
    file.write_text(json.dumps(content))
    return read_instances(file, lambda share: None)


def test_names__are_the_published_categories() -> None:
    assert [coco.CATEGORIES[number] for number in coco.KEPT] == list(NAMES)
    assert {coco.CATEGORIES[number] for number in coco.TRIGGERS} == set(TRIGGERS)


@pytest.mark.parametrize("order", [1, -1])
def test_read_instances__agrees_with_a_plain_reading_whatever_the_order_of_keys(tmp_path: Path, order: int) -> None:
    content = coco.instances(60, seed=3)
    found = read(tmp_path, dict(list(content.items())[::order]))
    chosen = {a["image_id"] for a in content["annotations"] if a["category_id"] in coco.TRIGGERS}
    assert 10 < len(chosen) < 60
    assert [image.id for image in found.images_with_traffic] == sorted(chosen)
    sizes = {i["id"]: (i["file_name"], i["width"], i["height"]) for i in content["images"]}
    assert all(sizes[image.id] == image[1:] for image in found.images_with_traffic)
    kept = [
        (a["id"], a["image_id"], a["category_id"], tuple(a["bbox"]), a["area"], bool(a["iscrowd"]), place)
        for place, a in enumerate(content["annotations"])
        if a["category_id"] in coco.KEPT and a["image_id"] in chosen
    ]
    assert sorted(a for number in chosen for a in found.annotations.get(number, [])) == sorted(kept)
    assert found.classes() == {number: index for index, number in enumerate(coco.KEPT)}


def test_read_instances__a_crowd_is_a_reason_to_take_an_image(tmp_path: Path) -> None:
    content = coco.instances(2, seed=0)
    box = {"bbox": [1, 1, 4, 4], "area": 16, "category_id": 2, "iscrowd": 1, "id": 7}
    content["annotations"] = [{**box, "image_id": content["images"][1]["id"]}]
    assert [p.id for p in read(tmp_path, content).images_with_traffic] == [content["images"][1]["id"]]


def test_read_instances__what_may_be_left_out(tmp_path: Path) -> None:
    content = coco.instances(1, seed=0)
    content["annotations"] = [{"bbox": [1, 2, 3, 4], "category_id": 3, "id": 7, "image_id": content["images"][0]["id"]}]
    ((annotation,),) = read(tmp_path, content).annotations.values()
    assert (annotation.area, annotation.crowd) == (12.0, False)


BOX = "bbox must be four finite numbers (x, y, width, height), got "


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"image_id": -3}, "image_id names no entry of images, got -3"),
        ({"image_id": "1"}, "image_id must be a whole number, got '1'"),
        ({"image_id": [1]}, "image_id must be a whole number, got [1]"),
        ({"category_id": 12}, "category_id names no entry of categories, got 12"),
        ({"category_id": None}, "category_id must be a whole number, got None"),
        ({"bbox": [1, 2, 3]}, f"{BOX}[1, 2, 3]"),
        ({"bbox": [1, 2, "3", 4]}, f"{BOX}[1, 2, '3', 4]"),
        ({"bbox": None}, f"{BOX}None"),
        ({"bbox": [1, 2, -3, 4]}, "bbox has a negative side, got [1, 2, -3, 4]"),
        ({"id": True}, "id must be a whole number, got True"),
        ({"area": -1}, "area must be a number from 0, got -1"),
        ({"iscrowd": 2}, "iscrowd must be 0 or 1, got 2"),
    ],
)
def test_read_instances__a_wrong_annotation_is_named_by_its_place(
    tmp_path: Path, change: dict[str, Any], words: str
) -> None:
    content = coco.instances(20, seed=1)
    place = next(n for n, a in enumerate(content["annotations"]) if a["category_id"] in coco.KEPT)
    content["annotations"][place] |= change
    with pytest.raises(DataError) as error:
        read(tmp_path, content)
    assert f"{tmp_path / 'instances.json'}: annotations[{place}]: {words}" in str(error.value)


def test_read_instances__all_wrong_annotations_are_counted(tmp_path: Path) -> None:
    content = coco.instances(20, seed=1)
    for annotation in content["annotations"][:7]:
        annotation["image_id"] = -1
    content["annotations"][0] = "a"
    with pytest.raises(DataError) as error:
        read(tmp_path, content)
    assert "has 7 errors" in str(error.value)
    assert "annotations[0]: must be an object, got 'a'" in str(error.value)
    assert "and 2 more" in str(error.value)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"file_name": "../../x.jpg"}, "file_name must be the name of an image, without folders, got '../../x.jpg'"),
        ({"file_name": ".."}, "file_name must be the name of an image, without folders, got '..'"),
        ({"file_name": "x.txt"}, "file_name must be the name of an image, without folders, got 'x.txt'"),
        ({"file_name": None}, "file_name must be the name of an image, without folders, got None"),
        ({"width": 0}, "width and height must be at least 1, got 0×"),
        ({"height": 3.5}, "height must be a whole number, got 3.5"),
        ({"id": None}, "id must be a whole number, got None"),
    ],
)
def test_read_instances__a_wrong_image_is_named_by_its_place(
    tmp_path: Path, change: dict[str, Any], words: str
) -> None:
    content = coco.instances(5, seed=1)
    content["images"][2] |= change
    with pytest.raises(DataError) as error:
        read(tmp_path, content)
    assert f"images[2]: {words}" in str(error.value)


def double(key: str) -> Callable[[dict[str, Any]], None]:
    def change(content: dict[str, Any]) -> None:
        content[key].append(dict(next(e for e in content[key] if e.get("category_id", 1) in coco.KEPT)))

    return change


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (double("images"), "images[9]: repeats the id of another image"),
        (double("annotations"), "repeats the id of another annotation"),
        (double("categories"), "categories[15]: repeats an id or a name, got 1, 'person'"),
        (lambda c: c["categories"].pop(2), "lacks the categories car; COCO's instances files have them"),
        (lambda c: c.pop("categories"), "lacks the categories person, bicycle, car, "),
        (lambda c: c.pop("annotations"), "holds no image with traffic: no annotation is of bicycle, car, "),
    ],
)
def test_read_instances__a_wrong_file_is_refused(tmp_path: Path, change: Callable[[Any], None], words: str) -> None:
    content = coco.instances(9, seed=1)
    change(content)
    with pytest.raises(DataError) as error:
        read(tmp_path, content)
    assert words in str(error.value)
    assert str(tmp_path / "instances.json") in str(error.value)


def test_read_instances__progress_covers_three_passes(tmp_path: Path) -> None:
    file = tmp_path / "instances.json"
    file.write_text(json.dumps(coco.instances(5, seed=1)))
    seen: list[float] = []
    read_instances(file, seen.append)
    assert seen == pytest.approx([1 / 3, 2 / 3, 1])
