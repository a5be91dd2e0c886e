"""`yolokd export`: export a checkpoint, then prove that the result equals it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.text import Text

from yolokd.errors import RunError

if TYPE_CHECKING:
    from yolokd.deploy.export import ExportReport


def export(
    weights: Annotated[str, typer.Argument(help="Checkpoint: a .pt file or an Ultralytics name.")],
    format: Annotated[str, typer.Option(help="onnx, torchscript, openvino, engine, ... as Ultralytics.")] = "onnx",
    imgsz: Annotated[int | None, typer.Option(min=1, help="Side of the input in pixels; default: as trained.")] = None,
    check: Annotated[
        str | None, typer.Option(help="Pictures to compare on: a data set, a folder or a picture.")
    ] = None,
    nms_free: Annotated[
        bool, typer.Option("--nms-free", help="The output of a YOLO26 or YOLOv10 head that needs no NMS.")
    ] = False,
    trust_checkpoint: Annotated[
        bool, typer.Option("--trust-checkpoint", help="Load checkpoints that may run code. Only for files you trust.")
    ] = False,
) -> None:
    """Export a checkpoint and compare the result with it."""
    os.environ.setdefault("YOLO_VERBOSE", "false")
    console = Console()
    with Console(stderr=True).status("exporting and comparing"):
        from yolokd.deploy.export import export as run

        report = run(weights, format=format, imgsz=imgsz, check=check, nms_free=nms_free)
    for line in describe(report):
        console.print(Text(line), soft_wrap=True)
    if report.passed is False:
        raise RunError(
            f"'{report.path}' does not say what '{report.source}' says (limits: yolokd.deploy.parity). "
            f"The file was kept; do not deploy it unseen."
        )


def describe(report: ExportReport) -> list[str]:
    """The report as lines of text."""
    lines = [f"{report.path} ({report.format}, {report.imgsz} px)"]
    parity = report.parity
    if parity is not None:
        lines.append(
            f"raw outputs: boxes differ by at most {parity.box_px:.2g} px, scores by {parity.score:.2g}, "
            f"on {parity.pictures} pictures"
        )
        if parity.agreement is not None:
            lines.append(f"detections: {parity.paired} of {parity.detections} agree ({parity.agreement:.1%})")
    lines += [f"note: {note}" for note in report.notes]
    if report.passed is not None:
        lines.append("equals the checkpoint" if report.passed else "DIFFERS from the checkpoint")
    return lines
