from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.helpers.coco_results import random_results
from yolokd.evaluation import matches as module
from yolokd.evaluation.bootstrap import draw_images, weighted_ap
from yolokd.evaluation.matches import Matches, match, read_matches, write_matches

BOX = {"image_id": 1, "category_id": 1}
TRUTH: dict[str, list[dict[str, Any]]] = {
    "images": [{"id": 1}, {"id": 5}],
    "categories": [{"id": 1}, {"id": 2}],
    "annotations": [
        {"id": 1, **BOX, "bbox": [0, 0, 100, 10], "iscrowd": 0},
        {"id": 2, **BOX, "bbox": [200, 0, 50, 50], "iscrowd": 1},
        {"id": 3, "image_id": 5, "category_id": 2, "bbox": [0, 0, 9, 9], "iscrowd": 0},
    ],
}


def test_match__hand_computed_bits() -> None:
    found = [
        {**BOX, "bbox": [210, 0, 10, 10], "score": 0.9},  # within the crowd
        {**BOX, "bbox": [0, 0, 72, 10], "score": 0.8},  # IoU 0.72: found at 0.50, 0.55, 0.60, 0.65, 0.70
        {**BOX, "bbox": [0, 0, 90, 10], "score": 0.7},  # IoU 0.90, where the better one has not taken the object
        {**BOX, "bbox": [0, 90, 9, 9], "score": 0.6},  # below all that find anything
    ]
    first, second = match(TRUTH, found).classes
    assert first.image.tolist() == [0, 0, 0]
    assert first.found.tolist() == [0, 0b0000011111, 0b0111100000]
    assert first.ignored.tolist() == [0b1111111111, 0, 0]
    assert (first.objects.tolist(), second.objects.tolist(), second.image.tolist()) == ([0], [1], [])


def test_match__counts_at_most_100_detections_of_an_image_and_class() -> None:
    found = [{**BOX, "bbox": [500, 0, 5, 5], "score": 0.9 - 0.001 * n} for n in range(100)]
    hit = {**BOX, "bbox": [0, 0, 100, 10], "score": 0.1}
    assert len(match(TRUTH, [*found, hit]).classes[0].image) == 0
    assert len(match(TRUTH, [*found[1:], hit]).classes[0].image) == 100


def test_same_objects__whatever_was_found() -> None:
    truth, found = random_results(0)
    one = match(truth, found)
    assert one.same_objects(match(truth, found[:50]))
    assert not one.same_objects(match({**truth, "annotations": truth["annotations"][1:]}, found))
    assert not one.same_objects(match({**truth, "categories": truth["categories"][1:]}, found))
    assert not one.same_objects(match({**truth, "images": [*truth["images"], {"id": 10_000}]}, found))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    write_matches(tmp_path / "matches.npz", match(*random_results(0)), "abc")
    return tmp_path / "matches.npz"


def test_read_matches__what_was_written(file: Path) -> None:
    kept, first = read_matches(file, "abc"), match(*random_results(0))
    assert kept is not None
    assert kept.same_objects(first)
    weights = draw_images(first.images, resamples=20)
    assert np.array_equal(weighted_ap(kept, weights), weighted_ap(first, weights))
    assert [entry.name for entry in file.parent.iterdir()] == ["matches.npz"]


def test_read_matches__takes_a_few_bytes_per_detection(file: Path) -> None:
    count = sum(len(one.image) for one in match(*random_results(0)).classes)
    assert file.stat().st_size < 2500 + 8 * count


def test_read_matches__nothing_at_all(tmp_path: Path) -> None:
    empty = Matches(3, ())
    write_matches(tmp_path / "m.npz", empty, "abc")
    kept = read_matches(tmp_path / "m.npz", "abc")
    assert kept is not None
    assert kept.same_objects(empty)


def test_read_matches__of_another_checkpoint_or_none(file: Path, tmp_path: Path) -> None:
    assert read_matches(file, "abd") is None
    assert read_matches(tmp_path / "missing.npz", "abc") is None
    assert read_matches(tmp_path, "abc") is None


def changed(**arrays: Any) -> Callable[[Path], None]:
    """Write the file with other arrays."""

    def change(file: Path) -> None:
        with np.load(file) as kept:
            content = {name: kept[name] for name in kept}
        content |= {name: make(content[name]) for name, make in arrays.items()}
        np.savez_compressed(file, **content)

    return change


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-300])


def one_file(file: Path) -> None:
    content = io.BytesIO()
    np.save(content, np.zeros(3))
    file.write_bytes(content.getvalue())


def pickled(file: Path) -> None:
    changed(found=lambda array: array.astype(object))(file)


def emptied(file: Path) -> None:
    with zipfile.ZipFile(file, "w"):
        pass


def past_the_end(array: Any) -> Any:
    array[0] = 40
    return array


@pytest.mark.parametrize(
    "damage",
    [
        cut, one_file, pickled, emptied,
        changed(image=lambda a: a.astype(np.float32)), changed(image=lambda a: a[1:]), changed(image=past_the_end),
        changed(image=lambda a: -1 - a), changed(object_image=past_the_end), changed(images=lambda a: a[None]),
        changed(detections=lambda a: a[1:]), changed(detections=lambda a: -a), changed(objects=lambda a: a + 1),
    ],
)  # fmt: skip
def test_read_matches__a_damaged_file_is_none(file: Path, damage: Callable[[Path], None]) -> None:
    damage(file)
    assert read_matches(file, "abc") is None


def test_read_matches__a_file_that_unfolds_into_too_much_is_none(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LARGEST", 1000)
    assert read_matches(file, "abc") is None


@pytest.mark.parametrize("seed", range(3))
def test_read_matches__changed_bytes_are_noticed_or_change_nothing(file: Path, seed: int) -> None:
    rng, sound = np.random.default_rng(seed), file.read_bytes()
    first = match(*random_results(0))
    once = np.ones((1, first.images), np.float32)
    refused = 0
    for _ in range(100):
        content = bytearray(sound)
        for place in rng.integers(0, len(sound), 3):
            content[place] = rng.integers(256)
        file.write_bytes(content)
        kept = read_matches(file, "abc")
        refused += kept is None
        assert kept is None or np.array_equal(weighted_ap(kept, once), weighted_ap(first, once))
    assert refused > 50
