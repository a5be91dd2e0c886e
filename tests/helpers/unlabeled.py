"""Images without labels, for tests."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch


def joined(labeled: Mapping[str, Any], extra: int, seed: int = 5) -> dict[str, Any]:
    """The batch with as many unlabeled images, as the trainer hands it to the model."""
    images = torch.rand(extra, *labeled["img"].shape[1:], generator=torch.Generator().manual_seed(seed))
    return {**labeled, "unlabeled": images, "unlabeled_file": [f"extra{i}.jpg" for i in range(extra)]}


def make_images(folder: Path, count: int = 10) -> Path:
    """Noise, half of it in a folder below."""
    rng = np.random.default_rng(1)
    (folder / "deep").mkdir(parents=True)
    for index in range(count):
        place = folder / "deep" if index % 2 else folder
        cv2.imwrite(str(place / f"free{index}.png"), rng.integers(0, 255, (48, 64, 3), np.uint8))
    return folder


def state_of(folder: Path) -> dict[Path, int]:
    """Every file and folder with the time of its last change."""
    return {path: path.stat().st_mtime_ns for path in (folder, *folder.rglob("*"))}
