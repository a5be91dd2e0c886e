"""AID's weights by loops, with Ultralytics' own assignment."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from tests.helpers.boxes import ciou
from tests.helpers.taught import GRID, SIZE, boxes_of, stock


def reference(
    raw: dict[str, Any], batch: dict[str, Any], teacher_of: dict[int, int], bins: int, alpha: float = 0.1
) -> tuple[Tensor, Tensor, Tensor]:
    """Head, feature and image weights by loops over anchors and objects, with Ultralytics' own assignment."""
    known = torch.tensor([int(c) in teacher_of for c in batch["cls"].flatten()], dtype=torch.bool)
    part = {key: batch[key][known] for key in ("batch_idx", "cls", "bboxes")} | {"img": batch["img"]}
    part["cls"] = torch.tensor([[teacher_of[int(c)]] for c in part["cls"].flatten()]).view(-1, 1).float()
    _, (_, _, scores, foreground, index) = stock(raw, part, bins=bins)
    points, strides = (x.double() for x in GRID.centers(torch.device("cpu")))
    everything = boxes_of(batch)
    head, features, image = [], [], []
    for b, boxes in enumerate(boxes_of(part)):
        others = boxes_of({**batch, **{k: batch[k][~known] for k in ("batch_idx", "bboxes")}})[b]
        assert len(boxes) + len(others) == len(everything[b])
        losses: list[list[float]] = [[] for _ in boxes]
        away = []
        for a in range(GRID.anchors):
            z = raw["scores"][b, :, a].double()
            t = scores[b, a].double()
            cls = float((F.softplus(z) - t * z).sum())
            away.append(cls)
            if foreground[b, a]:
                g = int(index[b, a])
                losses[g].append(cls + slow_box(raw["boxes"][b, :, a], boxes[g].tolist(), points[a], strides[a], bins))
        found = [sum(x) / len(x) for x in losses if x]
        of_objects = [sum(x) / len(x) if x else max(found) for x in losses]
        row_head, row_features, background = [], [], []
        for a in range(GRID.anchors):
            x, y = points[a].tolist()
            around = [
                ((r - left) * (low - top), d)
                for (left, top, r, low), d in zip(
                    [*boxes.tolist(), *others.tolist()], [*of_objects, *[None] * len(others)], strict=True
                )
                if left < x < r and top < y < low
            ]
            if foreground[b, a]:
                d: float | None = of_objects[int(index[b, a])]
            elif around:
                d = min(around, key=lambda pair: pair[0])[1]
            else:
                d = away[a]
                background.append(d)
            row_head.append(0.0 if d is None else math.exp(-alpha * d))
            row_features.append(1.0 if d is None else math.exp(-alpha * d))
        head.append(row_head)
        features.append(row_features)
        these = of_objects or background
        image.append(math.exp(-alpha * sum(these) / len(these)))
    return torch.tensor(head), torch.tensor(features), torch.tensor(image)


def slow_box(raw: Tensor, box: list[float], point: Tensor, stride: Tensor, bins: int) -> float:
    """(1 − CIoU) + DFL, or L1, at one anchor."""
    x, y, s = float(point[0]), float(point[1]), float(stride)
    wanted = [(x - box[0]) / s, (y - box[1]) / s, (box[2] - x) / s, (box[3] - y) / s]
    if bins == 1:
        said = raw.double().tolist()
        extra = sum(abs(p - w) * s / SIZE for p, w in zip(said, wanted, strict=True)) / 4
    else:
        logs = raw.double().view(4, bins).log_softmax(1)
        said = (logs.exp() @ torch.arange(bins).double()).tolist()
        extra = 0.0
        for side, value in enumerate(wanted):
            value = min(max(value, 0.0), bins - 1.01)
            low = int(value)
            extra -= float(logs[side, low] * (low + 1 - value) + logs[side, low + 1] * (value - low)) / 4
    guess = [x - said[0] * s, y - said[1] * s, x + said[2] * s, y + said[3] * s]
    return float(1 - ciou(guess, box) + extra)
