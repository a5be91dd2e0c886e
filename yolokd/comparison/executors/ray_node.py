"""What a node of a Ray cluster executes: jobs, each in a process of its own.

Ray sends these functions by name, so yolokd is installed on every node. This module imports neither torch nor Ray: the
processes of Ray stay small, and the work is done in processes that they start.
"""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from yolokd.comparison.executors.protocol import END_WITH_STDIN, Job, completed_epochs
from yolokd.files import write_json

INTERVAL = 0.5  # seconds between two reports of a run
PLAN = "compare.json"  # in a comparison's folder


@dataclass(frozen=True)
class Work:
    """A job as it is sent to a node; models are sent apart, once for all jobs."""

    job: Job  # its paths are the driver's
    plan: dict[str, Any]  # content of compare.json
    models: Mapping[str, str]  # model, as the plan names it → digest
    device: str


@dataclass(frozen=True)
class Outcome:
    """What comes back from a node."""

    code: int
    output: bytes  # what the job has printed since its last report
    archive: bytes  # what it leaves


class KilledError(Exception):
    """The process of a job was killed by a signal; Ray starts the job again."""


class Progress:
    """Collects what jobs report until the driver fetches it; a Ray actor."""

    def __init__(self) -> None:
        self._news: dict[str, tuple[int, bytes]] = {}

    def add(self, name: str, epochs: int, output: bytes) -> None:
        """Note the completed epochs of a job, and what it has printed since its last report."""
        self._news[name] = epochs, self._news.get(name, (0, b""))[1] + output

    def take(self) -> dict[str, tuple[int, bytes]]:
        """Return the news by job, once."""
        news, self._news = self._news, {}
        return news


def execute_job(work: Work, models: Mapping[str, Any], progress: Any) -> Outcome:
    """Execute a job in a folder of its own on this node and return what it leaves.

    Args:
        work: The job.
        models: Digest → reference to the archive of a model file in Ray's object store.
        progress: The actor.

    Raises:
        KilledError: A signal has ended the job's process.
    """
    import ray

    with TemporaryDirectory(prefix="yolokd-ray-", ignore_cleanup_errors=True) as top:
        places = {spec: _model(ray.get(models[key]), Path(top, key[:16])) for spec, key in work.models.items()}
        folder = Path(top, work.job.comparison.name)
        folder.mkdir()
        write_json(folder / PLAN, relocated(work.plan, places))
        job = replace(work.job, comparison=folder, log=Path(top, "log"))
        progress.add.remote(job.name, 0, f"executed on node {os.uname().nodename}\n".encode())
        code, output = _run(job, work.device, lambda *news: progress.add.remote(job.name, *news))
        if code < 0:
            raise KilledError(f"killed by {signal.Signals(-code).name}")
        originals = {place: spec for spec, place in places.items()} | {str(folder): str(work.job.comparison)}
        _name_originals(folder / job.name, originals)
        left = [name for name in (job.name, f"{job.name}.json") if (folder / name).exists()]
        return Outcome(code, output, pack(folder, left))


def relocated(plan: Mapping[str, Any], places: Mapping[str, str]) -> dict[str, Any]:
    """Return the content of compare.json with models at other places; names without one stay."""

    def at(spec: Any) -> Any:
        return places.get(spec, spec)

    def taught(recipe: dict[str, Any]) -> dict[str, Any]:
        teacher = recipe.get("teacher") or {}
        if not teacher.get("models"):
            return recipe
        return {**recipe, "teacher": {**teacher, "models": [at(one) for one in teacher["models"]]}}

    return {
        **plan,
        "teacher": at(plan["teacher"]),
        "students": {name: {**student, "spec": at(student["spec"])} for name, student in plan["students"].items()},
        "recipes": {name: taught(recipe) for name, recipe in plan["recipes"].items()},
        "models": {at(path): digest for path, digest in plan["models"].items()},
    }


def pack(folder: Path, names: list[str]) -> bytes:
    """Return a tar archive of files and folders below a folder."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for name in names:
            archive.add(folder / name, arcname=name)
    return stream.getvalue()


def unpack(content: bytes, folder: Path) -> None:
    """Extract a tar archive into a folder, which is made."""
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        archive.extractall(folder, filter="data")


def _model(content: bytes, folder: Path) -> str:
    unpack(content, folder)
    return str(next(folder.iterdir()))


def _run(job: Job, device: str, report: Callable[[int, bytes], object]) -> tuple[int, bytes]:
    """Execute a job in a process, which ends with this one; return its exit code and the unreported output."""
    with job.log.open("wb") as file:
        command = [sys.executable, "-m", *job.command(device), END_WITH_STDIN]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=file, stderr=subprocess.STDOUT)
    with job.log.open("rb") as log:
        epochs = 0
        try:
            while process.poll() is None:
                time.sleep(INTERVAL)
                output, done = log.read(), completed_epochs(job)
                if output or done != epochs:
                    epochs = done
                    report(epochs, output)
        finally:
            process.kill()
            process.communicate()
        return process.returncode, log.read()


def _name_originals(run: Path, names: Mapping[str, str]) -> None:
    """Replace the paths of this node in the text files of a run by those of the driver."""
    for file in [*run.glob("*.yaml"), *run.glob("*.json")]:
        text = original = file.read_text(encoding="utf-8")
        for here, there in names.items():
            text = text.replace(here, there)
        if text != original:
            file.write_text(text, encoding="utf-8")
