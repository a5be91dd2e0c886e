"""Eight bits: post-training quantization, quantization-aware training, and the same under the unquantized student.

    python benchmarks/eight_bits.py --out RUNS                       YOLOv8n with COCO weights
    python benchmarks/eight_bits.py --out RUNS --student w0125       a student of width 0.125 from scratch

Begins with the students that plain training on all labels of highway makes, one for each seed (`study.py --plan
footage_100_high`, or `long`), and trains those first if they are missing or not finished. Quantization-aware training
goes on from each for ten epochs, once without a teacher and once under the student itself in full precision; the
control is ten more epochs in full precision. Needs yolokd[qat] and yolokd[export]. Scores on the reporting images:
checkpoints with Ultralytics' simulated quantization, and the INT8 export to OpenVINO of the unquantized student,
calibrated on training images. Finished runs are kept. Writes `benchmarks/results/eight-bits.*`.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from study import HERE, SIZE, is_finished, settings, yolokd
from study_plans import BATCH, COMMON

EPOCHS = 10
VALUES = [*COMMON, "lr0=1e-4", "warmup_epochs=0", "close_mosaic=0", "val=false"]
RESULTS = HERE / "results" / "eight-bits.json"


@dataclass(frozen=True)
class Student:
    """A student of the study, as plain training has made it."""

    words: str
    plan: str  # of study.py
    name: str  # in its comparison
    prefix: str = ""  # of the comparisons here


STUDENTS = {
    "v8n": Student("YOLOv8n with COCO weights", "footage_100_high", "yolov8n-coco-s128"),
    "w0125": Student("width 0.125 from scratch", "long", "student-w0125", "w0125-"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=Path, default=Path("../shared"), help="folder with data/ and weights/")
    parser.add_argument("--out", type=Path, required=True, help="folder for the runs")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--student", choices=STUDENTS, default="v8n")
    options = parser.parse_args()
    out, student = options.out.resolve(), STUDENTS[options.student]
    study = [sys.executable, str(HERE / "study.py"), "--plan", student.plan, "--arms", "baseline"]
    study += ["--device", options.device]
    rows = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
    for seed in options.seeds.split(","):
        last = checkpoint(student, seed, out)
        if not last.exists() or not is_finished(last):
            command = [*study, "--shared", str(options.shared), "--out", str(out)]
            if code := subprocess.run(command, check=False).returncode:
                sys.exit(code)  # it has said why
        rows.setdefault(student.words, {})[seed] = scores(student, seed, options.device, out)
        RESULTS.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")
        RESULTS.with_suffix(".md").write_text(tables(rows), encoding="utf-8")


def checkpoint(student: Student, seed: str, out: Path) -> Path:
    return out / "runs" / f"study-{student.plan}" / student.name / f"baseline-{seed}" / "weights" / "last.pt"


def scores(student: Student, seed: str, device: str, out: Path) -> dict[str, float]:
    """Return AP of one seed's student by kind of quantization."""
    weights = str(checkpoint(student, seed, out))
    data = str(out / "data" / "highway-680-100" / "report.yaml")
    export = [weights, "--format", "openvino", "--int8", "--check", data]
    exported = run("export", export, out, f"{student.prefix}ptq-{seed}")
    line = ["--teacher", weights, "--student", weights, "--data", data]
    line += ["--seeds", seed, "--device", device, "--imgsz", str(SIZE), "--batch", str(BATCH)]
    line += ["--epochs", str(EPOCHS)]
    found: dict[str, float] = {}
    for kind, recipes, values in (("eight-bits", "qad", ["quantize=8"]), ("more-epochs", "baseline", [])):
        name = f"{student.prefix}{kind}-{seed}"
        arms = run("compare", [*line, "--recipes", recipes, "--name", name, *settings([*VALUES, *values])], out, name)
        found |= {f"{kind} {arm['recipe']}": arm["scores"]["AP"][seed] for arm in arms["arms"]}
    return {
        "full precision": exported[0]["before"]["AP"],
        "post-training": exported[0]["after"]["AP"],
        "trained": found["eight-bits baseline"],
        "distilled": found["eight-bits qad"],
        "full precision, ten more epochs": found["more-epochs baseline"],
    }


def run(command: str, line: list[str], out: Path, name: str) -> Any:
    found = out / f"{name}.json"
    yolokd([command, *line, "--json", str(found)], out)
    return json.loads(found.read_text(encoding="utf-8"))


def tables(rows: dict[str, dict[str, dict[str, float]]]) -> str:
    lines = [
        f"Students that all labels of highway have trained, {SIZE} px, AP in percent on the reporting images; "
        f"quantization-aware training for {EPOCHS} epochs.",
        "",
        "    python benchmarks/eight_bits.py --out RUNS",
        "    python benchmarks/eight_bits.py --out RUNS --student w0125",
    ]
    for words, seeds in rows.items():
        lines += ["", f"| {words}, in 8 bits | AP by seed | mean |", "|---|---|---|"]
        for kind in max(seeds.values(), key=len):
            values = [100 * row[kind] for row in seeds.values() if kind in row]
            mean = sum(values) / len(values)
            lines.append(f"| {kind} | {' '.join(f'{value:.1f}' for value in values)} | {mean:.1f} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
