"""What exports of a run were worth, kept in the run's directory, where `yolokd report` finds it.

`exports.json` holds a list: for each export the report as `--json` writes it, the digest of the checkpoint, and the
data set. An export made again replaces its entry, and entries of a checkpoint that has changed since are dropped.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from yolokd.deploy.report import ExportReport
from yolokd.files import sha256, write_json
from yolokd.inputs import Kinds, misfits, read_json

FILE = "exports.json"
MARK = "args.yaml"  # of a run's directory; Ultralytics writes it
_NONE = type(None)
_SIDE: Kinds = {"AP": (int, float), "AP50": (int, float), "bytes": int, "latency_ms": (int, float)}
_ENTRY: Kinds = {
    "checkpoint": str, "sha256": str, "data": str, "format": str, "precision": str, "imgsz": int, "before": dict,
    "after": dict, "own_ranges": bool, "keep_float": list, "ap_interval": (list, _NONE), "calibrated": (dict, _NONE),
}  # fmt: skip
_SAME = ("checkpoint", "format", "precision", "imgsz", "data", "keep_float")  # by which an export is known again

Entry = Mapping[str, Any]


def keep(report: ExportReport, data: str | Path | None) -> Path | None:
    """Keep a report in the run's directory; return the file, or None where there is nothing to keep or no run.

    Args:
        report: With AP on a data set, and latencies.
        data: The data set.

    Raises:
        OSError: The file cannot be written.
    """
    source = Path(report.source).absolute()
    run = source.parent.parent
    if source.parent.name != "weights" or not (run / MARK).is_file() or data is None:
        return None
    plain = {key: value for key, value in report.to_dict().items() if key != "sensitivity"}
    entry = {"checkpoint": source.name, "sha256": sha256(source), "data": str(data), **plain}
    if not _is_entry(entry):
        return None
    others = [other for other in read(run) if any(other[key] != entry[key] for key in _SAME)]
    write_json(run / FILE, [*others, entry])
    return run / FILE


def read(run: Path) -> list[Entry]:
    """Return what is kept in a run's directory of checkpoints that are still the same; damaged entries are left out."""
    try:
        plain = read_json(run / FILE)
    except (OSError, ValueError):
        return []
    entries = [entry for entry in plain if _is_entry(entry)] if isinstance(plain, list) else []
    digests = {name: _digest(run / "weights" / name) for name in {entry["checkpoint"] for entry in entries}}
    return [entry for entry in entries if digests[entry["checkpoint"]] == entry["sha256"]]


def _digest(path: Path) -> str:
    return sha256(path) if path.is_file() else ""


def _is_entry(plain: object) -> bool:
    """Whether an entry has all that a report shows."""
    if not isinstance(plain, dict) or not plain.keys() >= _ENTRY.keys() or misfits(plain, _ENTRY):
        return False
    found = plain["calibrated"]
    if Path(plain["checkpoint"]).name != plain["checkpoint"]:
        return False
    if found is not None and not all(isinstance(found.get(side), dict) for side in ("before", "after")):
        return False
    sides = [plain["before"], plain["after"], *([found["before"], found["after"]] if found is not None else [])]
    pairs = [plain["ap_interval"], *([found.get("ap_interval")] if found is not None else [])]
    return all(side.keys() >= _SIDE.keys() and not misfits(side, _SIDE) for side in sides) and all(map(_is_pair, pairs))


def _is_pair(plain: object) -> bool:
    return plain is None or (
        isinstance(plain, (list, tuple)) and len(plain) == 2 and all(isinstance(bound, (int, float)) for bound in plain)
    )
