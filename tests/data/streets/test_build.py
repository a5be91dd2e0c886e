from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml

from yolokd.data.check import check_labels
from yolokd.data.streets import NAMES, build, default_folder, ensure
from yolokd.data.streets.build import VERSION, draw_image
from yolokd.errors import DataError

SIZE = (96, 64)


def contents(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_build__same_seed_gives_the_same_bytes(tmp_path: Path) -> None:
    first = build(tmp_path / "a", train=3, val=2, size=SIZE)
    second = build(tmp_path / "b", train=3, val=2, size=SIZE)
    assert contents(first.parent) == contents(second.parent)


def test_build__another_seed_gives_other_images(tmp_path: Path) -> None:
    first = contents(build(tmp_path / "a", train=2, val=1, size=SIZE).parent)
    second = contents(build(tmp_path / "b", train=2, val=1, size=SIZE, seed=1).parent)
    assert not {v for k, v in first.items() if "images" in k} & {v for k, v in second.items() if "images" in k}


def test_build__an_image_does_not_depend_on_how_many_there_are(tmp_path: Path) -> None:
    few = contents(build(tmp_path / "a", train=1, val=1, size=SIZE).parent)
    many = contents(build(tmp_path / "b", train=4, val=2, size=SIZE).parent)
    drawn = {name: value for name, value in few.items() if name.startswith(("images", "labels"))}
    assert len(drawn) == 4
    assert drawn.items() <= many.items()


def test_draw_image__splits_and_indices_differ() -> None:
    images = [draw_image(split, i, size=SIZE).image.tobytes() for split in ("train", "val") for i in range(3)]
    assert len(set(images)) == 6


def test_build__labels_are_the_boxes_as_shares_of_the_image(tmp_path: Path) -> None:
    folder = build(tmp_path / "a", train=3, val=1, size=SIZE).parent
    for index in range(3):
        drawn = draw_image("train", index, size=SIZE)
        rows = np.loadtxt((folder / f"labels/train/{index:06d}.txt").read_text().splitlines(), ndmin=2)
        assert rows[:, 0].tolist() == drawn.classes.tolist()
        corners = np.concatenate((rows[:, 1:3] - rows[:, 3:] / 2, rows[:, 1:3] + rows[:, 3:] / 2), 1) * (*SIZE, *SIZE)
        np.testing.assert_allclose(corners, drawn.boxes_xyxy_px, atol=1e-4)
        image = cv2.imread(str(folder / f"images/train/{index:06d}.jpg"))
        assert image is not None
        assert image.shape == (SIZE[1], SIZE[0], 3)
        assert np.abs(image.astype(int) - drawn.image).mean() < 6  # JPEG


def test_build__works_after_the_folder_is_moved(tmp_path: Path) -> None:
    made = build(tmp_path / "here", train=2, val=1, size=SIZE).parent
    moved = made.rename(tmp_path / "there")
    data = yaml.safe_load((moved / "data.yaml").read_text())
    assert "path" not in data
    assert data["names"] == dict(enumerate(NAMES))
    splits = {split: [moved / data[split]] for split in ("train", "val")}
    report = check_labels(splits, data["names"])
    report.raise_if_bad()
    assert [report.splits[split].images for split in ("train", "val")] == [2, 1]


def test_build__says_that_it_is_synthetic(tmp_path: Path) -> None:
    assert "synthetic" in build(tmp_path / "a", train=1, val=1, size=SIZE).read_text()


def test_build__an_interruption_leaves_nothing(tmp_path: Path) -> None:
    def interrupt(done: int, total: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build(tmp_path / "a", train=2, val=2, size=SIZE, progress=interrupt)
    assert list(tmp_path.iterdir()) == []


def test_build__reports_every_image(tmp_path: Path) -> None:
    calls: list[tuple[int, int]] = []
    build(tmp_path / "a", train=2, val=1, size=SIZE, progress=lambda done, total: calls.append((done, total)))
    assert calls == [(1, 3), (2, 3), (3, 3)]


def test_build__returns_at_once_if_the_very_same_set_is_there(tmp_path: Path) -> None:
    calls: list[int] = []
    path = build(tmp_path / "a", train=1, val=1, size=SIZE)
    before = path.stat().st_mtime_ns
    again = build(tmp_path / "a", train=1, val=1, size=SIZE, progress=lambda done, total: calls.append(done))
    assert again == path
    assert calls == []
    assert path.stat().st_mtime_ns == before


def test_build__fills_an_empty_folder(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    assert build(tmp_path / "a", train=1, val=1, size=SIZE).is_file()


def test_build__refuses_a_folder_with_something_else_and_leaves_it_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("precious")
    with pytest.raises(DataError, match="holds something else already; give a folder that is new or empty"):
        build(tmp_path, train=1, val=1, size=SIZE)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


@pytest.mark.parametrize(
    "marker, message",
    [
        ('{"streets": 1, "train": 1, "val": 1, "size": [96, 64], "seed": 0}', r"prepared differently \(streets; see"),
        ('{"streets": 2, "train": 9, "val": 1, "size": [96, 64], "seed": 0}', r"prepared differently \(train; see"),
        ("no json", "holds something else"),
    ],
)
def test_build__refuses_another_set_also_one_of_another_version(tmp_path: Path, marker: str, message: str) -> None:
    (tmp_path / "streets.json").write_text(marker)
    with pytest.raises(DataError, match=message):
        build(tmp_path, train=1, val=1, size=SIZE)


def test_build__refuses_a_file(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("")
    with pytest.raises(DataError, match="holds something else"):
        build(tmp_path / "a", train=1, val=1, size=SIZE)


def test_build__names_the_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"file.a' cannot be written"):
        build(tmp_path / "file" / "a", train=1, val=1, size=SIZE)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"train": 0}, "at least one image per split, got 0 for train"),
        ({"val": -1}, "-1 for val"),
        ({"size": (63, 200)}, "at least 64 pixels wide and high, got 63×200"),
        ({"seed": -1}, "whole number from 0 to 4294967295, got -1"),
    ],
)
def test_build__refuses_impossible_arguments(tmp_path: Path, arguments: dict[str, object], message: str) -> None:
    with pytest.raises(DataError, match=message):
        build(tmp_path / "a", **arguments)  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


def test_build__somebody_else_finishing_first_is_no_error(tmp_path: Path) -> None:
    other = build(tmp_path / "other", train=1, val=1, size=SIZE).parent

    def overtake(done: int, total: int) -> None:
        if done == total:
            other.rename(tmp_path / "a")

    assert build(tmp_path / "a", train=1, val=1, size=SIZE, progress=overtake).is_file()
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_ensure__uses_the_cache_folder_of_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("YOLOKD_CACHE", str(tmp_path))
    path = ensure(train=1, val=1, size=SIZE, seed=5)
    assert path == default_folder(train=1, val=1, size=SIZE, seed=5) / "data.yaml"
    assert path.parent.parent == tmp_path
    assert json.loads((path.parent / "streets.json").read_text())["seed"] == 5


def test_ensure__draws_anew_after_the_version_is_raised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("YOLOKD_CACHE", str(tmp_path))
    old = ensure(train=1, val=1, size=SIZE)
    monkeypatch.setattr(sys.modules["yolokd.data.streets.build"], "VERSION", VERSION + 1)
    new = ensure(train=1, val=1, size=SIZE)
    assert new.parent != old.parent
    images = [path.parent / "images" / "train" / "000000.jpg" for path in (old, new)]
    assert images[0].read_bytes() != images[1].read_bytes()


def test_default_folder__differs_by_every_argument(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("YOLOKD_CACHE", raising=False)
    folders = {
        default_folder(),
        default_folder(train=5),
        default_folder(val=5),
        default_folder(size=(64, 64)),
        default_folder(seed=5),
    }
    assert len(folders) == 5
    assert {folder.parent.name for folder in folders} == {"yolokd"}


@pytest.mark.skipif(sys.platform in {"win32", "darwin"}, reason="the rule of other systems")
def test_default_folder__follows_the_xdg_rule(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("YOLOKD_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_folder().parent == tmp_path / "yolokd"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert default_folder().parent == tmp_path / ".cache" / "yolokd"
