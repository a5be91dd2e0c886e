"""Opening any model that gives boxes, to be asked about images: whatever its task, architecture and vocabulary.

Models of YOLO's grid are asked as teachers are (`yolokd.teachers.asking.Panel`), with mirrored answers averaged at the
mirrored anchors. The others, such as RT-DETR, have no anchors of this grid: their mirrored boxes are fused.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.ops import box_convert

from yolokd.backend.box_models import (
    decoded,
    is_on_grid,
    load_box_model,
    raw_outputs,
    stride_of,
    takes_prompts,
    takes_text,
)
from yolokd.backend.checkpoints import Spec, find
from yolokd.backend.prompts import names_of, set_prompts
from yolokd.files import sha256, sha256_of
from yolokd.loaders.answers import Answer
from yolokd.teachers.asking import STRIDE, BoxModel, Labeler, Panel, detections, mirrored
from yolokd.teachers.base import TeacherOutput
from yolokd.teachers.box_fusion import fuse_boxes, require_fusion
from yolokd.teachers.detector import DetectorTeacher


def open_labeler(spec: Spec, device: torch.device, *, flip: bool, classes: Sequence[str] | None = None) -> Labeler:
    """Open a model that labels images: detect, segment, pose, RT-DETR, YOLO-World or YOLOE.

    Args:
        spec: A path to a `.pt` file, or an Ultralytics name.
        device: Where it runs, in single precision.
        flip: Ask about the mirrored image as well.
        classes: Prompts of an open-vocabulary model, which become its classes; None takes those that it was saved
            with. Models of a closed vocabulary keep their classes.

    Raises:
        WeightsError: The checkpoint is missing, unreadable or unsafe, gives no upright boxes, has no class names, or
            its text encoder is not here.
        UserError: Prompts that are none or not distinct, or no package for fusing boxes where one is needed.
    """
    path = find(spec)
    model = load_box_model(path)
    digest = sha256(path)
    if classes is not None and takes_prompts(model):
        set_prompts(model, classes, str(spec))
        digest = sha256_of(json.dumps([digest, list(classes)]))
    names = names_of(model, str(spec))
    return OpenedModel(names, digest, path, _box_model(model.to(device).eval(), names, flip=flip))


def _box_model(model: Any, names: dict[int, str], *, flip: bool) -> BoxModel:
    if is_on_grid(model):
        return Panel([WholeModel(model) if takes_text(model) else DetectorTeacher(model)], [names], flip=flip)
    if flip:
        require_fusion()
    return DecodedModel(model, names, flip=flip)


@dataclass(frozen=True)
class OpenedModel:
    """A model that can be asked, with what identifies its answers; see `yolokd.teachers.asking.Labeler`."""

    names: dict[int, str]
    digest: str
    path: Path
    model: BoxModel

    @property
    def stride(self) -> int:
        """What the sides of its images are multiples of, in pixels."""
        return self.model.stride

    def answers(self, images: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Return boxes and probabilities of each image; see `yolokd.teachers.asking.BoxModel`."""
        return self.model.answers(images)


class WholeModel(nn.Module):
    """A model on YOLO's grid that is run whole, since its layers take more than images.

    Args:
        model: From `load_box_model`.
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model
        self.stride = stride_of(model)

    @torch.no_grad()
    def forward(self, images: Tensor) -> TeacherOutput:
        """Return the raw outputs of the head, without neck features.

        Args:
            images: (B, 3, H, W) in [0, 1].
        """
        return TeacherOutput({}, raw_outputs(self.model, images))


class DecodedModel:
    """A model that gives boxes elsewhere than at the anchors of YOLO's grid.

    Args:
        model: From `load_box_model`, in evaluation mode.
        names: Its class names.
        flip: Ask about the mirrored image as well; the boxes of both are fused.
    """

    def __init__(self, model: Any, names: dict[int, str], *, flip: bool) -> None:
        self.model, self.names, self.flip = model, names, flip
        self.stride = max(STRIDE, stride_of(model))

    @torch.no_grad()
    def answers(self, images: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Return boxes and probabilities of each image; see `yolokd.teachers.asking.BoxModel`."""
        seen = self._seen(images)
        if not self.flip:
            return seen
        width = images.shape[3]
        other = [(mirrored(boxes, width), probabilities) for boxes, probabilities in self._seen(images.flip(3))]
        return [self._fused(pair, images) for pair in zip(seen, other, strict=True)]

    def _seen(self, images: Tensor) -> list[tuple[Tensor, Tensor]]:
        return [detections(scores[None], boxes[None])[0] for scores, boxes in decoded(self.model, images)]

    def _fused(self, views: Sequence[tuple[Tensor, Tensor]], images: Tensor) -> tuple[Tensor, Tensor]:
        height, width = images.shape[-2:]
        sides = images.new_tensor([width, height] * 2)
        shares = [
            Answer(box_convert(boxes / sides, "xyxy", "cxcywh").cpu().numpy(), probabilities.cpu().numpy())
            for boxes, probabilities in views
        ]
        fused = fuse_boxes(shares, torch.ones(len(views), len(self.names), dtype=torch.bool))
        boxes, probabilities = (torch.from_numpy(part).to(images.device) for part in (fused.boxes, fused.probabilities))
        return box_convert(boxes, "cxcywh", "xyxy") * sides, probabilities
