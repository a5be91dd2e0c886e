"""`yolokd report`: one page on runs or a comparison, as HTML and as Markdown."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn
from rich.text import Text


def report(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Folders of runs, or of one comparison.")],
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE.html", help="The page; default: report.html in the folder, or here for several."),
    ] = None,
    data: Annotated[str | None, typer.Option(help="Where the data lie now, if they were moved.")] = None,
    teacher: Annotated[str | None, typer.Option(help="Where the teacher lies now, if it was moved.")] = None,
    device: Annotated[str | None, typer.Option(help="cpu, mps or a GPU (0).")] = None,
    trust_checkpoint: Annotated[
        bool, typer.Option("--trust-checkpoint", help="Load checkpoints that may run code. Only for files you trust.")
    ] = False,
) -> None:
    """Write one page on runs: what they gained, curves, costs, and images on which they differ.

    The page is a single HTML file that needs no network; the same lies beside it as Markdown.
    """
    os.environ.setdefault("YOLO_VERBOSE", "false")
    from yolokd.report import write

    console = Console()
    bar = Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TaskProgressColumn(),
        console=Console(stderr=True),
        transient=True,
    )
    with bar:
        task = bar.add_task("reading runs", total=1.0)
        page = write(
            runs,
            out,
            data=data,
            teacher=teacher,
            device=device,
            progress=lambda name, share: bar.update(task, description=name, completed=share),
        )
    console.print(Text(f"The report is {page}"), soft_wrap=True)
    console.print(Text(f"The same as Markdown: {page.with_suffix('.md')}"), soft_wrap=True)
