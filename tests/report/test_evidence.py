"""The numbers of a diagnosis, read from run directories and scored by real, tiny networks."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.helpers import tiny
from tests.helpers.making import checkpoint, make_run
from yolokd.backend.dataset import resolve
from yolokd.data.layout import fingerprint
from yolokd.errors import DataError, UserError, WeightsError
from yolokd.evaluation.ground_truth import sample
from yolokd.evaluation.models import evaluate
from yolokd.report import evidence
from yolokd.report.evidence import (
    AP,
    curve_of,
    diagnose_student,
    find_student,
    known_lines,
    taken_images,
    unlabeled_images,
)
from yolokd.report.runs import RunFolder, read_run

NAMES = ("class0", "class1", "class2")  # of the tiny networks


def run_with(columns: dict[str, Sequence[float]], **arguments: Any) -> RunFolder:
    """A run with these columns of results.csv."""
    count = len(next(iter(columns.values())))
    table = {name: tuple(values) for name, values in {"epoch": range(count), **columns}.items()}
    return RunFolder(Path("run"), arguments, {}, {}, table, (), "finished", "digest", ())


def test_curve_of__compares_the_last_two_fifths() -> None:
    aps = [0.9] * 6 + [0.1, 0.3] + [0.4, 0.6]
    curve = curve_of(run_with({AP: aps, "train/box_loss": [4.0] * 8 + [2.0] * 2, "train/cls_loss": [1.0] * 10}))
    assert curve is not None
    assert curve.epochs == 10
    assert curve.rise == pytest.approx(0.3)
    assert curve.fall == pytest.approx(0.4)  # 5 → 3


def test_curve_of__terms_of_the_distillation_are_no_losses_of_the_labels() -> None:
    curve = curve_of(run_with({"train/box_loss": [2.0] * 10, "train/kd_bckd_cls": [9.0] * 8 + [0.0] * 2}))
    assert curve is not None
    assert curve.fall == 0.0
    assert curve.rise is None


def test_curve_of__losses_fall_by_themselves_when_mosaic_ends() -> None:
    losses = [2.0] * 32 + [1.0] * 8
    curve = curve_of(run_with({"train/box_loss": losses}, epochs=40, close_mosaic=10))
    assert curve is not None
    assert curve.fall == 0.0
    stopped = curve_of(run_with({"train/box_loss": losses}, epochs=400, close_mosaic=10))
    assert stopped is not None
    assert stopped.fall == 0.5  # stopped early: mosaic never ended


@pytest.mark.parametrize(
    "run",
    [
        run_with({AP: [0.0] * 19 + [0.3]}, val=False),
        run_with({AP: [0.0] * 19 + [0.3], "val/box_loss": [0.0] * 19 + [1.0]}),
        run_with({AP: [0.1] * 19 + [float("nan")]}),
        run_with({AP: [0.1] * 9}),
    ],
    ids=["val=False", "losses of 0", "NaN", "nine epochs"],
)
def test_curve_of__ap_that_was_not_measured_is_not_known(run: RunFolder) -> None:
    curve = curve_of(run)
    assert curve is not None
    assert (curve.rise, curve.fall) == (None, None)


def test_curve_of__without_results_is_not_known() -> None:
    assert curve_of(run_with({AP: []})) is None


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.data_set(tmp_path_factory.mktemp("data"), names=NAMES, images=5)


@pytest.mark.parametrize(
    ("fraction", "count"), [(None, 5), (1.0, 5), (0.4, 2), (3, 3), ([0.2, 1.0], 1), (9, 5), ("all", 5), (True, 5)]
)
def test_taken_images__are_the_first_ones(data: Path, fraction: Any, count: int) -> None:
    folder = data.parent / "images" / "train"
    taken = taken_images([folder], {} if fraction is None else {"fraction": fraction})
    assert taken == {str(folder / f"{number:06}.png") for number in range(count)}


def test_unlabeled_images__as_recorded(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", Path("data.yaml"))
    assert unlabeled_images(read_run(folder)) == 0
    provenance = json.loads((folder / "provenance.json").read_text())
    for recorded, count in (({"pictures": 612}, 612), ({"pictures": "many"}, 0), ("footage", 0)):
        (folder / "provenance.json").write_text(json.dumps({**provenance, "unlabeled": recorded}))
        assert unlabeled_images(read_run(folder)) == count


@pytest.mark.slow
def test_diagnose_student__scores_are_those_of_evaluate(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run(tmp_path / "run", data)
    weights = run / "weights" / "last.pt"
    teacher = checkpoint(tmp_path / "teacher.pt", "teacher")
    found = diagnose_student(run, str(data), teacher=teacher, imgsz=64, teacher_imgsz=96, device="cpu")
    for split in ("train", "val"):
        for role, path, imgsz in (("student", weights, 64), ("teacher", teacher, 96)):
            (score,) = evaluate(path, data, split=split, imgsz=imgsz, device="cpu")
            own = found.scores[role][split]
            assert (own.AP, own.per_class, own.imgsz) == (score.AP, score.per_class, imgsz)
    numbers = found.evidence
    assert numbers.train_ap == found.scores["student"]["train"].AP
    assert numbers.teacher_val_ap == found.scores["teacher"]["val"].AP
    assert (numbers.labeled, numbers.unlabeled, numbers.from_scratch) == (5, 0, True)
    assert found.images == {"train": 5, "val": 5}
    assert numbers.curve is not None
    assert numbers.curve.epochs == 3
    assert found.diagnosis.lacks == ("steps", "capacity")  # untrained, and of three epochs no curve is known
    assert not found.diagnosis.certain

    monkeypatch.setattr(evidence, "MOST_TRAINING_IMAGES", 2)
    found = diagnose_student(weights, str(data), device="cpu")
    assert found.images == {"train": 2, "val": 5}
    assert (found.evidence.labeled, found.evidence.curve, found.evidence.from_scratch) == (5, None, False)


@pytest.mark.slow
def test_diagnose_student__other_training_images_are_noted(data: Path, tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", data, fraction=0.4)
    provenance = json.loads((run / "provenance.json").read_text())
    own = fingerprint({"train": resolve(str(data)).splits["train"]})
    for recorded, notes in ((own, 0), ("2:other", 1)):
        splits = {"train": {"images": 5, "fingerprint": recorded}}
        (run / "provenance.json").write_text(json.dumps({**provenance, "data_splits": splits}))
        found = diagnose_student(run, str(data), device="cpu")
        assert len(found.notes) == notes
        assert found.images["train"] == found.evidence.labeled == 2  # train.fraction


def test_diagnose_student__no_objects_to_score_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = tiny.data_set(tmp_path / "data", names=NAMES, images=2)
    monkeypatch.setattr(evidence, "MOST_TRAINING_IMAGES", 1)
    (chosen,) = sample((data.parent / "images" / "train").iterdir(), 1)
    (data.parent / "labels" / "train" / f"{chosen.stem}.txt").write_text("")
    with pytest.raises(DataError, match="None of the train images that are scored on has an object"):
        diagnose_student(make_run(tmp_path / "run", data), str(data), device="cpu")


def test_known_lines__without_scoring(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", Path("data.yaml"))
    curve = "Curve: not known, since 3 epochs are too few (at least 10)."
    assert known_lines(read_run(folder), None) == [curve]
    provenance = json.loads((folder / "provenance.json").read_text())
    more = {"data_splits": {"train": {"images": 68}}, "unlabeled": {"pictures": 612}}
    (folder / "provenance.json").write_text(json.dumps({**provenance, **more}))
    assert known_lines(read_run(folder), 0.248) == [
        "AP on validation images: 24.8; yolokd diagnose compares it with training images.",
        "Labels: 68 labeled images and 612 unlabeled ones (10 % labeled).",
        curve,
    ]


def test_find_student__mistakes_are_named(tmp_path: Path) -> None:
    make_run(tmp_path / "open", Path("data.yaml"), epoch=1)
    (make_run(tmp_path / "bare", Path("data.yaml")) / "weights" / "last.pt").unlink()
    (make_run(tmp_path / "torn", Path("data.yaml")) / "weights" / "last.pt").write_bytes(b"PK")
    (tmp_path / "compare").mkdir()
    (tmp_path / "compare" / "compare.json").write_text("{}")
    (tmp_path / "empty").mkdir()
    cases: list[tuple[str, type[Exception], str]] = [
        ("gone", UserError, "There is no run and no checkpoint '.*gone'"),
        ("empty", UserError, "'.*empty' is neither a run nor a comparison"),
        ("compare", UserError, "'.*compare' is a comparison; give one of its runs"),
        ("open", UserError, "is unfinished, 3 of 3 epochs, .* yolokd train --resume"),
        ("bare", WeightsError, "has no weights that can be scored, since '.*last.pt' is missing"),
        ("torn", WeightsError, "has no weights that can be scored: .*last.pt"),
    ]
    for name, error, words in cases:
        with pytest.raises(error, match=words):
            find_student(tmp_path / name)


def test_diagnose_student__splits_must_be_there(tmp_path: Path) -> None:
    data = tiny.data_set(tmp_path / "data", names=NAMES, images=2)
    content = yaml.safe_load(data.read_text())
    del content["train"]
    data.write_text(yaml.safe_dump(content))
    with pytest.raises(DataError, match="train"):
        diagnose_student(make_run(tmp_path / "run", data), str(data), device="cpu")
