"""The files of a run: csv repair, the results image, model descriptions of odd sizes."""

from __future__ import annotations

from pathlib import Path

import cv2
import pytest
from ultralytics.nn.tasks import DetectionModel

from yolokd.backend.descriptions import write_yolov8
from yolokd.backend.plots import plot_results
from yolokd.training.run_files import cut_results

HEADER = "epoch,time,train/box_loss,train/kd_ssim,val/box_loss,val/kd_ssim,metrics/mAP50(B)"


def csv_file(folder: Path, *rows: str) -> Path:
    path = folder / "results.csv"
    path.write_text("\n".join([HEADER, *rows]) + "\n")
    return path


@pytest.mark.parametrize(
    ("rows", "epochs", "kept"),
    [
        (["1,1,2,3,4,0,5", "2,1,2,3,4,0,5", "3,1,2,3,4,0,5"], 2, ["1", "2"]),
        (["1,1,2,3,4,0,5", "2,1,2"], 2, ["1"]),
        (["1,1,2,3,4,0,5", "1,9,9,9,9,0,9"], 1, ["1"]),
        ([], 4, []),
    ],
)
def test_cut_results__keeps_whole_rows_of_saved_epochs_once(
    tmp_path: Path, rows: list[str], epochs: int, kept: list[str]
) -> None:
    path = csv_file(tmp_path, *rows)
    cut_results(path, epochs)
    lines = path.read_text().splitlines()
    assert lines[0] == HEADER
    assert [line.split(",")[0] for line in lines[1:]] == kept
    assert not list(tmp_path.glob("*.part"))


def test_cut_results__a_missing_file_is_fine(tmp_path: Path) -> None:
    cut_results(tmp_path / "results.csv", 3)
    assert not list(tmp_path.iterdir())


def test_plot_results__draws_one_panel_per_loss_term_and_metric(tmp_path: Path) -> None:
    path = csv_file(tmp_path, "1,1,2,3,4,0,5", "2,1,1.5,2,3,0,6")
    image = cv2.imread(str(plot_results(path)))
    assert image is not None
    height, width = image.shape[:2]
    assert width > height > 100
    assert image[:, : width // 4].min() < 100  # the first panel is drawn
    assert image[:, -width // 5 :].min() == 255  # there are three panels for four places


@pytest.mark.parametrize(("width", "channels"), [(0.125, 128), (0.25, 256)])
def test_write_yolov8__builds_with_the_asked_width(tmp_path: Path, width: float, channels: int) -> None:
    path = write_yolov8(tmp_path / "models" / "small.yaml", width=width)
    model = DetectionModel(str(path), nc=3, verbose=False)
    assert model.model[-1].cv2[-1][0].conv.in_channels == channels
