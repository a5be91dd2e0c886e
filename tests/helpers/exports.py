"""Exports made by Ultralytics alone, for comparison."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ultralytics import YOLO

from yolokd.backend.opening import quiet


def export(checkpoint: Path, format: str, **options: Any) -> Path:
    with quiet():
        return Path(YOLO(str(checkpoint)).export(format=format, imgsz=64, **options))
