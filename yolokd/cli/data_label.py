"""`yolokd data label`: a data set made by teachers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.text import Text

from yolokd.cli.options import Device, Teachers

if TYPE_CHECKING:
    from yolokd.labeling.label import Labeled


def label(
    source: Annotated[Path, typer.Argument(help="Folder of images, or a .txt with one path per line.")],
    out: Annotated[Path, typer.Argument(help="Folder to make.")],
    teacher: Teachers = None,
    classes: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME,...",
            help="Classes to label; TEACHER=SET renames one. Prompts of YOLO-World and YOLOE. Default: all.",
        ),
    ] = None,
    conf: Annotated[
        str | None,
        typer.Option(
            metavar="SCORE|NAME=SCORE,...|auto",
            help="Score from which on a box is an object: 0.3 if left out. auto takes for each class the score of the "
            "largest F1 on the labels of --like; it is the default there.",
        ),
    ] = None,
    like: Annotated[
        str | None, typer.Option(metavar="DATA", help="Labeled data set that the new one is to have the classes of.")
    ] = None,
    imgsz: Annotated[
        int | None,
        typer.Option(min=32, max=16384, help="Longer side in pixels for the teacher, 1280; best twice the student's."),
    ] = None,
    flip: Annotated[bool, typer.Option(help="Ask about the mirrored image as well, which takes twice as long.")] = True,
    val: Annotated[float, typer.Option(metavar="SHARE", help="Share of the images to validate on, by scenes.")] = 0.1,
    page: Annotated[bool, typer.Option("--page", help="Write OUT/page.html, a sample to look through.")] = False,
    device: Device = None,
) -> None:
    """Make a YOLO data set of images without labels: the boxes of a teacher, or of several fused.

    Any model that Ultralytics loads and that gives boxes can be the teacher. What has been asked is kept: an
    interrupted labeling goes on where it stopped, and other thresholds ask nobody.
    """
    from yolokd.cli.data_table import report_table
    from yolokd.cli.progress import images_told, share_bar
    from yolokd.labeling.label import IMGSZ
    from yolokd.labeling.label import label as make

    with share_bar("Looking at the images") as show:
        made = make(
            source, out, teacher or [], classes=classes or (), conf=conf, like=like, imgsz=imgsz or IMGSZ, flip=flip,
            val=val, device=device,
            progress=images_told(show),
        )  # fmt: skip
    console = Console()
    console.print(report_table(made.report))
    _tell(console, made)
    if page:
        from yolokd.report.label_page import write_label_page

        console.print(Text(f"A sample to look through: {write_label_page(made.path.parent)}"), soft_wrap=True)


def _tell(console: Console, made: Labeled) -> None:
    scores = ", ".join(f"{name} {score:.2f}" for name, score in made.thresholds.items())
    state = "Labeled" if made.is_new else "This very set was there already"
    lines = [
        f"Objects from a score of {scores}",
        *(f"Note: {note}" for note in made.notes),
        f"{state}; train with --data {made.path}. A score on these labels is agreement with the teacher, no AP.",
    ]
    for line in lines:
        console.print(Text(line), soft_wrap=True)
