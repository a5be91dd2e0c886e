"""What a run of `yolokd compare` costs beyond its epochs: starting, checks, setting up, saving and scoring.

    python benchmarks/overhead.py --out RUNS                 runs that are forked from a server, as `compare` does it
    python benchmarks/overhead.py --out RUNS --separate      the same runs, each in an interpreter of its own

Runs of one epoch on the highway images at 128 px, one after the other, without and with a teacher in turn. Ultralytics'
epoch ends with the validation and the checkpoint; the rest is what counts here, in seconds and in seconds of CPU time,
which hardly depend on what else the machine does. `--shared` as for study.py.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from study import BATCH, SIZE, STUDENT, link, prepare_data

from yolokd.errors import YolokdError

MARK = "overhead: "
CLASSES = "teacher.classes={motorcycle: motorbike}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=Path, default=Path("../shared"), help="folder with data/ and weights/")
    parser.add_argument("--out", type=Path, required=True, help="folder for the runs")
    parser.add_argument("--seeds", type=int, default=3, help="runs of each recipe")
    parser.add_argument("--labels", type=float, default=1.0, help="share of the training images")
    parser.add_argument("--separate", action="store_true", help="an interpreter per run")
    options = parser.parse_args()
    os.environ.setdefault("YOLO_VERBOSE", "false")
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (os.environ.get("PYTHONPATH"), str(Path(__file__).parent))))
    shared, out = options.shared.resolve(), options.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    os.chdir(out)
    comparison = prepare(shared, out, options.seeds, options.labels)
    found: dict[str, list[dict[str, float]]] = {}
    for run in comparison.runs:
        log, begun = comparison.folder / f"{run.name}.log", time.monotonic()
        log.parent.mkdir(exist_ok=True)
        execute(["overhead", str(comparison.folder), run.name, str(begun)], log, separate=options.separate)
        lines = log.read_text(encoding="utf-8").splitlines()
        measured = json.loads(next(line for line in lines if line.startswith(MARK)).removeprefix(MARK))
        print(run.name, measured, flush=True)
        found.setdefault(run.recipe, []).append(measured)
    for recipe, rows in found.items():
        medians = {key: round(statistics.median(row[key] for row in rows), 2) for key in rows[0]}
        print(f"{recipe}, median of {len(rows)}: {medians}")


def prepare(shared: Path, out: Path, seeds: int, labels: float) -> Any:
    """Return a comparison of one epoch in a new folder."""
    from yolokd.backend.descriptions import write_yolov8
    from yolokd.comparison.checks import load_recipes, plan_comparison

    data = prepare_data(shared / "data" / "highway", out / "data", labels)["tune"]
    student = write_yolov8(out / "student-w0125.yaml", width=0.125)
    teacher = out / "teacher.pt"
    link(shared / "weights" / "yolov8n-coco-s128.pt", teacher)
    budget: dict[str, Any] = {"epochs": 1, "imgsz": SIZE, "batch": BATCH}
    recipes = load_recipes(["bckd"], [*(f"train.{one}" for one in STUDENT), CLASSES], data=str(data), **budget)
    name = f"overhead-{os.getpid()}"
    comparison = plan_comparison(teacher, [student], recipes, range(seeds), devices=["cpu"], name=name)
    comparison.folder.mkdir(parents=True)
    comparison.save()
    return comparison


def execute(command: list[str], log: Path, *, separate: bool) -> None:
    """Execute `python -m` with a command and wait for its end."""
    if separate:
        with log.open("wb") as file:
            subprocess.run([sys.executable, "-m", *command], stdout=file, stderr=subprocess.STDOUT, check=True)
        return
    from yolokd.comparison.executors.processes import start

    process = start(command, log)
    while (code := process.poll()) is None:
        time.sleep(0.02)
    process.end()
    if code:
        sys.exit(f"{command} ended with exit code {code}; see {log}")


def measure(folder: str, name: str, begun: str) -> None:
    """Do what a worker does, and print what it took; a process of its own."""
    import functools

    from yolokd.comparison import worker

    now = {"seconds": time.monotonic, "cpu": time.process_time}
    at: dict[str, dict[str, float]] = {}

    def note(event: str, trainer: object = None) -> None:
        at.setdefault(event, {unit: clock() for unit, clock in now.items()})  # a last validation is no epoch

    note("imported")
    callbacks = {event: functools.partial(note, event) for event in ("on_train_epoch_start", "on_fit_epoch_end")}
    worker.start = functools.partial(worker.start, callbacks=callbacks)
    worker.main(folder, name, "cpu", "again")
    note("end")
    zero = {"seconds": float(begun), "cpu": 0.0}
    found = {}
    for unit, start in zero.items():
        epoch = at["on_fit_epoch_end"][unit] - at["on_train_epoch_start"][unit]
        found[f"import, {unit}"] = round(at["imported"][unit] - start, 2)
        found[f"epoch, {unit}"] = round(epoch, 2)
        found[f"beyond, {unit}"] = round(at["end"][unit] - start - epoch, 2)
    print(f"\n{MARK}{json.dumps(found)}")


if __name__ == "__main__":
    if len(sys.argv) == 4 and not sys.argv[1].startswith("-"):
        measure(*sys.argv[1:])
    else:
        try:
            main()
        except YolokdError as error:
            sys.exit(f"Error: {error}")
