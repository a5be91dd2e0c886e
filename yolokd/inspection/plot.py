"""One PNG per image: what both models detect, and where each term of the recipe finds the student wrong."""

from __future__ import annotations

import textwrap
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from yolokd.errors import printable
from yolokd.files import replacing
from yolokd.inspection.images import LabeledImage
from yolokd.inspection.maps import Inspection
from yolokd.inspection.panels import Panel, colors_of, foot_lines, panels_of
from yolokd.outputs import SOFTWARE

# Inches: of a column, of an image in it (the rest is its color bar's), of a margin, of what stands above an image,
# and of a line of text below a panel and at head and foot.
COLUMN, IMAGE, MARGIN, TITLE = 4.1, 3.3, 0.15, 0.32
SMALL, TEXT = 0.145, 0.17
DPI = 130
LEGEND = 9  # classes in a row


def draw(view: Inspection, path: Path, *, heading: Sequence[str], notes: Sequence[str] = ()) -> None:
    """Write the image of one image, complete or not at all.

    Args:
        view: What was found.
        path: The PNG file.
        heading: Lines that say what was compared, under which recipe.
        notes: Sentences for the foot of the figure, before those about the image itself.

    Raises:
        OSError: The file cannot be written.
    """
    panels = list(panels_of(view))
    across = len(panels) if len(panels) <= 4 else 3 if len(panels) <= 6 else 4
    rows = [panels[start : start + across] for start in range(0, len(panels), across)]
    heights = [row_height(row, view.image) for row in rows]
    foot = wrapped([*notes, *foot_lines(view)], width=60 * across)
    colors = colors_of(view)
    top = 0.55 + TEXT * len(heading) + 0.25 * -(-len(colors) // LEGEND)
    sheet = Sheet(COLUMN * across + MARGIN, top + sum(heights) + 0.1 + TEXT * len(foot))
    head(sheet, [shortened(line, 44 * across) for line in (printable(view.image.path.name), *heading)], colors, top)
    for row, height in zip(rows, heights, strict=True):
        for column, panel in enumerate(row):
            sheet.panel(panel, MARGIN + column * COLUMN, top + TITLE, image_height(panel, view.image))
        top += height
    sheet.text(MARGIN, top + 0.05, "\n".join(foot), fontsize=8.5, linespacing=1.35)
    save(sheet.figure, path)


class Sheet:
    """A figure on which things are placed in inches from its top left corner."""

    def __init__(self, width: float, height: float) -> None:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        self.width, self.height = width, height
        self.figure = Figure(figsize=(width, height))
        FigureCanvasAgg(self.figure)

    def text(self, x: float, y: float, text: str, **style: Any) -> None:
        """Write text whose top left corner lies at (x, y)."""
        self.figure.text(x / self.width, 1 - y / self.height, text, va="top", parse_math=False, **style)

    def panel(self, panel: Panel, x: float, y: float, height: float) -> None:
        """Draw a panel whose image has its top left corner at (x, y), its title above and its lines below."""
        left = x + panel.indent
        place = left, self.height - y - height, IMAGE - panel.indent, height
        axes = self.figure.add_axes(tuple(np.divide(place, (self.width, self.height) * 2)), anchor="NW")
        panel.draw(axes)
        self.text(x, y - 0.22, panel.title, fontsize=10, weight="bold")
        below = y + height + (0.08 if panel.indent == 0 else 0.25)
        self.text(x, below, "\n".join(wrapped(panel.lines)), fontsize=8)


def image_height(panel: Panel, image: LabeledImage) -> float:
    """Return the height in inches of a panel's image."""
    x1, y1, x2, y2 = image.area
    return (IMAGE - panel.indent) * min(panel.shape or (y2 - y1) / (x2 - x1), 1.5)


def row_height(panels: Sequence[Panel], image: LabeledImage) -> float:
    """Return the height in inches of a row of panels with all that stands above and below them."""
    below = [image_height(p, image) + SMALL * len(wrapped(p.lines)) + (0.2 if p.indent else 0) for p in panels]
    return TITLE + max(below) + 0.25


def head(sheet: Sheet, lines: Sequence[str], colors: dict[str, str], bottom: float) -> None:
    """Write the name of the image, what was compared, and the classes by color, above `bottom` inches."""
    from matplotlib.patches import Patch

    sheet.text(MARGIN, 0.12, lines[0], fontsize=13, weight="bold")
    sheet.text(MARGIN, 0.4, "\n".join(lines[1:]), fontsize=9, linespacing=1.3)
    if colors:
        handles = [Patch(facecolor=color, edgecolor="black", linewidth=0.5) for color in colors.values()]
        names = [" " + name.replace("$", "\\$") for name in colors]  # no formulas, no hidden labels
        place: Any = {"loc": "lower left", "bbox_to_anchor": (MARGIN / sheet.width, 1 - bottom / sheet.height)}
        sheet.figure.legend(handles, names, **place, ncols=LEGEND, fontsize=9, frameon=False, borderpad=0)


def wrapped(lines: Sequence[str], width: int = 66) -> list[str]:
    """Break long lines."""
    return [part for line in lines for part in textwrap.wrap(line, width)]


def shortened(line: str, width: int) -> str:
    """Leave out the middle of a long line."""
    return line if len(line) <= width else f"{line[: width // 2]} … {line[-width // 2 :]}"


def save(figure: Any, path: Path) -> None:
    """Write beside and rename, so that no half image is ever there."""
    with replacing(path) as part, warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph")  # names in scripts that the font lacks
        figure.savefig(part, dpi=DPI, format="png", metadata={"Software": SOFTWARE})
