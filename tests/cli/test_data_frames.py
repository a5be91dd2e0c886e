from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tests.helpers import clips
from yolokd.cli.data import app
from yolokd.cli.main import main
from yolokd.data.frames import DISTANCE

runner = CliRunner()


def test_frames__prints_counts_per_clip_and_what_was_left_out(tmp_path: Path) -> None:
    video = clips.write_video(tmp_path / "a.avi", [0, 0, 1])
    other = clips.write_video(tmp_path / "b.avi", [0])
    (tmp_path / "c.mp4").write_text("no video\n" * 99)
    arguments = ["frames", *(str(path) for path in (video, other, tmp_path / "c.mp4", tmp_path / "out"))]
    for new in (2, 0):
        result = runner.invoke(app, arguments)
        assert result.exit_code == 0, result.output
        rows = [line.replace("│", " ").split() for line in result.output.splitlines() if "│" in line]
        assert rows[0] == ["a", "30", "2", "1", str(new)]
        assert rows[-1] == ["all", "40", "3", "1", str(new and 3)]
        assert "c.mp4': left out: OpenCV has no decoder for it" in result.output
        assert f"--unlabeled {tmp_path / 'out'}" in result.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["a.avi", "out", "--every", "0"], "--every expects seconds"),
        (["f", "out", "--every", "2s"], "images have no frame rate"),
        (["c.mp4", "out"], "No frames: "),
        (["missing.mp4", "out"], "There is no video or folder"),
        (["a.avi", "f"], "holds something else already"),
        (["f", "f/out"], "are not apart"),
        (["c.mp4", "a.avi"], "is a file. The last argument"),
    ],
)
def test_frames__bad_input_is_one_line_and_exit_code_2(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    clips.write_video(tmp_path / "a.avi", [0])
    clips.write_images(tmp_path / "f", {"a.jpg": 0})
    (tmp_path / "c.mp4").write_text("no video\n" * 99)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(SystemExit) as stopped:
        main(["data", "frames", *arguments])
    assert stopped.value.code == 2
    error = capsys.readouterr().err.strip()
    assert error.startswith("Error: ")
    assert message in error
    assert len(error.splitlines()) == 1
    assert sorted(tmp_path.rglob("*")) == before


def test_frames__the_default_distance_is_the_functions(tmp_path: Path) -> None:
    help_text = runner.invoke(app, ["frames", "--help"]).output
    assert f"[default: {DISTANCE}]" in help_text


def test_frames__decoders_print_nothing(tmp_path: Path) -> None:
    whole = clips.write_video(tmp_path / "a.mp4", range(6))
    clips.cut(whole, tmp_path / "b.mp4", 0.5)
    (tmp_path / "c.avi").write_text("no video\n" * 99)
    command = [sys.executable, "-m", "yolokd", "data", "frames", "b.mp4", "c.avi", "out"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    error = "Error: No frames: 'b.mp4': OpenCV has no decoder for it; 'c.avi': OpenCV has no decoder for it."
    assert done.stderr.strip() == error
