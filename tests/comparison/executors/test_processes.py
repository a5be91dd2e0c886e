"""Forks of the server and separate interpreters: the same output, exit codes and ends; what the server imports."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.helpers.runs import rows
from yolokd.backend.checkpoints import load
from yolokd.comparison.executors import processes
from yolokd.comparison.executors.local import LocalExecutor
from yolokd.comparison.executors.processes import FORKS, Child, start
from yolokd.comparison.executors.protocol import Exit, Job, Place
from yolokd.comparison.spec import Comparison

REPOSITORY = Path(__file__).resolve().parents[3]
MODULE = """
import os, sys, time
print(__name__, *sys.argv[1:], os.environ.get("COLOR"), "yolokd.training.run" in sys.modules, os.getcwd(), flush=True)
print("to stderr", file=sys.stderr, flush=True)
if sys.argv[1] == "waits": print("stdin", os.read(0, 1), flush=True)
if sys.argv[1] == "raises": raise ValueError("no such thing")
sys.exit({"fails": 3, "says": "the reason"}.get(sys.argv[1], 0))
"""
needs_forks = pytest.mark.skipif(not FORKS, reason="no fork server on this system")


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "small_module.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)  # which a fork takes over
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), str(REPOSITORY)]))
    monkeypatch.setenv("COLOR", "green")
    monkeypatch.setattr(processes, "_server", {})  # as if a server were to be started in this environment
    monkeypatch.chdir(tmp_path)
    return tmp_path


def wait(child: Child) -> int:
    end = time.monotonic() + 120
    while (code := child.poll()) is None:
        assert time.monotonic() < end
        time.sleep(0.01)
    child.end()
    return code


@pytest.mark.parametrize("forks", [pytest.param(True, marks=needs_forks), False])
@pytest.mark.parametrize(
    ("word", "code", "last"),
    [("ends", 0, "to stderr"), ("fails", 3, "to stderr"), ("says", 1, "the reason")],
)
def test_start__output_arguments_environment_and_exit_code(
    module: Path, word: str, code: int, last: str, forks: bool
) -> None:
    log = module / "log"
    log.write_text("before\n")
    assert wait(start(["small_module", word, "b c"], log, forks=forks)) == code
    first = f"__main__ {word} b c green {forks} {module}"
    lines = ["before", first, "to stderr", *([last] if last != "to stderr" else [])]
    assert log.read_text().splitlines() == lines


@pytest.mark.parametrize("forks", [pytest.param(True, marks=needs_forks), False])
def test_start__the_last_line_says_what_was_raised(module: Path, forks: bool) -> None:
    assert wait(start(["small_module", "raises"], module / "log", forks=forks)) == 1
    assert (module / "log").read_text().splitlines()[-1] == "ValueError: no such thing"


@pytest.mark.parametrize("forks", [pytest.param(True, marks=needs_forks), False])
def test_start__a_process_is_killed_and_gone_when_it_is_ended(module: Path, forks: bool) -> None:
    log = module / "log"
    child = start(["small_module", "waits"], log, forks=forks)
    end = time.monotonic() + 120
    while not (log.exists() and "to stderr" in log.read_text()):
        assert time.monotonic() < end
        time.sleep(0.01)
    assert child.poll() is None
    child.end()
    assert "stdin" not in log.read_text()  # it was open until then


@needs_forks
def test_start__another_environment_than_the_server_has(module: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is imported may depend on it, so an interpreter of its own is started."""
    assert wait(start(["small_module", "ends"], module / "first")) == 0
    monkeypatch.setenv("COLOR", "blue")
    assert wait(start(["small_module", "ends"], module / "second")) == 0
    assert [(module / log).read_text().split()[2:4] for log in ("first", "second")] == [
        ["green", "True"],
        ["blue", "False"],
    ]


@needs_forks
def test_start__a_server_that_cannot_start(module: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise EOFError

    monkeypatch.setattr(processes, "_Forked", refuse)
    assert wait(start(["small_module", "ends"], module / "log")) == 0
    assert (module / "log").read_text().split()[3] == "False"


DRIVER = """
import os, signal, sys, time
from pathlib import Path
from yolokd.comparison.executors.processes import start
log = Path(sys.argv[1])
if __name__ == "__main__":
    child = start(["watching"], log)
    while not (log.exists() and log.read_text()):
        time.sleep(0.05)
    os.kill(os.getpid(), signal.SIGKILL)
"""
WATCHING = """
import os
print(os.getpid(), flush=True)
while os.read(0, 1): pass
print("ended", flush=True)
"""


@needs_forks
def test_start__a_fork_is_told_when_the_process_that_started_it_is_killed(tmp_path: Path) -> None:
    (tmp_path / "watching.py").write_text(WATCHING)
    (tmp_path / "driver.py").write_text(DRIVER)
    log = tmp_path / "log"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(REPOSITORY)])}
    done = subprocess.run([sys.executable, str(tmp_path / "driver.py"), str(log)], env=environment, timeout=200)
    assert done.returncode == -9
    end = time.monotonic() + 30
    while log.read_text().split()[1:] != ["ended"]:
        assert time.monotonic() < end
        time.sleep(0.05)


@needs_forks
def test_preloaded__can_be_imported_without_threads_and_without_asking_for_a_gpu() -> None:
    """A fork would lack the threads, and could not use CUDA."""
    script = """
        import importlib, threading, torch
        from yolokd.comparison.executors.processes import PRELOADED
        asked = []
        for name in ("_lazy_init", "is_available", "device_count", "current_device"):
            setattr(torch.cuda, name, lambda *_, name=name: asked.append(name))
        for name in PRELOADED:
            importlib.import_module(name)
        print(asked, threading.active_count(), torch.cuda.is_initialized())
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        check=True,
        timeout=200,
    )
    assert done.stdout.split("\n")[-2] == "[] 1 False"


@needs_forks
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_local_executor__forked_runs_equal_separate_ones_to_the_bit(
    plan: Comparison, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "_server", {})
    folders = []
    for forks in (True, False):
        own = replace(plan, folder=tmp_path / str(forks))
        own.folder.mkdir()
        own.save()
        folders.append(own.runs[1].folder)
        assert own.runs[1].recipe == "bckd"
        job = Job(own.folder, own.runs[1].name, own.folder / "log")
        executor = LocalExecutor(Place(["cpu"]), forks=forks)
        executor.submit(job)
        while (ended := executor.poll(job)) is None:
            time.sleep(0.05)
        assert ended == Exit(0), job.log.read_text()
    first, second = (load(folder / "weights" / "last.pt")[0].state_dict() for folder in folders)
    assert first.keys() == second.keys()
    assert all(torch.equal(first[key], second[key]) for key in first)
    losses, others = ([{**row, "time": ""} for row in rows(folder)] for folder in folders)
    assert losses == others
    score, other = (json.loads((folder / "score.json").read_text()) for folder in folders)
    assert (score["AP"], score["AP50"]) == (other["AP"], other["AP50"])
