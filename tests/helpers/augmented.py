"""Images with boxes, and their loader with the augmentation of IKD."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import torch
from ultralytics.data.build import build_dataloader, build_yolo_dataset

from tests.helpers.models import training_args
from yolokd.loaders.augmentation import augment_loader

PLAIN = {
    "mosaic": 0.0,
    "fliplr": 0.0,
    "translate": 0.0,
    "scale": 0.0,
    "hsv_h": 0.0,
    "hsv_s": 0.0,
    "hsv_v": 0.0,
    "erasing": 0.0,
}


Box = tuple[float, float, float, float]  # x, y, width, height in pixels of the file


def write(folder: Path, entries: Sequence[tuple[Any, Sequence[Box]]]) -> Path:
    """Write images with boxes, the first of class 0, others of class 1, and return the folder of the images."""
    images, labels = folder / "images", folder / "labels"
    images.mkdir(parents=True)
    labels.mkdir()
    for number, (pixels, boxes) in enumerate(entries):
        height, width = pixels.shape[:2]
        cv2.imwrite(str(images / f"{number:02d}.png"), pixels)
        lines = [
            f"{min(place, 1)} {(x + w / 2) / width:.6f} {(y + h / 2) / height:.6f} {w / width:.6f} {h / height:.6f}"
            for place, (x, y, w, h) in enumerate(boxes)
        ]
        (labels / f"{number:02d}.txt").write_text("\n".join(lines))
    return images


def flat(height: int, width: int, value: int = 100) -> Any:
    return np.full((height, width, 3), value, np.uint8)


def load(
    images: Path,
    *,
    noise: float = 0.3,
    crop: float = 0.8,
    until: float = 1.0,
    seed: int = 0,
    epochs: int = 4,
    workers: int = 0,
    batch: int = 2,
    **changes: Any,
) -> Any:
    """The training loader of these images, made as the trainer makes it, then augmented."""
    loader = plain(images, workers=workers, batch=batch, **changes)
    config = SimpleNamespace(noise=noise, crop=crop, until=until)
    loader.epoch = 0
    augment_loader(loader, config, seed=seed, current_epoch=lambda: (loader.epoch, epochs))
    return loader


def plain(images: Path, *, workers: int = 0, batch: int = 2, **changes: Any) -> Any:
    torch.manual_seed(0)
    args = training_args(**{"imgsz": 64, "deterministic": False, **PLAIN, **changes})
    data = {"names": {0: "first", 1: "other"}, "nc": 2, "channels": 3}
    dataset = build_yolo_dataset(args, str(images), batch, data, mode="train")
    return build_dataloader(dataset, batch, workers, device="cpu")


def changed(dataset: Any, index: int, epoch: int = 0) -> dict[str, Any]:
    dataset.draw = 1 + epoch
    label: dict[str, Any] = dataset.get_image_and_label(index)
    return label
