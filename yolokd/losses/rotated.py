"""Geometry of rotated boxes: decoding, upright rectangles, membership, and the overlap of their Gaussians.

A rotated box is x, y of its middle, width, height and angle in radians; the angle turns the x axis towards the y axis,
which points down in images. (w, h, θ), (w, h, θ + π) and (h, w, θ + π/2) are the same rectangle.

Source: Llerena et al., "Gaussian Bounding Boxes and Probabilistic Intersection-over-Union for Object Detection", 2021
(arXiv:2106.06072). A box is the Gaussian that a uniform density over it has as mean and covariance,
Σ = R diag(w²/12, h²/12) Rᵀ. With the Bhattacharyya distance B of two Gaussians,
B = ¼ dᵀ (Σ₁ + Σ₂)⁻¹ d + ½ ln(det((Σ₁ + Σ₂)/2) / √(det Σ₁ det Σ₂)), the Hellinger distance is H = √(1 − e^−B) and
ProbIoU = 1 − H.
Differs: the logarithm is written as ln(1 + sinh²α + cos²δ sinh²β + sin²δ sinh²γ), δ being the angle between the boxes,
and dᵀ (Σ₁ + Σ₂)⁻¹ d over a sum of squares. Neither subtracts, so that thin boxes are exact and equal boxes give exactly
0 with a gradient of 0, where Ultralytics' `probiou` adds 1e-7 at several places and gives 4e-4.
"""

from __future__ import annotations

import torch
from torch import Tensor

from yolokd.errors import ShapeError
from yolokd.losses.tensors import same_shape


def rotated_around(points: Tensor, distances: Tensor, angles: Tensor) -> Tensor:
    """Return rotated boxes, (…, 5), from points inside them and the distances to their sides.

    Args:
        points: x and y, (…, 2).
        distances: To the left, top, right and bottom side, along the box's own axes, (…, 4), in the unit of the points.
        angles: In radians, (…, 1).

    Example:
        >>> import torch
        >>> distances, angle = torch.tensor([0.0, 1.0, 4.0, 1.0]), torch.tensor([torch.pi / 2])
        >>> [round(value, 4) + 0.0 for value in rotated_around(torch.zeros(2), distances, angle).tolist()]
        [0.0, 2.0, 4.0, 2.0, 1.5708]
    """
    left_top, right_bottom = distances.chunk(2, -1)
    x, y = ((right_bottom - left_top) / 2).chunk(2, -1)  # of the middle, in the box's frame
    cos, sin = angles.cos(), angles.sin()
    middle = points + torch.cat((x * cos - y * sin, x * sin + y * cos), -1)
    return torch.cat((middle, left_top + right_bottom, angles), -1)


def upright(boxes: Tensor) -> Tensor:
    """Return the upright rectangles around rotated boxes, (…, 4) xyxy, of boxes (…, 5).

    Example:
        >>> import torch
        >>> upright(torch.tensor([0.0, 0.0, 4.0, 2.0, torch.pi / 2])).round(decimals=4).tolist()
        [-1.0, -2.0, 1.0, 2.0]
    """
    middle, sides, angles = boxes[..., :2], boxes[..., 2:4], boxes[..., 4:]
    cos, sin = angles.cos().abs(), angles.sin().abs()
    width, height = (sides.abs() / 2).chunk(2, -1)
    reach = torch.cat((width * cos + height * sin, width * sin + height * cos), -1)
    return torch.cat((middle - reach, middle + reach), -1)


def inside_rotated(points: Tensor, boxes: Tensor) -> Tensor:
    """Return which points lie inside which boxes, (…, A) bool; a point on a side does not.

    Args:
        points: x and y, (A, 2).
        boxes: (…, 5), in the same unit.

    Example:
        >>> import torch
        >>> inside_rotated(torch.tensor([[0.0, 1.5], [1.5, 0.0]]), torch.tensor([0.0, 0.0, 4.0, 2.0, torch.pi / 2]))
        tensor([ True, False])
    """
    x, y, width, height, angles = boxes[..., None].unbind(-2)  # (…, 1) each
    along, across = _turned(points[:, 0] - x, points[:, 1] - y, angles)
    return (along.abs() < width / 2) & (across.abs() < height / 2)


def hellinger_distance(boxes: Tensor, others: Tensor, *, floor: float = 0.0) -> Tensor:
    """Return 1 − ProbIoU of rotated boxes, pair by pair, (…) in [0, 1]: the Hellinger distance of their Gaussians.

    It is exactly 0, with a gradient of exactly 0, for equal boxes; beside them its slope is not small, as that of |x|.
    For boxes far apart it is 1 and its gradient vanishes. The angle of a square has no influence.

    Args:
        boxes: (…, 5), float32 or wider.
        others: The same shape.
        floor: Is added to the variances w²/12 and h²/12; it bounds the gradient of boxes without a width.

    Raises:
        ShapeError: The shapes differ, or are not (…, 5).

    Example:
        >>> import torch
        >>> box, turned = torch.tensor([0.0, 0.0, 4.0, 1.0, 0.0]), torch.tensor([0.0, 0.0, 4.0, 1.0, torch.pi / 2])
        >>> round(hellinger_distance(box, turned).item(), 4)  # √(1 − 8/17)
        0.7276
    """
    same_shape(boxes, others, what="boxes and others")
    if boxes.shape[-1:] != (5,):
        raise ShapeError(f"rotated boxes must have shape (…, 5), got {tuple(boxes.shape)}")
    distance = _bhattacharyya(boxes, others, 12 * floor)
    squared = -torch.expm1(-distance)
    apart = squared > torch.finfo(squared.dtype).tiny
    return torch.where(apart, torch.where(apart, squared, torch.ones_like(squared)).sqrt(), torch.zeros_like(squared))


def _bhattacharyya(boxes: Tensor, others: Tensor, least: float) -> Tensor:
    """Return the Bhattacharyya distance of the boxes' Gaussians; `least` is added to the squared sides."""
    x, y, width, height, angles = boxes.unbind(-1)
    other_x, other_y, other_width, other_height, other_angles = others.unbind(-1)
    u, v = width.square() + least, height.square() + least  # 12 times the variances
    p, q = other_width.square() + least, other_height.square() + least
    turn = angles - other_angles
    cos, sin = turn.cos().square(), turn.sin().square()
    log_u, log_v, log_p, log_q = (side.clamp_min(torch.finfo(side.dtype).tiny).log() for side in (u, v, p, q))
    wider, higher = log_u - log_p, log_v - log_q
    crossed = log_u - log_v + log_p - log_q
    shape = (
        ((wider + higher) / 4).sinh().square()
        + cos * ((wider - higher) / 4).sinh().square()
        + sin * (crossed / 4).sinh().square()
    )
    dx, dy = x - other_x, y - other_y
    (along, across), (other_along, other_across) = _turned(dx, dy, angles), _turned(dx, dy, other_angles)
    spread = v * along.square() + u * across.square() + q * other_along.square() + p * other_across.square()
    determinant = u * v + p * q + q * (u * cos + v * sin) + p * (u * sin + v * cos)  # of 12 · (Σ₁ + Σ₂)
    return 3 * spread / determinant.clamp_min(torch.finfo(determinant.dtype).tiny) + shape.log1p() / 2


def _turned(x: Tensor, y: Tensor, angles: Tensor) -> tuple[Tensor, Tensor]:
    """Return coordinates along and across boxes of these angles."""
    cos, sin = angles.cos(), angles.sin()
    return x * cos + y * sin, y * cos - x * sin
