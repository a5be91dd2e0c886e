"""Runs as jobs of SLURM, submitted through submitit.

A job trains in the comparison's folder, so that folder is on a file system that all nodes share; a first job checks it.
Jobs go on when `yolokd compare` is killed: the same command follows those that still wait or run.
"""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from yolokd.comparison.executors.nodes import check_nodes, examine_node
from yolokd.comparison.executors.processes import start
from yolokd.comparison.executors.protocol import END_WITH_STDIN, Exit, Job, Place, completed_epochs
from yolokd.errors import UserError
from yolokd.files import write_whole

if TYPE_CHECKING:
    import submitit

    from yolokd.comparison.spec import Comparison

INSTALL = "pip install 'yolokd[slurm]'"
CHECK = 1800.0  # seconds until the first job has checked its node, its time in the queue included
GONE = 60.0  # seconds until a canceled job is gone
SLOTS = 16  # jobs that wait or run at the same time, unless told otherwise
SHARED = {"time": "timeout_min", "cpus": "cpus_per_task", "gpus": "gpus_per_node", "mem_gb": "mem_gb"}  # → submitit's
WORDS = ("account", "comment", "constraint", "exclude", "gres", "nodelist", "partition", "qos")  # sbatch's, as they are
RUNS = "runs"
KEYS = (*SHARED, *WORDS, RUNS)


class SlurmExecutor:
    """Implements `Executor`."""

    interval = 2.0
    local = False

    def __init__(self, place: Place, *, cluster: str = "slurm") -> None:
        """Read what jobs ask for; nothing is submitted yet.

        Args:
            place: What a job asks of SLURM; with `devices` of the CPU it asks for no GPU.
            cluster: Of submitit; "local" executes jobs on this machine, without SLURM.

        Raises:
            UserError: An unknown key, a value that is none, submitit is missing, or SLURM is.
        """
        asked = parse(place.slurm or "")
        _check_installed(cluster)
        self.slots = asked.pop(RUNS, SLOTS)
        self._parameters = {
            SHARED.get(key, f"slurm_{key}"): value for key, value in asked.items() if key not in SHARED or value
        }
        self._cluster = cluster
        self._gpu = bool(asked.get("gpus")) or "gpu" in asked.get("gres", "")
        self.devices: Sequence[str | None] = [None] if self._gpu else ["cpu"]
        self._running: dict[Job, submitit.Job[int]] = {}

    def prepare(self, comparison: Comparison) -> Comparison:
        """Check a node by a first job, and return the comparison as nodes execute it.

        Raises:
            UserError: The node does not see the folder, or has other data or another version of yolokd.
        """
        asked = (comparison.data, comparison.data_fingerprint, dict(comparison.unlabeled))
        first = self._executor(comparison.folder).submit(examine_node, *asked)
        try:
            state = _answer(first, comparison.folder)
        finally:
            if not first.done():
                first.cancel()
        check_nodes({f"of SLURM's job {first.job_id}": state})
        return replace(comparison, budget={**comparison.budget, "device": "cuda" if self._gpu else "cpu"})

    def submit(self, job: Job) -> None:
        """Queue the job, or follow the one that an earlier call has queued for it."""
        job.log.parent.mkdir(parents=True, exist_ok=True)
        executor, kept = self._executor(job.comparison), _jobs_file(job)
        if kept.is_file():
            earlier: submitit.Job[int] = executor._executor.job_class(executor.folder, kept.read_text())
            if not earlier.done(force_check=True):
                self._running[job] = earlier
                return
        queued = executor.submit(execute_job, job, "0" if self._gpu else "cpu")
        write_whole(kept, queued.job_id)
        self._running[job] = queued

    def poll(self, job: Job) -> Exit | None:
        """Return the exit code of the job's process, or why SLURM has ended the job."""
        queued = self._running[job]
        if not queued.done():
            return None
        del self._running[job]
        _jobs_file(job).unlink(missing_ok=True)
        if (error := queued.exception()) is not None:
            return Exit(1, f"SLURM's job {queued.job_id}: {_reason(error)}")
        return Exit.of(queued.result())

    def progress(self, job: Job) -> int:
        """Return the number of completed epochs, as the shared folder shows it."""
        return completed_epochs(job)

    def cancel(self, job: Job) -> None:
        """Cancel the job and wait until it is gone."""
        queued = self._running.pop(job)
        queued.cancel()
        end = time.monotonic() + GONE
        while not queued.done(force_check=True) and time.monotonic() < end:
            time.sleep(0.5)
        _jobs_file(job).unlink(missing_ok=True)

    def _executor(self, comparison: Path) -> submitit.AutoExecutor:
        import submitit

        executor = submitit.AutoExecutor(folder=_folder(comparison), cluster=self._cluster)
        executor.update_parameters(name=comparison.name, stderr_to_stdout=True, **self._parameters)
        return executor


def parse(text: str) -> dict[str, Any]:
    """Return what a job asks for, by key of `KEYS`.

    Args:
        text: `key=value,…`; a value may hold commas.

    Raises:
        UserError: An unknown key, one that is given twice, a value that is none, or no time.

    Example:
        >>> parse("time=90,gpus=1,nodelist=a,b")
        {'time': 90, 'gpus': 1, 'nodelist': 'a,b'}
    """
    found: dict[str, Any] = {}
    for part in re.split(r",(?=[^,=]*=)", text):
        key, equals, value = (word.strip() for word in part.partition("="))
        if not equals or key not in KEYS:
            raise UserError(f"--slurm expects key=value,… with the keys {', '.join(KEYS)}; got '{part.strip()}'.")
        if key in found:
            raise UserError(f"--slurm has {key} twice.")
        found[key] = value if key in WORDS and value else _number(key, value)
    if "time" not in found:
        raise UserError("--slurm needs time=MINUTES, after which SLURM ends a job, such as time=120.")
    return found


def execute_job(job: Job, device: str) -> int:
    """Execute a job on this node, in a process that ends with this one, and return its exit code."""
    process = start([*job.command(device), END_WITH_STDIN], job.log, forks=False)
    try:
        while (code := process.poll()) is None:
            time.sleep(0.2)
        return code
    finally:
        process.end()


def _number(key: str, value: str) -> int:
    least = 0 if key == "gpus" else 1
    if key in WORDS or not (value.isascii() and value.isdigit() and len(value) < 9 and int(value) >= least):
        expected = "a word" if key in WORDS else f"a whole number from {least}"
        raise UserError(f"--slurm {key} expects {expected}, got '{value}'.")
    if key == "gpus" and int(value) > 1:
        raise UserError(f"--slurm gpus expects 0 or 1, since a run trains on one GPU, got {value}.")
    return int(value)


def _check_installed(cluster: str) -> None:
    try:
        import submitit  # noqa: F401
    except ImportError as error:
        raise UserError(f"Runs as SLURM's jobs need the package submitit: {INSTALL}") from error
    if cluster == "slurm" and (missing := [name for name in ("sbatch", "srun") if shutil.which(name) is None]):
        raise UserError(f"There is no {missing[0]} on this machine; start this where SLURM's jobs are submitted.")


def _answer(first: submitit.Job[dict[str, Any]], folder: Path) -> Mapping[str, Any]:
    end = time.monotonic() + CHECK
    while not first.done():
        if time.monotonic() > end:
            raise UserError(f"SLURM's job {first.job_id}, which checks a node, has not ended within {CHECK:.0f} s.")
        time.sleep(0.2)
    if (error := first.exception()) is not None:
        raise UserError(
            f"A node of SLURM cannot execute runs: {_reason(error)}. The folder '{folder.parent}' must be on a file "
            f"system that all nodes share, and yolokd installed at the same path there."
        )
    return first.result()


def _reason(error: BaseException) -> str:
    """Return the line of submitit's report that says most."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip().strip("-")]
    said = [line for line in lines if "Error:" in line or "state:" in line]
    return (said or lines or [type(error).__name__])[-1].rstrip(".")


def _folder(comparison: Path) -> Path:
    """Return where submitit keeps what jobs read and print: beside the comparison, on the same file system."""
    return comparison.absolute().with_name(f"{comparison.name}.slurm")


def _jobs_file(job: Job) -> Path:
    """Return the file with SLURM's number of a job that is queued."""
    return job.log.with_suffix(".slurm")
