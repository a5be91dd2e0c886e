"""Boxes drawn into photos: right, false and missed in colours and dashes that also differ for the colour-blind."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.patheffects import Normal, Stroke
from numpy.typing import NDArray
from PIL import Image

from yolokd.images.reader import read_image
from yolokd.report.matching import Box

SIDE = 560  # pixels of the longer side
DPI = 100
QUALITY = 84
MARKS = {  # colour and dashes on the photo
    "object": ("#ffffff", "-"),
    "right": ("#56b4e9", "-"),
    "false": ("#f5a300", "--"),
    "missed": ("#ff8ad1", ":"),
}

Photo = NDArray[np.uint8]


def read_photo(path: Path) -> tuple[Photo, float]:
    """Return a picture as it is shown, (H, W, 3), its longer side `SIDE`, and the factor by which it was scaled.

    Raises:
        DataError: It cannot be read.
    """
    turned = Image.fromarray(read_image(path)[..., ::-1])
    factor = SIDE / max(turned.size)
    size = (max(round(turned.width * factor), 1), max(round(turned.height * factor), 1))
    return np.asarray(turned.resize(size)), factor


def draw(photo: Photo, factor: float, boxes: Sequence[tuple[str, Box]]) -> bytes:
    """Return a JPEG of the photo with boxes.

    Args:
        photo: From `read_photo`.
        factor: From `read_photo`.
        boxes: What each is (a key of `MARKS`) and the box, in pixels of the original; the last lies on top.
    """
    height, width = photo.shape[:2]
    figure = Figure(figsize=(width / DPI, height / DPI), dpi=DPI)
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    axes.imshow(photo, extent=(0, width, height, 0), interpolation="nearest")
    axes.set(xlim=(0, width), ylim=(height, 0))
    for kind, box in boxes:
        colour, dashes = MARKS[kind]
        x, y, w, h = (value * factor for value in box["bbox"])
        effects: Any = [Stroke(linewidth=4.6, foreground="#000000b0"), Normal()]
        axes.add_patch(
            Rectangle((x, y), w, h, fill=False, color=colour, linewidth=2.4, linestyle=dashes, path_effects=effects)
        )
    out = io.BytesIO()
    figure.savefig(out, format="jpg", pil_kwargs={"quality": QUALITY})
    return out.getvalue()
