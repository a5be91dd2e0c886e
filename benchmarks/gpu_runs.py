"""Whole runs of `gpu.py`: `yolokd train` on drawn images, killed and resumed, with automatic batch; two processes."""

from __future__ import annotations

import csv
import math
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from gpu_results import Skip
from gpu_steps import prepare
from torch import distributed, multiprocessing

from yolokd.bench.models import Models, Setting, open_models
from yolokd.data.streets import build
from yolokd.training.run import resolve_recipe

if TYPE_CHECKING:
    from gpu_parts import Context

PATIENCE = 90  # seconds for one command
RANKS = 2


def whole_runs(context: Context) -> None:
    """A run that is killed and resumed ends as if it had not been; AutoBatch finds a batch; AMP is on on a GPU."""
    folder = context.out / "whole"
    folder.mkdir(parents=True, exist_ok=True)
    common: list[str] = []
    with context.results.check(7, "images and teacher"):
        train, val = context.size.drawn
        data = build(folder / "streets", train=train, val=val)
        common += ["--data", str(data), "--student", context.spec("v8", "n"), "--imgsz", str(context.size.run[0])]
        common += ["--teacher", str(save_teacher(context, folder / "teacher.pt", data)), "--device", context.asked]
        common += ["--set", "train.workers=2", "--set", "train.plots=false"]
    with context.results.check(7, "killed and resumed") as figures:
        figures.update(killed_and_resumed(context, folder, common))
    with context.results.check(7, "--batch -1") as figures:
        context.need_gpu()
        text = command(
            folder, ["train", *common, "--recipe", "bckd", "--epochs", "1", "--batch", "-1", "--name", "auto"]
        )
        found = re.search(r"Using batch-size (\d+)", text)
        if found is None:
            raise AssertionError(f"AutoBatch says nothing: {text[-400:]}")
        figures["batch"] = int(found.group(1))


def save_teacher(context: Context, path: Path, data: Path) -> Path:
    """Write a detector with random weights and the data's classes, as Ultralytics writes a finished checkpoint."""
    from yolokd.backend.dataset import resolve
    from yolokd.backend.descriptions import from_yaml

    names = resolve(str(data)).names
    model = from_yaml(context.spec("v8", "s"), len(names))
    model.names = dict(names)
    model.args = {"imgsz": context.size.run[0], "task": "detect"}
    torch.save({"model": model.half(), "epoch": -1, "train_args": model.args}, path)
    return path


def killed_and_resumed(context: Context, folder: Path, common: list[str]) -> dict[str, Any]:
    _, batch, epochs = context.size.run
    asked = ["train", *common, "--recipe", "bckd_ssim", "--batch", str(batch), "--epochs", str(epochs)]
    run = folder / "runs" / "killed"
    with (folder / "killed.log").open("w") as log:
        process = begin(folder, [*asked, "--name", "killed"], log)
        ends = time.monotonic() + PATIENCE
        while process.poll() is None and len(rows(run)) < 2 and time.monotonic() < ends:
            time.sleep(0.05)
        process.send_signal(signal.SIGKILL)
        process.wait()
    before = rows(run)
    if not 2 <= len(before) < epochs:
        raise AssertionError(f"killed after {len(before)} epochs: {(folder / 'killed.log').read_text()[-400:]}")
    text = command(folder, ["train", "--resume", "runs/killed"])
    after = rows(run)
    if [int(row["epoch"]) for row in after] != list(range(1, epochs + 1)):
        raise AssertionError(f"epochs {[row['epoch'] for row in after]} after the resume")
    terms = [key for key in after[0] if "kd_" in key]
    if not terms or not all(math.isfinite(float(row[key])) for row in after for key in terms):
        raise AssertionError(f"the terms {terms} are not finite")
    kind = type(torch.load(run / "weights" / "best.pt", weights_only=False, map_location="cpu")["model"]).__name__
    if kind != "DetectionModel":
        raise AssertionError(f"best.pt holds a {kind}")
    if context.device.type == "cuda" and "AMP: checks failed" in text:
        raise AssertionError("Ultralytics switched mixed precision off")
    return {"epochs before": len(before), "after": len(after), "terms": len(terms)}


def rows(run: Path) -> list[dict[str, str]]:
    path = run / "results.csv"
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return [{key.strip(): (value or "").strip() for key, value in row.items()} for row in csv.DictReader(file)]


def begin(folder: Path, arguments: list[str], log: Any) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "yolokd", *arguments]
    return subprocess.Popen(command, cwd=folder, stdout=log, stderr=subprocess.STDOUT, env=verbose())


def command(folder: Path, arguments: list[str]) -> str:
    """Run yolokd and return what it printed; raise if it fails."""
    done = subprocess.run(
        [sys.executable, "-m", "yolokd", *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        env=verbose(),
    )
    text = done.stdout + done.stderr
    if done.returncode:
        raise AssertionError(f"yolokd {' '.join(arguments[:3])} … ended with {done.returncode}: {text[-600:]}")
    return text


def verbose() -> dict[str, str]:
    return {**os.environ, "YOLO_VERBOSE": "true"}


def two_processes(context: Context) -> None:
    """Two processes that share a batch end a step with equal, finite gradients and equal averages of the run."""
    specs = tuple(context.spec("v8", letter) for letter in "sn")
    shapes = {"cpu": (64, 4), "cuda": (context.size.imgsz, context.size.batch)}
    for name, kind in (("gloo, CPU tensors", "cpu"), ("gloo, both on one GPU", "cuda")):
        with context.results.check(8, name) as figures:
            if kind == "cuda":
                context.need_gpu()
            figures.update(shared_step(context, specs, str(context.device) if kind == "cuda" else "cpu", shapes[kind]))
    with context.results.check(8, "DDP on two GPUs, a whole run"):
        if torch.cuda.device_count() < RANKS or context.device.type != "cuda":
            raise Skip(f"needs two GPUs, here are {torch.cuda.device_count()}")
        folder = context.out / "whole"
        folder.mkdir(parents=True, exist_ok=True)
        data = build(folder / "streets", train=context.size.drawn[0], val=context.size.drawn[1])
        teacher = save_teacher(context, folder / "teacher.pt", data)
        arguments = ["--data", str(data), "--student", context.spec("v8", "n"), "--teacher", str(teacher)]
        arguments += ["--imgsz", str(context.size.run[0]), "--batch", str(context.size.run[1]), "--epochs", "2"]
        command(folder, ["train", *arguments, "--recipe", "everything", "--device", "0,1", "--name", "ddp"])


def shared_step(context: Context, specs: tuple[str, ...], device: str, shape: tuple[int, int]) -> dict[str, Any]:
    folder = context.out / f"ranks-{device.partition(':')[0]}"
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.iterdir():
        old.unlink()
    began = time.monotonic()
    spawn: Any = multiprocessing
    spawn.spawn(rank_step, (str(folder), specs, device, shape), nprocs=RANKS)
    found = [torch.load(folder / f"{rank}.pt") for rank in range(RANKS)]
    for key, value in found[0].items():
        if not torch.equal(value, found[1][key]):
            raise AssertionError(f"{key} differs between the processes")
        if not bool(value.isfinite().all()):
            raise AssertionError(f"{key} is not finite")
    return {"tensors": len(found[0]), "seconds": time.monotonic() - began}


def rank_step(rank: int, folder: str, specs: tuple[str, ...], device: str, shape: tuple[int, int]) -> None:
    """Do what one process does: two steps under DDP on its half of a batch."""
    torch.set_num_threads(1)
    store = f"file://{folder}/store"
    distributed.init_process_group("gloo", init_method=store, rank=rank, world_size=RANKS)
    imgsz, images = shape
    setting = Setting(imgsz, images, torch.device(device), False)
    models: Models = open_models(*specs)
    prepared = prepare(models, setting, resolve_recipe("everything"))
    half = own_half(prepared.batch, rank, images // RANKS)
    parallel = torch.nn.parallel.DistributedDataParallel(prepared.model, find_unused_parameters=True)
    for step in range(2):
        prepared.begin(step, 0, 1, 3)
        parallel.zero_grad(set_to_none=True)
        loss, _ = parallel(half)
        (loss.sum() * RANKS).backward()
    kept = {name: p.grad.cpu() for name, p in prepared.model.named_parameters() if p.grad is not None}
    run = prepared.model._run()
    run.counts.save()
    kept |= {f"positives of {name}": torch.tensor(sums) for name, sums in run.counts._state.items()}
    kept |= {f"ratio of {name}": torch.tensor(ratio) for name, ratio in run.balance.ratios.items()}
    torch.save(kept, Path(folder) / f"{rank}.pt")
    distributed.barrier()
    distributed.destroy_process_group()


def own_half(batch: dict[str, Any], rank: int, images: int) -> dict[str, Any]:
    first = rank * images
    mine = (batch["batch_idx"] >= first) & (batch["batch_idx"] < first + images)
    return {
        "img": batch["img"][first : first + images],
        "im_file": batch["im_file"][first : first + images],
        "batch_idx": batch["batch_idx"][mine] - first,
        **{key: batch[key][mine] for key in ("cls", "bboxes")},
    }
