"""The image of `bench`: one bar per way to train, stacked from its parts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from yolokd.bench.results import RecipeCost, Report
from yolokd.inspection.plot import save

PLAIN, TEACHER, REST = "#4e79a7", "#f28e2b", "#bab0ac"
PARTS = ("#59a14f", "#e15759", "#b07aa1", "#76b7b2", "#edc948", "#9c755f", "#ff9da7", "#d37295")
LABEL = 0.045  # share of the width from which a segment has room for its number


@dataclass(frozen=True)
class Segment:
    """One part of a bar."""

    name: str
    milliseconds: float
    color: str
    hatch: str = ""


def draw(report: Report, path: Path) -> None:
    """Write the image, complete or not at all.

    Raises:
        OSError: The file cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    bars = list(bars_of(report))
    figure = Figure(figsize=(11, 1.9 + 0.62 * len(bars)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    widest = max(sum(segment.milliseconds for segment in segments) for _, segments, _ in bars)
    for row, (name, segments, floor) in enumerate(bars):
        _draw_bar(axes, row, segments, widest)
        if floor:
            style: dict[str, Any] = {"color": "black", "lw": 2, "ls": (0, (3, 1)), "label": "floor"}
            axes.plot([floor, floor], [row - 0.42, row + 0.42], **style)
        total = sum(segment.milliseconds for segment in segments)
        times = f"  {total:.0f} ms" + (f", {total / floor:.2f} × floor" if floor else "")
        axes.text(total, row, times, va="center", fontsize=9, weight="bold")
        axes.text(-0.01, row, name, va="center", ha="right", transform=axes.get_yaxis_transform(), parse_math=False)
    axes.set_yticks([])
    axes.invert_yaxis()
    axes.set_xlim(0, widest * 1.28)
    axes.set_xlabel("milliseconds per training step, median; hatched: backward pass of a loss")
    axes.spines[["top", "right", "left"]].set_visible(False)
    handles, labels = axes.get_legend_handles_labels()
    unique = dict(zip(labels, handles, strict=True))
    figure.legend(unique.values(), unique.keys(), loc="outside lower center", ncols=7, frameon=False, fontsize=9)
    figure.suptitle("\n".join(title_of(report)), fontsize=10, x=0.01, ha="left", parse_math=False)
    save(figure, path)


def _draw_bar(axes: Any, row: int, segments: list[Segment], widest: float) -> None:
    left = 0.0
    for segment in segments:
        label = None if segment.hatch else segment.name
        style: dict[str, Any] = {"color": segment.color, "edgecolor": "white", "hatch": segment.hatch, "label": label}
        axes.barh(row, segment.milliseconds, left=left, height=0.7, linewidth=0.5, **style)
        if segment.milliseconds > LABEL * widest:
            middle = left + segment.milliseconds / 2
            box = {"facecolor": segment.color, "edgecolor": "none", "pad": 1.5}
            style = {"ha": "center", "va": "center", "fontsize": 8, "color": "white", "bbox": box}
            axes.text(middle, row, f"{segment.milliseconds:.0f}", **style)
        left += segment.milliseconds


def title_of(report: Report) -> list[str]:
    """Return two lines that say what was measured, and where."""
    here = report.conditions
    threads = f", {here.threads} thread{'s' if here.threads > 1 else ''}" if here.device == "cpu" else ""
    scratch = f"; random weights: {', '.join(here.scratch)}" if here.scratch else ""
    return [
        f"{here.teacher} → {here.student}, {here.imgsz} px, batch {here.batch}, {here.precision}{scratch}",
        f"{here.machine}{threads}, torch {here.versions['torch']}, {here.rounds} rounds in alternation",
    ]


def bars_of(report: Report) -> Iterator[tuple[str, list[Segment], float]]:
    """Yield name, segments and floor (0: none) of each bar; a bar is as long as the measured step."""
    plain = Segment("student's step", report.plain.wall.median, PLAIN)
    yield "plain training", [plain], 0.0
    colors = dict(zip(dict.fromkeys(part.name for r in report.recipes for part in r.parts), PARTS * 2, strict=False))
    for recipe in report.recipes:
        teacher = Segment("teacher's pass", recipe.teacher.wall.median, TEACHER)
        parts = list(_parts(recipe, colors))
        rest = [Segment("everything else", max(report.rest(recipe, "wall"), 0.0), REST)]
        yield (
            recipe.name,
            _fitted([plain, teacher, *parts, *rest], recipe.step.wall.median),
            report.floor(recipe, "wall"),
        )
    unfused = Segment("teacher's pass", report.unfused.wall.median, TEACHER)
    step = report.built_in.wall.median
    rest = [Segment("everything else", max(step - plain.milliseconds - unfused.milliseconds, 0.0), REST)]
    yield "built-in distiller", _fitted([plain, unfused, *rest], step), 0.0


def _parts(recipe: RecipeCost, colors: dict[str, str]) -> Iterator[Segment]:
    for part in recipe.parts:
        yield Segment(part.name, part.share * part.forward.wall.median, colors[part.name])
        if part.backward is not None:
            yield Segment(part.name, part.share * part.backward.wall.median, colors[part.name], "////")


def _fitted(segments: list[Segment], step: float) -> list[Segment]:
    """Shrink the parts where together they ran faster than each by itself."""
    factor = min(1.0, step / sum(segment.milliseconds for segment in segments))
    return [Segment(s.name, s.milliseconds * factor, s.color, s.hatch) for s in segments]
