"""Raw outputs of an imaginary teacher, as noisy as wanted, and Ultralytics' own criterion on them."""

from __future__ import annotations

from functools import cache
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor
from ultralytics.utils.loss import v8DetectionLoss

from tests.helpers.models import detector
from yolokd.losses.base import Grid

SIZE = 64
GRID = Grid({"p3": (8, 8), "p4": (4, 4), "p5": (2, 2)}, {"p3": 8, "p4": 16, "p5": 32})


def options(alpha: float = 0.1, scope: str = "instance", normalize: str = "raw") -> Any:
    return SimpleNamespace(alpha=alpha, scope=scope, normalize=normalize)


def labeled(*images: list[tuple[int, float, float, float, float]], classes: int = 3) -> dict[str, Any]:
    """A batch from (class, x1, y1, x2, y2) in pixels, a list per image."""
    rows = torch.tensor([[i, *box] for i, boxes in enumerate(images) for box in boxes]).view(-1, 6)
    corners = rows[:, 2:] / SIZE
    return {
        "img": torch.zeros(len(images), 3, SIZE, SIZE),
        "batch_idx": rows[:, 0],
        "cls": rows[:, 1:2],
        "bboxes": torch.cat(((corners[:, :2] + corners[:, 2:]) / 2, corners[:, 2:] - corners[:, :2]), 1),
        "im_file": [f"image{i}.jpg" for i in range(len(images))],
    }


def crowded(images: int = 3, objects: int = 5, *, classes: int = 3, seed: int = 0) -> dict[str, Any]:
    """A batch of random objects that overlap; the second image has none."""
    generator = torch.Generator().manual_seed(seed)
    scenes: list[list[tuple[int, float, float, float, float]]] = []
    for image in range(images):
        scenes.append([])
        for _ in range(0 if image == 1 else objects):
            x, y, w, h = (torch.rand(4, generator=generator) * torch.tensor([40.0, 40, 30, 30])).tolist()
            kind = int(torch.randint(classes, (), generator=generator))
            scenes[-1].append((kind, x, y, min(x + w + 6, SIZE), min(y + h + 6, SIZE)))
    return labeled(*scenes)


def boxes_of(batch: dict[str, Any]) -> list[Tensor]:
    """The boxes of each image, (N, 4) xyxy in pixels."""
    center, half = batch["bboxes"][:, :2] * SIZE, batch["bboxes"][:, 2:] * SIZE / 2
    boxes = torch.cat((center - half, center + half), 1)
    return [boxes[batch["batch_idx"] == image] for image in range(len(batch["img"]))]


def encode(boxes: Tensor, bins: int) -> Tensor:
    """Raw head outputs (B, 4·R, A) that decode to about these boxes, (B, A, 4) xyxy in pixels; exactly if R is 1."""
    points, strides = GRID.centers(boxes.device)
    distances = torch.cat((points - boxes[..., :2], boxes[..., 2:] - points), -1) / strides
    if bins == 1:
        return distances.transpose(1, 2)
    steps = torch.arange(bins, dtype=boxes.dtype)
    logits = -2 * (distances.clamp(0, bins - 1)[..., None] - steps).abs()  # (B, A, 4, R)
    return logits.flatten(2).transpose(1, 2)


def taught(
    batch: dict[str, Any], *, bins: int = 16, classes: int = 3, noise: float = 4.0, seed: int = 1
) -> dict[str, Any]:
    """What a teacher says that finds the object nearest to each anchor, to about `noise` pixels, with random scores."""
    generator = torch.Generator().manual_seed(seed)
    points, _ = GRID.centers(torch.device("cpu"))
    everywhere = []
    for boxes in boxes_of(batch):
        if len(boxes) == 0:
            boxes = torch.tensor([[20.0, 20, 44, 44]])
        nearest = torch.cdist(points, (boxes[:, :2] + boxes[:, 2:]) / 2).argmin(1)
        everywhere.append(boxes[nearest])
    found = torch.stack(everywhere)
    found = found + noise * torch.randn(found.shape, generator=generator)
    scores = torch.randn(len(found), classes, GRID.anchors, generator=generator) - 1
    raw = encode(found, bins)
    return {"scores": scores, "boxes": raw + 0.1 * (bins > 1) * torch.randn(raw.shape, generator=generator)}


@cache
def criterion(bins: int, classes: int = 3) -> Any:
    """Ultralytics' detection loss with every gain 1."""
    model = detector("v8" if bins == 16 else "26", classes=classes)
    assert model.model[-1].reg_max == bins
    model.args.box = model.args.cls = model.args.dfl = 1.0
    return v8DetectionLoss(model)


def stock(raw: dict[str, Any], batch: dict[str, Any], *, bins: int = 16, classes: int = 3) -> tuple[Any, Any]:
    """Ultralytics' loss (box, cls, dfl), not times the batch size, and what its assigner returned."""
    seen: list[Any] = []
    judge = criterion(bins, classes)
    handle = judge.assigner.register_forward_hook(lambda module, inputs, output: seen.append(output))
    feats = [torch.zeros(len(raw["scores"]), 1, h, w) for h, w in GRID.shapes.values()]
    try:
        loss = judge.get_assigned_targets_and_loss({**raw, "feats": feats}, batch)[1]
    finally:
        handle.remove()
    return loss, seen[0]


def only(batch: dict[str, Any], raw: dict[str, Any], image: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """One image of a batch, and what the teacher says about it."""
    rows = batch["batch_idx"] == image
    part = {"img": batch["img"][image : image + 1], "batch_idx": torch.zeros(int(rows.sum()))}
    part.update({key: batch[key][rows] for key in ("cls", "bboxes")})
    return part, {key: value[image : image + 1] for key, value in raw.items()}
