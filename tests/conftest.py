"""Settings that every test needs: no network, no installs, a configuration folder of its own, few threads."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

os.environ["YOLO_OFFLINE"] = "true"
os.environ["YOLO_AUTOINSTALL"] = "false"
os.environ["ULTRALYTICS_SAFE_LOAD"] = "true"
os.environ["YOLO_VERBOSE"] = "false"
os.environ.setdefault("YOLO_CONFIG_DIR", tempfile.mkdtemp(prefix="yolokd-tests-"))
os.environ.setdefault("YOLOKD_CACHE", tempfile.mkdtemp(prefix="yolokd-tests-"))
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MPLBACKEND", "Agg")
os.environ["COLUMNS"] = "200"

import pytest

pytest_plugins = ["tests.helpers.fixtures"]

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session")
def shared() -> Path:
    """Folder of real images and weights beside the project; tests that need it skip where it is absent."""
    if not SHARED.is_dir():
        pytest.skip(reason="real images and weights (../shared) are not here")
    return SHARED
