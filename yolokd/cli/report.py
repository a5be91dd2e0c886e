"""`yolokd report`: one page on runs or a comparison, as HTML and as Markdown."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from yolokd.cli.options import Device, TrustCheckpoint
from yolokd.cli.progress import share_bar


def report(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Folders of runs, or of one comparison.")],
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE.html", help="The page; default: report.html in the folder, or here for several."),
    ] = None,
    data: Annotated[str | None, typer.Option(help="Where the data lie now, if they were moved.")] = None,
    teacher: Annotated[str | None, typer.Option(help="Where the teacher lies now, if it was moved.")] = None,
    device: Device = None,
    trust_checkpoint: TrustCheckpoint = False,
) -> None:
    """Write one page on runs: what they gained, curves, costs, and images on which they differ.

    The page is a single HTML file that needs no network; the same lies beside it as Markdown.
    """
    os.environ.setdefault("YOLO_VERBOSE", "false")
    from yolokd.report import write

    console = Console()
    with share_bar("reading runs") as progress:
        page = write(
            runs,
            out,
            data=data,
            teacher=teacher,
            device=device,
            progress=progress,
        )
    console.print(Text(f"The report is {page}"), soft_wrap=True)
    console.print(Text(f"The same as Markdown: {page.with_suffix('.md')}"), soft_wrap=True)
