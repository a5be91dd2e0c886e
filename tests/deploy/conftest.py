"""A small checkpoint, and a single timed pass."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.helpers import tiny
from yolokd.backend import runtimes


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtimes, "TIMED_PASSES", 1)


@pytest.fixture
def trained_at_64(tmp_path: Path) -> Path:
    return tiny.checkpoint(tmp_path / "weights" / "best.pt")
