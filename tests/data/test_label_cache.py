from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from ultralytics.data.dataset import YOLODataset

from yolokd.backend.dataset import resolve
from yolokd.data.label_cache import refuse_code
from yolokd.errors import DataError


class Evil:
    """Writes a file when it is unpickled."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.file,))


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A data YAML whose two splits are the same two images."""
    for name in ("a", "b"):
        image = tmp_path / "images" / "train" / f"{name}.png"
        image.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (32, 32)).save(image)
        label = tmp_path / "labels" / "train" / f"{name}.txt"
        label.parent.mkdir(parents=True, exist_ok=True)
        label.write_text("0 0.5 0.5 0.5 0.5\n")
    file = tmp_path / "data.yaml"
    file.write_text(f"path: {tmp_path}\ntrain: images/train\nval: images/train\nnames: [car]\n")
    return file


@pytest.fixture
def cache(data: Path) -> Path:
    """Where Ultralytics writes the cache; it writes one."""
    YOLODataset(img_path=str(data.parent / "images" / "train"), data={"names": {0: "car"}, "channels": 3}, imgsz=32)
    file = data.parent / "labels" / "train.cache"
    assert file.is_file()
    return file


def test_resolve__takes_the_cache_that_ultralytics_writes(data: Path, cache: Path) -> None:
    assert resolve(str(data)).names == {0: "car"}
    whole = cache.read_bytes()
    cache.write_bytes(whole[: len(whole) // 2])  # as a killed run leaves it
    assert resolve(str(data)).names == {0: "car"}
    cache.unlink()
    assert resolve(str(data)).names == {0: "car"}


@pytest.mark.parametrize("bare", [False, True])
def test_resolve__refuses_a_cache_that_would_run_code(data: Path, cache: Path, bare: bool) -> None:
    trap = data.parent / "trap"
    if bare:
        cache.write_bytes(pickle.dumps(Evil(trap)))
    else:
        with cache.open("wb") as file:
            np.save(file, np.array({"labels": Evil(trap)}, dtype=object))
    with pytest.raises(DataError, match=r"train\.cache' names .* would run code"):
        resolve(str(data))
    assert not trap.exists()
    np.load(cache, allow_pickle=True)  # the trap is real
    assert trap.exists()


def test_refuse_code__sources_without_images(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    refuse_code([tmp_path / "missing", tmp_path / "empty"])
    assert [path.name for path in tmp_path.iterdir()] == ["empty"]
