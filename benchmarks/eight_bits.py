"""Eight bits: post-training quantization, quantization-aware training, and the same under the unquantized student.

    python benchmarks/eight_bits.py --out RUNS

Begins with the students that `study.py --plan footage_100_high --arms baseline --out RUNS` trains on all labels of
highway, one for each seed, and trains those first if they are missing. Quantization-aware training goes on from each
for ten epochs, once without a teacher and once under the student itself in full precision. Needs yolokd[qat] and
yolokd[export]. Scores on the reporting images: checkpoints with Ultralytics' simulated quantization, and the INT8
export to OpenVINO of the unquantized student, calibrated on training images. Finished runs are kept. Writes
`benchmarks/results/eight-bits.*`.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from study import HERE, SIZE, settings, yolokd
from study_plans import BATCH, COMMON

EPOCHS = 10
VALUES = [*COMMON, "lr0=1e-4", "warmup_epochs=0", "close_mosaic=0", "val=false"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=Path, default=Path("../shared"), help="folder with data/ and weights/")
    parser.add_argument("--out", type=Path, required=True, help="folder for the runs")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--seeds", default="0,1,2")
    options = parser.parse_args()
    out = options.out.resolve()
    study = [sys.executable, str(HERE / "study.py"), "--plan", "footage_100_high", "--arms", "baseline"]
    rows = {}
    for seed in options.seeds.split(","):
        if not student_of(seed, out).exists():
            subprocess.run([*study, "--shared", str(options.shared), "--out", str(out)], check=True)
        rows[seed] = scores(seed, options.device, out)
        target = HERE / "results" / "eight-bits.json"
        target.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")
        target.with_suffix(".md").write_text(table(rows), encoding="utf-8")


def student_of(seed: str, out: Path) -> Path:
    return out / "runs" / "study-footage_100_high" / "yolov8n-coco-s128" / f"baseline-{seed}" / "weights" / "last.pt"


def scores(seed: str, device: str, out: Path) -> dict[str, float]:
    """Return AP of one seed's student by kind of quantization."""
    student = student_of(seed, out)
    data = out / "data" / "highway-680-100" / "report.yaml"
    exported = run("export", [str(student), "--format", "openvino", "--int8", "--check", str(data)], out, f"ptq-{seed}")
    line = ["--teacher", str(student), "--student", str(student), "--data", str(data)]
    line += ["--seeds", seed, "--device", device, "--imgsz", str(SIZE), "--batch", str(BATCH)]
    line += ["--epochs", str(EPOCHS)]
    found = {}
    for kind, recipes, values in (("eight-bits", "qad", ["quantize=8"]), ("more-epochs", "baseline", [])):
        name = f"{kind}-{seed}"
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


def table(rows: dict[str, dict[str, float]]) -> str:
    kinds = list(next(iter(rows.values())))
    lines = [
        f"YOLOv8n trained on all labels of highway, {SIZE} px, AP in percent on the reporting images; "
        f"quantization-aware training for {EPOCHS} epochs.",
        "",
        "    python benchmarks/eight_bits.py --out RUNS",
        "",
        "| 8 bits | AP by seed | mean |",
        "|---|---|---|",
    ]
    for kind in kinds:
        values = [100 * row[kind] for row in rows.values()]
        mean = sum(values) / len(values)
        lines.append(f"| {kind} | {' '.join(f'{value:.1f}' for value in values)} | {mean:.1f} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
