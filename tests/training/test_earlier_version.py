"""Files that version 0.1.0 wrote, before the package got its layout: they load, resume and go on in a comparison.

`helpers/data/runs-0.1.0.zip` was made by that version: a data set, a teacher, a run that was killed after the first of
three epochs (`run`: bckd, ssim with an automatic gain, aid), and a finished comparison of one seed (`comparison`).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch
from ultralytics import YOLO

from tests.helpers.calling import call
from yolokd.backend.checkpoints import load, load_detector, plain_copy

FILES = Path(__file__).resolve().parents[1] / "helpers" / "data" / "runs-0.1.0.zip"


@pytest.fixture
def earlier(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that the earlier version worked in, in another place."""
    with zipfile.ZipFile(FILES) as archive:
        archive.extractall(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_load__the_pair_of_an_unfinished_run(earlier: Path) -> None:
    last = earlier / "runs" / "run" / "weights" / "last.pt"
    _, checkpoint = load(last)
    assert checkpoint["epoch"] == 0
    student = load_detector(last)
    plain = YOLO(str(plain_copy(last, earlier)))
    assert plain.names == student.names == {0: "class0", 1: "class1", 2: "class2"}
    image = torch.rand(1, 3, 64, 64)
    assert torch.equal(student.half().float().eval()(image)[0], plain.model.float().eval()(image)[0])


def test_load__without_restriction_too(earlier: Path) -> None:
    code = (
        "import pathlib, sys; from yolokd.backend.checkpoints import load; "
        "print(load(pathlib.Path(sys.argv[1]))[1]['epoch'])"
    )
    last = earlier / "runs" / "run" / "weights" / "last.pt"
    environment = {**os.environ, "ULTRALYTICS_SAFE_LOAD": "false"}
    done = subprocess.run([sys.executable, "-c", code, last], capture_output=True, text=True, env=environment)
    assert done.stdout.strip().endswith("0"), done.stderr


@pytest.mark.slow
def test_resume__goes_on_where_the_earlier_version_was_ended(earlier: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (earlier / "runs" / "run" / "results.csv").read_text().splitlines()
    code, _, err = call(capsys, "train", "--resume", "runs/run", "--data", "data/data.yaml", "--teacher", "teacher.pt")
    assert code == 0, err
    rows = (earlier / "runs" / "run" / "results.csv").read_text().splitlines()
    assert rows[: len(before)] == before
    assert [row.split(",")[0] for row in rows[1:]] == ["1", "2", "3"]
    assert [
        json.loads(line)["epoch"] for line in (earlier / "runs" / "run" / "aid.jsonl").read_text().splitlines()
    ] == [1, 2, 3]
    saved = torch.load(earlier / "runs" / "run" / "weights" / "last.pt", weights_only=False)
    assert type(saved["model"]).__name__ == "DetectionModel"
    assert saved["yolokd"]["recipe"]["losses"].keys() == {"bckd", "ssim"}


@pytest.mark.slow
def test_compare__goes_on_with_another_seed_and_repeats_nothing(
    earlier: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = call(
        capsys,
        *("compare", "--recipes", "bckd", "--student", "nano.yaml", "--teacher", "teacher.pt", "--seeds", "0,1"),
        *("--data", "data/data.yaml", "--imgsz", "64", "--batch", "4", "--epochs", "1", "--device", "cpu"),
        *("--name", "comparison", "--set", "train.plots=false", "--set", "train.workers=0"),
    )
    assert code == 0, err
    for done in ("[1/5] teacher", "[2/5] nano/baseline-0", "[3/5] nano/bckd-0"):
        assert f"{done}: AP 0.0, finished before" in out + err
    assert "[5/5] nano/bckd-1: AP" in out + err
    assert "No interval for new images of bckd: some of the runs have no matches.npz" in out
    assert not (earlier / "runs" / "comparison" / "nano" / "bckd-0" / "matches.npz").exists()
    assert (earlier / "runs" / "comparison" / "nano" / "bckd-1" / "matches.npz").exists()


@pytest.mark.slow
def test_report__on_what_the_earlier_version_left(earlier: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = call(capsys, "report", "runs/comparison", "--out", "page.html", "--device", "cpu")
    assert code == 0, err
    page = (earlier / "page.html").read_text(encoding="utf-8")
    assert "bckd has no interval for new images: some runs have no matches.npz" in page
