from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
from typer.testing import CliRunner

from yolokd.cli.data import app
from yolokd.errors import DataError

runner = CliRunner()


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data set that the engine's `resolve` finds, whatever it is asked for."""
    for split in ("train", "val"):
        for kind, name, content in (("images", "a.jpg", b""), ("labels", "a.txt", b"0 .5 .5 .2 .2\n")):
            path = tmp_path / kind / split / name
            path.parent.mkdir(parents=True)
            path.write_bytes(content)
    found = SimpleNamespace(
        yaml_path=tmp_path / "data.yaml",
        names={0: "[bold]car", 1: "person"},
        splits={split: [tmp_path / "images" / split] for split in ("train", "val")},
    )
    module = ModuleType("yolokd.engine.dataset")
    module.resolve = lambda data: found  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "yolokd.engine", ModuleType("yolokd.engine"))
    monkeypatch.setitem(sys.modules, "yolokd.engine.dataset", module)
    return tmp_path


def test_check__prints_counts_and_names_as_they_are(data: Path) -> None:
    result = runner.invoke(app, ["check", "any"])
    assert result.exit_code == 0, result.output
    assert "[bold]car" in result.output
    assert "No errors." in result.output
    row = next(line for line in result.output.splitlines() if "pictures" in line)
    assert row.replace("│", " ").split() == ["pictures", "1", "1"]


def test_check__prints_notes_and_raises_the_errors(data: Path) -> None:
    (data / "labels" / "train" / "a.txt").write_text("0 .5 .5 .2 .2\n0 .5 .5 .2 .2\n5 .5 .5 .2 .2\n")
    result = runner.invoke(app, ["check", "any"])
    assert "Note: " in result.output
    assert "repeats line 1" in result.output
    assert isinstance(result.exception, DataError)
    assert "a.txt:3: the class must be" in str(result.exception)


def test_check__deep_opens_the_pictures(data: Path) -> None:
    result = runner.invoke(app, ["check", "any", "--deep"])
    assert isinstance(result.exception, DataError)
    assert "the picture cannot be read" in str(result.exception)


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
