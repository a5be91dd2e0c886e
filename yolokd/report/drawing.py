"""Boxes drawn into images: right, false and missed in colors and dashes that also differ for the color-blind."""

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
MARKS = {  # color and dashes on the image
    "object": ("#ffffff", "-"),
    "right": ("#56b4e9", "-"),
    "false": ("#f5a300", "--"),
    "missed": ("#ff8ad1", ":"),
}

LabeledImage = NDArray[np.uint8]


def read_labeled_image(path: Path) -> tuple[LabeledImage, float]:
    """Return an image as it is shown, (H, W, 3), its longer side `SIDE`, and the factor by which it was scaled.

    Raises:
        DataError: It cannot be read.
    """
    turned = Image.fromarray(read_image(path)[..., ::-1])
    factor = SIDE / max(turned.size)
    size = (max(round(turned.width * factor), 1), max(round(turned.height * factor), 1))
    return np.asarray(turned.resize(size)), factor


def draw(image: LabeledImage, factor: float, boxes: Sequence[tuple[str, Box]]) -> bytes:
    """Return a JPEG of the image with boxes.

    Args:
        image: From `read_labeled_image`.
        factor: From `read_labeled_image`.
        boxes: What each is (a key of `MARKS`) and the box, in pixels of the original, with words in `text` if any; the
            last lies on top.
    """
    height, width = image.shape[:2]
    figure = Figure(figsize=(width / DPI, height / DPI), dpi=DPI)
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    axes.imshow(image, extent=(0, width, height, 0), interpolation="nearest")
    axes.set(xlim=(0, width), ylim=(height, 0))
    for kind, box in boxes:
        color, dashes = MARKS[kind]
        x, y, w, h = (value * factor for value in box["bbox"])
        effects: Any = [Stroke(linewidth=4.6, foreground="#000000b0"), Normal()]
        axes.add_patch(
            Rectangle((x, y), w, h, fill=False, color=color, linewidth=2.4, linestyle=dashes, path_effects=effects)
        )
        if "text" in box:
            axes.text(x, max(y - 3, 8), box["text"], color=color, fontsize=7, path_effects=effects, clip_on=True)
    out = io.BytesIO()
    figure.savefig(out, format="jpg", pil_kwargs={"quality": QUALITY})
    return out.getvalue()
