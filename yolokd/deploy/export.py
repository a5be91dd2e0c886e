"""Exporting a checkpoint through Ultralytics, then proving the result.

The export is made in a temporary folder and moved beside its checkpoint when it is complete. Then both are run: raw
outputs and detections image by image (`yolokd.deploy.parity`, `yolokd.deploy.outputs`), AP on a data set by the path
of `yolokd eval` (of masks too, where these are scored), on images padded to a square for both, since an export has one
input shape; size on disk; time of a forward pass.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from yolokd.backend import runtimes
from yolokd.backend.formats import QUANTIZE, Precision
from yolokd.backend.opening import image_size, open_checkpoint, quiet
from yolokd.backend.tasks import ALL_TASKS, TASKS
from yolokd.deploy import record, samples
from yolokd.deploy.calibrated import calibrate, judge
from yolokd.deploy.change import Change
from yolokd.deploy.conversion import choose_head, convert, open_run
from yolokd.deploy.outputs import gaps, split
from yolokd.deploy.parity import Parity, compare
from yolokd.deploy.report import ExportReport, size_of
from yolokd.deploy.request import Progress, Request, make_request
from yolokd.deploy.scoring import further_changes, score, side_of
from yolokd.deploy.sensitivity import Pair, Sensitivity, Trial, measure
from yolokd.deploy.writing import copy_beside, place
from yolokd.errors import RunError
from yolokd.evaluation.bootstrap import ap_interval

if TYPE_CHECKING:
    from torch import Tensor

    from yolokd.evaluation.models import Examined


def export(
    weights: str | Path,
    *,
    format: str = "onnx",
    precision: Precision = "float32",
    imgsz: int | None = None,
    check: str | Path | None = None,
    nms_free: bool = False,
    keep_float: Sequence[str] = (),
    sensitivity: bool = False,
    progress: Progress | None = None,
    **options: Any,
) -> ExportReport:
    """Export a checkpoint beside itself and compare the result with it.

    Args:
        weights: A `.pt` path or an Ultralytics name; of a run that is still going on, its student.
        format: One of Ultralytics' formats. ONNX, OpenVINO and TorchScript are compared; others where their runtime is
            at hand, else the notes say that they were not.
        precision: "float32", "float16" or "int8", which needs a data set as `check`: ranges are measured on at most
            300 of its training images. A network that was trained in 8 bits is exported in int8, with its own ranges;
            if int8 is asked for, its weights are calibrated as well, for comparison.
        imgsz: Side of the square input in pixels; None is the size that the checkpoint was trained at.
        check: What to compare on: a data set (AP on its validation images, outputs on 16 of them), or a folder or a
            image (outputs only). None takes the two images that Ultralytics ships.
        nms_free: The output of a YOLO26 or YOLOv10 head that needs no NMS.
        keep_float: Parts that an int8 export to openvino or onnx leaves in full precision (`yolokd.backend.parts`).
        sensitivity: Compare exports that leave one more part in full precision each; they are not kept.
        progress: Called with what is being done.
        **options: Passed on to `YOLO.export`, such as `dynamic`, `simplify`, `opset`.

    Returns:
        A report; `passed` is False where the two differ by more than the precision allows. Nothing is deleted then.
        With a data set as `check` it is kept in the run's directory as well (`yolokd.deploy.record`).

    Raises:
        UserError: Unknown format, a precision that it does not have, a missing package, int8 without a data set, a
            folder that cannot be written, a head without an NMS-free branch, or parts that cannot be left out.
        WeightsError: A checkpoint that is missing, or of a task that is not trained here.
        DataError: `check` holds no images, or is a data set that cannot be scored on.
        RunError: Ultralytics' export failed, or its result cannot be run.
    """
    request = make_request(
        weights,
        format,
        precision,
        check=check,
        nms_free=nms_free,
        keep_float=tuple(keep_float),
        sensitivity=sensitivity,
        options=options,
        say=progress or (lambda _: None),
    )
    with tempfile.TemporaryDirectory(prefix="yolokd-") as temporary, quiet():
        report = _export(request, imgsz, Path(temporary))
    return _kept(report, request.data)


def _kept(report: ExportReport, data: str | Path | None) -> ExportReport:
    """Keep a report in the run's directory; a note tells where that is impossible."""
    try:
        record.keep(report, data)
    except OSError as error:
        note = f"not kept for the report on the run, as '{record.FILE}' cannot be written: {error.strerror or error}"
        return replace(report, notes=(*report.notes, note))
    return report


def _export(request: Request, imgsz: int | None, folder: Path) -> ExportReport:
    """Export in `folder`, move the result beside its checkpoint and compare the two."""
    copy = copy_beside(request.source, folder)
    yolo = open_checkpoint(
        copy, folder, ALL_TASKS
    )  # of a run that is still going on, `copy` is its student from now on
    size, notes = image_size(yolo, imgsz)
    if request.has_ranges:
        notes += ("the checkpoint was trained in 8 bits, and the export has the ranges of its training",)
    choose_head(yolo, request.source, request.nms_free)
    channels = request.identity.channels
    inputs = [samples.letterbox(path, size, channels) / 255 for path in samples.to_compare(request.check)]
    notes += (skipped,) if (skipped := samples.left_out_of(request.check)) else ()
    before = score(request, request.source, size)
    request.say(f"exporting to {request.format}, {request.precision}")
    options = _export_options(request, size, folder)
    written = _run_export(yolo, request, options, request.keep_float)
    path, remark = place(written, copy, request.source)
    request.say("comparing outputs")
    run, hindrance = open_run(path, request.format, inputs[0])
    pairs, parity, after = None, None, None
    times: Sequence[float | None] = (None, None)
    plain: tuple[Path, ...] = ()
    own_nms = bool(request.options.get("nms"))
    if run is not None:
        pairs, parity = (None, None) if own_nms else _compare(request, yolo, run, path, inputs)
        after = score(request, path, size)
        if request.calibrated_on is not None:
            plain = calibrate(request, request.calibrated_on, copy, options, folder / "without-ranges")
        device = runtimes.device_of(request.format)
        times = runtimes.latencies((copy, path, *plain), size, device, nms_free=request.nms_free, channels=channels)
    report = ExportReport(
        format=request.format,
        precision=request.precision,
        imgsz=size,
        before=side_of(request.source, size_of(copy), before, times[0]),
        after=side_of(path, size_of(path), after, times[1]),
        parity=parity,
        keep_float=request.keep_float,
        own_ranges=request.has_ranges,
    )
    request.say("comparing AP")
    report = replace(report, ap_interval=_interval(report, before, after), further=further_changes(before, after))
    if plain:
        report = replace(report, calibrated=judge(request, plain, times[2:], after, size))
    if request.sensitivity and pairs is not None and after is not None:
        found = _sensitivity(request, yolo, options, inputs, Trial(pairs, after, report.after.bytes))
        report = replace(report, sensitivity=found)
    return replace(report, notes=(*notes, *remark, *_remarks(report, before, after, hindrance, own_nms=own_nms)))


def _export_options(request: Request, size: int, folder: Path) -> dict[str, Any]:
    own: dict[str, Any] = {"imgsz": size, "quantize": QUANTIZE[request.precision]}
    chosen = {**own, "nms": False if request.nms_free else None, **request.options}
    if request.precision == "int8" and request.data is not None and not request.has_ranges:
        chosen["data"] = str(samples.write_calibration(request.data, folder / "calibration"))
    return chosen


def _sensitivity(
    request: Request, yolo: Any, options: dict[str, Any], inputs: Sequence[Tensor], whole: Trial
) -> Sensitivity:
    """Export once for each part that is in 8 bits, with that part in full precision, and compare."""

    def attempt(part: str) -> Trial:
        request.say(f"exporting with {part} in full precision")
        path = _run_export(yolo, request, options, (*request.keep_float, part))
        run, hindrance = open_run(path, request.format, inputs[0])
        found = score(request, path, inputs[0].shape[-1])
        if run is None or found is None:  # the export itself could be run and scored
            raise RunError(f"The export with {part} in full precision cannot be compared: {hindrance}.")
        return Trial(_compare(request, yolo, run, path, inputs)[0], found, size_of(path))

    return measure(whole, [part for part in request.partition.names if part not in request.keep_float], attempt)


def _interval(report: ExportReport, before: Examined | None, after: Examined | None) -> tuple[float, float] | None:
    """The interval of the change in AP; None where there is none to judge."""
    if before is None or after is None or report.ap_change is None:
        return None
    return ap_interval(before.truth, before.detections, after.detections)


def _run_export(yolo: Any, request: Request, options: dict[str, Any], kept: Sequence[str]) -> Path:
    """Export where `yolo` was loaded from, with some parts in full precision; return the path of the result."""
    return convert(
        yolo,
        request.source,
        request.format,
        options,
        partition=request.partition,
        kept=kept,
        own_ranges=request.has_ranges,
    )


def _compare(
    request: Request, yolo: Any, run: runtimes.Run, path: Path, inputs: Sequence[Tensor]
) -> tuple[list[Pair], Parity]:
    """Return boxes and scores of checkpoint and export for each image, and how far all their outputs are apart."""
    network = yolo.model.float().eval().cpu()
    classes, final = len(request.identity.names), bool(network.end2end)
    try:
        with torch.inference_mode():
            each = [
                (split(runtimes.outputs_of(network(x)), classes, final=final), split(run(x), classes, final=final))
                for x in inputs
            ]
            pairs = [(one.boxes, other.boxes) for one, other in each]
            return pairs, replace(compare(pairs), further=gaps(each, TASKS[request.identity.task].outputs))
    except Exception as error:  # an output of another form than the checkpoint's
        raise RunError(f"'{path}' was written, but its outputs cannot be compared: {error}") from error


def _remarks(
    report: ExportReport, before: Examined | None, after: Examined | None, hindrance: str, *, own_nms: bool
) -> Iterator[str]:
    if before is not None:
        yield from before.score.notes
        for change in report.changes:
            if change.before is not None and change.before <= 0:
                yield f"the checkpoint finds nothing on this data set, so {change.what} says nothing about the export"
            if change.interval is not None and change.is_low(report.precision) and not change.is_certain:
                yield _uncertain(change, report.precision, len(before.truth["images"]))
    if hindrance:
        yield hindrance
    elif own_nms:
        yield "outputs not compared: the export contains its own NMS"
        yield from (note for note in (after.score.notes if after else ()) if "NMS" in note)
    elif report.parity is not None and not report.parity.detections:
        yield "no detections to compare, so raw outputs decide"
    if after is not None and report.precision == "float32":
        used = runtimes.computes_in(Path(report.path), report.format)
        if used != "float32":
            yield (
                f"OpenVINO computes in {used} on this processor unless told otherwise, and Ultralytics has no option "
                f"for it: AP and times are those of {used}, raw outputs those of float32"
            )


def _uncertain(change: Change, precision: Precision, images: int) -> str:
    low, high = (f"{100 * bound:+.2f}" for bound in change.interval or ())
    return (
        f"{change.what} fell by more than the limit of {-100 * change.limit(precision):.2g} points, but {images} "
        f"image{'s are' if images > 1 else ' is'} too few to tell that from no change (95 % interval {low} to "
        f"{high}); check on more images"
    )
