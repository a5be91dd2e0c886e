"""Digests of training batches, and augmentation arguments that mix images."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

MIXED = {"mosaic": 0.8, "mixup": 0.3, "cutmix": 0.3, "degrees": 10.0, "flipud": 0.3, "bgr": 0.3}
Shown = tuple[str, str]  # name and digest of an image as it is trained on


def shown(batch: dict[str, Any]) -> list[Shown]:
    """Names and digests of a batch's images with their labels."""
    found = []
    for number, file in enumerate(batch["im_file"]):
        mine = batch["batch_idx"] == number
        parts = (batch["img"][number], batch["bboxes"][mine], batch["cls"][mine])
        content = b"".join(part.contiguous().numpy().tobytes() for part in parts)
        found.append((Path(file).name, hashlib.sha256(content).hexdigest()))
    return found
