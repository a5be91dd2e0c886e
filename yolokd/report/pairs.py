"""Pairs of points that a line joins, such as models in full precision and in 8 bits, over latency and AP."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from yolokd.report.charts import Draw, Look, Theme, shortened

LEAST_SPAN = 4.0  # of the vertical axis, so that differences of a tenth look small


@dataclass(frozen=True)
class Pair:
    """Two points that a line joins, such as a model in full precision and in 8 bits."""

    label: str
    look: Look
    start: tuple[float, float] | None  # x, y; None: only the end is known
    end: tuple[float, float]
    solid: bool = False  # the line; else dashed


def pairs(joined: Sequence[Pair], *, x: str, y: str) -> Draw:
    """Return what draws a hollow and a filled marker for each pair, with a line between; equal labels count once."""

    def draw(axes: Any, theme: Theme) -> None:
        named: set[str] = set()
        for pair in joined:
            style: dict[str, Any] = {"color": pair.look.color(theme), "marker": pair.look.marker, "markersize": 6}
            label = None if pair.label in named else shortened(pair.label)
            named.add(pair.label)
            if pair.start is not None:
                ends = zip(pair.start, pair.end, strict=True)
                axes.plot(*ends, color=style["color"], linewidth=1, linestyle="-" if pair.solid else "--")
                axes.plot(*([value] for value in pair.start), **style, linestyle="none", markerfacecolor=theme.paper)
            edge = {"markeredgecolor": theme.ink} if pair.solid else {}
            axes.plot(*([value] for value in pair.end), **style, **edge, linestyle="none", label=label)
        low, high = axes.get_ylim()
        spare = max(LEAST_SPAN - (high - low), 0) / 2
        axes.set(xlabel=x, ylabel=y, ylim=(max(low - spare, 0), high + spare))
        axes.set_xlim(left=0)

    return draw
