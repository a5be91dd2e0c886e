"""`yolokd demo`: the whole chain on the built-in data, offline, in minutes."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from yolokd.errors import UserError

# Both students have one budget. The teacher is twice as wide and trains longer, as one that a user would bring along.
COMMON = {"imgsz": 128, "batch": 8, "device": "cpu", "seed": 0}
SETTINGS = (
    "train.optimizer=AdamW",
    "train.lr0=3e-3",
    "train.nbs=8",  # an optimizer step for each batch, since there are few
    "train.warmup_epochs=1",
    "train.mosaic=0",
    "train.scale=0.2",  # the scenes vary enough in scale themselves
    "train.translate=0.05",
    "train.cache=ram",
    "train.patience=0",
)
SCENE = (192, 192)  # pixels; square, as the input of an export is, so that training and export see the same images
RECIPE = "bckd_ssim"
FORMAT = "onnx"
TEACHER_WIDTH, STUDENT_WIDTH = 0.25, 0.125  # 0.25 is yolov8n


def demo(
    out: Annotated[Path, typer.Argument(help="Folder for everything that the demo makes.")] = Path("demo"),
    images: Annotated[int, typer.Option("--pictures", min=4, help="Images to train on.")] = 600,
    teacher_epochs: Annotated[int, typer.Option(min=1, help="Epochs of the teacher.")] = 16,
    epochs: Annotated[int, typer.Option(min=1, help="Epochs of each student.")] = 10,
) -> None:
    """Draw data, train a teacher and two students, evaluate, export, report: offline, in minutes."""
    check(out)
    console = Console()
    started = time.perf_counter()

    def say(text: str) -> None:
        minutes, seconds = divmod(int(time.perf_counter() - started), 60)
        console.print(Text(f"\n[{minutes:02d}:{seconds:02d}] {text}", style="bold"))

    from yolokd.backend.descriptions import write_yolov8
    from yolokd.cli.evaluate import show_scores
    from yolokd.cli.export import describe
    from yolokd.data.streets import build
    from yolokd.deploy.export import export
    from yolokd.evaluation.models import evaluate
    from yolokd.training.plan import make_plan
    from yolokd.training.run import resolve_recipe, start

    held_out = max(1, images // 4)
    say(f"Drawing {images} + {held_out} synthetic street scenes")
    data = build(out / "streets", train=images, val=held_out, size=SCENE)
    large = write_yolov8(out / "models" / "large.yaml", width=TEACHER_WIDTH)
    small = write_yolov8(out / "models" / "small.yaml", width=STUDENT_WIDTH)

    def train(role: str, recipe: str, model: Path, teacher: Path | None, length: int) -> Path:
        resolved = resolve_recipe(recipe, SETTINGS, data=str(data), epochs=length, name=role, **COMMON)
        return start(make_plan(teacher, model, resolved, runs=out / "runs")) / "weights" / "last.pt"

    say(f"Training the teacher, width {TEACHER_WIDTH}, {teacher_epochs} epochs")
    teacher = train("teacher", "baseline", large, None, teacher_epochs)
    say(f"Training the student without a teacher, width {STUDENT_WIDTH}, {epochs} epochs")
    plain = train("baseline", "baseline", small, None, epochs)
    say(f"Training the same student with the teacher, recipe {RECIPE}, {epochs} epochs")
    distilled = train(RECIPE, RECIPE, small, teacher, epochs)
    say(f"Evaluating the three on the {held_out} images that none was trained on")
    scores = evaluate([teacher, plain, distilled], str(data))
    show_scores(console, scores)
    say("Exporting the distilled student to ONNX and comparing")
    report = export(distilled, format=FORMAT, check=str(data))
    for line in describe(report):
        console.print(Text(line), soft_wrap=True)
    say("Writing the report and a figure of what the losses see in one image")
    show(out, data, teacher, distilled)
    gain = 100 * (scores[2].AP - scores[1].AP)
    console.print(
        Text(
            f"\nDistillation changed AP by {gain:+.1f} points here: one seed, a short budget and synthetic scenes, so "
            f"this shows that the chain works, not what a recipe gains.\nRuns and their curves: {out / 'runs'}."
        )
    )
    say("Done")


def check(out: Path) -> None:
    """Raise `UserError` if the folder holds something, or packages for the export are missing."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"'{out}' is not an empty folder. Remove it or give another folder: yolokd demo FOLDER.")
    from yolokd.backend.formats import require_packages

    require_packages(FORMAT, "float32")


def show(out: Path, data: Path, teacher: Path, student: Path) -> None:
    """Write the report page on both students and one inspect figure, and print their paths."""
    from yolokd.cli.inspect import inspect
    from yolokd.cli.report import report

    runs = out / "runs"
    report([runs / "baseline", runs / RECIPE], out=out / "report.html", device="cpu")
    inspect(
        [str(fullest_image(data.parent, "val"))],
        teachers=[str(teacher)],
        student=str(student),
        recipe=RECIPE,
        device="cpu",
        out=out / "inspect",
    )


def fullest_image(folder: Path, split: str) -> Path:
    """Return the image of a split with the most labels, the first of several."""
    labels = sorted((folder / "labels" / split).iterdir())
    most = max(labels, key=lambda file: len(file.read_text(encoding="utf-8").splitlines()))
    return folder / "images" / split / f"{most.stem}.jpg"
