"""A data set with names that want to be markup, and runs on it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.helpers import tiny
from tests.helpers.making import NAMES, Oracle, checkpoint, two_arms
from yolokd.report import charts, examples, scoring


@pytest.fixture(scope="session")
def odd_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.data_set(tmp_path_factory.mktemp("odd"), names=NAMES, images=8, seed=3)


@pytest.fixture
def oracle(odd_data: Path, monkeypatch: pytest.MonkeyPatch) -> Oracle:
    """Takes the place of the networks."""
    found = Oracle(odd_data)
    found.shares["teacher"] = 0.9
    monkeypatch.setattr(scoring, "examine", found)
    return found


@pytest.fixture
def teacher(tmp_path: Path) -> Path:
    return checkpoint(tmp_path / "teacher.pt", "teacher")


@pytest.fixture
def runs(tmp_path: Path, odd_data: Path, teacher: Path, oracle: Oracle) -> list[Path]:
    """Two seeds of plain training and of a recipe that finds a little more."""
    return two_arms(tmp_path, odd_data, teacher, oracle)


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Charts and images that take no time."""
    monkeypatch.setattr(charts, "_svg", lambda *_: b"<svg/>")
    monkeypatch.setattr(examples, "draw", lambda *_: b"jpeg")
