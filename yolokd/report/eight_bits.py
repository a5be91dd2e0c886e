"""The section on exports in 8 bits: what `yolokd export --int8 --check` kept in the directories of the runs.

AP in full precision and in 8 bits, over the latency of each, joined by a line for each export. The point in full
precision is the float32 export to the same format where the run has one, so that the line shows the 8 bits and not the
change of runtime; else it is the checkpoint.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from yolokd.deploy.record import Entry, read
from yolokd.report.arms import Arms
from yolokd.report.charts import Chart, Look, make
from yolokd.report.formatting import MINUS, NOTHING, listed, percent
from yolokd.report.pairs import Pair, pairs
from yolokd.report.runs import RunFolder
from yolokd.report.series import looks
from yolokd.report.study import Study
from yolokd.report.view import Section, Table

TITLE = "In 8 bits"
HEADER = ("model", "as", "AP", "change", "95 % interval", "MB", "ms")
READ = (
    "Intervals are those of the change over the images. Hollow marker: full precision; filled: 8 bits. Dashed line: "
    "ranges calibrated after training; solid: ranges of a training in 8 bits. Latency is the median time of a forward "
    "pass with one image when the export was made, in the runtime of its format; lines whose hollow marker is a "
    "PyTorch checkpoint show the change of runtime as well."
)

Rows = list[list[str]]


@dataclass(frozen=True)
class Model:
    """A run, or the teacher's, with the exports that are kept of it."""

    label: str  # its arm
    name: str  # its run, and which checkpoint if that is not last.pt
    look: Look
    entries: Sequence[Entry]


def section(study: Study, arms: Arms) -> Section:
    """Return the section; empty where no export in 8 bits was scored."""
    models = [model for model in _models(study, arms) if any(entry["precision"] == "int8" for entry in model.entries)]
    groups: dict[tuple[str, int], Rows] = {}
    joined: list[Pair] = []
    for model in models:
        for entry in model.entries:
            if entry["precision"] == "int8":
                groups.setdefault((str(entry["data"]), entry["imgsz"]), []).extend(_rows(model, entry))
                joined += _pairs(model, entry)
    tables = [
        Table(f"Exports in 8 bits, scored on {Path(data).name} at {size} px, images padded to a square", HEADER, rows)
        for (data, size), rows in groups.items()
    ]
    charts = _charts(joined) if len(groups) == 1 else []
    text = [] if len(groups) < 2 else ["No chart: the exports were scored on different data or at different sizes."]
    return Section(TITLE, text=text, tables=tables, charts=charts, after=READ if charts else "")


def _models(study: Study, arms: Arms) -> Iterator[Model]:
    teachers = dict.fromkeys(Path(str(run.provenance.get("teacher"))) for run in study.runs.values() if run.distilled)
    for path in teachers:
        found = [entry for entry in read(path.parent.parent) if entry["checkpoint"] == path.name]
        yield Model("teacher", "teacher", Look("teacher"), found)
    students = arms.students()
    for student in students:
        for arm, look in looks(arms.of(student)):
            label = arm.label if len(students) == 1 else f"{student}, {arm.label}"
            yield from (_newest(run, label, name, look) for name, run in arm.runs.items())


def _newest(run: RunFolder, label: str, name: str, look: Look) -> Model:
    """Of best.pt and last.pt the one that was exported last, as both are one model to a reader."""
    entries = read(run.folder)
    chosen = [entry for entry in entries if entry["checkpoint"] == entries[-1]["checkpoint"]]
    other = f", {chosen[0]['checkpoint']}" if chosen and chosen[0]["checkpoint"] != "last.pt" else ""
    return Model(label, name + other, look, chosen)


def _rows(model: Model, entry: Entry) -> Rows:
    """The rows of the table of `yolokd export`."""
    made = f"{entry['format']} int8" + _kept(entry)
    before, after, found = entry["before"], entry["after"], entry["calibrated"]
    if not entry["own_ranges"]:
        return [_row(model.name, "checkpoint", before), _row("", made, after, before, entry["ap_interval"])]
    rows = [
        _row("", "checkpoint, int8", before, ms=False),
        _row("", f"{made}, trained", after, before, entry["ap_interval"]),
    ]
    if found is not None:
        plain = [_row("", "its weights, float32", found["before"])]
        rows = [*plain, _row("", f"{made}, calibrated", found["after"], found["before"], found["ap_interval"]), *rows]
    rows[0][0] = model.name
    return rows


def _row(
    name: str,
    what: str,
    side: Mapping[str, Any],
    before: Mapping[str, Any] | None = None,
    interval: Sequence[float] | None = None,
    *,
    ms: bool = True,
) -> list[str]:
    change = NOTHING if before is None or before["AP"] <= 0 else _points(side["AP"] - before["AP"])
    bounds = NOTHING if interval is None else f"[{_points(interval[0])}, {_points(interval[1])}]"
    latency = f"{side['latency_ms']:.1f}" if ms else NOTHING
    return [
        name,
        what,
        percent(side["AP"]),
        change,
        bounds,
        f"{side['bytes'] / 1e6:.2f}",
        latency,
    ]


def _kept(entry: Entry) -> str:
    return f", {listed(entry['keep_float'])} in float32" if entry["keep_float"] else ""


def _points(share: float) -> str:
    """A change of AP with two digits, as 8 bits often change less than a tenth."""
    text = f"{100 * share:+.2f}"
    return text.replace("-", MINUS) if float(text) else "0.00"


def _pairs(model: Model, entry: Entry) -> Iterator[Pair]:
    """The lines of an export: one, or two where the weights of a training in 8 bits were calibrated as well."""
    keys = ("checkpoint", "format", "imgsz", "data")
    same = [e for e in model.entries if e["precision"] == "float32" and all(e[key] == entry[key] for key in keys)]
    label = model.label + _kept(entry)
    if not entry["own_ranges"]:
        yield Pair(label, model.look, _point(same[-1]["after"] if same else entry["before"]), _point(entry["after"]))
        return
    found = entry["calibrated"]
    start = None if found is None else _point(found["before"])
    if found is not None:
        yield Pair(f"{label}, calibrated", model.look, start, _point(found["after"]))
    yield Pair(label, model.look, start, _point(entry["after"]), solid=True)


def _point(side: Mapping[str, Any]) -> tuple[float, float]:
    return float(side["latency_ms"]), 100 * float(side["AP"])


def _charts(joined: Sequence[Pair]) -> list[Chart]:
    if not joined:
        return []
    title = "AP against latency in full precision and in 8 bits"
    axis = "latency in ms, one image"
    words = "; ".join(_words(pair) for pair in joined)
    draw = pairs(joined, x=axis, y="AP in percent")
    return [make("eight-bits", title, f"{title} ({axis}). {words}.", draw)]


def _words(pair: Pair) -> str:
    end = f"AP {pair.end[1]:.1f} at {pair.end[0]:.3g}"
    return (
        f"{pair.label}: {end}"
        if pair.start is None
        else f"{pair.label}: AP {pair.start[1]:.1f} at {pair.start[0]:.3g}, in 8 bits {end}"
    )
