"""A small folder in the layout of the KITTI object benchmark."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

SIZE = (200, 80)  # width and height of the images


def line(kind: str, box: tuple[float, float, float, float], *, truncation: float = 0.0, occlusion: int = 0) -> str:
    """One line of a label file."""
    corners = " ".join(f"{value:.2f}" for value in box)
    return f"{kind} {truncation:.2f} {occlusion} -1.57 {corners} 1.5 1.6 3.9 1.0 1.5 13.2 1.6\n"


CAR = line("Car", (20, 10, 100, 60))
DONT_CARE = "DontCare -1 -1 -10 150.00 10.00 160.00 20.00 -1 -1 -1 -1000 -1000 -1000 -10\n"


def source(root: Path, frames: dict[str, str], *, suffix: str = ".png") -> Path:
    """Write images of noise and the given labels; return the root."""
    rng = np.random.default_rng(0)
    for folder in ("image_2", "label_2"):
        (root / "training" / folder).mkdir(parents=True, exist_ok=True)
    for frame, labels in frames.items():
        image = rng.integers(0, 255, (SIZE[1], SIZE[0], 3), dtype=np.uint8)
        cv2.imwrite(str(root / "training" / "image_2" / f"{frame}{suffix}"), image)
        (root / "training" / "label_2" / f"{frame}.txt").write_text(labels)
    return root


def ids(path: Path, *frames: str) -> Path:
    """Write a list of frames."""
    path.write_text("".join(f"{frame}\n" for frame in frames))
    return path
