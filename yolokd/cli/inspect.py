"""`yolokd inspect`: draw what a recipe's losses see in images."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.text import Text

from yolokd.cli.options import Device, Overrides, Teachers, TrustCheckpoint, one_teacher
from yolokd.errors import RunError, UserError

if TYPE_CHECKING:
    from yolokd.inspection.images import LabeledImage
    from yolokd.inspection.maps import Inspector
    from yolokd.outputs import OutputFolder


def inspect(
    images: Annotated[list[str], typer.Argument(metavar="IMAGE...", help="Images, or folders of them.")],
    teachers: Teachers = None,
    student: Annotated[
        str | None, typer.Option(help="The small model: a .pt, also of an unfinished run, a name, or a YAML.")
    ] = None,
    recipe: Annotated[str | None, typer.Option(help="Name of a shipped recipe, or a YAML file.")] = None,
    data: Annotated[str | None, typer.Option(help="Data whose classes the student knows; needed for a YAML.")] = None,
    imgsz: Annotated[
        int | None, typer.Option(max=16384, help="Side of the input in pixels; default: as trained.")
    ] = None,
    device: Device = None,
    out: Annotated[Path, typer.Option(help="Folder for the figures.")] = Path("runs/inspect"),
    fourier: Annotated[
        bool, typer.Option("--fourier", help="Also show which frequencies the teacher is sensitive to.")
    ] = False,
    set_: Overrides = None,
    allow_partial: Annotated[
        bool, typer.Option("--allow-partial", help="Compare the common classes where the teacher lacks some.")
    ] = False,
    trust_checkpoint: TrustCheckpoint = False,
) -> None:
    """Draw, over each image, where each loss of a recipe finds the student wrong: one PNG per image."""
    teacher = one_teacher(teachers, "inspect")
    for option, value in (("--teacher", teacher), ("--student", student), ("--recipe", recipe)):
        if value is None:
            raise UserError(f"Give {option}: inspect compares a student with a teacher under a recipe.")
    if training := [path for path in set_ or [] if path.startswith("train.")]:
        raise UserError(f"inspect does not train: leave out --set {training[0]}. It has --data, --imgsz and --device.")
    os.environ.setdefault("YOLO_VERBOSE", "false")
    from yolokd.backend.dataset import resolve
    from yolokd.backend.opening import short_names
    from yolokd.data.labels import NO_KEYPOINTS
    from yolokd.inspection.images import find_images, read_labeled_image
    from yolokd.inspection.setup import open_pair
    from yolokd.outputs import open_folder
    from yolokd.training.regime import with_losses
    from yolokd.training.run import resolve_recipe

    console = Console()
    paths, notes = find_images(images)
    resolved, on_regime = with_losses(resolve_recipe(str(recipe), set_ or [], imgsz=imgsz, device=device), str(student))
    inspector = open_pair(str(teacher), str(student), resolved, data=data, imgsz=imgsz, allow_partial=allow_partial)
    keypoints = resolve(data).keypoints if data is not None else NO_KEYPOINTS
    size, classes, joined = inspector.imgsz, len(inspector.names), inspector.joined
    opened = [read_labeled_image(path, size, classes, keypoints, joined=joined) for path in paths]
    figures = open_folder(out.expanduser(), paths, what="figures")
    for note in (*notes, *on_regime, *inspector.notes):
        console.print(Text(note, style="yellow"), soft_wrap=True)
    names = short_names([Path(str(teacher)), Path(str(student))])
    heading = [f"recipe: {resolved.name}, input: {inspector.imgsz} px", f"teacher: {names[0]}, student: {names[1]}"]
    for image in opened:
        with console.status(Text(f"Looking at {image.path.name}")):
            line = _write_figure(inspector, image, figures, heading, fourier=fourier)
        console.print(Text(line), soft_wrap=True)


def _write_figure(
    inspector: Inspector, image: LabeledImage, figures: OutputFolder, heading: Sequence[str], *, fourier: bool
) -> str:
    """Draw the figure of one image into the folder; return its path and the values of the terms as text."""
    from yolokd.inspection.plot import draw

    try:
        with tempfile.TemporaryDirectory() as temporary:
            view = inspector.inspect(image, fourier=fourier)
            draw(view, Path(temporary) / "figure.png", heading=heading, notes=inspector.notes)
            figure = figures.take(Path(temporary) / "figure.png", image.path.stem, ".png")
    except OSError as error:
        raise UserError(f"The figures cannot be written to '{figures.folder}': {error}") from error
    except RuntimeError as error:  # whatever a device or its memory may do
        raise RunError(f"Looking at '{image.path}' failed: {str(error).strip()}") from error
    values = ", ".join(f"kd_{term.name} {term.value:.4g}" for term in view.terms)
    return f"{figure}: {values}"
