"""Models that give boxes, whatever their task: which they are, and what a pass of each gives.

Every head that derives from Ultralytics' `Detect` gives class scores and upright boxes at its anchors, with extras such
as masks or keypoints beside them; RT-DETR gives both for its queries. Rotated boxes (OBB) are none of these.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torchvision.ops import box_convert
from ultralytics.nn.distill_model import DistillationModel
from ultralytics.nn.modules.head import OBB, Detect, RTDETRDecoder, WorldDetect, YOLOEDetect

from yolokd.backend.checkpoints import load
from yolokd.backend.heads import are_levels, as_head, grid_of, neck_features
from yolokd.errors import WeightsError


def load_box_model(path: Path) -> Any:
    """Load a model that gives upright boxes, in float32 and evaluation mode; of an unfinished run, its student.

    Raises:
        WeightsError: As `yolokd.backend.checkpoints.load`, or the model gives no upright boxes, takes other than color
            images, or was fused for inference.
    """
    model: Any = load(path)[0]
    if isinstance(model, DistillationModel):
        model = model.student_model
    head = head_of(model)
    kind = type(model).__name__
    if isinstance(head, OBB):
        raise WeightsError(f"'{path}' gives rotated boxes ({kind}). Give a detect, segment or pose model.")
    if not isinstance(head, (Detect, RTDETRDecoder)):
        raise WeightsError(f"'{path}' gives no boxes ({kind}). Give a detect, segment or pose model.")
    if (channels := int(model.yaml.get("channels", 3))) != 3:
        raise WeightsError(f"'{path}' takes images of {channels} channels. Give a model for color images.")
    if isinstance(head, Detect) and head.cv2 is None and not is_prompt_free(model):
        raise WeightsError(
            f"'{path}' was fused for inference and lost its one-to-many branch. Give the unfused checkpoint."
        )
    return model


def head_of(model: Any) -> Any:
    """Return the last layer of a model; None of one that is no list of layers."""
    layers = getattr(model, "model", None)
    return layers[-1] if isinstance(layers, torch.nn.Sequential) and len(layers) else None


def takes_prompts(model: Any) -> bool:
    """Whether class names can be given to a model as prompts: YOLO-World, and YOLOE whose vocabulary is not fused."""
    head = head_of(model)
    if isinstance(head, YOLOEDetect):
        return not (head.is_fused or is_prompt_free(model))
    return isinstance(head, WorldDetect)


def takes_text(model: Any) -> bool:
    """Whether a pass takes the embeddings of class names, which only the model's own `forward` hands on."""
    return isinstance(head_of(model), (WorldDetect, YOLOEDetect))


def is_prompt_free(model: Any) -> bool:
    """Whether this is a YOLOE with a built-in vocabulary, whose head gives scores at some of the anchors only."""
    return hasattr(head_of(model), "lrpc")


def is_on_grid(model: Any) -> bool:
    """Whether a model gives scores and boxes at every anchor of levels that have names."""
    head = head_of(model)
    if not isinstance(head, Detect) or is_prompt_free(model):
        return False
    return are_levels(head.stride.tolist())


def stride_of(model: Any) -> int:
    """Return the largest stride of a model, in pixels."""
    return int(max(model.stride.tolist()))


def raw_outputs(model: Any, images: Tensor) -> dict[str, Any]:
    """Return the raw outputs of a detect head in evaluation mode, as `yolokd.backend.heads.split_branches` reads them.

    Args:
        model: From `load_box_model`, with a head that derives from `Detect`.
        images: (B, 3, H, W) in [0, 1].
    """
    raw: dict[str, Any] = model(images)[1]
    return raw


def decoded(model: Any, images: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the class probabilities (Q, K) and the boxes (Q, 4), xyxy in pixels, of each image, in the model's order.

    RT-DETR sees its images as it was trained: stretched to a square of the longer side.

    Args:
        model: From `load_box_model`.
        images: (B, 3, H, W) in [0, 1].
    """
    if isinstance(head_of(model), RTDETRDecoder):
        yield from _of_queries(model, images)
    elif is_prompt_free(model):  # one by one: in a batch, an image gets the anchors of all others
        for image in images:
            yield _of_some_anchors(model, image[None])
    else:
        yield from _of_anchors(model, images)


def _of_queries(model: Any, images: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    height, width = images.shape[-2:]
    if height != width:
        side = max(height, width)
        images = torch.nn.functional.interpolate(images, (side, side), mode="bilinear", align_corners=False)
    boxes, logits = (part[-1] for part in model(images)[1][:2])  # of the last decoder layer: (B, Q, 4), (B, Q, K)
    yield from zip(logits.sigmoid(), _corners(boxes) * boxes.new_tensor([width, height] * 2), strict=True)


def _of_anchors(model: Any, images: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    head = head_of(model)
    head.end2end = False  # else its last step picks boxes, with one class each
    output = model(images)[0]
    rows = (output[0] if isinstance(output, tuple) else output).mT  # (B, A, 4 + K + extras)
    yield from zip(rows[..., 4 : 4 + head.nc], _corners(rows[..., :4]), strict=True)


def _of_some_anchors(model: Any, image: Tensor) -> tuple[Tensor, Tensor]:
    raw = raw_outputs(model, image)
    grid = grid_of(neck_features(raw, image))
    boxes = as_head({"scores": raw["boxes"][:, :1], "boxes": raw["boxes"]}, grid, None).boxes[0]  # (A, 4)
    return raw["scores"][0].mT.sigmoid(), boxes[raw["index"]]


def _corners(boxes: Tensor) -> Tensor:
    corners: Tensor = box_convert(boxes, "cxcywh", "xyxy")
    return corners
