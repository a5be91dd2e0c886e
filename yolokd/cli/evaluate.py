"""`yolokd eval`: several checkpoints, one data set, one table."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from yolokd.cli.options import Classes, Device, JsonFile, LongerSide, TrustCheckpoint, write_json
from yolokd.cli.progress import share_bar
from yolokd.errors import UserError
from yolokd.outputs import check_file

if TYPE_CHECKING:
    from yolokd.evaluation.models import ModelScore
    from yolokd.evaluation.wording import Words
    from yolokd.recipe.classes import ClassMap

AGREEMENTS = ("agreement", "at 50", "at 75", "small", "medium", "large")  # the same on labels of a teacher
ROTATED = {"mAP50-95": "map50_95", "mAP50": "map50", "mAP75": "map75"}  # column → field of `RotatedScore`
BESIDE = {"masks": "mask", "keypoints": "pose"}  # field of a score → word over its columns
BESIDE_METRICS = ("AP", "AP50", "AP75")  # of the table; the JSON has all
COST = ("params M", "GFLOPs", "ms", "imgsz")


def evaluate(
    weights: Annotated[list[str], typer.Argument(help="Checkpoints (.pt files or Ultralytics names) or exports.")],
    data: Annotated[str, typer.Option(help="Data YAML, a name that Ultralytics packages, or 'streets'.")],
    protocol: Annotated[
        str, typer.Option(metavar="coco|kitti", help="How to score; kitti needs a set from 'yolokd data kitti'.")
    ] = "coco",
    metric: Annotated[
        str | None,
        typer.Option(
            metavar="R40|R11", help="Of the protocol kitti: 40 recalls, as today, or 11, as before; default R40."
        ),
    ] = None,
    split: Annotated[str, typer.Option(help="Split of the data set.")] = "val",
    imgsz: LongerSide = None,
    batch: Annotated[int | None, typer.Option(min=1, help="Images per batch; default: Ultralytics'.")] = None,
    device: Device = None,
    classes: Classes = None,
    json_file: JsonFile = None,
    trust_checkpoint: TrustCheckpoint = False,
) -> None:
    """Score checkpoints on a data set: COCO's, KITTI's or (OBB) Ultralytics' metrics, parameters, GFLOPs, latency."""
    os.environ.setdefault("YOLO_VERBOSE", "false")
    check_file(json_file, "--json")
    from yolokd.evaluation.models import evaluate as run
    from yolokd.evaluation.wording import words_for

    with share_bar("reading labels") as progress:
        scores = run(
            weights,
            data,
            protocol=protocol,
            metric=metric,
            split=split,
            imgsz=imgsz,
            batch=batch,
            device=device,
            classes=class_map(classes or []),
            progress=progress,
        )
    if json_file != "-":
        if any(score.rotated is not None for score in scores):
            show_rotated(Console(), scores)
        elif protocol == "coco":
            show_scores(Console(), scores, words_for(data))
        else:
            show_kitti(Console(), scores)
    if json_file is not None:
        write_json(json_file, [_plain(score) for score in scores])


def _plain(score: ModelScore) -> dict[str, Any]:
    """Return a score as plain data without what a model's task does not have; of rotated boxes without COCO's."""
    from yolokd.evaluation.coco import AP_METRICS

    left_out = {key for key in (*BESIDE, "rotated") if getattr(score, key) is None}
    if score.rotated is not None:
        left_out |= {*AP_METRICS, "per_class"}
    return {key: value for key, value in asdict(score).items() if key not in left_out}


def split_pairs(words: Sequence[str]) -> list[str]:
    """Return the pairs of comma-separated lists; a comma without a pair behind it belongs to a name."""
    pairs: list[str] = []
    for word in words:
        first, *rest = word.split(",")
        pairs.append(first)
        for part in rest:
            if "=" in part:
                pairs.append(part)
            else:
                pairs[-1] += f",{part}"
    return pairs


def class_map(words: Sequence[str]) -> ClassMap:
    """Return a mapping from pairs MODEL=DATA, also with commas between them, or the name of a shipped map.

    Raises:
        UserError: A word that is neither, or a class of a model that is given two of the data.
    """
    from yolokd.recipe.classes import SHIPPED

    pairs = split_pairs(words)
    if len(pairs) == 1 and pairs[0] in SHIPPED:
        return pairs[0]
    split = [pair.partition("=") for pair in pairs]
    for pair, (left, _, right) in zip(pairs, split, strict=True):
        if not left.strip() or not right.strip():
            raise UserError(
                f"--classes expects MODEL=DATA, such as motorcycle=motorbike, or one shipped map "
                f"({', '.join(SHIPPED)}); got '{pair}'."
            )
    found: dict[str, str] = {}
    for left, _, right in split:
        if found.setdefault(left.strip(), right.strip()) != right.strip():
            known = found[left.strip()]
            raise UserError(f"--classes maps '{left.strip()}' to '{known}' and to '{right.strip()}'; give one of them.")
    return found


def show_scores(console: Console, scores: Sequence[ModelScore], words: Words = str) -> None:
    """Print one row per model, and what is worth knowing about it; `words` from `yolokd.evaluation.wording`.

    Where masks or keypoints are scored, their AP follows that of the boxes, and all are named.
    """
    from yolokd.evaluation.coco import AP_METRICS

    beside = [key for key in BESIDE if any(getattr(score, key) is not None for score in scores)]
    names, cost = [*(AP_METRICS if words is str else AGREEMENTS)], [*COST]
    if beside:  # twice as many columns: headers in two lines
        names = [f"box\n{name}" for name in names]
        names += [f"{BESIDE[key]}\n{words(name)}" for key in beside for name in BESIDE_METRICS]
        cost = [name.replace(" ", "\n") for name in cost]
    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 1, 0, 0))
    column, models = _models(scores)
    table.add_column(column, overflow="fold", min_width=8)
    for column in (*names, *cost):
        table.add_column(column, justify="right", no_wrap=True)
    for model, score in zip(models, scores, strict=True):
        aps = [getattr(score, metric) for metric in AP_METRICS]
        for key in beside:
            aps += [getattr(getattr(score, key), metric, -1.0) for metric in BESIDE_METRICS]
        shown = ["–" if value < 0 else f"{100 * value:.1f}" for value in aps]
        table.add_row(*map(Text, (model, *shown, *_cost(score))))
    console.print(table)
    if words is not str:
        from yolokd.evaluation.wording import NOTE

        console.print(Text(NOTE, style="yellow"), soft_wrap=True)
    _show_notes(console, scores)


def show_rotated(console: Console, scores: Sequence[ModelScore]) -> None:
    """Print Ultralytics' metrics of rotated boxes, one row per model, and what they are."""
    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 1, 0, 0))
    found = [(score, score.rotated) for score in scores if score.rotated is not None]
    column, models = _models([score for score, _ in found])
    table.add_column(column, overflow="fold", min_width=8)
    for column in (*ROTATED, *COST):
        table.add_column(column, justify="right", no_wrap=True)
    for model, (score, rotated) in zip(models, found, strict=True):
        values = [getattr(rotated, name) for name in ROTATED.values()]
        table.add_row(*map(Text, (model, *("–" if v < 0 else f"{100 * v:.1f}" for v in values), *_cost(score))))
    console.print(table)
    for _, rotated in found[:1]:
        console.print(Text(f"In percent: {rotated.metric}"), soft_wrap=True)
    _show_notes(console, scores)


def show_kitti(console: Console, scores: Sequence[ModelScore]) -> None:
    """Print KITTI's numbers, one row per model and class; the AP of COCO is left to the JSON."""
    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 1, 0, 0))
    found = [(score, score.kitti) for score in scores if score.kitti is not None]
    column, models = _models([score for score, _ in found])
    table.add_column(column, overflow="fold")
    table.add_column("class", no_wrap=True)
    for column in ("easy", "moderate", "hard", *COST):
        table.add_column(column, justify="right", no_wrap=True)
    for shown, (score, kitti) in zip(models, found, strict=True):
        first = (shown, *_cost(score))
        for name, levels in kitti.ap_percent.items():
            model, *cost = first
            table.add_row(*map(Text, (model, name, *(f"{value:.1f}" for value in levels.values()), *cost)))
            first = ("",) * len(first)
    console.print(table)
    for _, kitti in found[:1]:  # what holds for all of them
        console.print(f"KITTI's AP in percent by {kitti.metric}: IoU above 0.7 for Car, 0.5 for the others")
        for note in kitti.notes:
            console.print(Text(note, style="yellow"), soft_wrap=True)
    _show_notes(console, scores)


def _models(scores: Sequence[ModelScore]) -> tuple[str, list[str]]:
    """Return the header of the column of models, and their names without the end that they share."""
    parts = [score.name.split("/") for score in scores]
    shared = 0
    while (
        len(parts) > 1 and all(len(one) > shared + 1 for one in parts) and len({one[-1 - shared] for one in parts}) < 2
    ):
        shared += 1
    end = "/".join(parts[0][-shared:]) if shared else ""
    return f"{end} of" if shared else "model", [score.name.removesuffix(f"/{end}") for score in scores]


def _cost(score: ModelScore) -> tuple[str, ...]:
    """The columns `COST`; a dash where it is not known."""
    parameters = f"{score.parameters / 1e6:.2f}" if score.parameters else "–"
    gflops = f"{score.gflops:.1f}" if score.gflops else "–"
    return parameters, gflops, f"{score.latency_ms:.1f}", str(score.imgsz)


def _show_notes(console: Console, scores: Sequence[ModelScore]) -> None:
    for score in scores:
        for note in score.notes:
            console.print(Text(f"{score.name}: {note}", style="yellow"), soft_wrap=True)
