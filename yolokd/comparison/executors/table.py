"""Kinds of executors: name, as `yolokd compare --executor` takes it, → what makes one for a place."""

from __future__ import annotations

from yolokd.comparison.executors.local import LocalExecutor
from yolokd.comparison.executors.protocol import MakeExecutor
from yolokd.comparison.executors.ray_cluster import RayExecutor
from yolokd.comparison.executors.slurm import SlurmExecutor

EXECUTORS: dict[str, MakeExecutor] = {
    "local": LocalExecutor,
    "ray": RayExecutor,
    "slurm": SlurmExecutor,
}
