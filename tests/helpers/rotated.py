"""Drawn images with rotated boxes, labeled by four corners; raw outputs of an imaginary teacher of such boxes."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
import yaml
from ultralytics.utils.loss import v8OBBLoss

from tests.helpers.models import class_names
from tests.helpers.segments import CLASSES, model_of
from tests.helpers.taught import GRID, SIZE, taught


def corners(x: float, y: float, width: float, height: float, angle: float) -> list[tuple[float, float]]:
    """The corners of a rotated box, by plain trigonometry."""
    cos, sin = math.cos(angle), math.sin(angle)
    signs = ((-1, -1), (1, -1), (1, 1), (-1, 1))
    offsets = [(a * width / 2, b * height / 2) for a, b in signs]
    return [(x + u * cos - v * sin, y + u * sin + v * cos) for u, v in offsets]


def make_rotated(folder: Path, *, train: int = 16, val: int = 8, side: int = 64, objects: int = 2) -> Path:
    """Images of colored bars at all angles on gray, with their corners; return the data YAML."""
    rng = np.random.default_rng(0)
    for split, count in (("train", train), ("val", val)):
        for part in ("images", "labels"):
            (folder / part / split).mkdir(parents=True)
        for index in range(count):
            image = np.full((side, side, 3), 100, np.uint8)
            lines = []
            for _ in range(objects):
                kind = int(rng.integers(CLASSES))
                width, height = rng.uniform(side / 4, side / 2), rng.uniform(side / 10, side / 5)
                x, y = rng.uniform(0.3 * side, 0.7 * side, 2)
                box = np.array(corners(float(x), float(y), width, height, float(rng.uniform(0, math.pi))))
                cv2.fillPoly(image, [box.round().astype(np.int32)], (np.eye(3)[kind] * 255).tolist())
                lines.append(" ".join([str(kind), *(f"{value / side:.6f}" for value in box.flatten())]))
            cv2.imwrite(str(folder / "images" / split / f"{index:03d}.png"), image)
            (folder / "labels" / split / f"{index:03d}.txt").write_text("\n".join(lines))
    path = folder / "data.yaml"
    path.write_text(yaml.safe_dump({"train": "images/train", "val": "images/val", "names": class_names(CLASSES)}))
    return path


def crowded_rotated(images: int = 3, objects: int = 5, *, seed: int = 0) -> dict[str, Any]:
    """A batch of random rotated objects that overlap; the second image has none."""
    generator = torch.Generator().manual_seed(seed)
    owners = [image for image in range(images) if image != 1 for _ in range(objects)]
    numbers = torch.rand(len(owners), 5, generator=generator)
    low, span = torch.tensor([16.0, 16, 12, 8, -0.7]), torch.tensor([32.0, 32, 24, 12, 3])
    boxes = low + span * numbers
    return {
        "img": torch.zeros(images, 3, SIZE, SIZE),
        "batch_idx": torch.tensor(owners).float(),
        "cls": torch.randint(CLASSES, (len(owners), 1), generator=generator).float(),
        "bboxes": torch.cat((boxes[:, :4] / SIZE, boxes[:, 4:]), 1),
    }


def taught_rotated(batch: dict[str, Any], *, bins: int = 16, seed: int = 1) -> dict[str, Any]:
    """What a teacher of rotated boxes says: boxes of about the right size, and any angles."""
    upright = {**batch, "bboxes": batch["bboxes"][:, :4]}
    raw = taught(upright, bins=bins, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    return {**raw, "angle": torch.rand(len(batch["img"]), 1, GRID.anchors, generator=generator) * 3 - 0.7}


def stock_rotated(raw: dict[str, Any], batch: dict[str, Any], *, bins: int = 16) -> tuple[torch.Tensor, Any]:
    """Ultralytics' loss of rotated boxes (box, cls, dfl, angle) with every gain 1, and what its assigner returned."""
    model = model_of("v8-obb" if bins == 16 else "26-obb")
    model.args.box = model.args.cls = model.args.dfl = model.args.angle = 1.0
    judge, seen = v8OBBLoss(model), []
    judge.assigner.register_forward_hook(lambda module, inputs, output: seen.append(output))
    feats = [torch.zeros(len(raw["scores"]), 1, h, w) for h, w in GRID.shapes.values()]
    total = judge.loss({**raw, "feats": feats}, batch)[0]
    return total / len(raw["scores"]), seen[0]
