"""The study on real images: what distillation gains a student of width 0.125 under a fine-tuned COCO teacher.

    python benchmarks/study.py --plan pretrained_10 --out RUNS  a student with COCO weights, a tenth of the labels
    python benchmarks/study.py --plan pretrained_25 --out RUNS  the same with a quarter, pretrained_100 with all of them
    python benchmarks/study.py --plan footage_10 --out RUNS    pseudo-labels on the other images, by a COCO detector
    python benchmarks/study.py --plan footage_25 --out RUNS    the same with a quarter of the labels
    python benchmarks/study.py --plan footage_10_low --out RUNS  the same at the rate that suits plain training better
    python benchmarks/study.py --plan screening --out RUNS     short budget, many variants, scored on the tuning images
    python benchmarks/study.py --plan final --out RUNS         five paired seeds, scored on the reporting images
    python benchmarks/study.py --plan control --out RUNS       the same with a warm-up that suits the baseline better
    python benchmarks/study.py --plan long --out RUNS          100 epochs, three seeds
    python benchmarks/study.py --plan few --out RUNS           a tenth of the labels, plus unlabeled images
    python benchmarks/study.py --plan quarter --out RUNS       a quarter of them
    python benchmarks/study.py --plan methods --out RUNS       each method alone, a tenth of the labels, five seeds
    python benchmarks/study.py --plan trained --out RUNS       a student that 100 epochs of plain training have made
    python benchmarks/study.py --plan trained_long --out RUNS  the same, longer
    python benchmarks/study.py --plan trained_few --out RUNS   the same with a tenth of the labels

control_screening, methods_screening, methods_init and trained_screening are one-seed trials behind those.

Prepares links to the images and the teacher once, then runs `yolokd compare` and writes `benchmarks/results/`.
Finished runs are kept: the same command goes on where it was stopped; `--seeds 1` makes a first table of one seed,
`--seeds 5` one of more than the plan has.
`--shared` names a folder with `data/highway`, `data/unlabeled` and `weights/*-coco-s128.pt`; see benchmarks/README.md.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from study_plans import BATCH, PLANS, SIZE, STUDENT, Arm, Plan

HERE = Path(__file__).resolve().parent
TRAINING, TUNING = 680, 100  # images; the remaining 259 are reported on
HALVES = {"tune": "tuning", "report": "reporting"}
SUFFIXES = {".jpg", ".jpeg", ".png"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--plan", choices=PLANS, required=True)
    parser.add_argument("--shared", type=Path, default=Path("../shared"), help="folder with data/ and weights/")
    parser.add_argument("--out", type=Path, required=True, help="folder for the runs")
    parser.add_argument("--device", default="cpu", help="cpu,cpu trains two at once, 0 on a GPU")
    parser.add_argument("--seeds", type=int, help="so many seeds, from the plan's first on")
    parser.add_argument("--arms", help="these arms only, with commas between; baseline is one")
    options = parser.parse_args()
    plan = PLANS[options.plan]
    names = options.arms.split(",") if options.arms else list(plan.arms)
    if unknown := set(names) - plan.arms.keys() - {"baseline"}:
        parser.error(f"{options.plan} has no arm {', '.join(sorted(unknown))}; its arms: {', '.join(plan.arms)}")
    if options.seeds is not None and options.seeds < 1:
        parser.error(f"--seeds must be 1 or more, got {options.seeds}")
    out, shared = options.out.resolve(), options.shared.resolve()
    out.mkdir(parents=True, exist_ok=True)
    data = prepare_data(shared / "data" / "highway", out / "data", plan.labels)
    weights = shared / "weights"
    teacher = prepare_teacher(weights / f"{plan.teacher}.pt", data["tune"], plan, options.device, out)
    student = (
        weights / f"{plan.student}.pt" if plan.student else prepare_student(data["tune"], plan, options.device, out)
    )
    own = ["baseline"] if "baseline" in plan.arms else []  # a control arm of the plan's own belongs to each part of it
    arms = {name: plan.arms[name] for name in dict.fromkeys((*own, *names)) if name in plan.arms}
    unlabeled = {"streets": shared / "data" / "unlabeled", "rest": data["tune"].parent / "images" / "rest"}
    recipes = [str(write_recipe(name, arm, unlabeled, weights, out)) for name, arm in arms.items()] or ["baseline"]
    seeds = range(plan.seeds[0], plan.seeds[0] + (options.seeds or len(plan.seeds)))
    compare(options.plan, plan, seeds, data[plan.half], teacher, student, recipes, options.device, out)


def prepare_data(source: Path, target: Path, labels: float) -> dict[str, Path]:
    """Link the images with a share of the labels; return the data YAML of each set to score on.

    The publisher's own split is not used: all images together are drawn anew by a hash of their names, 680 to train on,
    100 to tune on, the rest to report on. Which training images keep their labels follows from the same order.
    """
    if not source.is_dir():
        raise SystemExit(f"--shared: there is no {source}; see benchmarks/README.md")
    folder = target / f"highway-680-{round(100 * labels)}"
    images = [
        p for split in ("train", "val") for p in (source / "images" / split).iterdir() if p.suffix.lower() in SUFFIXES
    ]
    images.sort(key=lambda path: hashlib.sha256(path.name.encode()).hexdigest())
    kept = round(labels * TRAINING)
    parts = {"train": images[:kept], "rest": images[kept:TRAINING]}
    parts["tune"], parts["report"] = images[TRAINING : TRAINING + TUNING], images[TRAINING + TUNING :]
    for part, members in parts.items():
        for image in members:
            label = source / "labels" / image.parent.name / f"{image.stem}.txt"
            link(image, folder / "images" / part / image.name)
            if part != "rest":
                link(label, folder / "labels" / part / label.name)
    names = yaml.safe_load((source / "data.yaml").read_text(encoding="utf-8"))["names"]
    found = {}
    for half in ("tune", "report"):
        content = {"path": str(folder), "train": "images/train", "val": f"images/{half}", "names": names}
        found[half] = folder / f"{half}.yaml"
        found[half].write_text(yaml.safe_dump(content), encoding="utf-8")
    return found


def link(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if not target.is_symlink():
        target.symlink_to(source)


def prepare_teacher(weights: Path, data: Path, plan: Plan, device: str, out: Path) -> Path:
    """Fine-tune the COCO detector on the same labels that the students get, if the plan says so."""
    if not plan.teacher_epochs:
        return weights
    tuning = plan.tuning
    name = f"{plan.teacher}-{round(100 * plan.labels)}-{plan.teacher_epochs}"
    name += f"-{tuning.imgsz}px" if tuning.imgsz != SIZE else ""
    how = (tuning.settings, device, out)
    return train(weights, data, name, plan.teacher_epochs, 0, *how, imgsz=tuning.imgsz, changes=tuning.changes)


def prepare_student(data: Path, plan: Plan, device: str, out: Path) -> Path:
    """Return the student's description, or what plain training has made of it."""
    from yolokd.backend.descriptions import write_yolov8

    student = write_yolov8(out / "student-w0125.yaml", width=0.125)
    if not plan.student_epochs:
        return student
    name = f"start-{plan.student_epochs}" + (f"-{round(100 * plan.labels)}" if plan.labels < 1 else "")
    return train(student, data, name, plan.student_epochs, 100, STUDENT, device, out)


def train(
    model: Path,
    data: Path,
    name: str,
    epochs: int,
    seed: int,
    values: Sequence[str],
    device: str,
    out: Path,
    *,
    imgsz: int = SIZE,
    changes: Sequence[str] = (),
) -> Path:
    """Train a model plainly, or go on with it; return its last weights."""
    line = ["train", "--recipe", "baseline", "--student", str(model), "--data", str(data), "--name", name]
    line += ["--imgsz", str(imgsz), "--batch", str(BATCH), "--epochs", str(epochs)]
    line += ["--device", device.split(",")[0], "--seed", str(seed)]
    line += [word for change in changes for word in ("--set", change)]
    return run(name, [*line, *settings(values)], out)


def run(name: str, line: list[str], out: Path) -> Path:
    """Train by a command, go on where that was interrupted, or keep what has finished; return the last weights."""
    last = out / "runs" / name / "weights" / "last.pt"
    if last.exists() and not is_finished(last):
        yolokd(["train", "--resume", str(out / "runs" / name)], out)
    elif not last.exists():
        if last.parents[1].exists():
            last.parents[1].rename(last.parents[1].with_name(f"{name}-aborted-{os.getpid()}"))
        yolokd(line, out)
    return last


def write_recipe(name: str, arm: Arm, unlabeled: Mapping[str, Path], weights: Path, out: Path) -> Path:
    """Write the arm as a recipe file of its own."""
    from yolokd import load_recipe

    changes = [change.replace("{weights}", str(weights)) for change in arm.changes]
    if arm.unlabeled is not None:
        changes.append(f"train.unlabeled={json.dumps(str(unlabeled[arm.unlabeled]))}")
    path = out / "recipes" / f"{name}.yaml"
    path.parent.mkdir(exist_ok=True)
    path.write_text(load_recipe(arm.recipe, changes).to_yaml(), encoding="utf-8")
    return path


def compare(
    name: str,
    plan: Plan,
    seeds: Sequence[int],
    data: Path,
    teacher: Path,
    student: Path,
    recipes: Sequence[str],
    device: str,
    out: Path,
) -> None:
    """Run the comparison and write what it has found so far."""
    line = ["compare", "--teacher", str(teacher), "--student", str(student), "--data", str(data)]
    line += ["--recipes", ",".join(recipes), "--seeds", ",".join(map(str, seeds)), "--device", device]
    line += ["--imgsz", str(plan.imgsz), "--batch", str(BATCH), "--epochs", str(plan.epochs), "--name", f"study-{name}"]
    found = out / f"{name}.json"
    yolokd([*line, *settings(plan.settings), "--json", str(found)], out)
    write_table(name, plan, seeds, json.loads(found.read_text(encoding="utf-8")), out)


def settings(values: Sequence[str]) -> list[str]:
    return [word for value in values for word in ("--set", f"train.{value}")]


def yolokd(arguments: list[str], folder: Path) -> None:
    print(f"yolokd {shlex.join(arguments)}", flush=True)
    if code := subprocess.run([sys.executable, "-m", "yolokd", *arguments], cwd=folder, check=False).returncode:
        sys.exit(code)  # it has said why


def is_finished(last: Path) -> bool:
    from yolokd.backend.checkpoints import load

    return int(load(last)[1].get("epoch", 0)) == -1


def write_table(name: str, plan: Plan, seeds: Sequence[int], found: dict[str, Any], out: Path) -> None:
    """Write `results/study-NAME.json` and `.md`; NAME says so if other seeds than the plan's were asked for.

    A table with other arms is not replaced by one of the baseline alone.
    """
    stem = f"study-{name}" + (f"-{len(seeds)}-seeds" if len(seeds) != len(plan.seeds) else "")
    found = {**found, "data": Path(found["data"]).name, "half": plan.half, "labels": plan.labels}
    teacher = dict(found["teacher"] or {})  # a comparison of plain training with itself has none
    if teacher:
        teacher["path"] = Path(teacher["path"]).name if not plan.teacher_epochs else relative(teacher["path"], out)
    found["teacher"] = teacher
    ran = {arm["recipe"] for arm in found["arms"]}
    found["recipes"] = {arm: [a.recipe, *a.changes] for arm, a in plan.arms.items() if arm in ran}
    target = HERE / "results"
    target.mkdir(exist_ok=True)
    table = target / f"{stem}.json"
    if ran == {"baseline"} and table.exists() and len(json.loads(table.read_text(encoding="utf-8"))["arms"]) > 1:
        print(f"{table} has further arms and stays as it is", flush=True)
        return
    table.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    budget = found["budget"]
    start = f"after {plan.student_epochs} of plain training" if plan.student_epochs else "from scratch"
    start = f"from {plan.student}" if plan.student else start
    rows = [
        f"Highway with {plan.labels:.0%} of the labels, {budget['imgsz']} px, batch {budget['batch']}, "
        f"{budget['epochs']} epochs {start}; last.pt on the {HALVES[plan.half]} images; COCO AP in percent"
        + (f"; teacher {100 * teacher['AP']:.1f}." if teacher else "."),
        "",
        f"    python benchmarks/study.py --plan {name} --seeds {len(seeds)} --out RUNS",
        "",
        "| recipe | AP by seed | mean ± sd | against baseline (95 %, seeds) | (95 %, images and seeds) "
        "| against ultralytics | gap closed | s/epoch |",
        "|---|---|---|---|---|---|---|---|",
    ]
    rows += [row(arm, found["arms"]) for arm in found["arms"]]
    (target / f"{stem}.md").write_text("\n".join(rows) + "\n", encoding="utf-8")
    print("\n".join(rows), flush=True)


def relative(path: str, folder: Path) -> str:
    return Path(path).relative_to(folder).as_posix()


def row(arm: dict[str, Any], arms: Sequence[dict[str, Any]]) -> str:
    from yolokd.comparison.statistics import paired_difference

    scores = arm["scores"]["AP"]
    built_in: dict[int, float] = next((other["scores"]["AP"] for other in arms if other["recipe"] == "ultralytics"), {})
    against = None
    if built_in and arm["recipe"] not in {"ultralytics", "baseline"}:
        against = paired_difference(scores, built_in)
    own = arm["difference"].get("AP")
    spread = arm["spread"].get("AP")
    cells = [
        arm["recipe"],
        " ".join(f"{100 * value:.1f}" for value in scores.values()),
        "" if spread is None else f"{100 * spread['mean']:.1f}" + deviation(spread["std"]),
        "" if own is None else interval(own["mean"], own["low"], own["high"]),
        ""
        if own is None or not (both := own["images_and_seeds"])
        else f"{100 * both['low']:+.1f} to {100 * both['high']:+.1f}",
        "" if against is None else interval(against.mean, against.low, against.high),
        f"{arm['gap_closed']['AP']:.0%}" if arm["gap_closed"].get("AP") is not None else "",
        "" if arm["seconds_per_epoch"] is None else f"{arm['seconds_per_epoch']:.1f}",
    ]
    return f"| {' | '.join(cells)} |"


def deviation(value: float | None) -> str:
    return "" if value is None else f" ± {100 * value:.1f}"


def interval(mean: float, low: float | None, high: float | None) -> str:
    ends = "" if low is None or high is None else f" ({100 * low:+.1f} to {100 * high:+.1f})"
    return f"{100 * mean:+.1f}{ends}"


if __name__ == "__main__":
    main()
