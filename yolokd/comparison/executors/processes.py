"""Processes of this machine that execute `python -m MODULE …`: forked from a server where possible, or separate.

On Linux they come from the fork server of `multiprocessing`, which has imported what a run needs. It computes nothing,
so that it has neither threads nor a CUDA context when it forks, and what is executed is the same as in a process of its
own, to the bit; but torch and Ultralytics are imported once and not once per run. Elsewhere forking is not safe.
"""

from __future__ import annotations

import gc
import multiprocessing
import os
import runpy
import subprocess
import sys
from collections.abc import Mapping, Sequence
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Protocol

FORKS = sys.platform == "linux"
PRELOADED = (
    "yolokd.comparison.results",
    "yolokd.comparison.spec",
    "yolokd.evaluation.matches",
    "yolokd.evaluation.models",
    "yolokd.training.run",
    # what Ultralytics, and the scoring, import when they first need it
    "faster_coco_eval.core.faster_eval_api",
    "matplotlib.font_manager",
    "polars",
    "requests",
    "thop",
    "ultralytics.engine.exporter",
)
_server: dict[str, Mapping[str, str]] = {}  # "environment" → that of the server, once it was started


class Child(Protocol):
    """A process that was started."""

    def poll(self) -> int | None:
        """Return its exit code, negative for the signal that killed it, or None while it runs."""

    def end(self) -> None:
        """Kill it if it still runs, wait until it is gone and release its resources."""


def start(command: Sequence[str], log: Path, *, forks: bool = FORKS) -> Child:
    """Start a process whose stdin ends when this process does, even if it is killed.

    Args:
        command: Module and arguments, as after `python -m`.
        log: Receives stdout and stderr, after what it holds.
        forks: Fork it from the server, unless that has another environment, on which its imports may depend.
    """
    environment = dict(os.environ)
    log.touch()
    if forks and _server.setdefault("environment", environment) == environment:
        try:
            return _Forked(command, log, environment)
        except (OSError, EOFError):  # the server ended: it lacks memory, or a module cannot be imported there
            pass
    return _Separate(command, log)


class _Separate:
    """Implements `Child`: a new interpreter."""

    def __init__(self, command: Sequence[str], log: Path) -> None:
        words = [sys.executable, "-m", *command]
        with log.open("ab") as file:
            self._process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=file, stderr=subprocess.STDOUT)

    def poll(self) -> int | None:
        return self._process.poll()

    def end(self) -> None:
        self._process.kill()
        self._process.communicate()


class _Forked:
    """Implements `Child`: a fork of the server."""

    def __init__(self, command: Sequence[str], log: Path, environment: Mapping[str, str]) -> None:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload([*PRELOADED])
        self._process: ForkServerProcess = context.Process(target=_execute, args=(command, log, environment))
        self._process.start()

    def poll(self) -> int | None:
        return self._process.exitcode

    def end(self) -> None:
        self._process.kill()
        self._process.join()
        self._process.close()  # also ends its stdin, should the server have died before it


def _execute(command: Sequence[str], log: Path, environment: Mapping[str, str]) -> None:
    """Do in a fork what `python -m` does in a new interpreter."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    output = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    for source, target in ((parent.sentinel, 0), (output, 1), (output, 2)):
        os.dup2(source, target)
    os.environ.clear()
    os.environ.update(environment)
    gc.freeze()  # what the server has imported stays to the end: collecting need not look through it
    sys.argv = [*command]
    runpy.run_module(command[0], run_name="__main__", alter_sys=True)
