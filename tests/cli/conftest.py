"""A small comparison for the tests of `yolokd compare`, and small files for those of `yolokd train`.

Other modules have a `run` of their own.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from tests.helpers.calling import Run, call
from tests.helpers.comparing import FakeExecutor, an_hour_each
from tests.helpers.fixtures import make_data
from tests.helpers.models import CONFIGS, detector, save
from tests.helpers.train_cli import make_files, runner
from yolokd.comparison import planning
from yolokd.comparison.executors.protocol import Place
from yolokd.comparison.executors.table import EXECUTORS


@pytest.fixture(scope="module")
def options(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A small comparison."""
    folder = tmp_path_factory.mktemp("compare")
    make_data(folder / "data", train=8, val=4)
    description = yaml.safe_load((CONFIGS / "v8/yolov8.yaml").read_text())
    description.update(depth_multiple=0.33, width_multiple=0.125)
    del description["scales"]
    (folder / "student.yaml").write_text(yaml.safe_dump(description))
    return {
        "--teacher": str(save(detector("v8", width=0.25, seed=1), folder / "teacher.pt")),
        "--student": str(folder / "student.yaml"),
        "--recipes": "bckd",
        "--seeds": "0,1",
        "--data": str(folder / "data" / "data.yaml"),
        "--epochs": "1",
        "--imgsz": "64",
        "--batch": "8",
        "--device": "cpu",
        "--name": "small",
    }


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeExecutor:
    """No training: each run leaves its results at once, and a measurement says that it takes an hour."""
    found = FakeExecutor()

    monkeypatch.setattr(planning, "measure", an_hour_each)

    def make(place: Place) -> FakeExecutor:
        found.devices, found.slots = place.devices, len(place.devices)
        return found

    monkeypatch.setitem(EXECUTORS, "local", make)
    return found


@pytest.fixture
def run(
    options: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Run:
    """Run `yolokd compare` in an empty folder, with the small comparison's options changed as given; None: left out."""
    monkeypatch.chdir(tmp_path)

    def run_with(*words: str, **changes: str | None) -> tuple[int, str, str]:
        given = {**options, **{f"--{key}": value for key, value in changes.items()}}
        pairs = [word for key, value in given.items() if value is not None for word in (key, value)]
        return call(capsys, "compare", *pairs, *words)

    return run_with


@pytest.fixture(scope="module")
def train_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_files(tmp_path_factory.mktemp("files"))


@pytest.fixture
def train(
    train_files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Run:
    monkeypatch.chdir(tmp_path)
    return runner(train_files, capsys)
