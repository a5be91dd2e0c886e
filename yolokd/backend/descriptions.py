"""Models from descriptions: checked, built with random weights, and written for sizes that no family offers."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import ultralytics
import yaml
from ultralytics.nn.tasks import DetectionModel, yaml_model_load

from yolokd.backend.checkpoints import Spec, as_detector
from yolokd.backend.paths import refuse_altered
from yolokd.backend.tasks import DETECT, class_of_description
from yolokd.errors import WeightsError
from yolokd.inputs import read_yaml

_YOLOV8 = Path(ultralytics.__file__).parent / "cfg" / "models" / "v8" / "yolov8.yaml"
LARGEST_SCALE = 10  # of depth and width
LARGEST_REPEAT = 100  # of a block, before scaling
LARGEST_NUMBER = 65_536  # of anything else, such as channels


def check_description(path: Path) -> None:
    """Check that a file describes a model of a size that can be built; Ultralytics reads and builds without limits.

    Raises:
        WeightsError: It is not YAML of plain values with the lists backbone and head, or asks for immense blocks.
    """
    what = f"The model description '{path}'"
    try:
        found = read_yaml(path)
    except OSError as error:
        raise WeightsError(f"{what} cannot be read: {error.strerror or error}.") from error
    except ValueError as error:
        raise WeightsError(f"{what} is not valid YAML: {error}.") from error
    if not isinstance(found, dict) or not all(isinstance(found.get(key), list) for key in ("backbone", "head")):
        raise WeightsError(f"{what} is no mapping with the lists 'backbone' and 'head'.")
    for place, number, limit in _limits(found):
        if isinstance(number, (int, float)) and not (math.isfinite(number) and abs(number) <= limit):
            raise WeightsError(f"{what} holds {number} in {place}; at most {limit} is possible.")


def _limits(found: dict[str, Any]) -> Iterator[tuple[str, Any, int]]:
    """Each value of a description with its place and the largest number that it may be."""
    scales = found.get("scales")
    for name, row in scales.items() if isinstance(scales, dict) else ():
        yield from ((f"scales.{name}", factor, LARGEST_SCALE) for factor in (row[:2] if isinstance(row, list) else ()))
    for key in ("depth_multiple", "width_multiple"):
        yield key, found.get(key), LARGEST_SCALE
    for key in ("backbone", "head"):
        for number, row in enumerate(found[key]):
            if isinstance(row, list) and len(row) > 1:
                yield f"row {number} of {key}", row[1], LARGEST_REPEAT
            yield from ((f"row {number} of {key}", value, LARGEST_NUMBER) for value in _values(row))
    yield from ((str(key), value, LARGEST_NUMBER) for key, value in found.items())


def _values(value: Any) -> Iterator[Any]:
    if isinstance(value, list):
        for inside in value:
            yield from _values(inside)
    else:
        yield value


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


def from_yaml(
    spec: Spec, classes: int | None, tasks: Collection[str] = DETECT, keypoints: tuple[int, int] = (0, 0)
) -> DetectionModel:
    """Build a model of one of these tasks from its description, with random weights.

    Args:
        spec: Path of a YAML, or a name that Ultralytics packages.
        classes: Number of classes; None for that of the description.
        tasks: Names of `yolokd.backend.tasks.TASKS`, whose models are taken.
        keypoints: `kpt_shape` of the data, which takes the place of the description's where it has one.

    Raises:
        WeightsError: There is no such description, it cannot be built, or it is of another task.
    """
    path = Path(spec)
    if path.is_file():
        refuse_altered(path.absolute(), "The model description", "Rename it, or move it to another folder.")
        check_description(path)
    elif path.exists():
        raise WeightsError(f"The model description '{spec}' cannot be read: it is not a regular file.")
    elif any(letter in str(spec) for letter in "*?["):  # Ultralytics would search for files that fit
        raise WeightsError(f"There is no model description '{spec}', and patterns of names are not searched for.")
    try:
        description = yaml_model_load(str(spec))
        if keypoints[0] and "kpt_shape" in description:
            description["kpt_shape"] = list(keypoints)
        model = class_of_description(description, tasks)(description, nc=classes, verbose=False)
    except FileNotFoundError as error:
        raise WeightsError(f"There is no model description '{spec}', and Ultralytics packages none.") from error
    except Exception as error:  # a wrong YAML fails anywhere in Ultralytics' parser
        raise WeightsError(f"The model description '{spec}' cannot be built: {error}") from error
    return as_detector(model, str(spec), tasks)
