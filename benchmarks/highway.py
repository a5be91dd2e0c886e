"""First table on real images: a student of width 0.125 from scratch under a fine-tuned COCO teacher.

    python benchmarks/highway.py --shared ../shared --out /path/for/runs

Trains the teacher once, then every arm and seed, each through the command line that is printed; finished runs are kept
and interrupted ones continued, so the script can be stopped and started again. Scores `last.pt`, with early stopping
off, since `best.pt` is chosen on the images that are scored. Writes `benchmarks/results/NAME.json` and `.md`.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import json
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

from study import HERE, is_finished, yolokd

ARMS = "baseline,ultralytics,bckd_ssim"
COMMON = ["train.optimizer=AdamW", "train.cache=ram", "train.plots=false", "train.patience=0"]
TEACHER = [*COMMON, "train.lr0=5e-4", "train.warmup_epochs=1", "train.close_mosaic=5"]
STUDENT = [*COMMON, "train.val=false", "train.lr0=2e-3", "train.close_mosaic=5"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=Path, default=Path("../shared"), help="folder with data/ and weights/")
    parser.add_argument("--out", type=Path, required=True, help="folder for the runs")
    parser.add_argument("--imgsz", type=int, default=128)
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--teacher-epochs", type=int, default=20)
    parser.add_argument("--arms", default=ARMS, help="recipes, separated by commas")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--results", default="highway", metavar="NAME", help="name of the files with the results")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--only", default="", help="run this arm and seed, such as bckd_ssim-1, and write no table")
    options = parser.parse_args()
    shared, out = options.shared.resolve(), options.out.resolve()
    needed = (shared / "data" / "highway" / "data.yaml", shared / "weights" / "yolov8n-coco.pt")
    if gone := [path for path in needed if not path.is_file()]:
        raise SystemExit(f"--shared: there is no {gone[0]}; see benchmarks/README.md")
    out.mkdir(parents=True, exist_ok=True)
    student = make_student(out)
    runs = {
        "teacher": command("teacher", "baseline", shared / "weights" / "yolov8n-coco.pt", None, TEACHER, 0, options)
    }
    teacher = out / "runs" / "teacher" / "weights" / "last.pt"
    for seed in options.seeds.split(","):
        for arm in options.arms.split(","):
            master = None if arm == "baseline" else teacher
            runs[f"{arm}-{seed}"] = command(f"{arm}-{seed}", arm, student, master, STUDENT, int(seed), options)
    for name, arguments in runs.items():
        if name == "teacher" or options.only in {"", name}:
            run(name, arguments, out)
    if not options.only:
        write_table(runs, shared, out, options)


def make_student(out: Path) -> Path:
    from yolokd.backend.descriptions import write_yolov8

    return write_yolov8(out / "student-w0125.yaml", width=0.125)


def command(
    name: str, recipe: str, model: Path, teacher: Path | None, settings: list[str], seed: int, options: Any
) -> list[str]:
    data = options.shared.resolve() / "data" / "highway" / "data.yaml"
    epochs = options.teacher_epochs if name == "teacher" else options.epochs
    line = ["train", "--recipe", recipe, "--student", str(model), "--data", str(data), "--imgsz", str(options.imgsz)]
    line += ["--batch", "16", "--epochs", str(epochs), "--seed", str(seed), "--device", options.device, "--name", name]
    if teacher is not None:
        line += ["--teacher", str(teacher)]
    for setting in settings:
        line += ["--set", setting]
    return line


def run(name: str, arguments: list[str], out: Path) -> None:
    folder = out / "runs" / name
    last = folder / "weights" / "last.pt"
    if last.exists():
        if is_finished(last):
            print(f"{name}: finished before")
            return
        arguments = ["train", "--resume", str(folder)]
    elif folder.exists():
        (folder / "args.yaml").unlink(missing_ok=True)
        folder.rename(folder.with_name(f"{name}-aborted-{os.getpid()}"))
    print(f"{name}: yolokd {shlex.join(arguments)}", flush=True)
    log = out / f"{name}.log"
    with log.open("a") as stream:
        command = [sys.executable, "-m", "yolokd", *arguments]
        done = subprocess.run(command, cwd=out, stdout=stream, stderr=stream, check=False)
    if done.returncode:
        last_line = [line for line in log.read_text(errors="replace").splitlines() if line.strip()][-1:]
        raise SystemExit("\n".join([*last_line, f"{name} ended with exit code {done.returncode}; see {log}"]))


def write_table(runs: dict[str, list[str]], shared: Path, out: Path, options: Any) -> None:
    weights = [str(out / "runs" / name / "weights" / "last.pt") for name in runs]
    scores = out / "scores.json"
    line = ["eval", *weights, "--data", str(shared / "data" / "highway" / "data.yaml"), "--imgsz", str(options.imgsz)]
    yolokd([*line, "--json", str(scores)], out)
    measured = json.loads(scores.read_text())
    results = {
        name: {"AP": score["AP"], "AP50": score["AP50"], "seconds_per_epoch": seconds(out / "runs" / name)}
        for name, score in zip(runs, measured, strict=True)
    }
    target = HERE / "results"
    target.mkdir(exist_ok=True)
    setting = {"imgsz": options.imgsz, "epochs": options.epochs, "teacher_epochs": options.teacher_epochs}
    (target / f"{options.results}.json").write_text(json.dumps({"setting": setting, "runs": results}, indent=2) + "\n")
    rows = [
        f"Highway, {options.imgsz} px, batch 16, AdamW; teacher {options.teacher_epochs} epochs, students "
        f"{options.epochs} epochs from scratch; last.pt on val (127 images), COCO AP in percent.",
        "",
        f"    python benchmarks/highway.py --out RUNS --imgsz {options.imgsz} --epochs {options.epochs} "
        f"--teacher-epochs {options.teacher_epochs} --arms {options.arms} --seeds {options.seeds} "
        f"--results {options.results}",
        "",
        "| run | AP | AP50 | s/epoch |",
        "|---|---|---|---|",
    ]
    for name, r in results.items():
        rows.append(f"| {name} | {100 * r['AP']:.1f} | {100 * r['AP50']:.1f} | {r['seconds_per_epoch']:.1f} |")
    (target / f"{options.results}.md").write_text("\n".join(rows) + "\n")
    print("\n".join(rows))


def seconds(folder: Path) -> float:
    """Median time of an epoch from the time column, which starts anew where a run was resumed."""
    with (folder / "results.csv").open(newline="") as file:
        times = [float(row["time"]) for row in csv.DictReader(file)]
    steps = sorted(b - a for a, b in itertools.pairwise(times) if b > a)
    return steps[len(steps) // 2] if steps else float("nan")


if __name__ == "__main__":
    main()
