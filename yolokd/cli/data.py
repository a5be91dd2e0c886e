"""`yolokd data`: prepare data sets and check them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from yolokd.cli.data_frames import frames
from yolokd.cli.data_label import label
from yolokd.cli.data_table import report_table

if TYPE_CHECKING:
    from rich.progress import Progress

app = typer.Typer(help="Images out of video, labels by a teacher, prepared data sets, checks.", no_args_is_help=True)
app.command()(frames)
app.command()(label)

NOTES_SHOWN = 10


@app.command()
def streets(
    out: Annotated[Path, typer.Argument(help="Folder to make.")],
    train: Annotated[int, typer.Option(min=1, help="Number of images to learn from.")] = 600,
    val: Annotated[int, typer.Option(min=1, help="Number of images to be tested on.")] = 150,
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Random seed of the scenes.")] = 0,
) -> None:
    """Draw Streets, the built-in synthetic traffic scenes, for trying things out."""
    from rich.console import Console

    from yolokd.data.streets import build

    with _progress() as bar:
        task = bar.add_task("Drawing", total=train + val)
        path = build(
            out,
            train=train,
            val=val,
            seed=seed,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    Console().print(f"{train} + {val} images; train with --data {path}", markup=False, highlight=False, soft_wrap=True)


@app.command()
def kitti(
    src: Annotated[Path, typer.Argument(help="Folder that holds KITTI's training/image_2 and training/label_2.")],
    out: Annotated[Path, typer.Argument(help="Folder to make.")],
    classes: Annotated[
        str,
        typer.Option(
            metavar="3|8|TYPE=CLASS,...|FILE",
            help="3: Car, Pedestrian, Cyclist; 8: all types; pairs such as Car=vehicle,Van=vehicle, or a YAML of such.",
        ),
    ] = "3",
    split: Annotated[
        str,
        typer.Option(
            metavar="published|random|TRAIN,VAL",
            help="The lists of 3712 and 3769 frames that papers use, 8:2 at random, or two files with an id a line.",
        ),
    ] = "published",
    seed: Annotated[int | None, typer.Option(min=0, max=2**32 - 1, help="Of the random split; default 0.")] = None,
    follow_links: Annotated[
        bool, typer.Option("--follow-links", help="Follow links that lead out of SRC. Only where you trust them.")
    ] = False,
) -> None:
    """Prepare the KITTI object benchmark: YOLO labels, links to the images and to the original labels."""
    from rich.console import Console

    from yolokd.data.kitti import prepare

    with _progress() as bar:
        task = bar.add_task("Preparing", total=None)
        found = prepare(
            src,
            out,
            classes=classes,
            split=split,
            seed=seed,
            follow_links=follow_links,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    console = Console()
    console.print(report_table(found.report))
    left_out = ", ".join(f"{count} {word}" for word, count in found.left_out.most_common())
    notes = (f"Left out of the labels, kept in label_2: {left_out}.",) if left_out else ()
    for note in (*notes, *found.notes):
        console.print(f"Note: {note}", markup=False, highlight=False, soft_wrap=True)
    state = "Prepared" if found.is_new else "This very set was there already"
    console.print(
        f"{state}; train with --data {found.path}, score with 'yolokd eval … --protocol kitti'.",
        markup=False,
        highlight=False,
        soft_wrap=True,
    )


@app.command()
def coco_traffic(
    src: Annotated[Path, typer.Argument(help="Folder that holds COCO 2017's annotations, train2017 and val2017.")],
    out: Annotated[Path, typer.Argument(help="Folder to make.")],
) -> None:
    """Prepare COCO-traffic: the images of COCO 2017 with vehicles, lights or signs, and their 13 classes."""
    from rich.console import Console

    from yolokd.data.coco_traffic import prepare

    with _progress() as bar:
        task = bar.add_task("Preparing", total=100)
        found = prepare(
            src, out, progress=lambda what, share: bar.update(task, description=what, completed=int(100 * share))
        )
    console = Console()
    console.print(report_table(found.report))
    for note in found.notes:
        console.print(f"Note: {note}", markup=False, highlight=False, soft_wrap=True)
    state = "Prepared" if found.is_new else "This very set was there already"
    console.print(f"{state}; train with --data {found.path}", markup=False, highlight=False, soft_wrap=True)


@app.command()
def check(
    data: Annotated[str, typer.Argument(help="Data YAML, a name that Ultralytics packages, or 'streets'.")],
    deep: Annotated[
        bool, typer.Option("--deep", help="Open every image again, also those that an earlier check has opened.")
    ] = False,
) -> None:
    """Open all images of a data set, read all labels, and say what is wrong with them."""
    from rich.console import Console

    from yolokd.backend.dataset import resolve
    from yolokd.data.check import check_labels

    found = resolve(data)
    with _progress() as bar:
        task = bar.add_task("Checking", total=None)
        report = check_labels(
            found.splits,
            found.names,
            keypoints=found.keypoints,
            again=deep,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    console = Console()
    console.print(report_table(report))
    for note in report.notes[:NOTES_SHOWN]:
        console.print(f"Note: {note}", markup=False, highlight=False, soft_wrap=True)
    if len(report.notes) > NOTES_SHOWN:
        console.print(f"and {len(report.notes) - NOTES_SHOWN} more notes", markup=False, highlight=False)
    if report.left_out:
        console.print(f"Note: {report.left_out}", markup=False, highlight=False, soft_wrap=True)
    report.raise_if_bad()
    console.print("No errors.", markup=False, highlight=False)


def _progress() -> Progress:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=Console(stderr=True), transient=True)
