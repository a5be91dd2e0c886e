from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from tests.helpers import kitti_reference
from yolokd.errors import DataError, ShapeError
from yolokd.evaluation.kitti import Box, attainable, count_objects, evaluate, evaluate_folders, read_boxes

ScoredImages = list[list[Box]]
TYPES = ["Car", "Pedestrian", "Cyclist", "Van", "Person_sitting", "DontCare", "Truck"]


def _car(
    left: float, top: float = 100.0, *, height: float = 60.0, score: float | None = None, kind: str = "Car"
) -> Box:
    return Box(kind, (left, top, left + 100.0, top + height), score=score)


def _row(count: int, *, score: float | None = None, kind: str = "Car", height: float = 60.0) -> list[Box]:
    return [_car(200.0 * n, score=score, kind=kind, height=height) for n in range(count)]


def _random(rng: np.random.Generator, images: int, *, grid: float) -> tuple[ScoredImages, ScoredImages]:
    """Boxes on a coarse grid and scores of one decimal: ties, duplicates and limits that are met exactly."""
    truth, found = [], []
    for _ in range(images):
        objects = []
        for _ in range(int(rng.integers(0, 9))):
            left, top = np.round(rng.uniform(0, 300, 2) / grid) * grid
            width, height = np.round(rng.uniform(20, 90, 2) / grid) * grid
            objects.append(
                Box(
                    str(rng.choice(TYPES)),
                    (float(left), float(top), float(left + width), float(top + height)),
                    float(rng.choice([0.0, 0.15, 0.2, 0.3, 0.5, 0.7])),
                    int(rng.integers(0, 4)),
                )
            )
        guesses = []
        for _ in range(int(rng.integers(0, 14)) if objects else 2):
            near = objects[int(rng.integers(len(objects)))] if objects else _car(0.0)
            shift = np.round(rng.normal(0, 4, 4) / grid) * grid
            corners = (np.array(near.xyxy) + shift).tolist()
            kind = near.type if rng.random() < 0.8 else str(rng.choice(TYPES))
            guesses.append(Box(kind, tuple(corners), score=round(float(rng.random()), 1)))
            if rng.random() < 0.2:
                guesses.append(guesses[-1])
        truth.append(objects)
        found.append(guesses)
    return truth, found


@pytest.mark.parametrize("metric", ["R40", "R11"])
@pytest.mark.parametrize(("seed", "grid"), [(0, 5.0), (1, 5.0), (2, 1.0), (3, 10.0)])
def test_evaluate__equals_loops_of_the_development_kit(seed: int, grid: float, metric: str) -> None:
    truth, found = _random(np.random.default_rng(seed), 60, grid=grid)
    expected = kitti_reference.evaluate(truth, found, metric)
    assert evaluate(truth, found, metric=metric) == {k: pytest.approx(v, abs=1e-9) for k, v in expected.items()}
    assert sum(v for levels in expected.values() for v in levels.values()) > 10


def test_evaluate__perfect_detections_of_41_objects_score_100() -> None:
    truth, found = [_row(41)], [_row(41, score=0.5)]
    assert evaluate(truth, found)["Car"] == {"easy": 100.0, "moderate": 100.0, "hard": 100.0}
    assert evaluate(truth, found, metric="R11")["Car"]["hard"] == 100.0


@pytest.mark.parametrize("objects", [1, 2, 20, 40])
def test_evaluate__fewer_than_41_objects_leave_the_curve_partly_zero(objects: int) -> None:
    scores = evaluate([_row(objects)], [_row(objects, score=0.5)])
    assert scores["Car"]["easy"] == pytest.approx(100 * (objects - 1) / 40)
    assert scores["Pedestrian"]["easy"] == 0.0


def test_evaluate__half_of_the_detections_false_halves_precision() -> None:
    misplaced = [_car(200.0 * n, 500.0, score=0.9) for n in range(41)]
    assert evaluate([_row(41)], [_row(41, score=0.5) + misplaced])["Car"]["easy"] == pytest.approx(50.0)


def test_evaluate__overlap_must_exceed_the_limit() -> None:
    truth = [[Box("Pedestrian", (200.0 * n, 0.0, 200.0 * n + 100, 100.0)) for n in range(41)]]
    half = [[Box("Pedestrian", (200.0 * n, 0.0, 200.0 * n + 50, 100.0), score=0.5) for n in range(41)]]
    more = [[Box("Pedestrian", (200.0 * n, 0.0, 200.0 * n + 51, 100.0), score=0.5) for n in range(41)]]
    assert evaluate(truth, half)["Pedestrian"]["easy"] == 0.0
    assert evaluate(truth, more)["Pedestrian"]["easy"] == 100.0


def test_evaluate__object_of_exactly_the_least_height_is_ignored() -> None:
    assert count_objects([_row(3, height=40.0) + _row(2, height=40.5)])["Car"] == {"easy": 2, "moderate": 5, "hard": 5}
    low = [_row(41) + [_car(200.0 * n, 500.0, height=40.0) for n in range(41)]]
    assert evaluate(low, [_row(41, score=0.5)])["Car"]["easy"] == 100.0


@pytest.mark.parametrize(
    ("truncation", "occlusion", "levels"),
    [(0.15, 0, 3), (0.16, 0, 2), (0.3, 1, 2), (0.5, 2, 1), (0.51, 0, 0), (0, 3, 0)],
)
def test_count_objects__limits_are_inclusive(truncation: float, occlusion: int, levels: int) -> None:
    box = dataclasses.replace(_car(0.0), truncation=truncation, occlusion=occlusion)
    assert sum(count_objects([[box]])["Car"].values()) == levels


@pytest.mark.parametrize(("name", "neighbor"), [("Car", "Van"), ("Pedestrian", "Person_sitting")])
def test_evaluate__neighbor_class_is_neither_missed_nor_false(name: str, neighbor: str) -> None:
    shifted = [_car(200.0 * n, 500.0, kind=neighbor) for n in range(41)]
    detected = [_car(200.0 * n, 500.0, kind=name, score=0.9) for n in range(41)]
    truth = [_row(41, kind=name) + shifted]
    assert evaluate(truth, [_row(41, kind=name, score=0.5)])[name]["easy"] == 100.0
    assert evaluate(truth, [_row(41, kind=name, score=0.5) + detected])[name]["easy"] == 100.0


def test_evaluate__low_detection_of_another_class_swallows_the_object() -> None:
    truth = [_row(41, height=41.0)]
    swallowing = [_car(200.0 * n, height=39.9, kind="Cyclist", score=0.9) for n in range(41)]
    assert evaluate(truth, [swallowing + _row(41, score=0.5, height=41.0)])["Car"] == {
        "easy": 0.0,  # the first pass gives every object to the better-scored low box, so no threshold is left
        "moderate": 100.0,  # there it is tall enough, and of another class
        "hard": 100.0,
    }


@pytest.mark.parametrize(("covered", "expected"), [(70.0, 50.0), (71.0, 100.0)])
def test_evaluate__dont_care_forgives_by_share_of_the_detection(covered: float, expected: float) -> None:
    stray = [_car(200.0 * n, 500.0, score=0.9) for n in range(41)]
    regions = [Box("DontCare", (200.0 * n, 400.0, 200.0 * n + covered, 700.0), -1, -1) for n in range(41)]
    assert evaluate([_row(41) + regions], [_row(41, score=0.5) + stray])["Car"]["easy"] == pytest.approx(expected)


def test_evaluate__types_are_compared_whatever_their_case() -> None:
    assert evaluate([_row(41, kind="car")], [_row(41, kind="CAR", score=0.5)])["Car"]["easy"] == 100.0


def test_evaluate__no_images_and_no_detections_score_zero() -> None:
    assert set(evaluate([], [])["Car"].values()) == {0.0}
    assert set(evaluate([_row(50)], [[]])["Car"].values()) == {0.0}


def test_evaluate__refuses_what_it_cannot_score() -> None:
    with pytest.raises(ShapeError, match="1 and 2"):
        evaluate([[]], [[], []])
    with pytest.raises(ValueError, match=r"'R40', 'R11', got 'R12'"):
        evaluate([], [], metric="R12")
    with pytest.raises(DataError, match=r"Image 1: a detection of type 'Car' has the score None"):
        evaluate([[], []], [[], [_car(0.0)]])
    with pytest.raises(DataError, match="score nan"):
        evaluate([[]], [[_car(0.0, score=float("nan"))]])


def _line(box: Box) -> str:
    corners = " ".join(f"{v:.2f}" for v in box.xyxy)
    score = "" if box.score is None else f" {box.score}"
    return f"{box.type} {box.truncation} {box.occlusion} -10 {corners} -1 -1 -1 -1000 -1000 -1000 -10{score}\n"


def _write(folder: Path, images: ScoredImages) -> None:
    folder.mkdir()
    for n, boxes in enumerate(images):
        (folder / f"{n:06}.txt").write_text("".join(map(_line, boxes)))


def test_evaluate_folders__equals_evaluate(tmp_path: Path) -> None:
    truth, found = _random(np.random.default_rng(4), 40, grid=5.0)
    found[7] = []
    _write(tmp_path / "labels", truth)
    _write(tmp_path / "results", found)
    (tmp_path / "results" / "000007.txt").unlink()
    assert evaluate_folders(tmp_path / "labels", tmp_path / "results", metric="R11") == evaluate(
        truth, found, metric="R11"
    )
    some = [f"{n:06}" for n in range(10, 30)]
    assert evaluate_folders(tmp_path / "labels", str(tmp_path / "results"), ids=some) == evaluate(
        truth[10:30], found[10:30]
    )


def test_evaluate_folders__names_what_is_wrong(tmp_path: Path) -> None:
    _write(tmp_path / "labels", [_row(1)])
    _write(tmp_path / "results", [_row(1)])
    with pytest.raises(DataError, match=r"000000\.txt:1: expected .* 16 columns, the last a score"):
        evaluate_folders(tmp_path / "labels", tmp_path / "results")
    with pytest.raises(DataError, match=r"no folder .*elsewhere"):
        evaluate_folders(tmp_path / "labels", tmp_path / "elsewhere")
    with pytest.raises(DataError, match=r"000009\.txt' cannot be read"):
        evaluate_folders(tmp_path / "labels", tmp_path / "results", ids=["000009"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no label files"):
        evaluate_folders(tmp_path / "empty", tmp_path / "results")


@pytest.mark.parametrize("line", ["Car 0 0 -10 1 2 3 4", "Car 0 0 -10 1 2 three 4 1 1 1 1 1 1 1", "Car" + " nan" * 14])
def test_read_boxes__refuses_malformed_lines(tmp_path: Path, line: str) -> None:
    (tmp_path / "a.txt").write_text(f"\n{line}\n")
    with pytest.raises(DataError, match=r"a\.txt:2: expected a type and finite numbers in 15 columns"):
        read_boxes(tmp_path / "a.txt")


def test_evaluate_folders__real_labels_as_their_own_results(shared: Path, tmp_path: Path) -> None:
    labels = shared / "data" / "kitti-raw" / "training" / "label_2"
    truth = []
    for file in sorted(labels.glob("*.txt")):
        truth.append(read_boxes(file))
        scored = [line for line in file.read_text().splitlines() if not line.startswith("DontCare")]
        (tmp_path / file.name).write_text("".join(f"{line} 0.9\n" for line in scored))
    scores, objects = evaluate_folders(labels, tmp_path), count_objects(truth)
    assert objects["Car"]["moderate"] > 41
    for name, levels in objects.items():
        for difficulty, count in levels.items():
            expected = 100.0 if count >= 41 else max(0.0, 100 * (count - 1) / 40)
            assert scores[name][difficulty] == pytest.approx(expected), (name, difficulty)


@pytest.mark.parametrize("metric", ["R40", "R11"])
@pytest.mark.parametrize("objects", [0, 1, 2, 4, 5, 37, 40, 41, 42, 60, 81, 100])
def test_attainable__is_what_perfect_detections_score(objects: int, metric: str) -> None:
    scores = evaluate([_row(objects)], [_row(objects, score=0.5)], metric=metric)
    assert attainable(objects, metric=metric) == pytest.approx(scores["Car"]["easy"])
