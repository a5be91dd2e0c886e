"""Checks of the nodes of a cluster: their data and their versions."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from yolokd.errors import UserError
from yolokd.version import __version__


def examine_node(data: str, fingerprint: str, unlabeled: Mapping[str, str]) -> dict[str, Any]:
    """Return the versions of a node and what is wrong with its data: `{"versions": …, "problem": text or None}`."""
    command = [sys.executable, "-m", __name__, json.dumps([data, fingerprint, [*unlabeled]])]
    done = subprocess.run(
        command, env={**os.environ, "YOLO_OFFLINE": "true"}, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(done.stderr.strip().rpartition("\n")[2] or f"exit code {done.returncode}")
    found: dict[str, Any] = json.loads(done.stdout.strip().rpartition("\n")[2])
    return found


def check_nodes(states: Mapping[str, Mapping[str, Any]]) -> None:
    """Check what nodes say of themselves.

    Args:
        states: Node → what `examine_node` returned.

    Raises:
        UserError: Data are missing or others, yolokd is of another version than here, or Ultralytics or PyTorch differ
            between nodes, so that runs of a pair would too.
    """
    first = next(iter(states))
    for name, state in states.items():
        if state["problem"] is not None:
            raise UserError(
                f"Node {name} cannot read the data: {state['problem']} They must be at the same path on every node."
            )
        if state["versions"]["yolokd"] != __version__:
            raise UserError(f"Node {name} has yolokd {state['versions']['yolokd']}, this machine {__version__}.")
        for key in ("ultralytics", "torch"):
            own, other = state["versions"][key], states[first]["versions"][key]
            if own != other:
                raise UserError(f"Runs would not be paired: node {first} has {key} {other}, node {name} {own}.")


def _examine(data: str, expected: str, unlabeled: list[str]) -> dict[str, Any]:
    from yolokd.backend.dataset import resolve
    from yolokd.data.check import fingerprint
    from yolokd.errors import UserError
    from yolokd.training.run_files import versions

    problem = None
    try:
        if fingerprint(resolve(data).splits, like=expected) != expected:
            problem = f"The data '{data}' are others than on the machine that started the comparison."
    except (UserError, OSError) as error:
        problem = str(error)
    missing = [source for source in unlabeled if not Path(source).exists()]
    if problem is None and missing:
        problem = f"The unlabeled images '{missing[0]}' are missing."
    return {"versions": versions(), "problem": problem}


if __name__ == "__main__":
    sys.stdout.write("\n" + json.dumps(_examine(*json.loads(sys.argv[1]))) + "\n")
