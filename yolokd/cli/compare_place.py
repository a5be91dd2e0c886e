"""Options of `yolokd compare` that say where runs are executed."""

from __future__ import annotations

import math
from typing import Annotated

import typer

from yolokd.cli.options import split_list
from yolokd.comparison.executors.protocol import Executor, Place
from yolokd.comparison.executors.table import EXECUTORS
from yolokd.errors import UserError

CompareDevice = Annotated[
    str | None, typer.Option("--device", help="cpu, mps or a GPU (0); with several (0,1) a run on each at once.")
]
ExecutorName = Annotated[
    str,
    typer.Option(help=f"Where runs are executed: {', '.join(EXECUTORS)}; --ray and --slurm imply it.", hidden=True),
]
Ray = Annotated[
    str | None,
    typer.Option(
        "--ray", metavar="ADDRESS", help="Execute runs on a Ray cluster: auto, local, HOST:PORT or ray://HOST:10001."
    ),
]
GpusPerRun = Annotated[
    float | None,
    typer.Option(
        metavar="N", help="With --ray: GPUs per run, 0 to 1; 0.5 puts two runs on one. Default: 1 if there are any."
    ),
]
Slurm = Annotated[
    str | None,
    typer.Option(
        "--slurm",
        metavar="KEY=VALUE,…",
        help="Execute runs as jobs of SLURM: time=MINUTES, partition=, gpus=, cpus=, mem_gb=, runs= (at a time), …",
    ),
]
CpusPerRun = Annotated[int | None, typer.Option(metavar="N", help="With --ray: CPUs per run; default: 1.")]


def open_executor(
    name: str,
    device: str | None,
    ray: str | None,
    gpus: float | None,
    cpus: int | None,
    *,
    slurm: str | None = None,
    keep_epochs: bool,
) -> Executor:
    """Return what executes the runs.

    Args:
        name: Of `--executor`.
        device: Of `--device`.
        ray: Address of a Ray cluster.
        gpus: GPUs per run there.
        cpus: CPUs per run there.
        slurm: What jobs ask of SLURM.
        keep_epochs: Whether interrupted runs are to be continued.

    Raises:
        UserError: Options that contradict each other, or nothing can be executed there.
    """
    if name not in EXECUTORS:
        raise UserError(f"--executor expects one of {', '.join(EXECUTORS)}, got '{name}'.")
    if slurm is not None or name == "slurm":
        return _slurm(name, device, ray, gpus, cpus, slurm)
    if ray is None and name != "ray":
        given = {"--gpus-per-run": gpus, "--cpus-per-run": cpus}
        if alone := [option for option, value in given.items() if value is not None]:
            raise UserError(f"{alone[0]} is for runs on a Ray cluster; give --ray as well, or leave it out.")
        return EXECUTORS[name](Place([None] if device is None else split_list(device, "--device")))
    if device not in (None, "cpu"):
        raise UserError(
            f"--device {device} names devices of this machine, and --ray leaves them to the cluster; give "
            f"--gpus-per-run, or --device cpu for runs without a GPU."
        )
    if gpus is not None and not (math.isfinite(gpus) and 0 <= gpus <= 1):
        raise UserError(f"--gpus-per-run expects 0 to 1, since a run trains on one GPU, got {gpus:g}.")
    if device == "cpu" and gpus:
        raise UserError(f"--device cpu and --gpus-per-run {gpus:g} contradict each other; leave one of them out.")
    if cpus is not None and cpus < 1:
        raise UserError(f"--cpus-per-run expects a whole number from 1, got {cpus}.")
    if keep_epochs:
        raise UserError("--continue is for runs on this machine: on a Ray cluster an interrupted run starts again.")
    return EXECUTORS["ray"](Place((None,), ray, 0.0 if device == "cpu" else gpus, cpus))


def _slurm(
    name: str, device: str | None, ray: str | None, gpus: float | None, cpus: int | None, slurm: str | None
) -> Executor:
    if ray is not None or name == "ray":
        raise UserError("--slurm and --ray name two places for the same runs; leave one of them out.")
    if device not in (None, "cpu"):
        raise UserError(
            f"--device {device} names devices of this machine, and --slurm asks for those of a node; give --slurm with "
            f"gpus=1, or without for runs on the CPU."
        )
    if gpus is not None or cpus is not None:
        raise UserError("--gpus-per-run and --cpus-per-run are for --ray; give --slurm with gpus= and cpus=.")
    executor = EXECUTORS["slurm"](Place(slurm=slurm))
    if device == "cpu" and "cpu" not in executor.devices:
        raise UserError("--device cpu and a GPU in --slurm contradict each other; leave one of them out.")
    return executor
