"""Subprocesses: devices, exit codes, cancelling. The commands are small scripts in the place of the worker."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import pytest

from yolokd.comparison.executors import protocol
from yolokd.comparison.executors.local import LocalExecutor
from yolokd.comparison.executors.protocol import Exit, Job, Place, completed_epochs
from yolokd.comparison.executors.table import EXECUTORS

REPOSITORY = Path(__file__).resolve().parents[3]
SCRIPT = """
import os, sys, time
print(*sys.argv[1:], flush=True)
name = sys.argv[2]
if name == "sleeps": time.sleep(60)
if name == "watches": os.read(0, 1)
if name == "killed": os.kill(os.getpid(), 9)
sys.exit(3 if name == "fails" else 0)
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "small_worker.py").write_text(SCRIPT)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), str(REPOSITORY)]))
    monkeypatch.syspath_prepend(tmp_path)  # which a fork takes over
    monkeypatch.setattr(protocol, "WORKER", "small_worker")
    return tmp_path


def job(folder: Path, name: str) -> Job:
    return Job(folder, name, folder / "logs" / f"{name}.log")


def wait(executor: LocalExecutor, submitted: Job, seconds: float = 30) -> Exit:
    end = time.monotonic() + seconds
    while (ended := executor.poll(submitted)) is None:
        assert time.monotonic() < end
        time.sleep(0.01)
    return ended


def test_table__names_the_local_executor() -> None:
    assert EXECUTORS["local"](Place(["0", "1"])).slots == 2


@pytest.mark.parametrize(("name", "code"), [("succeeds", 0), ("fails", 3)])
def test_local_executor__exit_code_and_log(folder: Path, name: str, code: int) -> None:
    executor = LocalExecutor(Place(["cpu"]))
    executor.submit(job(folder, name))
    assert wait(executor, job(folder, name)) == Exit(code)
    assert job(folder, name).log.read_text() == f"{folder} {name} cpu again --end-with-stdin\n"


@pytest.mark.skipif(sys.platform == "win32", reason="no signals")
def test_local_executor__names_the_signal(folder: Path) -> None:
    executor = LocalExecutor()
    executor.submit(job(folder, "killed"))
    assert wait(executor, job(folder, "killed")) == Exit(-9, "killed by SIGKILL")


def test_local_executor__one_job_at_a_time_on_each_device(folder: Path) -> None:
    executor = LocalExecutor(Place(["0", "1"]))
    first, second, third = job(folder, "sleeps"), job(folder, "succeeds"), job(folder, "third")
    executor.submit(first)
    executor.submit(second)
    wait(executor, second)
    executor.submit(third)
    wait(executor, third)
    executor.cancel(first)
    assert [each.log.read_text().split()[2] for each in (second, third)] == ["1", "1"]


def test_local_executor__cancel_ends_the_process_and_releases_its_device(folder: Path) -> None:
    executor, long = LocalExecutor(Place(["0"])), job(folder, "sleeps")
    executor.submit(long)
    assert executor.poll(long) is None
    start = time.monotonic()
    executor.cancel(long)
    assert time.monotonic() - start < 10
    executor.submit(job(folder, "succeeds"))
    assert wait(executor, job(folder, "succeeds")) == Exit(0)


def test_local_executor__the_process_has_a_stdin_that_stays_open(folder: Path) -> None:
    executor, watching = LocalExecutor(), job(folder, "watches")
    executor.submit(watching)
    end = time.monotonic() + 30
    while not watching.log.read_text():
        assert time.monotonic() < end
        time.sleep(0.01)
    time.sleep(0.2)
    assert executor.poll(watching) is None
    executor.cancel(watching)


def test_local_executor__a_module_that_is_missing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "WORKER", "yolokd.nowhere")
    executor = LocalExecutor()
    executor.submit(job(folder, "a"))
    assert wait(executor, job(folder, "a")) == Exit(1)
    assert "No module named yolokd.nowhere" in job(folder, "a").log.read_text()


@pytest.mark.parametrize(("text", "epochs"), [(None, 0), ("", 0), ("epoch\n", 0), ("epoch\n1\n2\n", 2)])
def test_completed_epochs__rows_of_results(tmp_path: Path, text: str | None, epochs: int) -> None:
    (tmp_path / "a").mkdir()
    if text is not None:
        (tmp_path / "a" / "results.csv").write_text(text)
    assert completed_epochs(job(tmp_path, "a")) == epochs
    assert LocalExecutor().progress(job(tmp_path, "a")) == epochs
