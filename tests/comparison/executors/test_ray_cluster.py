"""Runs on a Ray cluster: refusals and bookkeeping with fakes, and real runs on two nodes where Ray is installed.

Ray is not in the extra `dev`, since it is too large for CI: pip install 'yolokd[ray]'.
"""

from __future__ import annotations

import csv
import importlib.util
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.fake_ray import FakeRay
from yolokd.comparison.executors import ray_cluster, ray_node
from yolokd.comparison.executors.protocol import Job, Place
from yolokd.comparison.executors.ray_cluster import bring_back, model_files
from yolokd.errors import UserError

REPOSITORY = Path(__file__).resolve().parents[3]
WITH_RAY = pytest.mark.skipif(
    importlib.util.find_spec("ray") is None, reason="Ray is not installed: pip install 'yolokd[ray]'"
)


class Cluster:
    """A real cluster on this machine: a head and one more node, a CPU each."""

    def __init__(self) -> None:
        from ray.cluster_utils import Cluster as Real

        small = {"num_cpus": 1, "num_gpus": 0, "object_store_memory": 80 * 2**20, "include_dashboard": False}
        self.real = Real(initialize_head=True, head_node_args=small)
        del small["include_dashboard"]
        self.second = self.real.add_node(**small)
        self.address: str = self.real.address

    def kill_second(self) -> None:
        self.real.remove_node(self.second, allow_graceful=False)


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))
    monkeypatch.setenv("RAY_DISABLE_MEMORY_MONITOR", "1")
    cluster = Cluster()
    yield cluster
    cluster.real.shutdown()


class Compare:
    """`yolokd compare` in a process and folder of its own."""

    def __init__(self, folder: Path, teacher: Path, student: Path, data: Path) -> None:
        self.folder = folder
        self.options = [
            *("--teacher", str(teacher), "--student", str(student), "--data", str(data), "--recipes", "bckd"),
            *("--seeds", "0", "--epochs", "2", "--imgsz", "64", "--batch", "4", "--name", "small"),
            *("--set", "train.workers=0", "--set", "train.plots=false"),
        ]

    def start(self, name: str, *words: str) -> subprocess.Popen[str]:
        (self.folder / name).mkdir(exist_ok=True)
        command = [sys.executable, "-m", "yolokd", "compare", *self.options, *words, "--json", "out.json"]
        with (self.folder / name / "notified").open("w") as file:
            return subprocess.Popen(
                command,
                cwd=self.folder / name,
                env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
                stdout=subprocess.DEVNULL,
                stderr=file,
                text=True,
            )

    def finish(self, name: str, process: subprocess.Popen[str], seconds: float = 600) -> int:
        try:
            return process.wait(seconds)
        finally:
            process.kill()
            process.wait()

    def notified(self, name: str) -> str:
        return " ".join((self.folder / name / "notified").read_text().split())

    def losses(self, name: str) -> dict[str, list[dict[str, str]]]:
        """Losses of each run by epoch, which differ between recipes where the scores of tiny runs are all 0."""
        tables = (self.folder / name / "runs" / "small" / "student").glob("*/results.csv")
        rows = {table.parent.name: list(csv.DictReader(table.read_text().splitlines())) for table in tables}
        return {run: [{**row, "time": ""} for row in own] for run, own in rows.items()}

    def scores(self, name: str) -> list[dict[str, Any]]:
        found = json.loads((self.folder / name / "out.json").read_text())
        return [{key: arm[key] for key in ("recipe", "scores", "difference")} for arm in found["arms"]]


@pytest.fixture(scope="module")
def compare(tmp_path_factory: pytest.TempPathFactory, teacher_pt: Path, student_yaml: Path, tiny_data: Path) -> Compare:
    """The comparison, executed by the local executor in the folder `local`."""
    compare = Compare(tmp_path_factory.mktemp("ray"), teacher_pt, student_yaml, tiny_data)
    code = compare.finish("local", compare.start("local", "--device", "cpu"))
    assert code == 0, compare.notified("local")
    return compare


@WITH_RAY
@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_ray_executor__the_table_of_the_local_executor(compare: Compare, cluster: Cluster) -> None:
    code = compare.finish("ray", compare.start("ray", "--ray", cluster.address))
    assert code == 0, compare.notified("ray")
    assert compare.scores("ray") == compare.scores("local")
    assert compare.losses("ray") == compare.losses("local")
    small = compare.folder / "ray" / "runs" / "small"
    assert "executed on node" in (small / "student" / "bckd-0.log").read_text()
    assert str(small / "student") in (small / "student" / "bckd-0" / "args.yaml").read_text()
    code = compare.finish("ray", compare.start("ray", "--ray", cluster.address))
    assert code == 0, compare.notified("ray")
    assert compare.notified("ray").count("finished before") == 4  # the plan's line, the teacher and two runs


@WITH_RAY
@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_ray_executor__a_node_that_dies(compare: Compare, cluster: Cluster) -> None:
    """The runs on it start again on the other one, and the table is that of runs that nothing happened to."""
    process = compare.start("dying", "--ray", cluster.address)
    small = compare.folder / "dying" / "runs" / "small"
    results = {name: small / name / "score.json" for name in ("student/baseline-0", "student/bckd-0")}
    results["teacher"] = small / "teacher.json"

    def starts(name: str) -> int:
        log = small / f"{name}.log"
        return log.read_text().count("executed on node") if log.exists() else 0

    end = time.monotonic() + 300
    while sum(starts(name) > 0 and not result.exists() for name, result in results.items()) < 2:
        assert process.poll() is None, compare.notified("dying")
        assert time.monotonic() < end
        time.sleep(0.1)
    cluster.kill_second()
    assert compare.finish("dying", process) == 0, compare.notified("dying")
    assert sum(map(starts, results)) == len(results) + 1
    assert compare.scores("dying") == compare.scores("local")
    assert compare.losses("dying") == compare.losses("local")


@WITH_RAY
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_ray_executor__refuses_nodes_that_are_too_small(compare: Compare, cluster: Cluster) -> None:
    code = compare.finish("large", compare.start("large", "--ray", cluster.address, "--gpus-per-run", "1"))
    assert code == 2
    assert "No node of the Ray cluster has 1 GPUs and 1 CPUs, which a run takes: " in compare.notified("large")


def test_model_files__those_that_are_files(teacher_pt: Path, student_yaml: Path) -> None:
    teacher, student = str(teacher_pt), str(student_yaml)
    plan = {
        "teacher": teacher,
        "students": {"a": {"spec": student}, "b": {"spec": "yolov8n.yaml"}},
        "recipes": {"baseline": {}, "two": {"teacher": {"models": [teacher]}}},
        "models": {teacher: "digest"},
    }
    assert model_files(plan) == {teacher: teacher_pt, student: student_yaml}


def test_bring_back__replaces_a_run_as_a_whole(tmp_path: Path) -> None:
    node, here = tmp_path / "node", tmp_path / "here"
    for folder, name in ((node, "new"), (here, "old")):
        (folder / "student" / "bckd-0").mkdir(parents=True)
        (folder / "student" / "bckd-0" / name).write_text(name)
    bring_back(ray_node.pack(node, ["student/bckd-0"]), Job(here, "student/bckd-0", here / "log"))
    assert [path.name for path in (here / "student").rglob("*")] == ["bckd-0", "new"]
    assert [path.name for path in here.iterdir()] == ["student"]


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeRay:
    ray = FakeRay()
    monkeypatch.setitem(sys.modules, "ray", ray)
    monkeypatch.setattr(ray_cluster, "_on", lambda node, soft: None)
    return ray


@pytest.mark.parametrize(
    ("resources", "gpus", "cpus", "slots", "devices"),
    [
        ({"CPU": 4.0}, None, None, 4, ["cpu"]),
        ({"CPU": 4.0}, None, 3, 1, ["cpu"]),
        ({"CPU": 16.0, "GPU": 2.0}, None, 2, 2, [None]),
        ({"CPU": 16.0, "GPU": 2.0}, 0.5, 2, 4, [None]),
        ({"CPU": 16.0, "GPU": 2.0}, 0.0, 2, 8, ["cpu"]),
    ],
)
def test_ray_executor__slots(
    fake: FakeRay, resources: dict[str, float], gpus: float | None, cpus: int | None, slots: int, devices: list[str]
) -> None:
    fake.resources = resources
    executor = ray_cluster.RayExecutor(Place((None,), "local", gpus, cpus))
    assert (executor.slots, executor.devices) == (slots, devices)


def test_ray_executor__no_node_is_large_enough(fake: FakeRay) -> None:
    with pytest.raises(UserError) as caught:
        ray_cluster.RayExecutor(Place((None,), "local", 1.0, 2))
    assert str(caught.value) == (
        "No node of the Ray cluster has 1 GPUs and 2 CPUs, which a run takes: big (10.0.0.1, 01234567) has 0 GPUs and "
        "4 CPUs."
    )


def test_ray_executor__a_job_that_the_cluster_loses(fake: FakeRay, tmp_path: Path) -> None:
    executor, job = ray_cluster.RayExecutor(Place((None,), "local")), Job(tmp_path, "student/bckd-0", tmp_path / "log")
    executor._running[job] = fake.exceptions.RayError("The node died.\n  It was node b.\n")
    ended = executor.poll(job)
    assert ended is not None
    assert (ended.code, ended.reason) == (1, "It was node b.; it was started again up to 3 times")


def test_ray_executor__cancel_ends_the_process(fake: FakeRay, tmp_path: Path) -> None:
    executor, job = ray_cluster.RayExecutor(Place((None,), "local")), Job(tmp_path, "student/bckd-0", tmp_path / "log")
    executor._running[job] = "queued"
    assert executor.poll(job) is None
    executor.cancel(job)
    assert fake.canceled == [("queued", True)]


SCRIPT = """
import json, pathlib, sys
folder, name, device = sys.argv[1:4]
plan = json.loads(pathlib.Path(folder, "compare.json").read_text())
teacher = pathlib.Path(plan["teacher"])
run = pathlib.Path(folder, name)
run.mkdir(parents=True)
(run / "results.csv").write_text("epoch\\n1\\n2\\n")
(run / "args.yaml").write_text(f"save_dir: {run}\\nteacher: {teacher}\\ndevice: {device}\\n")
(run / "teacher").write_bytes(teacher.read_bytes())
print("trained", flush=True)
if "kill" in name:
    import os; os.kill(os.getpid(), 9)
sys.exit(3 if "fail" in name else 0)
"""


@pytest.fixture
def submitted(fake: FakeRay, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A comparison's folder, with a small script in the place of the worker."""
    from yolokd.comparison.executors import protocol

    monkeypatch.setattr(protocol, "WORKER", "small_worker")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(ray_node, "INTERVAL", 0.05)
    (tmp_path / "small_worker.py").write_text(SCRIPT)
    (tmp_path / "teacher.pt").write_bytes(b"the teacher")
    folder = tmp_path / "compare"
    folder.mkdir()
    plan = {"teacher": str(tmp_path / "teacher.pt"), "students": {}, "recipes": {}, "models": {}}
    (folder / "compare.json").write_text(json.dumps(plan))
    return folder


@pytest.mark.skipif(sys.platform == "win32", reason="no signals")
@pytest.mark.parametrize(("name", "code"), [("student/good-0", 0), ("student/fail-0", 3)])
def test_ray_executor__the_run_directory_comes_back(submitted: Path, name: str, code: int) -> None:
    executor, job = ray_cluster.RayExecutor(Place((None,), "local")), Job(submitted, name, submitted / f"{name}.log")
    executor.submit(job)
    ended = executor.poll(job)
    assert ended is not None
    assert ended.code == code
    run = submitted / name
    expected = f"save_dir: {run}\nteacher: {submitted.parent / 'teacher.pt'}\ndevice: cpu\n"
    assert (run / "args.yaml").read_text() == expected
    assert (run / "teacher").read_bytes() == b"the teacher"
    assert job.log.read_text() == f"executed on node {os.uname().nodename}\ntrained\n"


@pytest.mark.skipif(sys.platform == "win32", reason="no signals")
def test_execute_job__a_killed_process_is_for_ray_to_start_again(submitted: Path) -> None:
    executor = ray_cluster.RayExecutor(Place((None,), "local"))
    with pytest.raises(ray_node.KilledError, match="killed by SIGKILL"):
        executor.submit(Job(submitted, "student/kill-0", submitted / "log"))
    assert not (submitted / "student").exists()
