"""IKD: images that suit the distillation, by the size of their objects, and adversarial examples of the batch.

Source: Liang et al., "Exploring Inconsistent Knowledge Distillation for Object Detection with Data Augmentation",
ACM MM 2023, and the authors' code (JWLiang007/IKD).
Differs: noise is rounded, not truncated, to 8 bits, so that it does not darken; a crop without objects is drawn again
on the same image. The attack leaves a zero gradient at zero instead of dividing by it, works on the plain range
[0, 1], and does without random resizing, which would move the objects away from their labels.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from yolokd.errors import ShapeError
from yolokd.losses.tensors import widen, without_autocast

SMALL_AREA = 32 * 32  # square pixels of the original image; below it an object is small
DRAWS = 50  # of a crop, before the image is left whole

Image = npt.NDArray[np.uint8]
Boxes = npt.NDArray[np.floating[Any]]


def sample_rule(boxes_wh: npt.ArrayLike | Tensor) -> Literal["noise", "crop"]:
    """Return what suits an image: "noise" if all of its objects are small, also if it has none, else "crop".

    Args:
        boxes_wh: (N, 2), widths and heights in pixels of the original image. Small is an area below 32² = 1024,
            not rounded.

    Raises:
        ShapeError: The sizes are not (N, 2).

    Example:
        >>> sample_rule([[20, 30], [10, 10]])
        'noise'
        >>> sample_rule([[20, 30], [100, 50]])
        'crop'
    """
    sizes = np.asarray(boxes_wh.detach().cpu().double() if isinstance(boxes_wh, Tensor) else boxes_wh, dtype=np.float64)
    if sizes.size and (sizes.ndim != 2 or sizes.shape[1] != 2):
        raise ShapeError(f"boxes_wh must have shape (N, 2), got {sizes.shape}")
    return "noise" if (sizes.reshape(-1, 2).prod(1) < SMALL_AREA).all() else "crop"


def noisy(image: Image, rng: np.random.Generator, *, sigma: float = 0.08) -> Image:
    """Return a copy of the image with Gaussian noise, clipped to its range; the image itself stays as it is.

    Args:
        image: (H, W, C) or any other shape, 0 to 255.
        rng: Where the numbers come from.
        sigma: Standard deviation, as a share of the full range; 0.08 is the mildest of the common corruptions.
    """
    noise = rng.standard_normal(image.shape, dtype=np.float32)
    noise *= 255 * sigma
    noise += image
    return np.rint(noise, out=noise).clip(0, 255, out=noise).astype(np.uint8)


def random_crop(
    image: Image, boxes_xyxy_px: Boxes, rng: np.random.Generator, *, low: float = 0.8
) -> tuple[Image, Boxes, npt.NDArray[np.intp]]:
    """Cut a random window that still shows an object.

    Height and width of the window are independent shares of the image's, uniform between `low` and 1 and rounded to
    pixels; it lies anywhere, evenly. A box survives if any of it, however thin, lies in the window, and is clipped to
    it. If there are boxes and none survives, the window is drawn again, up to 50 times, after which the image stays
    whole.

    Args:
        image: (H, W, C), not changed.
        boxes_xyxy_px: (N, 4) in pixels of `image`, not changed.
        rng: Where the numbers come from.
        low: Smallest share of a side; above 0, at most 1.

    Returns:
        A copy of the window, the boxes that survive in its pixels, (M, 4), and their indices among the N, (M,).

    Raises:
        ShapeError: The boxes are not (N, 4).
        ValueError: `low` is not above 0 and at most 1.
    """
    if not 0 < low <= 1:
        raise ValueError(f"low must be above 0 and at most 1, got {low}")
    if boxes_xyxy_px.ndim != 2 or boxes_xyxy_px.shape[1] != 4:
        raise ShapeError(f"boxes_xyxy_px must have shape (N, 4), got {boxes_xyxy_px.shape}")
    height, width = image.shape[:2]
    for _ in range(DRAWS):
        ratio_h, ratio_w = rng.uniform(low, 1, 2)
        size_h, size_w = max(round(height * ratio_h), 1), max(round(width * ratio_w), 1)
        top, left = int(rng.integers(height - size_h + 1)), int(rng.integers(width - size_w + 1))
        boxes, kept = clipped(boxes_xyxy_px, (left, top, left + size_w, top + size_h))
        if len(kept) or not len(boxes_xyxy_px):
            return image[top : top + size_h, left : left + size_w].copy(), boxes, kept
    return image.copy(), boxes_xyxy_px.copy(), np.arange(len(boxes_xyxy_px))


def clipped(boxes_xyxy_px: Boxes, window: tuple[int, int, int, int]) -> tuple[Boxes, npt.NDArray[np.intp]]:
    """Return the boxes in the pixels of a window (x, y, x, y), clipped to it, without those of no area; and which."""
    left, top, right, bottom = window
    origin = np.array((left, top, left, top), dtype=boxes_xyxy_px.dtype)
    limits = np.array((right - left, bottom - top) * 2, dtype=boxes_xyxy_px.dtype)
    boxes = (boxes_xyxy_px - origin).clip(0, limits)
    kept = np.flatnonzero((boxes[:, 2:] > boxes[:, :2]).all(1))
    return boxes[kept], kept


@without_autocast
def adversarial(
    images: Tensor,
    loss_fn: Callable[[Tensor], Tensor],
    *,
    eps: float,
    step: float,
    steps: int,
    momentum: float = 1.0,
) -> Tensor:
    """Change a batch within small bounds so that a loss grows: sign steps along the accumulated gradient.

    In each step the gradient, divided by its L1 norm over the image (a zero gradient stays zero), is added to
    `momentum` × the sum so far, and the images move by `step` along the sign of it. No random start. Gradients are
    taken with respect to the images alone: no parameter's `.grad` is touched, and none is computed for parameters.

    Args:
        images: (B, 3, H, W) in [0, 1]; not changed, no gradient flows into it.
        loss_fn: Images to the loss of each image, (B,); it runs with gradients on and autocast off.
        eps: Largest change of a value, in 1/255.
        step: Change per step, in 1/255.
        steps: Number of steps.
        momentum: Share of the sum of the earlier gradients that is kept.

    Returns:
        Images within ±eps of the given ones and within [0, 1], detached, float32 or wider.

    Raises:
        ShapeError: The images are not 4D.

    Example:
        >>> import torch
        >>> images = torch.full((1, 3, 2, 2), 0.5)
        >>> found = adversarial(images, lambda x: x.sum((1, 2, 3)), eps=8, step=2, steps=3)
        >>> round(255 * (found - images).max().item(), 3)
        6.0
    """
    if images.ndim != 4:
        raise ShapeError(f"images must have shape (B, 3, H, W), got {tuple(images.shape)}")
    clean = widen(images.detach())
    lowest, highest = (clean - eps / 255).clamp(min=0), (clean + eps / 255).clamp(max=1)
    example, running = clean.clamp(lowest, highest), torch.zeros_like(clean)
    for _ in range(steps):
        with torch.enable_grad():
            free = example.detach().requires_grad_()
            (gradient,) = torch.autograd.grad(loss_fn(free).sum(), free)
        norm = gradient.abs().sum((1, 2, 3), keepdim=True)
        running = momentum * running + gradient / norm.where(norm > 0, 1.0)
        example = (example + step / 255 * running.sign()).clamp(lowest, highest)
    return example
