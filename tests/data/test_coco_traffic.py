from __future__ import annotations

import json
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.helpers import coco
from yolokd.data import coco_traffic
from yolokd.data.coco_instances import NAMES
from yolokd.data.coco_traffic import Prepared, prepare
from yolokd.errors import DataError


@pytest.fixture
def src(tmp_path: Path) -> Path:
    return coco.write(tmp_path / "coco")


def names(folder: Path) -> list[str]:
    """What a folder holds, hidden files included."""
    return sorted(path.name for path in folder.iterdir())


def reference(src: Path, split: str) -> dict[str, list[str]]:
    """File name → label rows, read at once and written down plainly."""
    content = coco.load(src, split)
    rows: dict[str, list[str]] = {}
    for image in content["images"]:
        mine = [a for a in content["annotations"] if a["image_id"] == image["id"]]
        if not any(a["category_id"] in coco.TRIGGERS for a in mine):
            continue
        rows[image["file_name"]] = labels = []
        for a in mine:
            if a["category_id"] in coco.KEPT and not a["iscrowd"]:
                x, y, w, h = a["bbox"]
                values = [(x + w / 2) / image["width"], (y + h / 2) / image["height"]]
                values += [w / image["width"], h / image["height"]]
                index = coco.KEPT.index(a["category_id"])
                labels.append(f"{index} " + " ".join(f"{value:.5f}" for value in values))
    return rows


def test_prepare__images_and_labels_are_those_of_a_plain_reading(src: Path, tmp_path: Path) -> None:
    found = prepare(src, tmp_path / "out")
    for split in ("train", "val"):
        wanted = reference(src, split)
        images, labels = (tmp_path / "out" / kind / split for kind in ("images", "labels"))
        assert names(images) == sorted(wanted)
        assert len(names(labels)) == len(wanted)
        for name, rows in wanted.items():
            assert (images / name).read_bytes() == (src / f"{split}2017" / name).read_bytes()
            written = (labels / name).with_suffix(".txt").read_text().splitlines()
            for row, other in zip(written, rows, strict=True):
                left, right = ([float(v) for v in r.split()] for r in (row, other))
                assert left == pytest.approx(right, abs=1e-5)
        objects = Counter(NAMES[int(row.split()[0])] for rows in wanted.values() for row in rows)
        counts = found.counts[split]
        assert counts.labels == dict.fromkeys(NAMES, 0) | objects
        assert (counts.images, counts.background) == (len(wanted), sum(not rows for rows in wanted.values()))
        assert counts.source_images == {"train": 30, "val": 20}[split]
    assert found.is_new


def test_prepare__coco_s_own_annotations_are_kept_without_masks(src: Path, tmp_path: Path) -> None:
    prepare(src, tmp_path / "out")
    for split in ("train", "val"):
        content, wanted = coco.load(src, split), reference(src, split)
        chosen = {i["id"]: i for i in content["images"] if i["file_name"] in wanted}
        kept = json.loads((tmp_path / "out" / "annotations" / f"instances_{split}.json").read_text())
        assert {i["id"]: i["file_name"] for i in kept["images"]} == {n: i["file_name"] for n, i in chosen.items()}
        keys = ("id", "image_id", "category_id", "bbox", "area", "iscrowd")
        mine = [{key: a[key] for key in keys} for a in content["annotations"]]
        mine = [a for a in mine if a["image_id"] in chosen and a["category_id"] in coco.KEPT]
        assert sorted(kept["annotations"], key=str) == sorted(mine, key=str)
        assert any(a["iscrowd"] for a in mine)
        assert [(c["id"], c["name"]) for c in kept["categories"]] == list(zip(coco.KEPT, NAMES, strict=True))


def test_prepare__the_set_is_ready_for_training(src: Path, tmp_path: Path) -> None:
    from yolokd.backend.dataset import resolve
    from yolokd.data.check import check_labels

    found = resolve(str(prepare(src, tmp_path / "out").path))
    report = check_labels(found.splits, found.names)
    report.raise_if_bad()
    assert list(found.names.values()) == list(NAMES)
    assert [split.images for split in report.splits.values()] == [len(reference(src, s)) for s in ("train", "val")]
    described = yaml.safe_load(found.yaml_path.read_text())
    assert described["coco_annotations"] == {s: f"annotations/instances_{s}.json" for s in ("train", "val")}


def test_prepare__counts_are_written_and_told(src: Path, tmp_path: Path) -> None:
    content = coco.load(src, "train")
    big = next(a for a in content["annotations"] if a["category_id"] in coco.TRIGGERS and not a["iscrowd"])
    edge = {**big, "bbox": [-5, -5, 500, 500]}
    content["annotations"] += [{**edge, "id": 5000}, {**big, "id": 5001, "bbox": [1, 1, 0, 3]}]
    coco.save(src, "train", content)
    found = prepare(src, tmp_path / "out")
    written = json.loads((tmp_path / "out" / "counts.json").read_text())["train"]
    assert (written["cut"], written["without_area"]) == (1, [5001])
    crowds = sum(written["crowds"].values())
    assert crowds > 0
    assert f"train: {written['images']} of COCO's 30 images hold traffic." in found.notes
    assert f"train: {crowds} crowds are no labels; eval ignores detections in them, as COCO does." in found.notes
    assert "train: 1 boxes without an area are no labels, such as annotation 5001." in found.notes
    assert "train: 1 boxes reached beyond their image and were cut at its border." in found.notes
    assert found.report.splits["train"].objects.total() == sum(written["labels"].values())


def test_prepare__images_may_lie_below_images(src: Path, tmp_path: Path) -> None:
    (src / "images").mkdir()
    for split in ("train2017", "val2017"):
        (src / split).rename(src / "images" / split)
    prepare(src, tmp_path / "out")
    assert names(tmp_path / "out" / "images" / "val") == sorted(reference(src, "val"))


def test_prepare__a_second_run_finds_the_set(src: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = prepare(src, tmp_path / "out")
    monkeypatch.setattr(coco_traffic, "read_instances", None)  # nothing is read again
    second = prepare(src, tmp_path / "out")
    assert not second.is_new
    assert (second.counts, second.notes) == (first.counts, first.notes)


def test_prepare__other_annotations_are_another_set(src: Path, tmp_path: Path) -> None:
    prepare(src, tmp_path / "out")
    content = coco.load(src, "val")
    content["annotations"].pop()
    coco.save(src, "val", content)
    with pytest.raises(DataError, match="was prepared differently \\(sha256 of the annotations"):
        prepare(src, tmp_path / "out")


def test_prepare__counts_that_are_damaged_are_named(src: Path, tmp_path: Path) -> None:
    prepare(src, tmp_path / "out")
    (tmp_path / "out" / "counts.json").write_text("{")
    with pytest.raises(DataError, match=r"counts\.json' is damaged"):
        prepare(src, tmp_path / "out")


def test_prepare__a_folder_with_something_else_is_left_alone(src: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("")
    with pytest.raises(DataError, match="holds something else already"):
        prepare(src, tmp_path / "out")
    assert names(tmp_path / "out") == ["mine.txt"]


def cut_short(src: Path) -> None:
    file = coco.path(src, "val")
    file.write_text(file.read_text()[:-40])


def lose_an_image(src: Path) -> None:
    (src / "train2017" / next(iter(reference(src, "train")))).unlink()


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (cut_short, "instances_val2017.json' is not valid JSON after"),
        (lose_an_image, ".jpg: the image is missing"),
        (lambda src: coco.path(src, "val").unlink(), "There is no file '"),
        (lambda src: shutil.rmtree(src / "val2017"), "The val images of COCO 2017 are neither in '"),
    ],
)
def test_prepare__what_is_wrong_leaves_nothing_behind(src: Path, tmp_path: Path, harm: Any, words: str) -> None:
    harm(src)
    with pytest.raises(DataError) as error:
        prepare(src, tmp_path / "new" / "out")
    assert words in str(error.value)
    assert names(tmp_path) == ["coco"]


def test_prepare__an_interruption_leaves_nothing_behind(
    src: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(coco_traffic, "_describe", interrupt)
    with pytest.raises(KeyboardInterrupt):
        prepare(src, tmp_path / "out")
    assert names(tmp_path) == ["coco"]
    monkeypatch.undo()
    assert prepare(src, tmp_path / "out").is_new


def test_prepare__a_killed_run_is_told_of_and_does_no_harm(src: Path, tmp_path: Path) -> None:
    (tmp_path / ".out-0123456789ab.unfinished").mkdir()
    found = prepare(src, tmp_path / "out")
    assert found.is_new
    assert ".out-0123456789ab.unfinished' was left behind by a run that was killed" in found.notes[-1]


def test_prepare__progress_goes_through_four_tasks(src: Path, tmp_path: Path) -> None:
    seen: dict[str, float] = {}
    prepare(src, tmp_path / "out", progress=lambda task, share: seen.update({task: share}))
    assert seen == dict.fromkeys(("Reading train", "Reading val", "Writing train", "Writing val"), 1.0)


def test_prepared__report_has_a_row_per_class(src: Path, tmp_path: Path) -> None:
    found: Prepared = prepare(src, tmp_path / "out")
    assert dict(found.report.names) == dict(enumerate(NAMES))
