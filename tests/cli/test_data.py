from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
from PIL import Image
from typer.testing import CliRunner

from tests.helpers import coco, kitti
from yolokd.cli.data import app
from yolokd.errors import DataError, UserError

runner = CliRunner()


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data set that the engine's `resolve` finds, whatever it is asked for."""
    for split in ("train", "val"):
        for kind in ("images", "labels"):
            (tmp_path / kind / split).mkdir(parents=True)
        Image.new("RGB", (40, 40)).save(tmp_path / "images" / split / "a.jpg")
        (tmp_path / "labels" / split / "a.txt").write_text("0 .5 .5 .2 .2\n")
    found = SimpleNamespace(
        yaml_path=tmp_path / "data.yaml",
        names={0: "[bold]car", 1: "person"},
        keypoints=(0, 0),
        splits={split: [tmp_path / "images" / split] for split in ("train", "val")},
    )
    module = ModuleType("yolokd.backend.dataset")
    module.resolve = lambda data: found  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "yolokd.backend", ModuleType("yolokd.backend"))
    monkeypatch.setitem(sys.modules, "yolokd.backend.dataset", module)
    return tmp_path


def test_check__prints_counts_and_names_as_they_are(data: Path) -> None:
    result = runner.invoke(app, ["check", "any"])
    assert result.exit_code == 0, result.output
    assert "[bold]car" in result.output
    assert "No errors." in result.output
    row = next(line for line in result.output.splitlines() if "images" in line)
    assert row.replace("│", " ").split() == ["images", "1", "1"]


def test_check__prints_notes_and_raises_the_errors(data: Path) -> None:
    (data / "labels" / "train" / "a.txt").write_text("0 .5 .5 .2 .2\n0 .5 .5 .2 .2\n5 .5 .5 .2 .2\n")
    result = runner.invoke(app, ["check", "any"])
    assert "Note: " in result.output
    assert "repeats line 1" in result.output
    assert isinstance(result.exception, DataError)
    assert "a.txt:3: the class must be" in str(result.exception)


def test_check__names_what_is_left_out(data: Path) -> None:
    (data / "images" / "train" / "b.jpg").write_text("<html>")
    for arguments in (["check", "any"], ["check", "any", "--deep"]):
        result = runner.invoke(app, arguments)
        assert result.exit_code == 0, result.output
        assert "Note: 1 image is left out, as Ultralytics does: " in result.output
        row = next(line for line in result.output.splitlines() if "left out " in line)
        assert row.replace("│", " ").split() == ["left", "out", "1", "0"]


def test_check__limits_the_notes(data: Path) -> None:
    (data / "labels" / "train" / "a.txt").write_text("0 .5 .5 .2 .2\n" * 15)
    result = runner.invoke(app, ["check", "any"])
    assert result.output.count("Note: ") == 10
    assert "and 4 more notes" in result.output


def test_streets__draws_a_set_and_says_how_to_use_it(tmp_path: Path) -> None:
    out = tmp_path / "set"
    result = runner.invoke(app, ["streets", str(out), "--train", "2", "--val", "1", "--seed", "3"])
    assert result.exit_code == 0, result.output
    assert f"--data {out / 'data.yaml'}" in result.output
    assert len(list((out / "images" / "train").iterdir())) == 2


def test_streets__refuses_a_folder_with_something_else(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("")
    result = runner.invoke(app, ["streets", str(tmp_path)])
    assert isinstance(result.exception, DataError)


def test_kitti__prepares_a_set_and_says_what_is_in_it(tmp_path: Path) -> None:
    van = kitti.line("Van", (110, 10, 190, 60))
    src = kitti.source(tmp_path / "src", {f"{n:06}": kitti.CAR + van for n in range(10)})
    arguments = ["kitti", str(src), str(tmp_path / "out"), "--classes", "Car=[bold]car"]
    first, again = (runner.invoke(app, arguments) for _ in range(2))
    assert first.exit_code == again.exit_code == 0, first.output
    rows = [line.replace("│", " ").split() for line in first.stdout.splitlines()]
    assert sum(map(int, next(row for row in rows if row[:1] == ["[bold]car"])[1:])) == 10
    assert "Note: Left out of the labels, kept in label_2: 10 Van.\n" in first.stdout
    assert "Note: The published lists name 3712 + 3769 frames" in first.stdout
    where = f"; train with --data {tmp_path / 'out' / 'data.yaml'}, score with 'yolokd eval … --protocol kitti'."
    assert f"Prepared{where}" in first.stdout
    assert f"This very set was there already{where}" in again.stdout


def test_kitti__options_reach_the_library(tmp_path: Path) -> None:
    src = kitti.source(tmp_path / "src", {f"{n:06}": kitti.CAR for n in range(10)})
    result = runner.invoke(app, ["kitti", str(src), str(tmp_path / "out"), "--split", "random", "--seed", "4"])
    assert result.exit_code == 0, result.output
    assert '"seed": 4' in (tmp_path / "out" / "kitti.json").read_text()


def test_kitti__bad_input_is_named_and_leaves_nothing(tmp_path: Path) -> None:
    src = kitti.source(tmp_path / "src", {f"{n:06}": kitti.CAR for n in range(10)} | {"000003": "Car 0 0\n"})
    result = runner.invoke(app, ["kitti", str(src), str(tmp_path / "out")])
    assert isinstance(result.exception, DataError)
    assert "000003.txt:1: expected a type and finite numbers in 15 columns" in str(result.exception)
    result = runner.invoke(app, ["kitti", str(src), str(tmp_path / "out"), "--classes", "4"])
    assert isinstance(result.exception, UserError)
    assert [path.name for path in tmp_path.iterdir()] == ["src"]


def test_coco_traffic__prepares_a_set_and_says_what_is_in_it(tmp_path: Path) -> None:
    src = coco.write(tmp_path / "src")
    first, again = (runner.invoke(app, ["coco-traffic", str(src), str(tmp_path / "out")]) for _ in range(2))
    assert first.exit_code == again.exit_code == 0, first.output
    rows = [line.replace("│", " ").split() for line in first.stdout.splitlines()]
    found = {split: coco.load(src, split)["annotations"] for split in ("train", "val")}
    kept = {
        split: {a["image_id"] for a in marks if a["category_id"] in coco.TRIGGERS} for split, marks in found.items()
    }
    assert ["images", *(str(len(kept[split])) for split in found)] in rows
    cars = [sum(a["category_id"] == 3 and not a["iscrowd"] for a in marks) for marks in found.values()]
    assert ["car", *map(str, cars)] in rows
    assert f"Note: val: {len(kept['val'])} of COCO's 20 images hold traffic.\n" in first.stdout
    where = f"; train with --data {tmp_path / 'out' / 'data.yaml'}"
    assert f"Prepared{where}" in first.stdout
    assert f"This very set was there already{where}" in again.stdout


def test_coco_traffic__bad_input_is_named_and_leaves_nothing(tmp_path: Path) -> None:
    src = coco.write(tmp_path / "src")
    content = coco.load(src, "val")
    content["annotations"][4]["category_id"] = 90
    coco.save(src, "val", content)
    result = runner.invoke(app, ["coco-traffic", str(src), str(tmp_path / "out")])
    assert isinstance(result.exception, DataError)
    assert "instances_val2017.json: annotations[4]: category_id names no entry of categories, got 90" in str(
        result.exception
    )
    assert [path.name for path in tmp_path.iterdir()] == ["src"]
