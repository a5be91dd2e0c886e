"""`yolokd demo`: the whole chain on the built-in data, offline, in minutes."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from yolokd.errors import UserError

# One budget for both arms. The teacher is twice as wide and trains longer: what a user would bring along.
COMMON = {"imgsz": 224, "batch": 16, "device": "cpu", "seed": 0}
SETTINGS = (
    "train.optimizer=AdamW",
    "train.lr0=4e-3",
    "train.nbs=16",  # a step of the optimizer for every batch, since there are few
    "train.warmup_epochs=1",
    "train.mosaic=0",
    "train.rect=true",  # the scenes are wide
    "train.cache=ram",
    "train.patience=0",
)


def demo(
    out: Annotated[Path, typer.Argument(help="Folder for everything that the demo makes.")] = Path("demo"),
    pictures: Annotated[int, typer.Option(min=4, help="Pictures to train on.")] = 400,
    teacher_epochs: Annotated[int, typer.Option(min=1, help="Epochs of the teacher.")] = 10,
    epochs: Annotated[int, typer.Option(min=1, help="Epochs of each student.")] = 8,
) -> None:
    """Draw data, train a teacher and two students, evaluate, export: offline, in minutes."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"'{out}' is not an empty folder. Remove it or give another folder: yolokd demo FOLDER.")
    console = Console()
    started = time.perf_counter()

    def say(text: str) -> None:
        minutes, seconds = divmod(int(time.perf_counter() - started), 60)
        console.print(Text(f"\n[{minutes:02d}:{seconds:02d}] {text}", style="bold"))

    from yolokd.cli.evaluate import show_scores
    from yolokd.cli.export import describe
    from yolokd.data.streets import build
    from yolokd.deploy.export import export
    from yolokd.engine.descriptions import write_yolov8
    from yolokd.engine.plan import make_plan
    from yolokd.engine.run import resolve_recipe, start
    from yolokd.evaluation.models import evaluate

    say(f"Drawing {pictures} + {pictures // 4} street scenes")
    data = build(out / "streets", train=pictures, val=pictures // 4)
    large = write_yolov8(out / "models" / "large.yaml", width=0.25)
    small = write_yolov8(out / "models" / "small.yaml", width=0.125)

    def train(role: str, recipe: str, model: Path, teacher: Path | None, length: int) -> Path:
        resolved = resolve_recipe(recipe, SETTINGS, data=str(data), epochs=length, name=role, **COMMON)
        return start(make_plan(teacher, model, resolved, runs=out / "runs")) / "weights" / "last.pt"

    say(f"Training the teacher, width 0.25, {teacher_epochs} epochs")
    teacher = train("teacher", "baseline", large, None, teacher_epochs)
    say(f"Training the student without a teacher, width 0.125, {epochs} epochs")
    plain = train("baseline", "baseline", small, None, epochs)
    say(f"Training the same student under the teacher, recipe bckd_ssim, {epochs} epochs")
    distilled = train("bckd_ssim", "bckd_ssim", small, teacher, epochs)
    say("Evaluating the three")
    scores = evaluate([teacher, plain, distilled], str(data))
    show_scores(console, scores)
    say("Exporting the distilled student to ONNX and comparing")
    report = export(distilled, format="onnx", check=str(data))
    for line in describe(report):
        console.print(Text(line), soft_wrap=True)
    gain = 100 * (scores[2].AP - scores[1].AP)
    console.print(
        Text(
            f"\nDistillation changed AP by {gain:+.1f} points here: one seed, a short budget and drawn pictures, so "
            f"this shows that the chain works, not what a recipe gains.\nRuns, curves and pictures of detections: "
            f"{out / 'runs'} (results.png, val_batch0_pred.jpg in each)."
        )
    )
    say("Done")
