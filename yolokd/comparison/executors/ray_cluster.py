"""Runs as tasks of a Ray cluster: how they are sent, followed and brought back. `ray_node` has what a node executes."""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from yolokd.comparison.executors import ray_node
from yolokd.comparison.executors.nodes import check_nodes, examine_node
from yolokd.comparison.executors.protocol import Exit, Job, Place
from yolokd.comparison.executors.ray_connection import connect
from yolokd.errors import UserError
from yolokd.files import sha256, unique_beside
from yolokd.inputs import read_json
from yolokd.version import __version__

if TYPE_CHECKING:
    from yolokd.comparison.spec import Comparison

CHECK = 1800.0  # seconds that a node has to read the data
RETRIES = 3  # of a run whose node or process has died


class RayExecutor:
    """Implements `Executor`."""

    interval = 1.0
    local = False

    def __init__(self, place: Place) -> None:
        """Connect to the cluster.

        Args:
            place: Address of the cluster, and what a run takes of a node.

        Raises:
            UserError: Ray is missing, there is no such cluster, or none of its nodes is large enough.
        """
        self._ray = connect(place.address or "auto")
        nodes = self._ray.nodes()
        has_gpus = any(node["Alive"] and node["Resources"].get("GPU") for node in nodes)
        self._cpus = place.cpus_per_run or 1
        self._gpus = float(has_gpus) if place.gpus_per_run is None else place.gpus_per_run
        if not self._fitting():
            raise UserError(_too_small(nodes, self._gpus, self._cpus))
        self.devices: Sequence[str | None] = [None] if self._gpus else ["cpu"]
        here, remote = self._ray.get_runtime_context().get_node_id(), self._ray.remote
        options: dict[str, Any] = {"num_cpus": 0, "max_restarts": -1, "scheduling_strategy": _on(here, soft=True)}
        self._progress = remote(ray_node.Progress).options(**options).remote()
        self._task = remote(ray_node.execute_job).options(
            num_cpus=self._cpus,
            num_gpus=self._gpus,
            max_retries=RETRIES,
            retry_exceptions=[ray_node.KilledError],
            scheduling_strategy="SPREAD",
        )
        self._models: dict[str, Any] = {}  # digest → reference
        self._digests: dict[Path, str] = {}
        self._running: dict[Job, Any] = {}
        self._epochs: dict[str, int] = {}
        self._received = 0.0

    @property
    def slots(self) -> int:
        """Number of runs that the nodes hold; at least 1, since a node may come back."""
        return max(1, sum(_runs_on(node, self._gpus, self._cpus) for node in self._fitting()))

    def prepare(self, comparison: Comparison) -> Comparison:
        """Check versions and data of every node that takes a run, and return the comparison as they execute it.

        Raises:
            UserError: A node has other data or versions; it is named.
        """
        _check_folders(comparison)
        examine = self._ray.remote(examine_node)
        asked = (comparison.data, comparison.data_fingerprint, dict(comparison.unlabeled))
        found = {}
        for node in self._fitting():
            task = examine.options(num_cpus=0, scheduling_strategy=_on(node["NodeID"], soft=False))
            found[_name(node)] = task.remote(*asked)
        check_nodes({name: self._state(name, reference) for name, reference in found.items()})
        device = "cuda" if self._gpus else "cpu"
        return replace(comparison, budget={**comparison.budget, "device": device})

    def submit(self, job: Job) -> None:
        """Send the job to the cluster, which starts it when a node is free."""
        plan = read_json(job.comparison / ray_node.PLAN)
        models = {spec: self._stored(path) for spec, path in model_files(plan).items()}
        work = ray_node.Work(job, plan, models, "0" if self._gpus else "cpu")
        references = {digest: self._models[digest] for digest in models.values()}
        self._epochs.pop(job.name, None)
        self._running[job] = self._task.remote(work, references, self._progress)

    def poll(self, job: Job) -> Exit | None:
        """Return how a job ended, with its run directory brought here."""
        reference = self._running[job]
        if not self._ray.wait([reference], timeout=0)[0]:
            self._receive()
            return None
        self._receive(at_once=True)
        del self._running[job]
        try:
            outcome: ray_node.Outcome = self._ray.get(reference)
        except self._ray.exceptions.RayError as error:
            return Exit(1, f"{_last_line(error)}; it was started again up to {RETRIES} times")
        _append(job.log, outcome.output)
        bring_back(outcome.archive, job)
        return Exit(outcome.code)

    def progress(self, job: Job) -> int:
        """Return the number of completed epochs, as the node has reported it."""
        return self._epochs.get(job.name, 0)

    def cancel(self, job: Job) -> None:
        """End the process of Ray that executes the job; the training ends with it."""
        reference = self._running.pop(job)
        self._ray.cancel(reference, force=True)
        self._ray.wait([reference], timeout=30)

    def _fitting(self) -> list[dict[str, Any]]:
        nodes = self._ray.nodes()
        return [node for node in nodes if node["Alive"] and _runs_on(node, self._gpus, self._cpus)]

    def _state(self, name: str, reference: Any) -> dict[str, Any]:
        try:
            state: dict[str, Any] = self._ray.get(reference, timeout=CHECK)
            return state
        except self._ray.exceptions.RayError as error:
            raise UserError(f"Node {name} cannot execute yolokd {__version__}: {_last_line(error)}") from error

    def _stored(self, path: Path) -> str:
        """Put a model into the object store, unless it is there, and return its digest."""
        if path not in self._digests:
            digest = self._digests[path] = sha256(path)
            if digest not in self._models:
                self._models[digest] = self._ray.put(ray_node.pack(path.parent, [path.name]))
        return self._digests[path]

    def _receive(self, *, at_once: bool = False) -> None:
        """Fetch what the jobs at work have reported, at most once in an interval; a lost report ends nothing."""
        if not at_once and time.monotonic() < self._received + self.interval / 2:
            return
        self._received = time.monotonic()
        try:
            news = self._ray.get(self._progress.take.remote(), timeout=10)
        except self._ray.exceptions.RayError:
            return
        for job in self._running:
            if job.name in news:
                self._epochs[job.name], output = news[job.name]
                _append(job.log, output)


def model_files(plan: Mapping[str, Any]) -> dict[str, Path]:
    """Return the models of a comparison that are files here: name in compare.json → file."""
    from yolokd.backend.checkpoints import find, is_yaml

    specs = [student["spec"] for student in plan["students"].values()]
    specs += [one for recipe in plan["recipes"].values() for one in (recipe.get("teacher") or {}).get("models") or []]
    specs += [*plan["models"], *([plan["teacher"]] if plan["teacher"] else [])]
    found = {spec: Path(spec) if is_yaml(spec) else find(spec) for spec in dict.fromkeys(specs)}
    return {spec: path.absolute() for spec, path in found.items() if path.exists()}


def bring_back(archive: bytes, job: Job) -> None:
    """Put what a job has left on its node into the comparison's folder; a kill leaves no half of it."""
    with TemporaryDirectory(dir=job.comparison, prefix=unique_beside(Path("ray")).name) as top:
        ray_node.unpack(archive, Path(top))
        for name in (job.name, f"{job.name}.json"):
            source, target = Path(top, name), job.comparison / name
            if source.exists():
                target.parent.mkdir(parents=True, exist_ok=True)
                if target.is_dir():
                    shutil.rmtree(target)
                source.replace(target)


def _check_folders(comparison: Comparison) -> None:
    from yolokd.training.run_directory import is_run

    for run in comparison.runs:
        if run.folder.exists() and not is_run(run.folder) and not (run.folder / "args.yaml").is_file():
            raise UserError(f"'{run.folder}' is no run of this comparison and is not removed. Move it away.")


def _runs_on(node: Mapping[str, Any], gpus: float, cpus: float) -> int:
    """Return how many runs a node holds at a time."""
    wanted = {"CPU": cpus, "GPU": gpus}
    return min(int(node["Resources"].get(key, 0) / amount + 1e-6) for key, amount in wanted.items() if amount)


def _too_small(nodes: Sequence[Mapping[str, Any]], gpus: float, cpus: float) -> str:
    each = [
        f"{_name(node)} has {node['Resources'].get('GPU', 0):g} GPUs and {node['Resources'].get('CPU', 0):g} CPUs"
        for node in nodes
        if node["Alive"]
    ]
    return f"No node of the Ray cluster has {gpus:g} GPUs and {cpus:g} CPUs, which a run takes: {'; '.join(each)}."


def _name(node: Mapping[str, Any]) -> str:
    return f"{node['NodeManagerHostname']} ({node['NodeManagerAddress']}, {node['NodeID'][:8]})"


def _on(node: str, *, soft: bool) -> Any:
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    return NodeAffinitySchedulingStrategy(node, soft=soft)


def _append(log: Path, output: bytes) -> None:
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as file:
        file.write(output)


def _last_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
