from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import yaml

from tests.helpers import tiny
from yolokd.deploy import samples
from yolokd.deploy.samples import is_data_set, left_out_of, letterbox, spread, to_compare, write_calibration
from yolokd.errors import DataError


def test_is_data_set(tmp_path: Path) -> None:
    data = tiny.data_set(tmp_path)
    assert is_data_set(data)
    assert is_data_set(str(tmp_path))
    assert is_data_set("streets")
    assert not is_data_set(tmp_path / "images" / "val")
    assert not is_data_set(tmp_path / "images" / "val" / "000000.png")


def test_to_compare__takes_sixteen_of_the_validation_images(tmp_path: Path) -> None:
    data = tiny.data_set(tmp_path, images=40)
    folder = tmp_path / "images" / "val"
    every_third = [folder / f"{n:06}.png" for n in range(0, 40, 3)]
    assert to_compare(data) == to_compare(folder) == to_compare(str(tmp_path)) == every_third
    assert to_compare(folder / "000007.png") == [folder / "000007.png"]
    assert [p.name for p in to_compare(None)] == ["bus.jpg", "zidane.jpg"]


def test_to_compare__no_images(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no images in"):
        to_compare(tmp_path)
    with pytest.raises(DataError, match=r"no data YAML 'nothing\.yaml'"):
        to_compare("nothing.yaml")


@pytest.mark.parametrize(("count", "most", "kept"), [(5, 5, 5), (6, 5, 3), (40, 16, 14), (1, 300, 1)])
def test_spread(count: int, most: int, kept: int) -> None:
    found = spread([Path(str(n)) for n in range(count)], most)
    assert len(found) == kept
    assert len({int(b.name) - int(a.name) for a, b in pairwise(found)}) <= 1


def test_write_calibration__names_training_images_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = tiny.data_set(tmp_path / "set", images=7)
    monkeypatch.setattr(samples, "MAX_CALIBRATION", 4)
    written = yaml.safe_load(write_calibration(data, tmp_path / "calibration").read_text())
    assert written["names"] == dict(enumerate(tiny.NAMES))
    listed = sorted((Path(written["path"]) / written["val"] / "images").iterdir())
    assert [path.name for path in listed] == [f"{n:06}.png" for n in range(4)]
    assert [path.resolve().name for path in listed] == [f"{n:06}.png" for n in (0, 2, 4, 6)]
    assert listed[0].read_bytes() == (tmp_path / "set" / "images" / "train" / "000000.png").read_bytes()


def test_letterbox__equals_ultralytics(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    image = rng.integers(0, 255, (60, 100, 3), dtype=np.uint8)
    cv2.imwrite(str(tmp_path / "a.png"), image)
    from ultralytics.data.augment import LetterBox

    expected = LetterBox((64, 64), auto=False)(image=image)[..., ::-1].copy()
    found = letterbox(tmp_path / "a.png", 64)
    assert found.shape == (1, 3, 64, 64)
    torch.testing.assert_close(found[0].permute(1, 2, 0), torch.from_numpy(expected), rtol=0, atol=0)


def test_letterbox__names_an_image_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_text("")
    with pytest.raises(DataError, match=r"a\.jpg' cannot be read as an image"):
        letterbox(tmp_path / "a.jpg", 64)


def test_to_compare__leaves_out_what_cannot_be_read(tmp_path: Path) -> None:
    tiny.data_set(tmp_path, images=3)
    folder = tmp_path / "images" / "val"
    assert left_out_of(folder) == ""
    (folder / "000001.png").write_text("<html>")
    assert to_compare(folder) == [folder / "000000.png", folder / "000002.png"]
    assert left_out_of(folder).startswith(f"1 image is left out, as Ultralytics does: {folder}/000001.png (")
    assert left_out_of(None) == left_out_of(folder / "000000.png") == ""
