"""Options that several commands have, and what `--json` does."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Annotated

import typer

from yolokd.errors import UserError
from yolokd.outputs import write_file

Teachers = Annotated[
    list[str] | None, typer.Option("--teacher", help="Trained detector to learn from: a .pt or a name; repeatable.")
]
Data = Annotated[str | None, typer.Option(help="Data YAML, a name that Ultralytics packages, or 'streets'.")]
Classes = Annotated[
    list[str] | None,
    typer.Option(
        metavar="MODEL=DATA,...|MAP",
        help="A model's class name and the data's, where they differ; repeatable. Or a shipped map: coco-to-kitti.",
    ),
]
Device = Annotated[str | None, typer.Option(help="cpu, mps or a GPU (0).")]
LongerSide = Annotated[int | None, typer.Option(min=1, max=16384, help="Longer side in pixels; default: as trained.")]
Overrides = Annotated[
    list[str] | None, typer.Option("--set", metavar="PATH=VALUE", help="Override a recipe key; repeatable.")
]
AllowPartial = Annotated[
    bool, typer.Option("--allow-partial", help="Distill the common classes where the teacher lacks some.")
]
JsonFile = Annotated[str | None, typer.Option("--json", metavar="FILE", help="Write the results as JSON; - is stdout.")]
TrustCheckpoint = Annotated[
    bool, typer.Option("--trust-checkpoint", help="Load checkpoints that may run code. Only for files you trust.")
]


def split_list(text: str, option: str) -> list[str]:
    """Return the words of an option that takes several, with commas between; `UserError` if one is empty."""
    words = [word.strip() for word in text.split(",")]
    if not all(words):
        raise UserError(f"{option} expects words with commas between, got '{text}'.")
    return words


def one_teacher(teachers: Sequence[str] | None, command: str) -> str | None:
    """Return the teacher of a command that takes one; `UserError` if several are given."""
    if teachers and len(teachers) > 1:
        raise UserError(f"{command} takes one teacher: give --teacher once, not {len(teachers)} times.")
    return teachers[0] if teachers else None


def write_json(file: str, plain: object) -> None:
    """Write plain data as JSON to a file, or to stdout for -; errors as `yolokd.outputs.write_file`."""
    text = json.dumps(plain, indent=2)
    if file == "-":
        typer.echo(text)
        return
    kept = write_file(file, f"{text}\n".encode(), "--json")
    if kept is not None:
        typer.echo(f"note: '{file}' was there and is not yolokd's: it is now '{kept}'", err=True)
