"""What distillation costs: the figures of the README, in one command.

    python benchmarks/speed.py                  # CPU: 320 px, batch 8
    python benchmarks/speed.py --device 0       # GPU: 640 px, batch 64, mixed precision

Times training steps of YOLOv8n under YOLOv8s and under YOLOv8l, with random weights and random images, everything in
alternation within one process; `yolokd bench` does the same for any pair and recipe. Writes
`benchmarks/results/speed-DEVICE-TEACHER.json`, `.md` and `.png`, and with `--trace` the profiler's record of one step.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

os.environ.setdefault("YOLO_VERBOSE", "false")
os.environ.setdefault("YOLO_AUTOINSTALL", "false")

RESULTS = Path(__file__).resolve().parent / "results"
STUDENT = "yolov8n.yaml"
# Recipes by teacher, without IKD's adversarial examples, whose cost `bench` shows apart.
RECIPES = {"yolov8s.yaml": ("bckd", "bckd_ssim", "everything"), "yolov8l.yaml": ("bckd_ssim",)}
ADVERSARIAL = "augment.ikd.adversarial=null"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--teachers", default="yolov8s.yaml,yolov8l.yaml")
    parser.add_argument("--imgsz", type=int, help="pixels; 320 on a CPU, else 640")
    parser.add_argument("--batch", type=int, help="images; 8 on a CPU, else 64")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder for the results")
    parser.add_argument("--trace", action="store_true", help="also write Chrome traces of one bckd_ssim step")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    for teacher in options.teachers.split(","):
        measure(teacher, options)


def measure(teacher: str, options: Any) -> None:
    from yolokd.bench.measure import bench
    from yolokd.bench.models import open_models, read_setting
    from yolokd.bench.plot import draw

    cpu = options.device == "cpu"
    size = {"imgsz": options.imgsz or (320 if cpu else 640), "batch": options.batch or (8 if cpu else 64)}
    recipes = [load(name, device=options.device, **size) for name in RECIPES.get(teacher, ("bckd_ssim",))]
    setting, models = read_setting(recipes), open_models(teacher, STUDENT)
    done = -1

    def tell(share: float) -> None:
        nonlocal done
        if int(10 * share) > done:
            done = int(10 * share)
            print(f"{teacher}: {10 * done} %", flush=True)

    report = bench(models, setting, recipes, rounds=options.rounds, warm_up=1, report=tell)
    stem = options.out / f"speed-{setting.device.type}-{Path(teacher).stem}"
    stem.with_suffix(".json").write_text(json.dumps(report.to_dict(), indent=2) + "\n", encoding="utf-8")
    text = markdown(report, options)
    stem.with_suffix(".md").write_text(text, encoding="utf-8")
    draw(report, stem.with_suffix(".png"))
    print(text)
    if options.trace:
        trace(models, setting, recipes, stem)


def load(name: str, **options: Any) -> Any:
    """Load a recipe; without adversarial examples, and then said so in its name."""
    from yolokd.recipe import Recipe
    from yolokd.training.run import resolve_recipe

    recipe = resolve_recipe(name, **options)
    if "ikd" not in recipe.terms():
        return recipe
    return Recipe.from_dict(
        resolve_recipe(name, [ADVERSARIAL], **options).to_dict(), name=f"{name}, no adversarial examples"
    )


def markdown(report: Any, options: Any) -> str:
    from yolokd.bench.plot import title_of

    here = report.conditions
    size = f"--imgsz {here.imgsz} --batch {here.batch} --rounds {here.rounds}"
    command = f"python benchmarks/speed.py --device {options.device} --teachers {here.teacher} {size}"
    lines = [f"# Speed: {here.teacher} → {here.student}", "", f"`{command}`", ""]
    lines += [" · ".join(title_of(report)) + ".", ""]
    lines += [
        "| | ms, median | quartiles | processor ms | × floor | × built-in | MiB |",
        "|---|---|---|---|---|---|---|",
    ]
    built_in = report.built_in
    lines.append(row("plain training", report.plain, memory=report.memory_plain))
    lines.append(row("built-in distiller", built_in, memory=report.memory_built_in))
    lines.append(row("teacher's pass there", report.unfused))
    for recipe in report.recipes:
        ratios = [
            f"{recipe.step.median(kind) / report.floor(recipe, kind):.3f}, "
            f"{recipe.step.median(kind) / built_in.median(kind):.3f}"
            for kind in ("wall", "cpu")
        ]
        floor, other = (" / ".join(pair) for pair in zip(*(ratio.split(", ") for ratio in ratios), strict=True))
        lines.append(row(f"**{recipe.name}**", recipe.step, floor, other, recipe.memory))
        lines.append(row("teacher's pass", recipe.teacher))
        for part in recipe.parts:
            lines.append(row(f"{part.name} forward", part.forward))
            if part.backward is not None:
                lines.append(row(f"{part.name} backward", part.backward))
    lines += [
        "",
        "Floor: plain step + teacher's pass. Ratios by the clock / by processor time. A step is forward pass, losses "
        "and backward pass, without optimizer. MiB: weights and buffers, and the most that tensors take in a step.",
        "",
    ]
    return "\n".join(lines)


def row(name: str, cost: Any, floor: str = "", built_in: str = "", memory: int | None = None) -> str:
    wall = cost.wall
    mib = "" if memory is None else f"{memory / 2**20:.0f}"
    cells = (
        name,
        f"{wall.median:.1f}",
        f"{wall.low:.1f}–{wall.high:.1f}",
        f"{cost.cpu.median:.1f}",
        floor,
        built_in,
        mib,
    )
    return f"| {' | '.join(cells)} |"


def trace(models: Any, setting: Any, recipes: Any, stem: Path) -> None:
    """Write what the profiler records of a step with and one without distillation; on a GPU count the host's waits."""
    import warnings

    import torch

    from yolokd.bench.models import make_batch, make_pair, make_student
    from yolokd.bench.steps import training

    batch = make_batch(models, setting)
    recipe = next(recipe for recipe in recipes if recipe.name == "bckd_ssim")
    for name, model in (("plain", make_student(models, setting)), (recipe.name, make_pair(models, setting, recipe))):
        step = training(model, setting, batch)
        for _ in range(2):  # the second does not measure gradients
            step()
        with torch.profiler.profile(acc_events=True) as profiler:
            step()
        profiler.export_chrome_trace(f"{stem}-{name}.trace.json.gz")
        if setting.device.type == "cuda":
            torch.cuda.set_sync_debug_mode("warn")
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                step()
            torch.cuda.set_sync_debug_mode("default")
            print(f"{name}: the host waits for the GPU {len(caught)} times in a step")


if __name__ == "__main__":
    from yolokd.errors import YolokdError

    try:
        main()
    except YolokdError as error:
        sys.exit(f"Error: {error}")
