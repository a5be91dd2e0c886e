"""SLURM's jobs: what they ask for, and jobs that are executed by submitit, on this machine and by a small SLURM."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from tests.helpers import small_slurm
from yolokd.comparison.execution import execute
from yolokd.comparison.executors.protocol import Exit, Job, Place
from yolokd.comparison.executors.slurm import SlurmExecutor, parse
from yolokd.comparison.results import run_score
from yolokd.comparison.spec import Comparison, opened
from yolokd.errors import UserError

pytest.importorskip("submitit", reason="submitit is not installed: pip install 'yolokd[slurm]'")
REPOSITORY = Path(__file__).resolve().parents[3]
HERE = pytest.param("local", id="submitit's local executor")
SMALL = pytest.param(
    "slurm", id="small slurm", marks=pytest.mark.skipif(sys.platform != "linux", reason="its jobs are found in /proc")
)
SCRIPT = """
import os, sys, time
from pathlib import Path
print(*sys.argv[1:], flush=True)
folder, name = Path(sys.argv[1]), sys.argv[2]
(folder / name).mkdir(parents=True, exist_ok=True)
(folder / name / "results.csv").write_text("epoch\\n1\\n")
if "waits" in name:
    (folder / name / "pid").write_text(str(os.getpid()))
    while not (folder / "go on").exists(): time.sleep(0.05)
if "killed" in name: os.kill(os.getpid(), 9)
sys.exit(3 if "fails" in name else 0)
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A comparison's folder, with a small script in the place of the worker."""
    (tmp_path / "small_worker.py").write_text(SCRIPT)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), str(REPOSITORY)]))
    small_slurm.install(tmp_path / "slurm", monkeypatch)
    (tmp_path / "compare").mkdir()
    # submitit's local executor cancels by SIGINT, which processes ignore that a shell has started in the background
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield tmp_path / "compare"
    signal.signal(signal.SIGINT, before)


@cache
def job(folder: Path, name: str) -> Job:
    """A job whose command names the small script, here and where it is executed."""

    class Small(Job):
        def command(self, device: str | None) -> list[str]:
            return ["small_worker", *super().command(device)[1:]]

    return Small(folder, name, folder / f"{name}.log")


def wait(executor: SlurmExecutor, submitted: Job) -> Exit:
    end = time.monotonic() + 200
    while (ended := executor.poll(submitted)) is None:
        assert time.monotonic() < end
        time.sleep(0.05)
    return ended


def wait_for(file: Path) -> None:
    end = time.monotonic() + 200
    while not file.exists():
        assert time.monotonic() < end
        time.sleep(0.05)


def ends(pid: int) -> bool:
    """Whether a process ends within seconds."""
    for _ in range(200):
        try:
            os.kill(pid, 0)
        except OSError:
            return True
        time.sleep(0.05)
    return False


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("time=90", {"time": 90}),
        (" time = 5 , gpus=0", {"time": 5, "gpus": 0}),
        ("partition=a,b,time=1,gres=gpu:1", {"partition": "a,b", "time": 1, "gres": "gpu:1"}),
    ],
)
def test_parse__keys_and_values(text: str, found: dict[str, Any]) -> None:
    assert parse(text) == found


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "expects key=value,… with the keys time, cpus, gpus, mem_gb, account"),
        ("time", "got 'time'"),
        ("hours=3", "got 'hours=3'"),
        ("gpus=1", "needs time=MINUTES"),
        ("time=8h", "time expects a whole number from 1, got '8h'"),
        ("time=0", "time expects a whole number from 1, got '0'"),
        ("time=9,partition=", "partition expects a word, got ''"),
        ("time=9,time=8", "has time twice"),
        ("time=9,gpus=2", "gpus expects 0 or 1, since a run trains on one GPU, got 2"),
    ],
)
def test_parse__what_is_wrong(text: str, words: str) -> None:
    with pytest.raises(UserError) as caught:
        parse(text)
    assert words in str(caught.value)


@pytest.mark.skipif(shutil.which("sbatch") is not None, reason="SLURM is here")
def test_slurm_executor__a_machine_without_slurm() -> None:
    with pytest.raises(UserError, match="There is no sbatch on this machine"):
        SlurmExecutor(Place(slurm="time=5"))


def test_slurm_executor__submitit_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "submitit", None)
    with pytest.raises(UserError, match="need the package submitit: pip install"):
        SlurmExecutor(Place(slurm="time=5"))


def test_slurm_executor__what_sbatch_is_given(folder: Path) -> None:
    text = "time=90,gpus=1,cpus=4,mem_gb=8,partition=big,nodelist=a,b,runs=3"
    executor = SlurmExecutor(Place(slurm=text))
    assert (executor.slots, list(executor.devices)) == (3, [None])
    executor.submit(job(folder, "a"))
    assert wait(executor, job(folder, "a")) == Exit(0)
    (script,) = (path.read_text() for path in (folder.parent / "slurm").glob("script-*"))
    for line in ("time=90", "gpus-per-node=1", "cpus-per-task=4", "mem=8GB", "partition=big", "nodelist=a,b"):
        assert f"#SBATCH --{line}\n" in script


@pytest.mark.parametrize("cluster", [HERE, SMALL])
def test_slurm_executor__exit_code_log_and_progress(folder: Path, cluster: str) -> None:
    executor = SlurmExecutor(Place(slurm="time=5"), cluster=cluster)
    ended = {}
    for name in ("succeeds", "fails", "killed"):
        executor.submit(job(folder, name))
    for name in ("succeeds", "fails", "killed"):
        ended[name] = wait(executor, job(folder, name))
        assert executor.progress(job(folder, name)) == 1
        assert job(folder, name).log.read_text() == f"{folder} {name} cpu again --end-with-stdin\n"
    assert ended == {"succeeds": Exit(0), "fails": Exit(3), "killed": Exit(-9, "killed by SIGKILL")}
    assert not list(folder.glob("*.slurm"))


@pytest.mark.parametrize("cluster", [HERE, SMALL])
def test_slurm_executor__cancel_ends_the_process(folder: Path, cluster: str) -> None:
    executor = SlurmExecutor(Place(slurm="time=5"), cluster=cluster)
    executor.submit(job(folder, "waits"))
    wait_for(folder / "waits" / "pid")
    assert executor.poll(job(folder, "waits")) is None
    executor.cancel(job(folder, "waits"))
    assert ends(int((folder / "waits" / "pid").read_text()))
    assert not list(folder.glob("*.slurm"))


@pytest.mark.parametrize("cluster", [SMALL])
def test_slurm_executor__a_second_call_follows_the_job_of_the_first(folder: Path, cluster: str) -> None:
    first, second = (SlurmExecutor(Place(slurm="time=5"), cluster=cluster) for _ in range(2))
    first.submit(job(folder, "waits"))
    wait_for(folder / "waits" / "pid")
    second.submit(job(folder, "waits"))
    assert second.poll(job(folder, "waits")) is None
    (folder / "go on").touch()
    assert wait(second, job(folder, "waits")) == Exit(0)
    assert job(folder, "waits").log.read_text().count("again") == 1
    second.submit(job(folder, "waits"))  # that one has ended
    assert wait(second, job(folder, "waits")) == Exit(0)
    assert job(folder, "waits").log.read_text().count("again") == 2


@pytest.mark.parametrize("cluster", [SMALL])
def test_slurm_executor__a_job_that_slurm_ends(folder: Path, cluster: str) -> None:
    executor = SlurmExecutor(Place(slurm="time=5"), cluster=cluster)
    executor.submit(job(folder, "waits"))
    wait_for(folder / "waits" / "pid")
    number = (folder / "waits.slurm").read_text()
    subprocess.run(["scancel", number], check=True)  # as an administrator would
    ended = wait(executor, job(folder, "waits"))
    assert ended == Exit(1, f"SLURM's job {number}: has not produced any output (state: CANCELLED)")


def test_slurm_executor__a_node_that_cannot_execute_runs(
    plan: Comparison, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    executor = SlurmExecutor(Place(slurm="time=5"), cluster="local")
    with pytest.raises(UserError, match=r"Node of SLURM's job .* The data .* are others than on the machine"):
        executor.prepare(replace(plan, data_fingerprint="2:0"))
    monkeypatch.setenv("PYTHONPATH", str(folder.parent / "nothing"))
    monkeypatch.chdir(folder)
    (folder.parent / "nothing" / "yolokd").mkdir(parents=True)
    (folder.parent / "nothing" / "yolokd" / "__init__.py").touch()  # another package of that name
    with pytest.raises(UserError, match="must be on a file system that all nodes share"):
        executor.prepare(plan)
    assert not [*plan.folder.iterdir()]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_slurm_executor__a_comparison(plan: Comparison, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))
    executor = SlurmExecutor(Place(slurm="time=30,runs=2"), cluster="local")
    asked = executor.prepare(replace(plan, seeds=(0,)))
    with opened(asked) as comparison:
        failures = execute(comparison, executor)
    assert failures == {}
    assert [run_score(run.folder) is not None for run in asked.runs] == [True, True]
