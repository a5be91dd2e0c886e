"""Exit codes: a mistake is 2, a failed run 1, an interruption 130; each in one short paragraph."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.helpers.calling import Result, call
from tests.helpers.fixtures import Pair
from tests.helpers.runs import rows
from yolokd.errors import RunError, UserError
from yolokd.training.resume import read_interrupted

REPOSITORY = Path(__file__).resolve().parents[2]


def listing(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, error: BaseException) -> Result:
    """Call a command that fails."""

    def fail() -> list[str]:
        raise error

    monkeypatch.setattr("yolokd.cli.recipes.list_recipes", fail)
    return call(capsys, "recipes", "list")


def test_main__an_interruption_is_130(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    code, out, err = listing(capsys, monkeypatch, KeyboardInterrupt())
    assert (code, out.strip()) == (130, "")
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (UserError("Give another name."), 2, "Error: Give another name."),
        (RunError("It broke."), 1, "Error: It broke."),
        (MemoryError(), 1, "Error: Out of memory"),
        (RuntimeError("CUDA out of memory.\n Tried 2 GiB"), 1, "Error: Out of memory: CUDA out of memory. Tried 2 GiB"),
        (RuntimeError("Could not determine home directory."), 2, "Error: A path begins with ~ and the name of nobody"),
        (PermissionError(13, "Permission denied", "/there"), 2, "Error: '/there' cannot be used: Permission denied"),
        (KeyError("lost"), 1, "Please report the command with what --debug shows"),
    ],
)
def test_main__each_kind_of_error_has_its_code(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, error: Exception, code: int, text: str
) -> None:
    got, out, err = listing(capsys, monkeypatch, error)
    assert (got, out) == (code, "")
    assert text in " ".join(err.split())
    assert "Traceback" not in err


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="no SIGINT for one process")
def test_main__ctrl_c_in_training_exits_with_130_and_leaves_a_run_to_resume(tiny_pair: Pair) -> None:
    command = [
        sys.executable, "-m", "yolokd", "train", "--teacher", str(tiny_pair.teacher),
        "--student", str(tiny_pair.student), "--recipe", "bckd", "--data", str(tiny_pair.data), "--epochs", "200",
        "--imgsz", "64", "--batch", "8", "--device", "cpu", "--set", "train.plots=false", "--set", "train.workers=0",
        "--name", "stopped",
    ]  # fmt: skip
    tiny_pair.runs.mkdir()
    last = tiny_pair.runs / "runs" / "stopped" / "weights" / "last.pt"
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a child inherits what is ignored
    try:
        process = subprocess.Popen(
            command,
            cwd=tiny_pair.runs,
            env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
    finally:
        signal.signal(signal.SIGINT, before)
    try:
        while not last.exists():
            assert process.poll() is None
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130, err
    assert "Traceback" not in err
    interrupted = read_interrupted(str(last.parents[1]))
    assert interrupted.epochs == 200
    assert 1 <= interrupted.epoch <= len(rows(last.parents[1])) < 200
