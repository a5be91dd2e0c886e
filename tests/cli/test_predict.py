from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import typer
from typer.testing import CliRunner
from ultralytics import YOLO

from tests.helpers import segments, tiny
from yolokd.cli.predict import predict
from yolokd.errors import RunError, UserError, WeightsError

app = typer.Typer()
app.command()(predict)
runner = CliRunner()


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tiny.checkpoint(tmp_path_factory.mktemp("weights") / "best.pt"))


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.data_set(tmp_path_factory.mktemp("data"), images=3).parent / "images" / "val"


def test_predict__one_line_per_image_and_the_images(weights: str, images: Path, tmp_path: Path) -> None:
    out = tmp_path / "drawn" / "[here]"
    result = runner.invoke(app, [weights, str(images), "--out", str(out), "--device", "cpu"])
    assert result.exception is None
    lines = result.stdout.splitlines()
    assert lines[:3] == [f"{n:06}.png: nothing" for n in range(3)]
    assert lines[3:] == [f"The images are in {out}"]
    assert sorted(p.stem for p in out.glob("[!.]*")) == [f"{n:06}" for n in range(3)]


@pytest.mark.parametrize("family", ["v8-seg", "v8-pose"])
def test_predict__masks_and_keypoints_are_drawn(images: Path, tmp_path: Path, family: str) -> None:
    weights = segments.save(segments.model_of(family), tmp_path / "model.pt")
    (image,) = (path for path in images.iterdir() if path.stem == "000000")
    result = runner.invoke(app, [str(weights), str(image), "--out", str(tmp_path / "out"), "--conf", "0.3"])
    assert result.exception is None
    assert "class" in result.stdout.splitlines()[0]


def test_predict__rotated_boxes_of_an_obb_model_are_drawn_and_counted(images: Path, tmp_path: Path) -> None:
    weights = segments.save(segments.model_of("v8-obb"), tmp_path / "obb.pt")
    image = next(iter(sorted(images.iterdir())))
    result = runner.invoke(app, [str(weights), str(image), "--out", str(tmp_path / "out"), "--conf", "0.3"])
    assert result.exception is None
    assert "class" in result.stdout.splitlines()[0]


def test_predict__counts_by_class_and_respects_the_threshold(shared: Path, tmp_path: Path) -> None:
    image = shutil.copy(shared / "data" / "highway" / "images" / "val" / "06674494.jpg", tmp_path / "street.jpg")
    common = [
        str(shared / "weights" / "yolov8n-coco.pt"),
        str(image),
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


def test_predict__rounds_the_size_and_says_so(weights: str, images: Path, tmp_path: Path) -> None:
    result = runner.invoke(app, [weights, str(images / "000000.png"), "--imgsz", "70", "--out", str(tmp_path / "o")])
    assert result.stdout.splitlines()[0] == "imgsz 70 is no multiple of 32: 96 was used"


def test_predict__the_user_s_mistakes(weights: str, tmp_path: Path) -> None:
    missing = runner.invoke(app, [weights, str(tmp_path / "gone.jpg")])
    assert isinstance(missing.exception, UserError)
    assert "no image, video or folder" in str(missing.exception)
    empty = runner.invoke(app, [weights, str(tmp_path), "--out", str(tmp_path / "out")])
    assert isinstance(empty.exception, UserError)
    assert "no images or videos in" in str(empty.exception)
    assert isinstance(runner.invoke(app, ["gone.pt", str(tmp_path)]).exception, WeightsError)


def test_predict__failure_of_ultralytics_is_a_failed_run(
    weights: str, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(self: Any, *source: Any, **options: Any) -> None:
        raise RuntimeError("no such device")

    monkeypatch.setattr(YOLO, "predict", fail)
    result = runner.invoke(app, [weights, str(images), "--out", str(tmp_path / "out")])
    assert isinstance(result.exception, RunError)
    assert "failed: no such device" in str(result.exception)


def test_predict__passes_over_what_it_cannot_use_and_says_so(weights: str, images: Path, tmp_path: Path) -> None:
    folder = tmp_path / "mixed"
    folder.mkdir()
    for name in (b"fine.png", b"it's [1] *.png", b"caf\xe9.png", b"new\nline.png"):
        shutil.copy(images / "000000.png", folder / os.fsdecode(name))
    (folder / "page.jpg").write_text("<html>")
    (folder / "lost.jpg").symlink_to("nowhere")
    before = {path: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    result = runner.invoke(app, [weights, str(folder), "--out", str(tmp_path / "out"), "--device", "cpu"])
    assert result.exception is None, result.exception
    text = result.stdout
    assert "caf\\xe9.png: nothing" in text.splitlines()
    assert "new\\nline.png: nothing" in text.splitlines()
    assert f"'{folder}/page.jpg' is passed over: a file that cannot be read (not an image of a known format)" in text
    assert f"'{folder}/lost.jpg' is passed over" in text
    assert {path.stem for path in (tmp_path / "out").glob("*.*")} - {".yolokd"} == {
        "fine",
        "it's [1] *",
        os.fsdecode(b"caf\xe9"),
        "new\nline",
    }
    assert "fine.png: nothing" in text.splitlines()
    assert {path: path.read_bytes() for path in folder.iterdir() if path.is_file()} == before


@pytest.mark.parametrize("name", [b"page.jpg", b"empty.png"])
def test_predict__a_single_file_that_cannot_be_used(weights: str, images: Path, tmp_path: Path, name: bytes) -> None:
    path = tmp_path / os.fsdecode(name)
    path.write_bytes({b"page.jpg": b"<html>", b"empty.png": b""}.get(name, (images / "000000.png").read_bytes()))
    result = runner.invoke(app, [weights, str(path), "--out", str(tmp_path / "out")])
    assert isinstance(result.exception, UserError)
    assert "is passed over: a file " in str(result.exception)
    assert name.decode("utf-8", "backslashreplace") in str(result.exception)


def test_predict__an_image_too_small_for_training(weights: str, tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "small.png"), np.zeros((8, 8, 3), np.uint8))
    result = runner.invoke(app, [weights, str(tmp_path / "small.png"), "--out", str(tmp_path / "out")])
    assert result.exception is None, result.exception
    assert "small.png: nothing" in result.stdout.splitlines()
