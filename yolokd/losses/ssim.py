"""SSIM-KD: features that are alike in luminance, contrast and structure within every window of cells.

Source: de Rijk et al., "Structural Knowledge Distillation for Object Detection", NeurIPS 2022 (arXiv:2211.13133):
(1 − SSIM)/2 per channel on features brought to [0, 1], Gaussian window of 11 cells, σ 1.5, constants of Wang et al.
2004. No code was published; the paper points to kornia, whose border and denominator are used here.
Open in the paper and decided here: the range is taken per picture and level, over channels and cells, for student and
teacher apart.
Differs: returned per cell instead of summed, so that instance weights apply.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from yolokd.losses._tensors import as_pair, known, portions, widen, without_autocast
from yolokd.losses.base import Loss, Step, adapters

if TYPE_CHECKING:
    from yolokd.recipe import SSIMConfig

DENOMINATOR_EPS = 1e-12  # kornia's
RANGE_EPS = 1e-6
SMALL = 144  # cells of a map up to which one product with a matrix for all cells is faster than one per axis
RANGE_DIMS = {"image": (1, 2, 3), "channel": (2, 3), "level": (0, 1, 2, 3)}  # of (B, C, H, W)


@without_autocast
def ssim_map(
    student: Tensor, teacher: Tensor, *, window: int = 11, sigma: float = 1.5, data_range: float = 1.0
) -> Tensor:
    """Return the structural similarity of every channel at every cell, (B, C, H, W) in [−1, 1].

    The border is mirrored without repeating the edge cell. 1e-12 is added to the denominator.

    Args:
        student: Maps of the student, (B, C, H, W).
        teacher: Maps of the teacher, same shape; no gradient flows into them.
        window: Cells along each side of the Gaussian window; odd.
        sigma: Standard deviation of the window in cells; above 0.
        data_range: Largest minus smallest value that the maps can take; above 0.

    Raises:
        ShapeError: The two maps differ in shape or are not 4D.
        ValueError: The window is even, or the maps are smaller than window // 2 + 1; `sigma` or `data_range` is not
            above 0.
    """
    student, teacher = as_pair(student, teacher, rank=4)
    blur = _blur_of(student, window, sigma)
    factors = _factors(student, teacher, blur, *_constants(data_range))
    return factors.luminance * factors.structure / (factors.squares * factors.variances + DENOMINATOR_EPS)


@without_autocast
def ssim_loss_map(
    student: Tensor,
    teacher: Tensor,
    *,
    window: int = 11,
    sigma: float = 1.5,
    normalize: Literal["image", "channel", "level"] | None = "image",
) -> Tensor:
    """Return (1 − SSIM)/2 of every cell, averaged over channels, (B, H, W) in [0, 1]; 0 for identical maps.

    It cannot be differentiated twice.

    Args:
        student: Adapted student features, (B, C, H, W).
        teacher: Teacher features, same shape; no gradient flows into them.
        window: Cells along each side of the Gaussian window; odd.
        sigma: Standard deviation of the window in cells; above 0.
        normalize: What shares one range when the features are brought to [0, 1], student and teacher each by their
            own: a whole "image", each "channel" of it, the whole batch ("level"; over several processes each its own
            share), or None, if they are in [0, 1]. No gradient flows through the range.

    Raises:
        ShapeError: The two maps differ in shape or are not 4D.
        ValueError: As `ssim_map`; `normalize` is an unknown word.
    """
    known(normalize, (*RANGE_DIMS, None), "normalize")
    student, teacher = as_pair(student, teacher, rank=4)
    blur = _blur_of(student, window, sigma)
    ranges = [None, None] if normalize is None else [_range(x.detach(), normalize) for x in (student, teacher)]
    loss: Tensor = _Dissimilarity.apply(student, teacher, *ranges, blur)  # type: ignore[no-untyped-call]
    return (loss / 2).clamp(0, 1)


class _Range(NamedTuple):
    """What brings maps to [0, 1]; both broadcast against (B, C, H, W)."""

    low: Tensor
    span: Tensor

    def unit(self, x: Tensor) -> Tensor:
        return (x - self.low).div_(self.span)

    def of(self, pictures: slice) -> _Range:
        """The range of some pictures of the batch."""
        return self if len(self.low) == 1 else _Range(self.low[pictures], self.span[pictures])


def _range(x: Tensor, scope: str) -> _Range:
    low, high = x.amin(RANGE_DIMS[scope], keepdim=True), x.amax(RANGE_DIMS[scope], keepdim=True)
    return _Range(low, high - low + RANGE_EPS)


class _Blur(NamedTuple):
    """The Gaussian filter as two banded matrices, (H, H) and (W, W), the mirrored border folded in.

    Two products with such matrices take half the time of separable convolutions on a CPU, at the sizes of YOLO levels.
    Of small maps all cells go through one matrix, (H·W, H·W).
    """

    rows: Tensor
    columns: Tensor
    cells: Tensor | None

    def of(self, x: Tensor) -> Tensor:
        if self.cells is not None:
            return (x.flatten(2) @ self.cells.mT).view_as(x)
        return self.rows @ (x @ self.columns.mT)

    def adjoint(self, x: Tensor) -> Tensor:
        if self.cells is not None:
            return (x.flatten(2) @ self.cells).view_as(x)
        return self.rows.mT @ (x @ self.columns)


def _blur_of(x: Tensor, window: int, sigma: float) -> _Blur:
    """Check the window against maps (B, C, H, W) and return its filter."""
    if window < 1 or window % 2 == 0:
        raise ValueError(f"window must be odd and at least 1, got {window}")
    if sigma <= 0:
        raise ValueError(f"sigma must be above 0, got {sigma}")
    h, w = x.shape[2:]
    least = window // 2 + 1
    if min(h, w) < least:
        raise ValueError(f"a window of {window} needs maps of at least {least}×{least} cells, got {h}×{w}")
    rows, columns = _blur_matrix(h, window, sigma, x), _blur_matrix(w, window, sigma, x)
    return _Blur(rows, columns, torch.kron(rows, columns) if h * w <= SMALL else None)


def _blur_matrix(size: int, window: int, sigma: float, like: Tensor) -> Tensor:
    offsets = torch.arange(window, device=like.device) - window // 2
    taps = (-(offsets.to(like.dtype) ** 2) / (2 * sigma**2)).softmax(0)  # exp(−x²/2σ²), adding up to 1
    cells = torch.arange(size, device=like.device)
    seen = cells.unsqueeze(1) + offsets  # (size, window)
    mirrored = size - 1 - (size - 1 - seen.abs()).abs()
    return taps @ (mirrored.unsqueeze(2) == cells).to(like.dtype)  # (size, window, size) → (size, size)


def _constants(data_range: float) -> tuple[float, float]:
    if data_range <= 0:
        raise ValueError(f"data_range must be above 0, got {data_range}")
    return (0.01 * data_range) ** 2, (0.03 * data_range) ** 2


class _Factors(NamedTuple):
    """SSIM = luminance · structure / (squares · variances), each (B, C, H, W), and the blurred maps themselves."""

    mean_s: Tensor
    mean_t: Tensor
    luminance: Tensor  # 2 · mean_s · mean_t + c1
    structure: Tensor  # 2 · covariance + c2
    squares: Tensor  # mean_s² + mean_t² + c1
    variances: Tensor  # both variances + c2


def _factors(student: Tensor, teacher: Tensor, blur: _Blur, c1: float, c2: float) -> _Factors:
    """Blur four moments, s, t, s² + t² and s · t: enough, since only the sum of both variances occurs."""
    mean_s, mean_t = blur.of(student), blur.of(teacher)
    mean_st = mean_s * mean_t
    squares = (mean_s * mean_s).add_(mean_t * mean_t)  # two roundings as in 2 · mean_st, so that equal maps cancel
    # rounding may take a variance below 0; the floor keeps the denominator positive, and identical maps still cancel
    energy = (student * student).add_(teacher * teacher)
    variances = blur.of(energy).sub_(squares).clamp_min_(-c2 / 2).add_(c2)
    structure = blur.of(student * teacher).sub_(mean_st).mul_(2).add_(c2)
    return _Factors(mean_s, mean_t, mean_st.mul_(2).add_(c1), structure, squares.add_(c1), variances)


class _Dissimilarity(torch.autograd.Function):
    """1 − SSIM averaged over channels, (B, H, W), of maps that ranges bring to [0, 1]; its gradient by hand.

    Five tensors of the maps' size are kept for the backward pass, of which two, the maps themselves, exist anyway.
    """

    @staticmethod
    def forward(
        ctx: Any, student: Tensor, teacher: Tensor, own: _Range | None, other: _Range | None, blur: _Blur
    ) -> Tensor:
        kept = [torch.empty_like(student) for _ in range(3)] if ctx.needs_input_grad[0] else []
        loss = student.new_empty(len(student), *student.shape[2:])
        for part in portions(student):
            s, t = _unit(student, own, part), _unit(teacher, other, part)
            torch.mean(_dissimilarity(s, t, blur, [slope[part] for slope in kept]), 1, out=loss[part])
        if kept:
            ctx.save_for_backward(student, teacher, *kept)
            ctx.own, ctx.other, ctx.blur = own, other, blur
        return loss

    @staticmethod
    @torch.autograd.function.once_differentiable
    @without_autocast
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None, None]:
        student, teacher, *kept = ctx.saved_tensors
        result = torch.empty_like(student)
        for part in portions(student):
            each = gradient[part].unsqueeze(1) * (2 / student.shape[1])
            by_mean, by_squares, by_product = (ctx.blur.adjoint(slope[part] * each) for slope in kept)
            by_mean += by_squares.mul_(_unit(student, ctx.own, part))
            torch.sub(by_mean, by_product.mul_(_unit(teacher, ctx.other, part)), out=result[part])
            if ctx.own is not None:
                result[part] /= ctx.own.of(part).span
        return result, None, None, None, None


def _unit(x: Tensor, span: _Range | None, part: slice) -> Tensor:
    return x[part] if span is None else span.of(part).unit(x[part])


def _dissimilarity(student: Tensor, teacher: Tensor, blur: _Blur, slopes: Sequence[Tensor]) -> Tensor:
    """Return 1 − SSIM of every channel at every cell, (B, C, H, W).

    Args:
        student: Maps in [0, 1], (B, C, H, W).
        teacher: The same of the teacher.
        blur: The window.
        slopes: Empty, or three tensors of the maps' shape to be filled with half the slopes by the blurred student, by
            its blurred square, and by the blurred product with the teacher, the last one with the sign changed.
    """
    mean_s, mean_t, luminance, structure, squares, variances = _factors(student, teacher, blur, *_constants(1.0))
    denominator = squares * variances
    # not 1 − numerator / denominator: the epsilon would charge up to 1e-5 for identical dark areas
    loss = denominator - luminance * structure
    scale = denominator.add_(DENOMINATOR_EPS).reciprocal_()
    loss *= scale
    if slopes:
        by_denominator = (1 - loss).mul_(scale)
        by_mean = (variances - squares).mul_(mean_s).mul_(by_denominator)
        torch.sub(by_mean, structure.sub_(luminance).mul_(mean_t).mul_(scale), out=slopes[0])
        torch.mul(squares, by_denominator, out=slopes[1])
        torch.mul(luminance, scale, out=slopes[2])
    return loss


class SSIM(Loss):
    """(1 − SSIM)/2 averaged over the cells of each level, levels summed; 1×1 adapters where channels differ."""

    terms = ("ssim",)

    def __init__(self, config: SSIMConfig) -> None:
        self.config = config
        self.levels = tuple(config.levels)

    def build(self, student: Mapping[str, int], teacher: Mapping[str, int]) -> nn.ModuleDict:
        """Make an adapter for each level of the recipe."""
        return adapters(self.levels, student, teacher)

    @without_autocast
    def maps(self, step: Step, parts: nn.ModuleDict, active: Collection[str]) -> dict[str, Tensor]:
        """Return {"ssim": (B, A)}; on small levels the window shrinks to the largest one that their border allows."""
        maps = {}
        for level in self.levels:
            h, w = step.grid.shapes[level]
            loss = ssim_loss_map(
                parts[level](widen(step.student[level])),
                step.teacher[level],
                window=min(self.config.window, 2 * min(h, w) - 1),
                sigma=self.config.sigma,
                normalize=self.config.normalize,
            )
            maps[level] = loss / (h * w)
        return {"ssim": step.grid.spread(maps)}
