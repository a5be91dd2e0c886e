"""Drawn images with rotated boxes, labeled by four corners."""

from __future__ import annotations

import math
from pathlib import Path

import cv2
import numpy as np
import yaml

from tests.helpers.models import class_names
from tests.helpers.segments import CLASSES


def corners(x: float, y: float, width: float, height: float, angle: float) -> list[tuple[float, float]]:
    """The corners of a rotated box, by plain trigonometry."""
    cos, sin = math.cos(angle), math.sin(angle)
    signs = ((-1, -1), (1, -1), (1, 1), (-1, 1))
    offsets = [(a * width / 2, b * height / 2) for a, b in signs]
    return [(x + u * cos - v * sin, y + u * sin + v * cos) for u, v in offsets]


def make_rotated(folder: Path, *, train: int = 16, val: int = 8, side: int = 64, objects: int = 2) -> Path:
    """Images of colored bars at all angles on gray, with their corners; return the data YAML."""
    rng = np.random.default_rng(0)
    for split, count in (("train", train), ("val", val)):
        for part in ("images", "labels"):
            (folder / part / split).mkdir(parents=True)
        for index in range(count):
            image = np.full((side, side, 3), 100, np.uint8)
            lines = []
            for _ in range(objects):
                kind = int(rng.integers(CLASSES))
                width, height = rng.uniform(side / 4, side / 2), rng.uniform(side / 10, side / 5)
                x, y = rng.uniform(0.3 * side, 0.7 * side, 2)
                box = np.array(corners(float(x), float(y), width, height, float(rng.uniform(0, math.pi))))
                cv2.fillPoly(image, [box.round().astype(np.int32)], (np.eye(3)[kind] * 255).tolist())
                lines.append(" ".join([str(kind), *(f"{value / side:.6f}" for value in box.flatten())]))
            cv2.imwrite(str(folder / "images" / split / f"{index:03d}.png"), image)
            (folder / "labels" / split / f"{index:03d}.txt").write_text("\n".join(lines))
    path = folder / "data.yaml"
    path.write_text(yaml.safe_dump({"train": "images/train", "val": "images/val", "names": class_names(CLASSES)}))
    return path
