from __future__ import annotations

import math
from pathlib import Path

import pytest

from tests.helpers.making import checkpoint, make_run
from yolokd.errors import UserError
from yolokd.files import sha256
from yolokd.report.runs import read_columns, read_run


def test_read_run__everything_that_a_finished_run_left(tmp_path: Path, teacher: Path) -> None:
    folder = make_run(tmp_path / "a", Path("data.yaml"), "bckd", 7, teacher=teacher)
    (folder / "aid.jsonl").write_text('{"epoch": 1, "mean_weight": 0.5}\n')
    run = read_run(folder)
    assert (run.state, run.recipe_name, run.seed, run.imgsz, run.epochs) == ("finished", "bckd", 7, 64, 3)
    assert (run.student, run.data, run.distilled) == ("student.yaml", "data.yaml", True)
    assert (run.weights, run.digest) == (folder / "weights" / "last.pt", sha256(folder / "weights" / "last.pt"))
    assert run.teacher_sha256 == sha256(teacher)
    assert list(run.columns["train/box_loss"]) == [3, 2, 8]
    assert run.aid[0]["mean_weight"] == 0.5
    assert (run.progress, run.problems) == ("finished, 3 epochs", ())


def test_read_run__states(tmp_path: Path) -> None:
    half = read_run(make_run(tmp_path / "half", Path("d"), epoch=1, epochs=9))
    assert (half.state, half.progress) == ("unfinished", "unfinished, 3 of 9 epochs")
    assert half.weights is not None
    bare = make_run(tmp_path / "bare", Path("d"))
    (bare / "weights" / "last.pt").unlink()
    assert (read_run(bare).state, read_run(bare).weights) == ("without weights", None)


def test_read_run__damaged_files_are_named_and_the_rest_is_read(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "a", Path("d"))
    (folder / "weights" / "last.pt").write_bytes(b"no checkpoint")
    (folder / "args.yaml").write_text("{[")
    (folder / "provenance.json").write_text("[1]")
    (folder / "aid.jsonl").write_text("{")
    run = read_run(folder)
    assert (run.state, run.digest, run.epochs) == ("without weights", None, 3)
    assert "last.pt' cannot be read" in run.problems[0]
    assert run.problems[1:] == (
        "args.yaml cannot be read",
        "provenance.json cannot be read",
        "aid.jsonl cannot be read",
    )
    assert (run.recipe_name, run.seed, run.imgsz) == ("not recorded", None, None)


def test_read_run__a_run_of_ultralytics_itself(tmp_path: Path) -> None:
    checkpoint(tmp_path / "weights" / "last.pt", "x")
    (tmp_path / "args.yaml").write_text("model: yolov8n.pt\ndata: coco8.yaml\nseed: 3\nimgsz: [64, 32]\n")
    run = read_run(tmp_path)
    assert (run.student, run.data, run.seed, run.imgsz) == ("yolov8n.pt", "coco8.yaml", 3, 64)
    assert not run.distilled
    assert run.progress == "finished, 0 of ? epochs"


def test_read_run__what_is_no_run(tmp_path: Path) -> None:
    make_run(tmp_path / "runs" / "a", Path("d"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"There is no folder '.*gone' to report on"):
        read_run(tmp_path / "gone")
    with pytest.raises(UserError, match=r"'.*empty' is neither a run nor a comparison"):
        read_run(tmp_path / "empty")
    with pytest.raises(UserError, match=r"It holds runs; name them, such as '.*runs/a'"):
        read_run(tmp_path / "runs")
    with pytest.raises(UserError, match=r"Give the run's folder: '.*runs/a'"):
        read_run(tmp_path / "runs" / "a" / "weights" / "last.pt")


def test_read_columns__rows_that_were_cut_short_are_left_out(tmp_path: Path) -> None:
    file = tmp_path / "results.csv"
    file.write_text("epoch,  train/a\n1, 0.5\n2,\n3")
    columns = read_columns(file)
    assert list(columns["epoch"]) == [1, 2]
    assert columns["train/a"][0] == 0.5
    assert math.isnan(columns["train/a"][1])
    file.write_text("")
    assert read_columns(file) == read_columns(tmp_path / "gone") == {}
