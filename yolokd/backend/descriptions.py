"""Model descriptions of sizes that no family offers: for students smaller than n."""

from __future__ import annotations

from pathlib import Path

import ultralytics
import yaml

_YOLOV8 = Path(ultralytics.__file__).parent / "cfg" / "models" / "v8" / "yolov8.yaml"


def write_yolov8(path: Path, *, width: float, depth: float = 0.33) -> Path:
    """Write the description of a YOLOv8 with its own width and depth multiples, and return its path.

    Args:
        path: Where to write; its name should not look like that of a standard size (`yolov8n`).
        width: Share of the channels of the largest published size before its limit; n has 0.25.
        depth: Share of the repeated blocks; n has 0.33.
    """
    description = yaml.safe_load(_YOLOV8.read_text(encoding="utf-8"))
    del description["scales"]
    description["depth_multiple"], description["width_multiple"] = depth, width
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(description, sort_keys=False), encoding="utf-8")
    return path
