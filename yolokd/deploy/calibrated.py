"""The weights of a network that was trained in 8 bits, calibrated as any other: what its own ranges are worth."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from yolokd.backend.opening import open_checkpoint
from yolokd.deploy import samples
from yolokd.deploy.conversion import choose_head, convert
from yolokd.deploy.report import Calibrated, size_of
from yolokd.deploy.request import Request
from yolokd.deploy.scoring import score, side_of
from yolokd.evaluation.bootstrap import ap_interval

if TYPE_CHECKING:
    from yolokd.evaluation.models import Examined


def calibrate(
    request: Request, data: str | Path, copy: Path, options: dict[str, Any], folder: Path
) -> tuple[Path, Path]:
    """Export the weights of a network with ranges as if it had none; return their checkpoint and the export of it."""
    from yolokd.backend.checkpoints import without_ranges

    folder.mkdir()
    plain = without_ranges(copy, folder)
    yolo = open_checkpoint(plain, folder)
    choose_head(yolo, request.source, request.nms_free)
    request.say(f"exporting the same weights to {request.format} with calibrated ranges")
    calibration = {"data": str(samples.write_calibration(data, folder / "calibration"))}
    return plain, convert(yolo, request.source, request.format, options | calibration, partition=request.partition)


def judge(
    request: Request, paths: tuple[Path, ...], times: Sequence[float | None], own: Examined | None, size: int
) -> Calibrated | None:
    """Score the weights without their ranges, and their export; `own` is the export with these ranges."""
    plain, export = paths
    before, after = score(request, plain, size), score(request, export, size)
    if before is None or after is None or own is None:
        return None
    return Calibrated(
        before=side_of(request.source, size_of(plain), before, times[0]),
        after=side_of(Path(export.name), size_of(export), after, times[1]),
        ap_interval=ap_interval(before.truth, before.detections, after.detections),
        gain=own.score.AP - after.score.AP,
        gain_interval=ap_interval(after.truth, after.detections, own.detections),
    )
