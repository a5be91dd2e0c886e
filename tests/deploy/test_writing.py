from __future__ import annotations

import importlib
import logging
import shutil
import sys
from functools import partial
from pathlib import Path

import pytest

from yolokd.deploy import writing as module
from yolokd.errors import RunError, UserError
from yolokd.outputs import RECORD


def test_hushed__keeps_converters_quiet_and_at_home(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delitem(sys.modules, "openvino_telemetry", raising=False)
    with module.hushed():
        print("a progress bar")  # noqa: T201
        logging.getLogger("nncf").error("chatter")
        with pytest.raises(ImportError):
            importlib.import_module("openvino_telemetry")
    print("a result")  # noqa: T201
    logging.getLogger("other").error("a problem")
    assert capsys.readouterr().out == "a result\n"
    assert [record.message for record in caplog.records] == ["a problem"]


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="needs a folder that nobody can write to")
def test_check_writable__a_folder_that_cannot_be_written() -> None:
    with pytest.raises(UserError, match=r"'/proc/self' cannot be written: .*Copy the checkpoint to a folder of yours"):
        module.check_writable(Path("/proc/self"))


def made(folder: Path, name: str, content: str) -> Path:
    """An export as Ultralytics leaves it beside a copy of the checkpoint."""
    folder.mkdir()
    path = folder / name
    if path.suffix:
        path.write_text(content)
    else:
        path.mkdir()
        (path / f"{content}.xml").touch()
    return path


@pytest.mark.parametrize("name", ["m.onnx", "m_openvino_model"])
def test_place__replaces_an_earlier_export_and_nothing_else(tmp_path: Path, name: str) -> None:
    source, copy = tmp_path / "m.pt", tmp_path / "copy" / "m.pt"
    source.touch()
    place = partial(module.place, copy=copy, source=source)
    first, _ = place(made(tmp_path / "1", name, "first"))
    assert first == tmp_path / name
    assert place(made(tmp_path / "2", name, "second")) == (first, ())
    if first.is_dir():
        assert [p.name for p in first.iterdir()] == ["second.xml"]
        (first / "notes.txt").write_text("of the user")
    else:
        assert first.read_text() == "second"
        first.write_text("of the user")
    third, remarks = place(made(tmp_path / "3", name, "third"))
    assert third.name == name.replace("m", "m-2", 1)
    assert remarks == (f"'{name}' was there and is not an export of yolokd, so it was left as it is",)
    assert "of the user" in {p.read_text() for p in ([first] if first.is_file() else first.iterdir())}


def test_place__a_full_disk_leaves_the_earlier_export(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tmp_path / "here" / "a.pt"
    source.parent.mkdir()
    source.touch()
    place = partial(module.place, copy=tmp_path / "copy" / "a.pt", source=source)
    earlier, _ = place(made(tmp_path / "1", "a.onnx", "earlier"))

    def full(source: Path, target: Path) -> None:
        target.write_text("ha")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shutil, "move", full)
    with pytest.raises(RunError, match=r"cannot be written to '.*here': No space left on device"):
        place(made(tmp_path / "2", "a.onnx", "new"))
    assert earlier.read_text() == "earlier"
    assert sorted(p.name for p in source.parent.iterdir()) == [RECORD, "a.onnx", "a.pt"]
