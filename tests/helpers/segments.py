"""Tiny models of other tasks than detect, and drawn images with polygons or keypoints."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import deepcopy
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
import yaml
from ultralytics.nn import tasks
from ultralytics.utils import YAML

from tests.helpers.models import CONFIGS, class_names, detector, training_args
from yolokd.losses.base import KEYPOINTS, MASKS, requirements
from yolokd.losses.table import active_losses
from yolokd.recipe import Recipe

FAMILIES = {  # name → class and description
    "v8-seg": ("SegmentationModel", "v8/yolov8-seg.yaml"),
    "11-seg": ("SegmentationModel", "11/yolo11-seg.yaml"),
    "26-seg": ("SegmentationModel", "26/yolo26-seg.yaml"),
    "v8-pose": ("PoseModel", "v8/yolov8-pose.yaml"),
    "11-pose": ("PoseModel", "11/yolo11-pose.yaml"),
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


def description(
    family: str, *, width: float = 0.125, classes: int = CLASSES, keypoints: Sequence[int] | None = None
) -> dict[str, Any]:
    """A model description of eighth width, with few prototypes, that names its size itself; 17 keypoints by default."""
    found: dict[str, Any] = YAML.load(CONFIGS / FAMILIES[family][1])
    depth = found.pop("scales")["n"][0]
    if keypoints is not None and "kpt_shape" in found:
        found["kpt_shape"] = list(keypoints)
    return found | {"nc": classes, "depth_multiple": depth, "width_multiple": width}


def model_of(
    family: str,
    *,
    width: float = 0.125,
    classes: int = CLASSES,
    seed: int = 0,
    keypoints: Sequence[int] | None = None,
) -> Any:
    """A model with random weights, whose running statistics are those of noise and whose scores lie around one half."""
    kind, _ = FAMILIES[family]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        described = description(family, width=width, classes=classes, keypoints=keypoints)
        model = getattr(tasks, kind)(described, nc=classes, verbose=False)
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


def write_description(family: str, path: Path, *, keypoints: Sequence[int] | None = None) -> Path:
    """Write the description of a student."""
    path.write_text(yaml.safe_dump(description(family, keypoints=keypoints)))
    return path


def make_polygons(folder: Path, *, train: int = 16, val: int = 8, side: int = 64) -> Path:
    """Images of triangles, diamonds and hexagons on gray, with their polygons; return the data YAML."""
    return _make_shapes(folder, {"train": train, "val": val}, side, _polygon_row)


def make_poses(
    folder: Path, *, train: int = 16, val: int = 8, side: int = 64, keypoints: tuple[int, int] = (4, 3)
) -> Path:
    """The same images, each shape labeled with its box and corners; those beyond its own are not visible.

    Args:
        folder: Where they are written.
        train: Images for training.
        val: Images for validation.
        side: Of an image, in pixels.
        keypoints: `kpt_shape` of the data YAML, which is returned.
    """
    path = _make_shapes(folder, {"train": train, "val": val}, side, partial(_pose_row, keypoints=keypoints))
    path.write_text(path.read_text() + f"kpt_shape: {list(keypoints)}\n")
    return path


def _polygon_row(polygon: Any) -> list[float]:
    found: list[float] = polygon.flatten().tolist()
    return found


def _pose_row(polygon: Any, keypoints: tuple[int, int]) -> list[float]:
    low, high = polygon.min(0), polygon.max(0)
    row = [*(low + high) / 2, *(high - low)]
    count, columns = keypoints
    for number in range(count):
        seen = number < len(polygon)
        row += [*(polygon[number] if seen else (0.0, 0.0)), *([2.0 * seen] if columns == 3 else [])]
    return [float(value) for value in row]


def _make_shapes(folder: Path, counts: dict[str, int], side: int, row_of: Callable[[Any], list[float]]) -> Path:
    rng = np.random.default_rng(0)
    for split, count in counts.items():
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
                lines.append(" ".join([str(kind), *(f"{value:.6f}" for value in row_of(polygon / side))]))
            cv2.imwrite(str(folder / "images" / split / f"{index:03d}.png"), image)
            (folder / "labels" / split / f"{index:03d}.txt").write_text("\n".join(lines))
    path = folder / "data.yaml"
    path.write_text(yaml.safe_dump({"train": "images/train", "val": "images/val", "names": class_names(CLASSES)}))
    return path


def suited(recipe: Recipe, family: str, **options: Any) -> Any:
    """A model that a recipe can compare: of masks or keypoints where its losses take them, else a detector."""
    for extra in requirements(active_losses(recipe).values()).extras:
        return model_of(f"{family}-{ {MASKS: 'seg', KEYPOINTS: 'pose'}[extra] }", **options)
    return detector(family, **options)


def with_extras(batch: dict[str, Any]) -> dict[str, Any]:
    """A batch of all tasks, as Ultralytics' loader gives them: masks are the insides of boxes, 17 keypoints in them."""
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
    x, y, w, h = batch["bboxes"].split(1, 1)  # (N, 1) each
    share = torch.linspace(-0.5, 0.5, 17)
    keypoints = torch.stack((x + share * w, y + share * h, torch.full((len(x), 17), 2.0)), -1)
    return {**batch, "masks": masks, "sem_masks": kinds, "keypoints": keypoints}
