"""Masks of instances as COCO stores them: run lengths, from pixels and from the polygons of YOLO labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

Rle = dict[str, Any]  # `size` (height, width) and compressed `counts`


def encode(masks: Tensor) -> list[Rle]:
    """Return the run lengths of masks, (N, H, W) of 0 and 1."""
    from faster_coco_eval.core import mask as rle

    if not len(masks):
        return []
    pixels = np.asfortranarray(masks.permute(1, 2, 0).cpu().numpy().astype(np.uint8))  # (H, W, N)
    found: list[Rle] = rle.encode(pixels)
    return found


def of_polygon(polygon: Sequence[float], *, width: int, height: int) -> Rle:
    """Return the run lengths of a polygon's inside, as COCO's own tools fill it.

    Args:
        polygon: x, y, x, y, … as shares of the image, at least three points.
        width: Of the image, in pixels.
        height: Likewise.

    Example:
        >>> area(of_polygon([0, 0, 0.5, 0, 0.5, 1, 0, 1], width=8, height=4))
        16.0
    """
    from faster_coco_eval.core import mask as rle

    scaled = [value * (height if place % 2 else width) for place, value in enumerate(polygon)]
    return dict(rle.merge(rle.frPyObjects([scaled], height, width)))


def mask_overlap(
    found: Sequence[Mapping[str, Any]], objects: Sequence[Mapping[str, Any]], crowds: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """Return the IoU of each detection's mask with each object's, (D, G); of a crowd the share of the detection in it.

    Args:
        found: D detections with their `segmentation`, run lengths.
        objects: G objects, likewise.
        crowds: Which of the objects are crowds, (G,).
    """
    from faster_coco_eval.core import mask as rle

    ours, theirs = ([dict(record["segmentation"]) for record in records] for records in (found, objects))
    overlap = np.asarray(rle.iou(ours, theirs, [int(crowd) for crowd in crowds]), np.float64)
    return overlap.reshape(len(ours), len(theirs))


def area(mask: Rle) -> float:
    """Return the number of pixels of a mask."""
    from faster_coco_eval.core import mask as rle

    return float(rle.area(mask))
