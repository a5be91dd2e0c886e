"""Tiny models of other tasks than detect, and drawn images with polygons."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
import yaml
from ultralytics.nn import tasks
from ultralytics.utils import YAML

from tests.helpers.models import CONFIGS, class_names, detector, training_args
from yolokd.losses.base import requirements
from yolokd.losses.table import active_losses
from yolokd.recipe import Recipe

FAMILIES = {  # name → class and description
    "v8-seg": ("SegmentationModel", "v8/yolov8-seg.yaml"),
    "11-seg": ("SegmentationModel", "11/yolo11-seg.yaml"),
    "26-seg": ("SegmentationModel", "26/yolo26-seg.yaml"),
    "v8-pose": ("PoseModel", "v8/yolov8-pose.yaml"),
    "26-pose": ("PoseModel", "26/yolo26-pose.yaml"),
    "v8-obb": ("OBBModel", "v8/yolov8-obb.yaml"),
    "11-obb": ("OBBModel", "11/yolo11-obb.yaml"),
    "26-obb": ("OBBModel", "26/yolo26-obb.yaml"),
}
CLASSES = 3
SHAPES = {  # share of width and height → the polygon of a class
    0: [(0.5, 0.0), (1.0, 1.0), (0.0, 1.0)],
    1: [(0.5, 0.0), (1.0, 0.5), (0.5, 1.0), (0.0, 0.5)],
    2: [(0.25, 0.0), (0.75, 0.0), (1.0, 0.5), (0.75, 1.0), (0.25, 1.0), (0.0, 0.5)],
}


def description(family: str, *, width: float = 0.125, classes: int = CLASSES) -> dict[str, Any]:
    """A model description of eighth width, with few prototypes, that names its size itself."""
    found: dict[str, Any] = YAML.load(CONFIGS / FAMILIES[family][1])
    depth = found.pop("scales")["n"][0]
    return found | {"nc": classes, "depth_multiple": depth, "width_multiple": width}


def model_of(family: str, *, width: float = 0.125, classes: int = CLASSES, seed: int = 0) -> Any:
    """A model with random weights, whose running statistics are those of noise and whose scores lie around one half."""
    kind, _ = FAMILIES[family]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = getattr(tasks, kind)(description(family, width=width, classes=classes), nc=classes, verbose=False)
        norms = [module for module in model.modules() if isinstance(module, torch.nn.BatchNorm2d)]
        momenta = [norm.momentum for norm in norms]
        for norm in norms:
            norm.momentum = 1.0
        with torch.no_grad():
            model.train()(torch.rand(8, 3, 128, 128))
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
        for name in ("cv3", "one2one_cv3"):
            for branch in getattr(model.model[-1], name, None) or ():
                branch[-1].bias.data.zero_()
        for branch in model.model[-1].cv4 if family.endswith("seg") else ():
            branch[-1].weight.data.mul_(0.2)  # so that masks are not saturated
    model.names, model.task = class_names(classes), family.partition("-")[2].replace("seg", "segment")
    model.args = training_args(task=model.task)
    return model.eval()


def save(model: Any, path: Path) -> Path:
    """Write the model as Ultralytics writes a finished checkpoint."""
    copy = deepcopy(model).half()
    copy.args = dict(vars(model.args))
    torch.save({"model": copy, "epoch": -1, "train_args": {"imgsz": 64, "task": model.task}}, path)
    return path


def write_description(family: str, path: Path) -> Path:
    """Write the description of a student."""
    path.write_text(yaml.safe_dump(description(family)))
    return path


def make_polygons(folder: Path, *, train: int = 16, val: int = 8, side: int = 64) -> Path:
    """Images of triangles, diamonds and hexagons on gray, with their polygons; return the data YAML."""
    rng = np.random.default_rng(0)
    for split, count in (("train", train), ("val", val)):
        for part in ("images", "labels"):
            (folder / part / split).mkdir(parents=True)
        for index in range(count):
            image = np.full((side, side, 3), 100, np.uint8)
            lines = []
            for _ in range(2):
                kind = int(rng.integers(CLASSES))
                w, h = (int(v) for v in rng.integers(side // 4, side // 2, 2))
                x, y = int(rng.integers(0, side - w)), int(rng.integers(0, side - h))
                polygon = np.array([(x + u * w, y + v * h) for u, v in SHAPES[kind]])
                cv2.fillPoly(image, [polygon.round().astype(np.int32)], (np.eye(3)[kind] * 255).tolist())
                lines.append(" ".join([str(kind), *(f"{value / side:.6f}" for value in polygon.flatten())]))
            cv2.imwrite(str(folder / "images" / split / f"{index:03d}.png"), image)
            (folder / "labels" / split / f"{index:03d}.txt").write_text("\n".join(lines))
    path = folder / "data.yaml"
    path.write_text(yaml.safe_dump({"train": "images/train", "val": "images/val", "names": class_names(CLASSES)}))
    return path


def suited(recipe: Recipe, family: str, **options: Any) -> Any:
    """A model that a recipe can compare: a segment model where its losses take masks, else a detector."""
    if requirements(active_losses(recipe).values()).extras:
        return model_of(f"{family}-seg", **options)
    return detector(family, **options)


def with_masks(batch: dict[str, Any]) -> dict[str, Any]:
    """A batch whose objects have the insides of their boxes as masks, as Ultralytics' loader gives them."""
    height, width = (side // 4 for side in batch["img"].shape[-2:])
    masks, kinds = (torch.zeros(len(batch["img"]), height, width) for _ in range(2))
    numbers = [0] * len(masks)
    for image, kind, (x, y, w, h) in zip(
        batch["batch_idx"].int().tolist(), batch["cls"].flatten().tolist(), batch["bboxes"].tolist(), strict=True
    ):
        numbers[image] += 1
        rows, columns = (
            slice(int((c - s / 2) * n), int((c + s / 2) * n)) for c, s, n in ((y, h, height), (x, w, width))
        )
        masks[image, rows, columns], kinds[image, rows, columns] = numbers[image], kind
    return {**batch, "masks": masks, "sem_masks": kinds}
