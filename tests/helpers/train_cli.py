"""`yolokd train` on small files, as the tests of the command line call it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import yaml

from tests.helpers.calling import Result, Run, call, fails, filled
from tests.helpers.fixtures import make_data
from tests.helpers.models import CONFIGS, detector, save


def make_files(folder: Path) -> Path:
    """Write data, a teacher and a student's description into a folder, and return it."""
    make_data(folder / "data", train=4, val=2)
    save(detector("v8", width=0.25, seed=1), folder / "teacher.pt")
    description = yaml.safe_load((CONFIGS / "v8/yolov8.yaml").read_text())
    description.update(depth_multiple=0.33, width_multiple=0.125)
    del description["scales"]
    (folder / "student.yaml").write_text(yaml.safe_dump(description))
    return folder


def runner(files: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    """Return what runs `yolokd train` in the current folder, with the good files wherever an option is not given."""

    def run_with(*options: str, dry: bool = True, without: Sequence[str] = ()) -> tuple[int, str, str]:
        standard = {
            "--teacher": str(files / "teacher.pt"),
            "--student": str(files / "student.yaml"),
            "--recipe": "bckd_ssim",
            "--data": str(files / "data" / "data.yaml"),
            "--imgsz": "64",
            "--device": "cpu",
        }
        return call(capsys, "train", *filled(options, standard, without), *(["--dry-run"] if dry else []))

    return run_with


def refuses(result: Result, *words: str, code: int = 2) -> bool:
    """Whether there is one short error with these words, and nothing was written."""
    assert fails(result, *words, code=code)
    assert not Path("runs").exists()
    return True
