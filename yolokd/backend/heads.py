"""Reading Ultralytics' detect heads: levels, strides, widths, branches; and their raw outputs as `Head`s.

Holds for the heads of v3u to v13 and 26 in Ultralytics 8.4: `Detect` (one branch, or two with `end2end`), `v10Detect`
(two), and those of other tasks in `yolokd.backend.tasks`, which derive from `Detect`. In training mode they return raw
outputs without decoding boxes, and their inputs: the neck features.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from ultralytics.nn.tasks import DetectionModel

from yolokd.backend.tasks import (
    TASKS,
    KeypointLayout,
    Reader,
    angles,
    keypoints_of_head,
    no_extras,
    reader_of_head,
    task_of_head,
)
from yolokd.errors import PairError
from yolokd.losses.base import Grid, Head
from yolokd.losses.levels import STRIDES, level_of
from yolokd.losses.tensors import widen


@dataclass(frozen=True)
class HeadInfo:
    """What a model's head looks at and says."""

    index: int  # its place among the model's layers
    layers: Mapping[str, int]  # level → layer whose output it takes
    widths: Mapping[str, int]  # level → channels of the neck feature
    bins: int  # reg_max: distribution bins per side, 1 for plain distances
    branches: tuple[str, ...]  # of "one2many", "one2one"
    task: str = "detect"  # a name of `yolokd.backend.tasks.TASKS`
    keypoints: KeypointLayout | None = None  # how it writes them, where it gives any
    read: Reader = no_extras  # of a branch's raw output, what it gives beside class scores and boxes

    @property
    def levels(self) -> tuple[str, ...]:
        """Its levels, from fine to coarse."""
        return tuple(self.layers)

    @property
    def largest_stride(self) -> int:
        """Pixels per cell of its coarsest level: sides of images are multiples of it."""
        stride: int = STRIDES[self.levels[-1]]
        return stride

    @property
    def extras(self) -> tuple[str, ...]:
        """What it gives beside class scores and boxes."""
        return TASKS[self.task].extras


def read_head(model: DetectionModel, what: str) -> HeadInfo:
    """Describe the head of a detector.

    Raises:
        PairError: Strides that no level is named after, or not from fine to coarse, or a head that was fused for
            inference.
    """
    head = model.model[-1]
    strides = head.stride.tolist()
    if not are_levels(strides):
        raise PairError(
            f"{what} has detection levels of strides {', '.join(f'{stride:g}' for stride in strides)}; yolokd distills "
            f"heads whose strides are some of {', '.join(map(str, STRIDES.values()))}, from fine to coarse."
        )
    levels = [level_of(stride) for stride in strides]
    if head.cv2 is None:
        raise PairError(f"{what} was fused for inference and lost its one-to-many branch; give the unfused checkpoint.")
    dual = getattr(head, "one2one_cv2", None) is not None
    return HeadInfo(
        index=head.i,
        layers=dict(zip(levels, head.f, strict=True)),
        widths={level: branch[0].conv.in_channels for level, branch in zip(levels, head.cv2, strict=True)},
        bins=head.reg_max,
        branches=("one2many", "one2one") if dual else ("one2many",),
        task=task_of_head(head),
        keypoints=keypoints_of_head(head),
        read=reader_of_head(head),
    )


def are_levels(strides: Iterable[float]) -> bool:
    """Whether these are strides of named levels, each once, from fine to coarse."""
    found = list(strides)
    return found == sorted(set(found)) and set(found) <= set(STRIDES.values())


def split_branches(raw: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Return the raw outputs of a head in training mode by branch; a single head is its own one-to-many branch."""
    return dict(raw) if "one2many" in raw else {"one2many": raw}


def neck_features(raw: Mapping[str, Any], images: Tensor) -> dict[str, Tensor]:
    """Return the head's inputs by level, (B, C, H, W), from the one-to-many branch (the other sees them detached).

    Args:
        raw: The head's raw outputs.
        images: What the model has seen, (B, C, H, W); sides are multiples of its largest stride.
    """
    return by_level(split_branches(raw)["one2many"]["feats"], images)


def by_level(features: Iterable[Tensor], images: Tensor) -> dict[str, Tensor]:
    """Return neck features, (B, C, H, W) each, by the name of their level, which follows from the size of the images.

    Args:
        features: From fine to coarse.
        images: What they are of, (B, C, H, W); sides are multiples of the largest stride.
    """
    return {level_of(images.shape[-1] / feature.shape[-1]): feature for feature in features}


def grid_of(features: Mapping[str, Tensor]) -> Grid:
    """Return where the anchors of these neck features lie."""
    return Grid(
        shapes={level: (f.shape[-2], f.shape[-1]) for level, f in features.items()},
        strides={level: STRIDES[level] for level in features},
    )


def as_head(raw: Mapping[str, Tensor], grid: Grid, classes: Tensor | None) -> Head:
    """Return one branch's raw outputs in the layout of the losses, (B, A, ·).

    Args:
        raw: `scores` (B, K, A) and `boxes` (B, 4·R, A) as Ultralytics lists them; `angle` (B, 1, A) of rotated boxes.
        grid: Where the anchors lie.
        classes: Indices of the classes to keep, (K,), in the order of the pair's common classes; or (K, M), of whose
            rows the largest logit counts. None keeps all.
    """
    logits = raw["scores"] if classes is None else raw["scores"].index_select(1, classes.flatten())
    if classes is not None and classes.ndim == 2:
        logits = logits.unflatten(1, classes.shape).amax(2)  # (B, K·M, A) → (B, K, A)
    return Head(widen(logits).transpose(1, 2), raw["boxes"].transpose(1, 2), grid, angles(raw))


def raw_of(logits: Tensor, boxes: Tensor, grid: Grid) -> dict[str, Tensor]:
    """Return raw outputs that `as_head` reads as these logits and boxes: `scores` (B, K, A), and `boxes` (B, 4, A).

    Args:
        logits: (B, A, K).
        boxes: (B, A, 4), xyxy in pixels of the grid's images; a side may lie on either side of the anchor's center.
        grid: Where the anchors lie.
    """
    points, strides = grid.centers(boxes.device)
    left_top, right_bottom = boxes.chunk(2, -1)
    distances = torch.cat((points - left_top, right_bottom - points), -1) / strides
    return {"scores": logits.transpose(1, 2), "boxes": distances.transpose(1, 2)}


def with_extras(head: Head, raw: Mapping[str, Any], read: Reader) -> Head:
    """Return a head with what its task gives beside class scores and boxes.

    Args:
        head: The branch as `as_head` reads it.
        raw: Its raw outputs.
        read: From `HeadInfo.read`.
    """
    return replace(head, extras={**head.extras, **read(raw)})
