from __future__ import annotations

from pathlib import Path

import pytest

from tests.helpers import tiny
from yolokd.backend.dataset import resolve
from yolokd.errors import DataError


def test_resolve__a_relative_root_is_explained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = tiny.data_set(tmp_path / "set")
    data.write_text(data.read_text().replace(f"path: {tmp_path / 'set'}", "path: ."))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError) as error:
        resolve("set/data.yaml")
    assert "Its 'path: .' is relative, which Ultralytics takes from the current folder" in str(error.value)
    assert f"here that is '{tmp_path}'. Remove the key" in str(error.value)
    monkeypatch.chdir(tmp_path / "set")
    assert resolve("data.yaml").splits["val"] == [tmp_path / "set" / "images" / "val"]


def test_resolve__reads_kpt_shape(tmp_path: Path) -> None:
    data = tiny.data_set(tmp_path)
    assert resolve(str(data)).keypoints == (0, 0)
    data.write_text(data.read_text() + "kpt_shape: [17, 3]\n")
    assert resolve(str(data)).keypoints == (17, 3)


def test_resolve__a_name_that_is_too_long(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read: File name too long"):
        resolve("x" * 5000)
