"""`yolokd export`: export checkpoints, then prove that the results equal them, or what 8 bits cost."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from yolokd.cli.options import JsonFile, TrustCheckpoint, write_json
from yolokd.errors import RunError, UserError
from yolokd.outputs import check_file

if TYPE_CHECKING:
    from yolokd.backend.formats import Precision
    from yolokd.deploy.report import ExportReport, Side
    from yolokd.evaluation.wording import Words


def export(
    weights: Annotated[list[str], typer.Argument(help="Checkpoints: .pt files or Ultralytics names.")],
    format: Annotated[str, typer.Option(help="onnx, openvino, torchscript, engine, ... as Ultralytics.")] = "onnx",
    imgsz: Annotated[
        int | None, typer.Option(min=1, max=16384, help="Side of the input in pixels; default: as trained.")
    ] = None,
    check: Annotated[
        str | None, typer.Option(help="What to compare on: a data set (AP as well), a folder or an image.")
    ] = None,
    half: Annotated[bool, typer.Option("--half", help="Export in float16.")] = False,
    int8: Annotated[
        bool, typer.Option("--int8", help="Export in 8 bits, with ranges measured on the data set of --check.")
    ] = False,
    nms_free: Annotated[
        bool, typer.Option("--nms-free", help="The output of a YOLO26 or YOLOv10 head that needs no NMS.")
    ] = False,
    json_file: JsonFile = None,
    trust_checkpoint: TrustCheckpoint = False,
) -> None:
    """Export checkpoints and compare the results with them: outputs, detections, AP, size and latency."""
    os.environ.setdefault("YOLO_VERBOSE", "false")
    if half and int8:
        raise UserError("Give --half or --int8, not both.")
    check_file(json_file, "--json")
    precision: Precision = "float16" if half else "int8" if int8 else "float32"
    from yolokd.backend.checkpoints import find, load_detector
    from yolokd.deploy.export import export as run
    from yolokd.evaluation.wording import words_for

    console = Console(quiet=json_file == "-")
    words = words_for(check or "")
    paths = list(dict.fromkeys(find(spec) for spec in weights))
    for path in paths:  # all of them before minutes go into the first
        load_detector(path)
    reports = []
    with Console(stderr=True).status("exporting") as status:
        for path in paths:
            report = run(
                path,
                format=format,
                precision=precision,
                imgsz=imgsz,
                check=check,
                nms_free=nms_free,
                progress=lambda step, path=path: status.update(Text(f"{path}: {step}")),  # type: ignore[misc]
            )
            reports.append(report)
            for line in describe(report):
                console.print(Text(words(line)), soft_wrap=True)
    show_reports(console, reports, words)
    if json_file is not None:
        write_json(json_file, [report.to_dict() for report in reports])
    if failed := [f"'{r.path}': {', '.join(r.failures)}" for r in reports if r.passed is False]:
        raise RunError(
            f"Not within the limits (see yolokd.deploy.report): {'; '.join(failed)}. "
            f"What was written was kept; do not deploy it unseen."
        )


def describe(report: ExportReport) -> list[str]:
    """How an export compares with its checkpoint, as lines of text."""
    lines = [f"{report.path} ({report.format}, {report.precision}, {report.imgsz} px)"]
    parity = report.parity
    if parity is not None and report.precision != "int8":  # 8 bits move places where there is nothing at will
        lines.append(
            f"raw outputs: boxes differ by at most {parity.box_px:.2g} px, scores by {parity.score:.2g}, "
            f"on {parity.images} images"
        )
    if parity is not None and parity.agreement is not None:
        lines.append(f"detections: {parity.paired} of {parity.detections} agree ({parity.agreement:.1%})")
    if report.ap_change is not None:
        change = f"{_points(report.before.AP)} to {_points(report.after.AP)} ({_change(report.ap_change)})"
        lines.append(f"AP on square images: {change}")
    lines += [f"note: {note}" for note in report.notes]
    if report.passed is not None:
        equal = "keeps enough of the checkpoint's AP" if report.precision == "int8" else "equals the checkpoint"
        lines.append(equal if report.passed else f"DIFFERS from the checkpoint: {', '.join(report.failures)}")
    return lines


def show_reports(console: Console, reports: Sequence[ExportReport], words: Words = str) -> None:
    """Print a row for each checkpoint and one for its export: AP, size on disk, time of a forward pass."""
    from yolokd.backend.opening import short_names

    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("model", overflow="fold")
    table.add_column("as")
    for column in ("AP", "change", "AP50", "MB", "ms"):
        table.add_column(words(column), justify="right", no_wrap=True)
    for name, report in zip(short_names([Path(r.source) for r in reports]), reports, strict=True):
        change = "–" if report.ap_change is None else _change(report.ap_change)
        table.add_row(*map(Text, (name, "checkpoint", *_cells(report.before, ""))))
        table.add_row(*map(Text, ("", f"{report.format} {report.precision}", *_cells(report.after, change))))
    console.print(table)


def _cells(side: Side, change: str) -> tuple[str, ...]:
    latency = "–" if side.latency_ms is None else f"{side.latency_ms:.1f}"
    return _points(side.AP), change, _points(side.AP50), f"{side.bytes / 1e6:.2f}", latency


def _change(share: float) -> str:
    return f"{round(100 * share, 2) + 0.0:+.2f}"  # + 0.0: never -0.00


def _points(share: float | None) -> str:
    return "–" if share is None or share < 0 else f"{100 * share:.1f}"
