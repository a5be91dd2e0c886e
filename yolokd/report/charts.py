"""Charts as SVG, once for light and once for dark pages: lines, bars and points, small enough for a phone.

Text stays text in the SVG, so that the browser finds a glyph for every script; matplotlib escapes it, and no word is
read as a formula. Colors are those of Okabe and Ito ("Color Universal Design", 2008), darkened or lightened until they
stand out from the page by 3 to 1; markers and dashes tell the series apart without them.
"""

from __future__ import annotations

import io
import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatter, MaxNLocator

WIDTH, HEIGHT = 4.0, 2.6  # inches, without the legend
LEGEND = 0.16  # inches of a line of it
FONT = 9.2
LABEL = 26  # characters of a name in a chart
MARKERS = "o^vPX*"
SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
NO_METADATA = dict.fromkeys(("Date", "Creator", "Format", "Type"))

Floats = Sequence[float]


@dataclass(frozen=True)
class Theme:
    """Colors of a page."""

    paper: str
    ink: str
    muted: str
    grid: str
    series: tuple[str, ...]


LIGHT = Theme(
    "#ffffff", "#1b2129", "#68717d", "#dfe3e8", ("#0072b2", "#d55e00", "#007f5c", "#aa3f8f", "#8a6d00", "#3f4fb5")
)
DARK = Theme(
    "#171c24", "#e8ebef", "#9aa4b1", "#333b46", ("#56b4e9", "#f4813a", "#2dc79b", "#e58fc5", "#e0b93a", "#98a5ff")
)


@dataclass(frozen=True)
class Look:
    """How a series looks, the same in all charts."""

    role: str = "recipe"  # teacher, baseline or recipe
    number: int = 0  # among the recipes

    def color(self, theme: Theme) -> str:
        """Its color on a page."""
        roles = {"teacher": theme.ink, "baseline": theme.muted}
        return roles.get(self.role) or theme.series[self.number % len(theme.series)]

    @property
    def marker(self) -> str:
        """Its marker."""
        return {"teacher": "D", "baseline": "s"}.get(self.role) or MARKERS[self.number % len(MARKERS)]

    @property
    def dashes(self) -> str:
        """Its line style."""
        if self.role != "recipe":
            return {"teacher": "-", "baseline": "--"}[self.role]
        return "-" if self.number < len(MARKERS) else "-."


@dataclass(frozen=True)
class Curve:
    """One line or one set of bars, points or differences; `low` and `high` bound it, if anything does."""

    label: str
    look: Look
    x: Floats
    y: Floats
    low: Floats | None = None
    high: Floats | None = None
    outer: tuple[float, float] | None = None  # ends of a wider interval of a difference


@dataclass(frozen=True)
class Chart:
    """A chart in both themes, and what it shows in words."""

    name: str  # of its file
    title: str
    alt: str
    light: bytes
    dark: bytes
    rows: int = 1  # of ordinary charts that are as high


Draw = Callable[[Any, Theme], None]


def make(name: str, title: str, alt: str, draw: Draw, *, height: float = HEIGHT) -> Chart:
    """Draw a chart for light and for dark pages.

    Args:
        name: Stem of the file's name.
        title: Stands above the chart, in the page.
        alt: What a reader who does not see it should know.
        draw: Draws into matplotlib axes with the colors of a theme.
        height: Inches.
    """
    rows = min(max(round(height / (HEIGHT + 3 * LEGEND)), 1), 4)
    return Chart(name, title, alt, _svg(draw, LIGHT, height), _svg(draw, DARK, height), rows)


def lines(
    curves: Sequence[Curve], *, x: str, y: str, log: bool = False, at: float | None = None, share: bool = False
) -> Draw:
    """Return what draws curves with their bands; `at` marks a level, and a `share` lies between 0 and 1."""

    def draw(axes: Any, theme: Theme) -> None:
        for curve in curves:
            color = curve.look.color(theme)
            marker = curve.look.marker if len(curve.x) < 16 else None
            style: dict[str, Any] = {"color": color, "linestyle": curve.look.dashes, "linewidth": 1.5}
            axes.plot(curve.x, curve.y, **style, marker=marker, markersize=3.5, label=shortened(curve.label))
            if curve.low is not None and curve.high is not None:
                axes.fill_between(curve.x, curve.low, curve.high, color=color, alpha=0.15, linewidth=0)
        if at is not None:
            axes.axhline(at, color=theme.muted, linewidth=0.8, linestyle=":")
        if log:
            axes.set_yscale("log")
            for minor, place in ((False, axes.yaxis.set_major_formatter), (True, axes.yaxis.set_minor_formatter)):
                place(Decades(labelOnlyBase=not minor, minor_thresholds=(2.0, 0.4)))
        if all(float(value).is_integer() for curve in curves for value in curve.x):
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        if share:
            axes.set(xlim=(0, 1), ylim=(0, 1.02))
        axes.set(xlabel=x, ylabel=y)

    return draw


def bars(names: Sequence[str], curves: Sequence[Curve], *, x: str) -> Draw:
    """Return what draws a group of horizontal bars for each name, in the order given from the top."""

    def draw(axes: Any, theme: Theme) -> None:
        thick = 0.8 / max(len(curves), 1)
        rows = np.arange(len(names))
        for place, curve in enumerate(curves):
            errors = None
            if curve.low is not None and curve.high is not None:
                errors = np.clip([np.subtract(curve.y, curve.low), np.subtract(curve.high, curve.y)], 0, None)
            axes.barh(
                rows - 0.4 + thick * (place + 0.5), curve.y, thick * 0.9, color=curve.look.color(theme),
                xerr=errors, error_kw={"ecolor": theme.ink, "elinewidth": 0.8}, label=shortened(curve.label),
            )  # fmt: skip
        axes.set_yticks(rows, [shortened(name, 18) for name in names])
        axes.set_ylim(len(names) - 0.5, -0.5)
        axes.set(xlabel=x)
        axes.set_xlim(left=0)
        axes.grid(visible=False, axis="y")

    return draw


def differences(curves: Sequence[Curve], *, x: str) -> Draw:
    """Return what draws a row for each curve of differences `x`: each of them, their mean `y` and its intervals."""

    def draw(axes: Any, theme: Theme) -> None:
        for row, curve in enumerate(curves):
            color = curve.look.color(theme)
            if curve.low is not None and curve.high is not None:
                axes.hlines(row, curve.low, curve.high, color=color, linewidth=3)
            if curve.outer is not None:
                axes.hlines(row, *curve.outer, color=color, linewidth=1)
            axes.plot(curve.x, [row] * len(curve.x), color=color, linestyle="none", marker="|", markersize=11)
            axes.plot(curve.y, [row], color=color, linestyle="none", marker=curve.look.marker, markersize=6)
        axes.axvline(0, color=theme.ink, linewidth=0.8)
        axes.set_yticks(range(len(curves)), [shortened(curve.label, 18) for curve in curves])
        axes.set_ylim(len(curves) - 0.5, -0.5)
        axes.set(xlabel=x)
        axes.grid(visible=False, axis="y")

    return draw


def points(curves: Sequence[Curve], *, x: str, y: str) -> Draw:
    """Return what draws a marker for each curve of one value, with its interval."""

    def draw(axes: Any, theme: Theme) -> None:
        for curve in curves:
            style: dict[str, Any] = {"color": curve.look.color(theme), "linestyle": "none"}
            if curve.low is not None and curve.high is not None:
                axes.vlines(curve.x, curve.low, curve.high, color=style["color"], linewidth=1)
            axes.plot(curve.x, curve.y, **style, marker=curve.look.marker, markersize=6, label=shortened(curve.label))
        axes.set(xlabel=x, ylabel=y)
        axes.margins(0.15)
        axes.set_xlim(left=0)
        axes.set_ylim(bottom=0)

    return draw


class Decades(LogFormatter):
    """Ticks of a logarithmic axis as plain text: matplotlib's own are formulas, which are shown as they are written."""

    def __call__(self, x: float, pos: int | None = None) -> str:
        """Return the label of a tick; "" where there are enough others."""
        return power_of_ten(x) if super().__call__(x, pos) else ""


def power_of_ten(value: float) -> str:
    """Return a number as plain text: 0.01, 300, or 2×10⁻⁵ where that is shorter.

    Example:
        >>> power_of_ten(0.002), power_of_ten(3e-05), power_of_ten(1e6)
        ('0.002', '3×10⁻⁵', '10⁶')
    """
    if 1e-3 <= abs(value) < 1e4 or value == 0 or not math.isfinite(value):
        return f"{value:g}"
    mantissa, _, exponent = f"{value:.3e}".partition("e")
    power = f"10{str(int(exponent)).translate(SUPERSCRIPTS)}"
    return power if float(mantissa) == 1 else f"{float(mantissa):g}×{power}"


def shortened(name: str, length: int = LABEL) -> str:
    """Leave out the middle of a long name, and keep one that begins with _ from being hidden as matplotlib does."""
    flat = " ".join(name.split())
    short = flat if len(flat) <= length else f"{flat[: length // 2]}…{flat[-(length // 2 - 1) :]}"
    return f" {short}" if short.startswith("_") else short


def _svg(draw: Draw, theme: Theme, height: float) -> bytes:
    settings: Any = {
        "svg.fonttype": "none",
        "svg.hashsalt": "yolokd",  # the same names inside for the same chart
        "text.parse_math": False,
        "font.size": FONT,
        "text.color": theme.ink,
        "axes.edgecolor": theme.grid,
        "axes.facecolor": theme.paper,
        "axes.labelcolor": theme.muted,
        "xtick.color": theme.muted,
        "ytick.color": theme.muted,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "axes.axisbelow": True,
        "grid.color": theme.grid,
        "grid.linewidth": 0.6,
    }
    with matplotlib.rc_context(settings), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph")  # measured as boxes; the browser has the glyphs
        figure = Figure(figsize=(WIDTH, height), layout="constrained", facecolor=theme.paper)
        FigureCanvasSVG(figure)
        axes = figure.add_subplot()
        draw(axes, theme)
        handles, labels = axes.get_legend_handles_labels()
        if handles:
            ncols = max(min(3, 42 // (max(map(len, labels)) + 5)), 1)
            figure.set_figheight(height + LEGEND * -(-len(labels) // ncols))
            figure.legend(handles, labels, loc="outside lower left", ncols=ncols, frameon=False, borderpad=0)
        out = io.BytesIO()
        figure.savefig(out, format="svg", facecolor=theme.paper, metadata=NO_METADATA)
    return out.getvalue()
