"""`yolokd diagnose`: what a student lacks."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from yolokd.cli.evaluate import class_map
from yolokd.cli.options import Classes, Data, Device, JsonFile, LongerSide, TrustCheckpoint, write_json
from yolokd.cli.progress import share_bar
from yolokd.errors import UserError
from yolokd.outputs import check_file

if TYPE_CHECKING:
    from yolokd.evaluation.wording import Words
    from yolokd.report.evidence import Examination


def diagnose(
    student: Annotated[
        str | None, typer.Option(metavar="RUN", help="Folder of a finished run, or a checkpoint.")
    ] = None,
    data: Data = None,
    teacher: Annotated[str | None, typer.Option(help="Trained detector that may teach: a .pt or a name.")] = None,
    imgsz: LongerSide = None,
    teacher_imgsz: Annotated[
        int | None, typer.Option(min=1, max=16384, help="Longer side for the teacher in pixels; default: as trained.")
    ] = None,
    device: Device = None,
    classes: Classes = None,
    json_file: JsonFile = None,
    trust_checkpoint: TrustCheckpoint = False,
) -> None:
    """Tell whether a student lacks training steps, capacity or knowledge, and what follows."""
    if student is None or data is None:
        raise UserError("Give --student, a run or a checkpoint, and --data, the data that it was trained on.")
    os.environ.setdefault("YOLO_VERBOSE", "false")
    check_file(json_file, "--json")
    from yolokd.evaluation.wording import words_for
    from yolokd.report.evidence import diagnose_student

    with share_bar("reading labels") as progress:
        found = diagnose_student(
            student,
            data,
            teacher=teacher,
            imgsz=imgsz,
            teacher_imgsz=teacher_imgsz,
            classes=class_map(classes or []),
            device=device,
            progress=progress,
        )
    if json_file != "-":
        show(Console(), found, words_for(data))
    if json_file is not None:
        write_json(json_file, to_plain(found))


def to_plain(found: Examination) -> dict[str, Any]:
    """Return a diagnosis as plain data, with the thresholds that it was made with."""
    from yolokd.report import diagnosis

    names = ("LOW_AP", "LARGE_GAP", "LARGE_GAP_SHARE", "RISE", "FALL", "TEACHER_LEAD")
    return {
        **asdict(found),
        "evidence": {**asdict(found.evidence), "gap": found.evidence.gap, "rising": found.evidence.rising},
        "thresholds": {name.lower(): getattr(diagnosis, name) for name in names},
    }


def show(console: Console, found: Examination, words: Words = str) -> None:
    """Print the evidence, the verdict and what follows."""
    from yolokd.report.diagnosis import describe_curve, describe_labels

    console.print(_table(found, words))
    evidence = found.evidence
    lines = [
        f"labels: {describe_labels(evidence.labeled, evidence.unlabeled)}",
        f"curve: {describe_curve(evidence.curve)}",
        *found.diagnosis.sentences,
        *(f"- {line}" for line in found.diagnosis.advice),
    ]
    for line in lines:
        console.print(Text(words(line)), soft_wrap=True)
    notes = [*found.notes, *_score_notes(found.scores)]
    for note in notes:
        console.print(Text(note, style="yellow"), soft_wrap=True)
    if words is not str:
        from yolokd.evaluation.wording import NOTE

        console.print(Text(NOTE, style="yellow"), soft_wrap=True)


def _table(found: Examination, words: Words) -> Table:
    from yolokd.report.formatting import percent, signed

    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(words("AP in percent"), overflow="fold")
    for split, what in (("train", "training"), ("val", "validation")):
        table.add_column(f"{found.images[split]} {what} images", justify="right")
    table.add_column("gap", justify="right")
    table.add_column("imgsz", justify="right")
    for role, scores in found.scores.items():
        train, val = scores["train"], scores["val"]
        row = (f"{role} {train.name}", percent(train.AP), percent(val.AP), signed(train.AP - val.AP), str(train.imgsz))
        table.add_row(*map(Text, row))
    return table


def _score_notes(scores: Mapping[str, Any]) -> list[str]:
    notes = [f"{role}: {note}" for role, splits in scores.items() for score in splits.values() for note in score.notes]
    return list(dict.fromkeys(notes))
