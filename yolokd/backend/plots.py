"""results.png: every loss, distillation term and metric of results.csv over the epochs."""

from __future__ import annotations

import csv as csv_reader
from pathlib import Path


def plot_results(csv: Path) -> Path:
    """Draw the columns of results.csv, one panel each, and return the image's path.

    Training and validation losses share a panel; distillation terms (`kd_…`) stand between losses and metrics.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with csv.open(encoding="utf-8", newline="") as file:
        rows = list(csv_reader.DictReader(file))
    epochs = [float(row["epoch"]) for row in rows]
    columns = {name: [float(row[name]) for row in rows] for name in (rows[0] if rows else {})}
    losses = [n.removeprefix("train/") for n in columns if n.startswith("train/") and not n.startswith("train/kd_")]
    terms = [n.removeprefix("train/") for n in columns if n.startswith("train/kd_")]
    metrics = [n for n in columns if n.startswith("metrics/")]
    panels = [*losses, *terms, *metrics]
    across = 4
    down = max(-(-len(panels) // across), 1)
    figure = Figure(figsize=(3.2 * across, 2.4 * down), layout="constrained")
    FigureCanvasAgg(figure)
    for place, name in enumerate(panels, start=1):
        axes = figure.add_subplot(down, across, place)
        for prefix, label in (("train/", "train"), ("val/", "val"), ("", None)):
            if prefix + name in columns and not (prefix == "val/" and name in terms):  # terms are 0 in validation
                axes.plot(epochs, columns[prefix + name], marker="." if len(epochs) < 30 else None, label=label)
        axes.set_title(name.removeprefix("metrics/") + (" × gain" if name in terms else ""), fontsize=9)
        axes.tick_params(labelsize=7)
        axes.yaxis.get_offset_text().set_fontsize(7)  # the power of ten above large or small values
        axes.grid(alpha=0.3)
        if name in losses:
            axes.legend(fontsize=7)
        if place > len(panels) - across:
            axes.set_xlabel("epoch", fontsize=8)
    image = csv.with_suffix(".png")
    figure.savefig(image, dpi=130)
    return image
