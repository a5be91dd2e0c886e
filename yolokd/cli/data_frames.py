"""`yolokd data frames`: images out of videos and folders of images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.table import Table

    from yolokd.data.frames import ClipResult

NOTES_SHOWN = 20


def frames(
    sources: Annotated[
        list[Path],
        typer.Argument(metavar="SOURCE", help="Videos, and folders of images (with those below them); each a clip."),
    ],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Folder to write into; new, empty, or of an earlier run.")],
    every: Annotated[
        str | None,
        typer.Option(
            metavar="2s|10",
            help="Step between frames: seconds (2s, 0.5s) or frames (10). Each image of a folder is a frame; seconds "
            "are refused there. Default: 1s for videos, every image of folders.",
        ),
    ] = None,
    distance: Annotated[
        int,
        typer.Option(
            min=0,
            max=64,
            help="Drop a frame whose perceptual hash differs in fewer bits, of 64, than this from one of the last 16 "
            "kept of its clip. 0 keeps every frame; 2 drops equal hashes; 6 also noise and shifts of one to two "
            "percent; 12 also shifts of about five. Unrelated images differ in 20 to 40. The hash does not see small "
            "objects: use 0 for a camera that does not move.",
        ),
    ] = 6,
) -> None:
    """Write images of videos and folders, without near-duplicates; a second run adds what is missing."""
    from rich.console import Console

    from yolokd.cli.progress import share_bar
    from yolokd.data.frames import make_frames, parse_every
    from yolokd.errors import printable

    step = None if every is None else parse_every(every)
    with share_bar("Opening") as show:
        results = make_frames(sources, out, every=step, distance=distance, progress=show)
    console = Console()
    console.print(_table(results))
    notes = [
        f"'{printable(result.source)}': {note}"
        for result in results
        for note in (*([f"left out: {result.failure}"] if result.failure else []), *result.notes)
    ]
    for note in notes[:NOTES_SHOWN]:
        console.print(f"Note: {note}", markup=False, highlight=False, soft_wrap=True)
    if len(notes) > NOTES_SHOWN:
        console.print(f"and {len(notes) - NOTES_SHOWN} more notes", markup=False, highlight=False)
    kept, new = sum(len(result.kept) for result in results), sum(result.new for result in results)
    console.print(
        f"{kept} images of these clips are in '{printable(out)}', {new} of them new; train with --unlabeled "
        f"{printable(out)}",
        markup=False,
        highlight=False,
        soft_wrap=True,
    )


def _table(results: Sequence[ClipResult]) -> Table:
    """Counts, one row per clip and one for all of several."""
    from rich.table import Table
    from rich.text import Text

    rows = {
        result.name: (result.read, len(result.kept), result.near_duplicates, result.new)
        for result in results
        if not result.failure
    }
    table = Table("clip")
    for title in ("read", "kept", "near-duplicates", "new"):
        table.add_column(title, justify="right")
    for name, counts in rows.items():
        table.add_row(Text(name), *(f"{count}" for count in counts))
    if len(rows) > 1:
        table.add_section()
        table.add_row("all", *(f"{sum(column)}" for column in zip(*rows.values(), strict=True)))
    return table
