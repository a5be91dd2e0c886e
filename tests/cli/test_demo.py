"""The demo: the whole chain through the command line, small."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest
import torch

from yolokd.cli.demo import fullest_image
from yolokd.cli.main import main


@pytest.mark.slow
def test_demo__runs_the_whole_chain(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as end:
        main(["demo", "out", "--pictures", "16", "--teacher-epochs", "1", "--epochs", "1"])
    out = capsys.readouterr().out
    assert end.value.code == 0, out
    runs = tmp_path / "out" / "runs"
    for name in ("teacher", "baseline", "bckd_ssim"):
        assert (runs / name / "weights" / "best.pt").is_file()
        assert re.search(rf"^{name} +[\d–]", out, re.MULTILINE), out
    assert (runs / "bckd_ssim" / "weights" / "last.onnx").is_file()
    assert "equals the checkpoint" in out
    assert "Distillation changed AP by" in out
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "The report is out/report.html" in out.replace(f"{tmp_path}/", "")
    assert "bckd_ssim" in page
    (figure,) = (tmp_path / "out" / "inspect").glob("*.png")
    assert f"out/inspect/{figure.name}: kd_" in out
    assert figure.read_bytes().startswith(b"\x89PNG")
    assert torch.load(runs / "bckd_ssim" / "weights" / "last.pt", weights_only=False)["yolokd"]["teacher_sha256"]


def test_fullest_image__is_the_first_with_the_most_labels(tmp_path: Path) -> None:
    (tmp_path / "labels" / "val").mkdir(parents=True)
    for name, count in (("a", 1), ("b", 3), ("c", 3)):
        (tmp_path / "labels" / "val" / f"{name}.txt").write_text("0 .5 .5 .1 .1\n" * count)
    assert fullest_image(tmp_path, "val") == tmp_path / "images" / "val" / "b.jpg"


def test_demo__refuses_a_folder_that_is_not_empty(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").touch()
    with pytest.raises(SystemExit) as end:
        main(["demo", "out"])
    assert end.value.code == 2
    assert "'out' is not an empty folder" in capsys.readouterr().err
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["mine.txt"]


def test_demo__missing_packages_of_the_export_are_told_before_anything_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *more: None if name == "onnx" else found(name, *more))
    monkeypatch.setattr("yolokd.data.streets.build", lambda *_, **__: pytest.fail("the demo has begun"))
    with pytest.raises(SystemExit) as end:
        main(["demo", str(tmp_path / "out")])
    assert end.value.code == 2
    assert "pip install 'yolokd[onnx]'" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
