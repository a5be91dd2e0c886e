"""Tiny detectors of every family, for tests."""

from __future__ import annotations

from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any

import torch
import ultralytics
from ultralytics.nn.tasks import DetectionModel
from ultralytics.utils import DEFAULT_CFG_DICT, YAML

CONFIGS = Path(ultralytics.__file__).parent / "cfg" / "models"
FAMILIES = {
    "v8": "v8/yolov8.yaml",
    "v9": "v9/yolov9t.yaml",
    "v10": "v10/yolov10n.yaml",
    "11": "11/yolo11.yaml",
    "12": "12/yolo12.yaml",
    "26": "26/yolo26.yaml",
}
DUAL = ("v10", "26")
OTHER_LEVELS = {  # families whose heads have others than three levels, from p3 on
    "v8-p2": "v8/yolov8-p2.yaml",
    "v8-p6": "v8/yolov8-p6.yaml",
    "v8-p3p4": "v8/yolov8.yaml",
    "v8-p5": "v8/yolov8.yaml",
}
LEVELS = {
    **dict.fromkeys(FAMILIES, ("p3", "p4", "p5")),
    "v8-p2": ("p2", "p3", "p4", "p5"),
    "v8-p6": ("p3", "p4", "p5", "p6"),
    "v8-p3p4": ("p3", "p4"),
    "v8-p5": ("p5",),
}


@cache
def _config(family: str) -> dict[str, Any]:
    loaded: dict[str, Any] = YAML.load(CONFIGS / {**FAMILIES, **OTHER_LEVELS}[family])
    layers = {"v8-p3p4": (15, 18), "v8-p5": (21,)}.get(family)
    if layers is not None:  # the layers after the last of them are left out
        loaded["head"] = [*loaded["head"][: layers[-1] - 9], [list(layers), 1, "Detect", ["nc"]]]
    return loaded


def config(family: str, *, width: float = 0.125, classes: int = 3) -> dict[str, Any]:
    """A model description of the family, thinned; YOLOv9t has one fixed size, YOLO12's attention needs width 0.25."""
    scaled = deepcopy(_config(family))
    scaled["nc"] = classes
    if "scales" in scaled:
        depth, _, limit = scaled["scales"]["n"]
        scaled["scales"] = {"n": [depth, max(width, 0.25) if family == "12" else width, limit]}
        scaled["scale"] = "n"
    return scaled


def detector(family: str, *, width: float = 0.125, classes: int = 3, seed: int = 0) -> DetectionModel:
    """A detector with random weights and running statistics that are not the initial ones."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = DetectionModel(config(family, width=width, classes=classes), nc=classes, verbose=False)
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.state_dict()["running_mean"].normal_(0, 0.1)
                module.state_dict()["running_var"].uniform_(0.8, 1.2)
    model.names = class_names(classes)
    model.args = training_args()
    return model


def class_names(count: int) -> dict[int, str]:
    """The names of the classes of `detector`."""
    return {i: f"class{i}" for i in range(count)}


def training_args(**changes: Any) -> Any:
    from ultralytics.cfg import get_cfg

    return get_cfg(DEFAULT_CFG_DICT, {"imgsz": 64, "epochs": 3, **changes})


def save(model: DetectionModel, path: Path, **extra: Any) -> Path:
    """Write the model as Ultralytics writes a finished checkpoint."""
    copy = deepcopy(model).half()
    copy.args = dict(model.args)
    torch.save({"model": copy, "epoch": -1, "train_args": {"imgsz": 64, "task": "detect"}, **extra}, path)
    return path


def batch(size: int = 2, *, imgsz: int = 64, classes: int = 3, seed: int = 0) -> dict[str, Any]:
    """A batch as the trainer hands it to the model, with two objects in each image."""
    generator = torch.Generator().manual_seed(seed)
    index = torch.arange(size).repeat_interleave(2).float()
    centers = torch.rand(2 * size, 2, generator=generator) * 0.4 + 0.3
    sizes = torch.rand(2 * size, 2, generator=generator) * 0.3 + 0.2
    return {
        "img": torch.rand(size, 3, imgsz, imgsz, generator=generator),
        "batch_idx": index,
        "cls": torch.randint(0, classes, (2 * size, 1), generator=generator).float(),
        "bboxes": torch.cat((centers, sizes), 1),
        "im_file": [f"image{i}.jpg" for i in range(size)],
    }
