"""Class rows of a pretrained student: what `student.init: classes` gains, from the first weights to 60 epochs.

    OMP_NUM_THREADS=1 python benchmarks/class_rows.py --shared ../shared --out RUNS

YOLOv8n with COCO weights is fine-tuned on a tenth of highway's labels: 68 images, five classes, of which COCO calls one
otherwise (motorcycle, here motorbike). `plain` is the recipe baseline; `own` takes the checkpoint's motorcycle row;
`teacher` fits the row to an untouched COCO YOLO11n. Single runs of `yolokd train` by seed, AP of `last.pt` on the
tuning and on the reporting images. Writes `benchmarks/results/class-rows.md` and `.json`; finished runs are kept.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import torch
from study import BATCH, HERE, SIZE, prepare_data, run, settings, yolokd
from study_plans import FINETUNE

from yolokd.errors import YolokdError

CLASSES = "{motorcycle: motorbike}"
EPOCHS, SEEDS = (5, 20, 60), (0, 1)
STUDENT, TEACHER = "yolov8n-coco-s128.pt", "yolo11n-coco-s128.pt"
OWN = ["student.init=classes", f"student.classes={CLASSES}"]
SLOW = ["train.lr0=1e-4"]
ARMS = {
    "plain": ([], EPOCHS),
    "own": (OWN, EPOCHS),
    "teacher": (["student.init=classes", f"teacher.classes={CLASSES}"], EPOCHS),
    "plain_slow": (SLOW, (60,)),
    "own_slow": ([*OWN, *SLOW], (60,)),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=Path, default=Path("../shared"), help="folder with data/ and weights/")
    parser.add_argument("--out", type=Path, required=True, help="folder for the runs")
    options = parser.parse_args()
    out, weights = options.out.resolve(), options.shared.resolve() / "weights"
    out.mkdir(parents=True, exist_ok=True)
    data = prepare_data(options.shared.resolve() / "data" / "highway", out / "data", 0.1)
    files = {"untouched": weights / STUDENT} | first_weights(weights, data["tune"], out)
    for arm, (changes, lengths) in ARMS.items():
        for epochs in lengths:
            for seed in SEEDS:
                name = f"{arm}-{epochs}-{seed}"
                files[name] = train(name, epochs, seed, changes, weights, data["tune"], out)
    write_table({half: score(files, yaml, half, out) for half, yaml in data.items()})


def train(name: str, epochs: int, seed: int, changes: list[str], weights: Path, data: Path, out: Path) -> Path:
    line = ["train", "--recipe", "baseline", "--student", str(weights / STUDENT), "--data", str(data), "--name", name]
    line += ["--imgsz", str(SIZE), "--batch", str(BATCH), "--epochs", str(epochs), "--seed", str(seed)]
    line += ["--device", "cpu", *settings(FINETUNE)]
    line += [word for change in changes for word in ("--set", change)]
    if name.startswith("teacher"):
        line += ["--teacher", str(weights / TEACHER)]
    return run(name, line, out)


def first_weights(weights: Path, data: Path, out: Path) -> dict[str, Path]:
    """Write what each arm has before its first step; return arm-0 → checkpoint."""
    from ultralytics.cfg import get_cfg
    from ultralytics.data.utils import check_det_dataset
    from ultralytics.nn.tasks import DetectionModel

    from yolokd.backend.checkpoints import load_detector
    from yolokd.initialization.class_transfer import plan_class_rows, transfer_class_rows
    from yolokd.initialization.reconstruction import calibration

    checkpoint, teacher = (load_detector(weights / name) for name in (STUDENT, TEACHER))
    checked, args, found = check_det_dataset(str(data)), get_cfg(), dict[str, Path]()
    args.imgsz, args.batch = SIZE, BATCH
    mapped: dict[str, str] = {"motorcycle": "motorbike"}
    for arm in ("plain", "own", "teacher"):
        torch.manual_seed(0)
        student = DetectionModel(checkpoint.yaml, nc=len(checked["names"]), verbose=False)
        student.names = checked["names"]
        student.load(checkpoint, verbose=False)
        if arm != "plain":
            rows = plan_class_rows(
                checked["names"],
                checkpoint.names,
                mapped if arm == "own" else {},
                teacher=teacher.names if arm == "teacher" else None,
                teacher_classes=mapped,
            )
            images = calibration(args, checked, torch.device("cpu"))
            transfer_class_rows(student, checkpoint, rows, images=lambda images=images: images, teacher=teacher)
        found[f"{arm}-0"] = out / f"{arm}-0.pt"
        student.args = {"imgsz": SIZE, "task": "detect"}
        torch.save({"model": student.half(), "train_args": {"imgsz": SIZE}, "epoch": -1}, found[f"{arm}-0"])
    return found


def score(files: dict[str, Path], data: Path, half: str, out: Path) -> dict[str, dict[str, Any]]:
    found = out / f"{half}.json"
    line = ["eval", *map(str, files.values()), "--data", str(data), "--imgsz", str(SIZE), "--device", "cpu"]
    yolokd([*line, "--classes", "motorcycle=motorbike", "--json", str(found)], out)
    scores = json.loads(found.read_text(encoding="utf-8"))
    keep = ("AP", "per_class")
    return {name: {key: one[key] for key in keep} for name, one in zip(files, scores, strict=True)}


def write_table(found: dict[str, dict[str, dict[str, Any]]]) -> None:
    lines = [
        f"Highway with a tenth of the labels, {SIZE} px, batch {BATCH}; AP in percent by seed, that of motorbike in "
        f"brackets, on the tuning and on the reporting images.",
        "",
        "    OMP_NUM_THREADS=1 python benchmarks/class_rows.py --shared ../shared --out RUNS",
        "",
        "| arm | epochs | tuning | reporting |",
        "|---|---|---|---|",
    ]
    rows = {"untouched": ["untouched"], **{f"{arm} | 0": [f"{arm}-0"] for arm in ("plain", "own", "teacher")}}
    for arm, (_, lengths) in ARMS.items():
        rows |= {f"{arm} | {epochs}": [f"{arm}-{epochs}-{seed}" for seed in SEEDS] for epochs in lengths}
    for label, names in rows.items():
        cells = [
            ", ".join(
                f"{100 * found[half][name]['AP']:.1f} ({100 * found[half][name]['per_class']['motorbike']:.1f})"
                for name in names
            )
            for half in ("tune", "report")
        ]
        lines.append(f"| {label if '|' in label else label + ' | –'} | {' | '.join(cells)} |")
    target = HERE / "results"
    (target / "class-rows.json").write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    (target / "class-rows.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    try:
        main()
    except YolokdError as error:
        sys.exit(f"Error: {error}")
