from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from tests.helpers import tiny
from yolokd.errors import DataError
from yolokd.evaluation.coco import METRICS, score
from yolokd.evaluation.ground_truth import coco_ground_truth, list_images
from yolokd.evaluation.instances import from_instances, ground_truth
from yolokd.evaluation.models import evaluate

NAMES = {0: "person", 1: "car"}
COCO_IDS = {"person": 1, "car": 3}
SIZE = (200, 160)


def random_set(folder: Path, *, count: int = 12, seed: int = 0) -> tuple[Path, dict[str, Any]]:
    """Images and an instances file in which a fifth of the boxes are crowds; areas are not those of the boxes."""
    rng = np.random.default_rng(seed)
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    (folder / "images").mkdir()
    for number in rng.permutation(count).tolist():
        name = f"{number:03}.png"
        Image.new("L", SIZE).save(folder / "images" / name)
        images.append({"id": 70 - number, "file_name": name, "width": SIZE[0], "height": SIZE[1]})
        for _ in range(6):
            w, h = rng.uniform(10, 120, 2).tolist()
            annotations.append(
                {
                    "id": 500 + len(annotations),
                    "image_id": 70 - number,
                    "category_id": int(rng.choice([1, 3])),
                    "bbox": [*(rng.uniform(0, 60, 2).tolist()), w, h],
                    "area": 0.4 * w * h,
                    "iscrowd": int(rng.random() < 0.2),
                }
            )
    content = {
        "images": images,
        "annotations": annotations,
        "categories": [{"id": 3, "name": "car"}, {"id": 1, "name": "person"}],
    }
    file = folder / "instances.json"
    file.write_text(json.dumps(content))
    return file, content


def guesses(content: dict[str, Any], *, seed: int = 1) -> list[dict[str, Any]]:
    """Detections near the annotations, crowds included, some of them twice or of the wrong class."""
    rng = np.random.default_rng(seed)
    found = []
    for annotation in content["annotations"] * 2:
        box = (np.array(annotation["bbox"]) + rng.normal(0, 4, 4)).clip(1).tolist()
        category = annotation["category_id"] if rng.random() < 0.8 else int(rng.choice([1, 3]))
        owner = annotation["image_id"]
        found.append({"image_id": owner, "category_id": category, "bbox": box, "score": float(rng.random())})
    return found


def pycocotools_summary(file: Path, detections: list[dict[str, Any]]) -> list[float]:
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(file))
        evaluation = COCOeval(truth, truth.loadRes(detections), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return [float(value) for value in evaluation.stats]


@pytest.mark.parametrize("seed", [0, 1])
def test_from_instances__scores_are_those_of_pycocotools_on_the_file_itself(tmp_path: Path, seed: int) -> None:
    file, content = random_set(tmp_path, seed=seed)
    images = list_images([tmp_path / "images"])
    truth = from_instances(file, images, NAMES)
    places = {i["id"]: next(n for n, p in enumerate(images) if p.name == i["file_name"]) for i in content["images"]}
    classes = {COCO_IDS[name]: index for index, name in NAMES.items()}
    theirs = guesses(content, seed=seed)
    ours = [{**d, "image_id": places[d["image_id"]], "category_id": classes[d["category_id"]]} for d in theirs]
    found = score(truth, ours)
    assert [found.summary[metric] for metric in METRICS] == pytest.approx(pycocotools_summary(file, theirs), abs=1e-9)
    plain = {**truth, "annotations": [{**a, "iscrowd": 0} for a in truth["annotations"]]}
    assert score(plain, ours).summary["AP"] != pytest.approx(found.summary["AP"], abs=1e-3)


def test_from_instances__has_the_form_of_a_ground_truth_from_labels(tmp_path: Path) -> None:
    file, content = random_set(tmp_path)
    images = list_images([tmp_path / "images"])
    truth = from_instances(file, images, NAMES)
    assert truth["images"] == coco_ground_truth(images, NAMES)["images"]
    assert truth["categories"] == [{"id": 0, "name": "person"}, {"id": 1, "name": "car"}]
    assert [a["id"] for a in truth["annotations"]] == list(range(1, len(content["annotations"]) + 1))
    assert [a["area"] for a in truth["annotations"]] == [a["area"] for a in content["annotations"]]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda c: c["images"].pop(), "lacks 1 of the data's 12, such as the image '"),
        (lambda c: c["images"][3].update(file_name="x.png"), "images[3] is the image 'x.png' (id "),
        (lambda c: c["images"][3].update(width=201), "has 200×160 pixels, but '"),
        (lambda c: c["categories"].pop(), "lacks 1 of the data's 2, such as the class 'person'"),
        (
            lambda c: c["categories"][0].update(name="van"),
            "categories[0] is the class 'van' (id 3), which the data lack",
        ),
        (lambda c: c["categories"].insert(0, 4), "categories[0] must be an object, got 4"),
        (lambda c: c["annotations"][5].update(image_id=[1]), "annotations[5] belongs to no known image or category"),
        (lambda c: c["annotations"][5].pop("category_id"), "annotations[5] belongs to no known image or category"),
    ],
)
def test_from_instances__what_does_not_fit_the_data_is_refused(tmp_path: Path, change: Any, words: str) -> None:
    file, content = random_set(tmp_path)
    change(content)
    file.write_text(json.dumps(content))
    with pytest.raises(DataError) as error:
        from_instances(file, list_images([tmp_path / "images"]), NAMES)
    assert words in str(error.value)
    assert str(file) in str(error.value)


def test_from_instances__a_turned_image_has_its_sides_swapped(tmp_path: Path) -> None:
    file, content = random_set(tmp_path)
    for image in content["images"]:
        image["width"], image["height"] = image["height"], image["width"]
    file.write_text(json.dumps(content))
    assert from_instances(file, list_images([tmp_path / "images"]), NAMES)["images"][0]["width"] == SIZE[0]


def described(path: Path, **more: object) -> Path:
    path.write_text(yaml.safe_dump({"train": "images", "val": "images", "names": NAMES, **more}))
    return path


def test_ground_truth__labels_count_where_nothing_else_is_named(tmp_path: Path) -> None:
    random_set(tmp_path)
    images = list_images([tmp_path / "images"])
    data = described(tmp_path / "data.yaml", coco_annotations={"val": "instances.json"})
    assert ground_truth(data, "train", images, NAMES)["annotations"] == []  # there are no label files
    assert len(ground_truth(data, "val", images, NAMES)["annotations"]) == 72


def test_ground_truth__the_key_must_map_splits_to_files(tmp_path: Path) -> None:
    random_set(tmp_path)
    images = list_images([tmp_path / "images"])
    for wrong in ("instances.json", {"val": 3}):
        data = described(tmp_path / "data.yaml", coco_annotations=wrong)
        with pytest.raises(DataError, match="coco_annotations must map splits to files, got"):
            ground_truth(data, "val", images, NAMES)
    data = described(tmp_path / "data.yaml", coco_annotations={"val": "gone.json"})
    with pytest.raises(DataError, match=r"gone\.json' cannot be read"):
        ground_truth(data, "val", images, NAMES)


def test_evaluate__scores_against_the_named_annotations(tmp_path: Path) -> None:
    data = tiny.data_set(tmp_path / "set")
    names = dict(enumerate(tiny.NAMES))
    truth = coco_ground_truth(list_images([tmp_path / "set" / "images" / "val"]), names)
    for image in truth["images"]:
        image["file_name"] = Path(image["file_name"]).name
    crowds = [{**annotation, "iscrowd": 1} for annotation in truth["annotations"]]
    (tmp_path / "set" / "crowds.json").write_text(json.dumps({**truth, "annotations": crowds}))
    weights = tiny.checkpoint(tmp_path / "a.pt")
    assert evaluate(weights, data)[0].AP >= 0
    data.write_text(data.read_text() + "coco_annotations: {val: crowds.json}\n")
    assert evaluate(weights, data)[0].AP == -1  # a crowd is nothing to be found


def in_folders(tmp_path: Path, *names: str) -> list[Path]:
    """Images of the same size below images/."""
    for name in names:
        path = tmp_path / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", SIZE).save(path)
    return list_images([tmp_path / "images"])


def naming(tmp_path: Path, *names: str) -> Path:
    """An instances file of these file names, each with one box as many pixels from the left as its place from 1."""
    images = [{"id": n, "file_name": name, "width": SIZE[0], "height": SIZE[1]} for n, name in enumerate(names, 1)]
    boxes = [
        {"id": n, "image_id": n, "category_id": 1, "bbox": [n, 0, 9, 9], "area": 81, "iscrowd": 0}
        for n in range(1, len(names) + 1)
    ]
    categories = [{"id": 1, "name": "person"}, {"id": 3, "name": "car"}]
    file = tmp_path / "instances.json"
    file.write_text(json.dumps({"images": images, "annotations": boxes, "categories": categories}))
    return file


@pytest.mark.parametrize(
    "names",
    [
        ("b/1.png", "a/1.png", "1.png"),
        ("images/b/1.png", "images/a/1.png", "images/1.png"),
        ("b/1.png", "./a/1.png", "1.png"),
    ],
)
def test_from_instances__equal_names_in_folders_are_told_apart(tmp_path: Path, names: tuple[str, ...]) -> None:
    images = in_folders(tmp_path, "1.png", "a/1.png", "b/1.png")
    truth = from_instances(naming(tmp_path, *names), images, NAMES)
    owners = {
        images[box["image_id"]].relative_to(tmp_path / "images").as_posix(): box["bbox"][0]
        for box in truth["annotations"]
    }
    assert owners == {"b/1.png": 1, "a/1.png": 2, "1.png": 3}


@pytest.mark.parametrize(
    "names, words",
    [
        (("1.png", "1.png"), "names an image '1.png', which may be '.*/a/1.png' and '.*/b/1.png'"),
        (("a/1.png", "a/1.png"), "lacks 1 of the data's 2, such as the image '.*/b/1.png'"),
        (("a/1.png", "b/1.png", "images/a/1.png"), "names the image '.*/a/1.png' twice, with the ids 1 and 3"),
        (("a/1.png", "c/1.png"), r"images\[1\] is the image 'c/1.png' \(id 2\), which the data lack"),
        (("a/1.png", ""), r"images\[1\] is the image '' \(id 2\), which the data lack"),
    ],
)
def test_from_instances__names_that_fit_several_or_none(tmp_path: Path, names: tuple[str, ...], words: str) -> None:
    images = in_folders(tmp_path, "a/1.png", "b/1.png")
    with pytest.raises(DataError, match=words):
        from_instances(naming(tmp_path, *names), images, NAMES)


def test_from_instances__entries_of_images_left_out_are_passed_over(tmp_path: Path) -> None:
    images = in_folders(tmp_path, "a/1.png", "b/1.png")
    broken = tmp_path / "images" / "b" / "2.png"
    truth = from_instances(naming(tmp_path, "a/1.png", "b/2.png", "b/1.png"), images, NAMES, left_out=[broken])
    assert [box["bbox"][0] for box in truth["annotations"]] == [1, 3]
    assert len(truth["images"]) == 2


@pytest.mark.parametrize(
    "change", [{"bbox": "x"}, {"bbox": [1, 2, 3]}, {"bbox": [1, 2, 3, "x"]}, {"area": None}, {"iscrowd": 2}]
)
def test_from_instances__annotations_without_numbers(tmp_path: Path, change: dict[str, object]) -> None:
    file, content = random_set(tmp_path)
    content["annotations"][4] |= change
    file.write_text(json.dumps(content))
    with pytest.raises(DataError, match=r"annotations\[4\] needs bbox"):
        from_instances(file, list_images([tmp_path / "images"]), NAMES)
