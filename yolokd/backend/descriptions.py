"""Models from descriptions: built with random weights, and written for sizes that no family offers."""

from __future__ import annotations

from pathlib import Path

import ultralytics
import yaml
from ultralytics.nn.tasks import DetectionModel

from yolokd.backend.checkpoints import Spec, as_detector
from yolokd.backend.paths import refuse_altered
from yolokd.errors import WeightsError

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


def from_yaml(spec: Spec, classes: int | None) -> DetectionModel:
    """Build a detector from its description, with random weights; `WeightsError` where that fails."""
    path = Path(spec)
    if path.is_file():
        refuse_altered(path.absolute(), "The model description", "Rename it, or move it to another folder.")
    elif any(letter in str(spec) for letter in "*?["):  # Ultralytics would search for files that fit
        raise WeightsError(f"There is no model description '{spec}', and patterns of names are not searched for.")
    try:
        model = DetectionModel(str(spec), nc=classes, verbose=False)
    except FileNotFoundError as error:
        raise WeightsError(f"There is no model description '{spec}', and Ultralytics packages none.") from error
    except Exception as error:  # a wrong YAML fails anywhere in Ultralytics' parser
        raise WeightsError(f"The model description '{spec}' cannot be built: {error}") from error
    return as_detector(model, str(spec))
