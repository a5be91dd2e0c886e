from __future__ import annotations

from pathlib import Path

import pytest

from tests.helpers import kitti
from yolokd.data.kitti import prepare
from yolokd.errors import DataError
from yolokd.evaluation.ground_truth import list_images
from yolokd.evaluation.kitti import evaluate_folders
from yolokd.evaluation.kitti_set import Detection, KittiTruth, read_truth, score

FRAMES = {
    "000001": kitti.CAR + kitti.line("Van", (110, 10, 190, 60)) + kitti.DONT_CARE,
    "000002": kitti.line("Pedestrian", (20, 10, 50, 70)) + kitti.line("Cyclist", (100, 10, 150, 40), occlusion=1),
    "000003": kitti.line("Truck", (20, 10, 100, 60)),
    "000004": kitti.line("Car", (20.25, 10, 100, 60)),
}


def _truth(folder: Path, classes: str = "3") -> tuple[KittiTruth, Path]:
    source = kitti.source(folder / "src", FRAMES)
    train, val = kitti.ids(folder / "train.txt", "000004"), kitti.ids(folder / "val.txt", *list(FRAMES)[:3])
    made = prepare(source, folder / "out", classes=classes, split=f"{train},{val}")
    images = list_images([made.path.parent / "images" / "val"])
    return read_truth(images, made.report.names), source / "training" / "label_2"


def _found(truth: KittiTruth, *entries: tuple[int, int, list[float], float]) -> list[Detection]:
    return [(truth.images[n], index, box, p) for n, index, box, p in entries]


def test_score__equals_the_evaluation_of_result_files(tmp_path: Path) -> None:
    truth, labels = _truth(tmp_path)
    found = _found(
        truth,
        (0, 0, [21.0, 11.0, 79.0, 49.5], 0.9),
        (0, 0, [110.0, 10.0, 80.0, 50.0], 0.95),  # a van, which KITTI forgives
        (0, 0, [20.0, 10.0, 80.0, 50.0], 0.31234567),
        (1, 1, [20.0, 12.0, 30.0, 58.0], 0.5),
        (1, 2, [100.0, 10.0, 50.0, 29.0], 0.4),
        (2, 0, [20.0, 10.0, 80.0, 50.0], 0.99),  # a truck, which it does not
    )
    for image in truth.images:
        rows = []
        for file, index, (x, y, w, h), p in found:
            if file == image:
                kind = ("Car", "Pedestrian", "Cyclist")[index]
                rows.append(f"{kind} -1 -1 -10 {x} {y} {x + w} {y + h} -1 -1 -1 -1000 -1000 -1000 -10 {p}\n")
        (tmp_path / "results").mkdir(exist_ok=True)
        (tmp_path / "results" / f"{Path(image).stem}.txt").write_text("".join(rows))
    names = [Path(image).stem for image in truth.images]
    for metric in ("R40", "R11"):
        expected = evaluate_folders(labels, tmp_path / "results", metric=metric, ids=names)
        found_score = score(truth, found, metric=metric)
        assert found_score.ap_percent == expected
        assert found_score.metric == metric
    assert expected["Car"]["easy"] == pytest.approx(100 / 11 / 2)  # one sample of eleven, at precision 1/2
    assert found_score.objects["Cyclist"] == {"easy": 0, "moderate": 1, "hard": 1}


def test_score__coordinates_are_not_rounded(tmp_path: Path) -> None:
    truth, _ = _truth(tmp_path)  # the pedestrian is 30 × 60 pixels, and the overlap must exceed 0.5
    above, below = ((1, 1, [20.0, 10.0, 30.0, height], 0.5) for height in (30.0001, 29.9999))
    assert score(truth, _found(truth, above), metric="R11").ap_percent["Pedestrian"]["moderate"] > 0
    assert score(truth, _found(truth, below), metric="R11").ap_percent["Pedestrian"]["moderate"] == 0


def test_score__says_what_perfect_detections_can_reach(tmp_path: Path) -> None:
    truth, _ = _truth(tmp_path)
    (note,) = score(truth, []).notes
    assert note.startswith("with fewer than 41 objects KITTI's precision curve stays partly zero")
    assert "Car easy (1 object: at most 0.0)" in note
    (note,) = score(truth, [], metric="R11").notes
    assert "Car easy (1 object: at most 9.1)" in note
    assert "Cyclist easy (0 objects: at most 0.0)" in note


def test_read_truth__eight_classes_bear_their_own_types(tmp_path: Path) -> None:
    truth, _ = _truth(tmp_path, "8")
    assert [truth.types[index] for index in (0, 3, 5)] == ["Car", "Pedestrian", "Cyclist"]
    assert {truth.types[index] for index in (1, 2, 4, 6, 7)} == {"Misc"}
    assert truth.notes == ()
    assert [[box.type for box in boxes] for boxes in truth.boxes] == [
        ["Car", "Van", "DontCare"],
        ["Pedestrian", "Cyclist"],
        ["Truck"],
    ]


def test_read_truth__joined_classes(tmp_path: Path) -> None:
    truth, _ = _truth(tmp_path, "Car=vehicle,Van=vehicle,Truck=vehicle,Pedestrian=person,Cyclist=person")
    assert truth.types == {0: "Car", 1: "Misc"}
    assert truth.notes == (
        "'vehicle' is scored as Car; its Truck count as false positives",
        "Pedestrian and Cyclist are one class here, 'person', and cannot be scored apart",
    )
    assert list(score(truth, []).ap_percent) == ["Car"]


def test_read_truth__classes_that_kitti_does_not_score(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="none of the classes lorry stands for one of them alone"):
        _truth(tmp_path, "Truck=lorry")


def test_read_truth__label_that_is_gone(tmp_path: Path) -> None:
    truth, labels = _truth(tmp_path)
    (labels / "000002.txt").unlink()
    with pytest.raises(DataError, match=r"label_2.000002\.txt' cannot be read"):
        read_truth([Path(image) for image in truth.images], {0: "Car"})


@pytest.mark.parametrize("marker", [None, "{}", "[1]", "no json"])
def test_read_truth__a_set_that_was_not_prepared(tmp_path: Path, marker: str | None) -> None:
    if marker is not None:
        (tmp_path / "kitti.json").write_text(marker)
    with pytest.raises(DataError, match=r"only a set prepared by 'yolokd data kitti SRC OUT' has.*images.val"):
        read_truth([tmp_path / "images" / "val" / "1.png"], {0: "Car"})


def test_read_truth__images_of_two_sets(tmp_path: Path) -> None:
    images = [tmp_path / name / "images" / "val" / "1.png" for name in "ab"]
    with pytest.raises(DataError, match="only a set prepared"):
        read_truth(images, {0: "Car"})
