"""The demo: the whole chain through the command line, small."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

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
        assert f"{name}/weights/last.pt" in out
    assert (runs / "bckd_ssim" / "weights" / "last.onnx").is_file()
    assert "equals the checkpoint" in out
    assert "Distillation changed AP by" in out
    assert torch.load(runs / "bckd_ssim" / "weights" / "last.pt", weights_only=False)["yolokd"]["teacher_sha256"]


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
