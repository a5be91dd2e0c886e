"""`yolokd export`: export checkpoints, then prove that the results equal them, or what 8 bits cost."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from yolokd.cli.options import JsonFile, TrustCheckpoint, split_list, write_json
from yolokd.errors import RunError, UserError
from yolokd.outputs import check_file

if TYPE_CHECKING:
    from yolokd.backend.formats import Precision
    from yolokd.deploy.change import Change
    from yolokd.deploy.report import Calibrated, ExportReport, Side
    from yolokd.deploy.sensitivity import Outcome
    from yolokd.evaluation.wording import Words

KEEP_FLOAT_FORMATS = ("openvino", "onnx")
SENSITIVITY_FORMATS = ("openvino",)
INTERVAL = "95 % interval"
LEGEND = "gain: of AP, over the first row; box px, score: mean distance to the checkpoint where that has 0.25 or more"


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
    keep_float: Annotated[
        str | None, typer.Option(metavar="PARTS", help="With --int8: parts in full precision, such as stem,head.cls.")
    ] = None,
    sensitivity: Annotated[
        bool, typer.Option("--sensitivity", help="With --int8: what each part in full precision wins (OpenVINO).")
    ] = False,
    json_file: JsonFile = None,
    trust_checkpoint: TrustCheckpoint = False,
) -> None:
    """Export checkpoints and compare the results with them: outputs, detections, AP, size and latency."""
    os.environ.setdefault("YOLO_VERBOSE", "false")
    if half and int8:
        raise UserError("Give --half or --int8, not both.")
    kept = [] if keep_float is None else split_list(keep_float, "--keep-float")
    _check_parts(format, check, int8=int8, kept=bool(kept), sensitivity=sensitivity)
    check_file(json_file, "--json")
    precision: Precision = "float16" if half else "int8" if int8 else "float32"
    from yolokd.backend.checkpoints import find, load_detector
    from yolokd.backend.parts import partition_of
    from yolokd.backend.tasks import ALL_TASKS
    from yolokd.deploy.export import export as run
    from yolokd.evaluation.wording import words_for

    console = Console(quiet=json_file == "-")
    words = words_for(check or "")
    paths = list(dict.fromkeys(find(spec) for spec in weights))
    for path in paths:  # all of them before minutes go into the first
        detector = load_detector(path, ALL_TASKS)
        if kept:
            partition_of(detector).check(kept, path)
    make = partial(
        run, format=format, precision=precision, imgsz=imgsz, check=check, nms_free=nms_free, keep_float=kept,
        sensitivity=sensitivity,
    )  # fmt: skip
    reports = _export_all(console, paths, make, words)
    if json_file is not None:
        write_json(json_file, [report.to_dict() for report in reports])
    if failed := [f"'{r.path}': {', '.join(r.failures)}" for r in reports if r.passed is False]:
        raise RunError(
            f"Not within the limits (see yolokd.deploy.report): {'; '.join(failed)}. "
            f"What was written was kept; do not deploy it unseen."
        )


def _export_all(
    console: Console, paths: Sequence[Path], make: Callable[..., ExportReport], words: Words
) -> list[ExportReport]:
    """Export and compare one checkpoint after another, print what came out, and return it."""
    reports = []
    with Console(stderr=True).status("exporting") as status:
        for path in paths:

            def show(step: str, path: Path = path) -> None:
                status.update(Text(f"{path}: {step}"))

            report = make(path, progress=show)
            reports.append(report)
            for line in describe(report):
                console.print(Text(words(line)), soft_wrap=True)
    show_reports(console, reports, words)
    for report in reports:
        show_sensitivity(console, report, words)
    return reports


def _check_parts(format: str, check: str | None, *, int8: bool, kept: bool, sensitivity: bool) -> None:
    """Refuse --keep-float and --sensitivity where they have no meaning."""
    for option, given, formats in (
        ("--keep-float", kept, KEEP_FLOAT_FORMATS),
        ("--sensitivity", sensitivity, SENSITIVITY_FORMATS),
    ):
        if given and not int8:
            raise UserError(f"{option} is about exports in 8 bits: add --int8.")
        if given and format.lower() not in formats:
            raise UserError(f"{option} is for --format {' or '.join(formats)}, not {format}.")
    if sensitivity and check is None:
        raise UserError("--sensitivity compares AP: name a data set, --check road.yaml.")


def describe(report: ExportReport) -> list[str]:
    """How an export compares with its checkpoint, as lines of text."""
    kept = f", {' and '.join(report.keep_float)} in float32" if report.keep_float else ""
    lines = [f"{report.path} ({report.format}, {report.precision}{kept}, {report.imgsz} px)"]
    parity = report.parity
    if parity is not None and report.precision != "int8":  # 8 bits move places where there is nothing at will
        more = "".join(f", {gap.name} by {gap.most:.2g}" for gap in parity.further)
        lines.append(
            f"raw outputs: boxes differ by at most {parity.box_px:.2g} px, scores by {parity.score:.2g}{more}, "
            f"on {parity.images} images"
        )
    if parity is not None and parity.agreement is not None:
        lines.append(f"detections: {parity.paired} of {parity.detections} agree ({parity.agreement:.1%})")
    for one in report.changes:
        if one.value is not None:
            change = f"{_points(one.before)} to {_points(one.after)} ({_change(one.value)})"
            lines.append(f"{one.what} on square images: {change}")
    if (found := report.calibrated) is not None:
        lines.append(
            f"the ranges of the training against calibrated ones, same weights: {_change(found.gain)} AP "
            f"({_interval(found.gain_interval)})"
        )
    lines += [f"note: {note}" for note in report.notes]
    if report.passed is not None:
        equal = "keeps enough of the checkpoint's AP" if report.precision == "int8" else "equals the checkpoint"
        lines.append(equal if report.passed else f"DIFFERS from the checkpoint: {', '.join(report.failures)}")
    return lines


def show_reports(console: Console, reports: Sequence[ExportReport], words: Words = str) -> None:
    """Print a row for each checkpoint and one for its export: AP, size on disk, time of a forward pass.

    Each further metric that was scored follows in a table of its own, and those of boxes are called so.
    """
    from yolokd.backend.opening import short_names

    further = list(dict.fromkeys(change.what for report in reports for change in report.further))
    columns = ("box AP", "change", INTERVAL, "box AP50") if further else ("AP", "change", INTERVAL, "AP50")
    table = _table(*map(words, (*columns, "MB", "ms")))
    names = short_names([Path(report.source) for report in reports])
    for name, report in zip(names, reports, strict=True):
        source, made = _kinds(report)
        if report.calibrated is not None:
            name = _add_calibrated(table, name, f"{report.format} {report.precision}, calibrated", report.calibrated)
        table.add_row(*map(Text, (name, source, *_cells(report.before, ["", ""]))))
        table.add_row(*map(Text, ("", made, *_cells(report.after, _change_cells(report.changes[0])))))
    console.print(table)
    for what in further:
        table = _table(*map(words, (what, "change", INTERVAL)))
        for name, report in zip(names, reports, strict=True):
            for change in (one for one in report.further if one.what == what):
                source, made = _kinds(report)
                table.add_row(*map(Text, (name, source, _points(change.before), "", "")))
                table.add_row(*map(Text, ("", made, _points(change.after), *_change_cells(change))))
        console.print(table)


def _table(*columns: str) -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("model", overflow="fold")
    table.add_column("as")
    for column in columns:
        table.add_column(column, justify="right", no_wrap=column != INTERVAL)
    return table


def _kinds(report: ExportReport) -> tuple[str, str]:
    """What a checkpoint and its export are."""
    own = report.own_ranges
    return "checkpoint, int8" if own else "checkpoint", f"{report.format} {report.precision}" + ", trained" * own


def _change_cells(change: Change) -> list[str]:
    """A change and its interval."""
    value = "–" if change.value is None else _change(change.value)
    return [value, "–" if change.interval is None else _interval(change.interval)]


def _add_calibrated(table: Table, name: str, made: str, found: Calibrated) -> str:
    """Add the rows of the same weights without their ranges, above those with them; return what these are called."""
    change = "–" if found.ap_change is None else _change(found.ap_change)
    table.add_row(*map(Text, (name, "its weights, float32", *_cells(found.before, ["", ""]))))
    table.add_row(*map(Text, ("", made, *_cells(found.after, [change, _interval(found.ap_interval)]))))
    return ""


def show_sensitivity(console: Console, report: ExportReport, words: Words = str) -> None:
    """Print what each part of a network wins in full precision, if that was measured: the largest gain first."""
    found = report.sensitivity
    if found is None:
        return
    table = Table(
        title=Text(f"{report.source}: int8 with one part in full precision"),
        title_justify="left", box=None, header_style="bold", pad_edge=False, padding=(0, 1, 0, 0),
    )  # fmt: skip
    table.add_column("in float32", overflow="fold")
    for column in ("AP", "gain", INTERVAL, "box px", "score", "agree", "MB", "ms"):
        table.add_column(words(column), justify="right", no_wrap=column != INTERVAL)
    base = ", ".join(report.keep_float)
    table.add_row(*map(Text, (base or "nothing", *_outcome_cells(found.whole, "", ""))))
    for effect in found.parts:
        cells = _outcome_cells(effect.outcome, _change(effect.ap_gain), _interval(effect.ap_interval))
        table.add_row(*map(Text, (f"+ {effect.part}" if base else effect.part, *cells)))
    console.print(table)
    console.print(Text(words(LEGEND)))


def _outcome_cells(outcome: Outcome, gain: str, interval: str) -> tuple[str, ...]:
    box_px = "–" if outcome.box_px is None else f"{outcome.box_px:.2f}"
    score = "–" if outcome.score is None else f"{outcome.score:.3f}"
    agreement = "–" if outcome.agreement is None else f"{outcome.agreement:.0%}"
    size, latency = f"{outcome.bytes / 1e6:.2f}", f"{outcome.latency_ms:.1f}"
    return _points(outcome.AP), gain, interval, box_px, score, agreement, size, latency


def _cells(side: Side, change: list[str]) -> tuple[str, ...]:
    latency = "–" if side.latency_ms is None else f"{side.latency_ms:.1f}"
    return _points(side.AP), *change, _points(side.AP50), f"{side.bytes / 1e6:.2f}", latency


def _interval(interval: tuple[float, float]) -> str:
    low, high = interval
    return f"{_change(low)} to {_change(high)}"


def _change(share: float) -> str:
    return f"{round(100 * share, 2) + 0.0:+.2f}"  # + 0.0: never -0.00


def _points(share: float | None) -> str:
    return "–" if share is None or share < 0 else f"{100 * share:.1f}"
