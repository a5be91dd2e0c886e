"""Small models and data sets that are made in a moment."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import yaml

from tests.helpers import models

NAMES = ("car", "person", "truck")


def checkpoint(path: Path, *, family: str = "v8", names: Sequence[str] = NAMES, imgsz: int = 64) -> Path:
    """Save an untrained detector of eighth width."""
    model = models.detector(family, classes=len(names))
    model.names = dict(enumerate(names))
    path.parent.mkdir(parents=True, exist_ok=True)
    return models.save(model, path, train_args={"imgsz": imgsz, "task": "detect"})


def data_set(folder: Path, *, names: Sequence[str] = NAMES, images: int = 6, seed: int = 0) -> Path:
    """Write images of noise with a bright block per object, their labels and a data YAML; return the YAML."""
    rng = np.random.default_rng(seed)
    for split in ("train", "val"):
        for n in range(images):
            height, width = (48, 64) if n % 2 else (64, 56)
            pixels = rng.integers(0, 90, (height, width, 3), dtype=np.uint8)
            rows = []
            for _ in range(int(rng.integers(1, 4))):
                x, y, w, h = *rng.uniform(0.3, 0.7, 2), *rng.uniform(0.2, 0.5, 2)
                left, right = int((x - w / 2) * width), int((x + w / 2) * width)
                top, bottom = int((y - h / 2) * height), int((y + h / 2) * height)
                pixels[max(top, 0) : bottom, max(left, 0) : right] = rng.integers(120, 255, 3)
                rows.append(f"{rng.integers(len(names))} {x:.6f} {y:.6f} {w:.6f} {h:.6f}")
            image = folder / "images" / split / f"{n:06}.png"
            label = folder / "labels" / split / f"{n:06}.txt"
            image.parent.mkdir(parents=True, exist_ok=True)
            label.parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(image), pixels)
            label.write_text("\n".join(rows))
    path = folder / "data.yaml"
    content = {"path": str(folder), "train": "images/train", "val": "images/val", "names": dict(enumerate(names))}
    path.write_text(yaml.safe_dump(content))
    return path
