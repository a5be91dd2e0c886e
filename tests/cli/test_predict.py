from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner
from ultralytics import YOLO

from tests.evaluation import tiny
from yolokd.cli.predict import predict
from yolokd.errors import RunError, UserError, WeightsError

app = typer.Typer()
app.command()(predict)
runner = CliRunner()


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tiny.checkpoint(tmp_path_factory.mktemp("weights") / "best.pt"))


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.data_set(tmp_path_factory.mktemp("data"), pictures=3).parent / "images" / "val"


def test_predict__one_line_per_picture_and_the_pictures(weights: str, pictures: Path, tmp_path: Path) -> None:
    out = tmp_path / "drawn" / "[here]"
    result = runner.invoke(app, [weights, str(pictures), "--out", str(out), "--device", "cpu"])
    assert result.exception is None
    lines = result.stdout.splitlines()
    assert lines[:3] == [f"{n:06}.png: nothing" for n in range(3)]
    assert lines[3:] == [f"The pictures are in {out}"]
    assert sorted(p.stem for p in out.glob("[!.]*")) == [f"{n:06}" for n in range(3)]


def test_predict__counts_by_class_and_respects_the_threshold(shared: Path, tmp_path: Path) -> None:
    picture = shutil.copy(shared / "data" / "highway" / "images" / "val" / "06674494.jpg", tmp_path / "street.jpg")
    common = [
        str(shared / "weights" / "yolov8n-coco.pt"),
        str(picture),
        "--out",
        str(tmp_path / "out"),
        "--imgsz",
        "320",
    ]
    few = runner.invoke(app, [*common, "--conf", "0.9"]).stdout.splitlines()[0]
    many = runner.invoke(app, [*common, "--conf", "0.1"]).stdout.splitlines()[0]
    assert many.startswith("street.jpg: ")
    assert "truck" in many or "bus" in many
    assert few != many


def test_predict__rounds_the_size_and_says_so(weights: str, pictures: Path, tmp_path: Path) -> None:
    result = runner.invoke(app, [weights, str(pictures / "000000.png"), "--imgsz", "70", "--out", str(tmp_path / "o")])
    assert result.stdout.splitlines()[0] == "imgsz 70 is no multiple of 32: 96 was used"


def test_predict__the_user_s_mistakes(weights: str, tmp_path: Path) -> None:
    missing = runner.invoke(app, [weights, str(tmp_path / "gone.jpg")])
    assert isinstance(missing.exception, UserError)
    assert "no picture, video or folder" in str(missing.exception)
    empty = runner.invoke(app, [weights, str(tmp_path), "--out", str(tmp_path / "out")])
    assert isinstance(empty.exception, UserError)
    assert "no pictures or videos in" in str(empty.exception)
    assert isinstance(runner.invoke(app, ["gone.pt", str(tmp_path)]).exception, WeightsError)


def test_predict__failure_of_ultralytics_is_a_failed_run(
    weights: str, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(self: Any, *source: Any, **options: Any) -> None:
        raise RuntimeError("no such device")

    monkeypatch.setattr(YOLO, "predict", fail)
    result = runner.invoke(app, [weights, str(pictures), "--out", str(tmp_path / "out")])
    assert isinstance(result.exception, RunError)
    assert "failed: no such device" in str(result.exception)
