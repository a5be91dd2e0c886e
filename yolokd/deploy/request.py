"""What an export is asked for, checked before anything is written."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from yolokd.backend import parts
from yolokd.backend.formats import (
    QUANTIZE,
    Precision,
    check_precision,
    known_format,
    precision_of_quantized,
    require_packages,
)
from yolokd.backend.networks import Identity, identity_of
from yolokd.backend.tasks import ALL_TASKS, TASKS
from yolokd.deploy import samples
from yolokd.deploy.writing import check_writable
from yolokd.errors import UserError

Progress = Callable[[str], None]


@dataclass(frozen=True)
class Request:
    """What is asked for, checked."""

    source: Path  # the checkpoint
    identity: Identity  # of the checkpoint; an export does not record what task it was trained on
    format: str
    precision: Precision
    has_ranges: bool  # of its 8 bits, from training
    calibrated_on: str | Path | None  # data set on which its weights are calibrated as well, for comparison
    check: str | Path | None
    data: str | Path | None  # `check`, if it is a data set
    nms_free: bool
    options: Mapping[str, Any]  # of `YOLO.export`
    say: Progress
    partition: parts.Partition  # of the checkpoint; empty where no parts are asked for
    keep_float: tuple[str, ...]  # names of parts
    sensitivity: bool


def make_request(
    weights: str | Path,
    format: str,
    precision: Precision,
    *,
    check: str | Path | None,
    nms_free: bool,
    keep_float: tuple[str, ...],
    sensitivity: bool,
    options: Mapping[str, Any],
    say: Progress,
) -> Request:
    """Return a checked request; arguments and errors are those of `yolokd.deploy.export.export`."""
    from yolokd.backend import checkpoints  # before ultralytics: it switches restricted loading on

    source, format = checkpoints.find(weights), known_format(format)
    detector = checkpoints.load_detector(source, ALL_TASKS)  # no detector: told by its own path, not by a copy's
    data = check if check is not None and samples.is_data_set(check) else None
    has_ranges = checkpoints.is_quantized(source)
    calibrated_on = data if has_ranges and precision == "int8" else None
    precision = precision_of_quantized(format, precision) if has_ranges else precision
    _check_request(format, precision, data, options, has_ranges=has_ranges)
    if calibrated_on is not None:
        require_packages(format, precision)
    partition = parts.Partition({}, 0)
    if keep_float or sensitivity:
        _check_parts(format, precision, has_ranges=has_ranges, own_nms=sensitivity and bool(options.get("nms")))
        if sensitivity:
            _check_sensitivity(identity_of(detector).task)
        partition = parts.partition_of(detector)
        partition.check(keep_float, source)
    check_writable(source.parent)
    return Request(
        source=source,
        identity=identity_of(detector),
        format=format,
        precision=precision,
        has_ranges=has_ranges,
        calibrated_on=calibrated_on,
        check=check,
        data=data,
        nms_free=nms_free,
        options=options,
        say=say,
        partition=partition,
        keep_float=keep_float,
        sensitivity=sensitivity,
    )


def _check_request(
    format: str, precision: Precision, data: str | Path | None, options: Mapping[str, Any], *, has_ranges: bool
) -> None:
    if clash := {"quantize", "half", "int8"} & options.keys():
        raise UserError(f"Give precision='float16' or precision='int8' instead of {', '.join(sorted(clash))}.")
    if precision not in QUANTIZE:
        raise UserError(f"There is no precision '{precision}'; known: {', '.join(QUANTIZE)}.")
    check_precision(format, precision)
    if precision == "int8" and data is None and not has_ranges:
        raise UserError(
            "An int8 export measures the range of every layer on a data set and is judged by its AP there: "
            "name the data set, --check road.yaml."
        )
    require_packages(format, precision, own_ranges=has_ranges)


def _check_parts(format: str, precision: Precision, *, has_ranges: bool, own_nms: bool) -> None:
    if has_ranges:
        raise UserError("A network that was trained in 8 bits has its own ranges: no part can be left in float32.")
    if precision != "int8":
        raise UserError("Parts are left in full precision in an int8 export: add --int8, or leave them out.")
    if format not in parts.FORMATS:
        raise UserError(
            f"Only exports to {' and '.join(parts.FORMATS)} can leave parts in full precision, not {format}."
        )
    if own_nms:
        raise UserError("The sensitivity of the parts is measured at raw outputs: leave nms out.")


def _check_sensitivity(task: str) -> None:
    """Raise `UserError` for a task whose models give more than boxes, by whose AP the parts would be ranked."""
    if not TASKS[task].boxes_suffice:
        raise UserError(
            f"The sensitivity of the parts is measured by the AP of boxes of detect models, and this model's task is "
            f"{task}: leave the sensitivity out, or name parts to keep in full precision."
        )
