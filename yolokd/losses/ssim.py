"""SSIM-KD: features that are alike in luminance, contrast and structure within every window of cells.

Source: de Rijk et al., "Structural Knowledge Distillation for Object Detection", NeurIPS 2022 (arXiv:2211.13133):
(1 − SSIM)/2 per channel on features brought to [0, 1], Gaussian window of 11 cells, σ 1.5, constants of Wang et al.
2004. No code was published; the paper points to kornia, whose border and denominator are used here.
Open in the paper and decided here: the range is taken per image and level, over channels and cells, for student and
teacher apart.
Differs: returned per cell instead of summed, so that instance weights apply.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from yolokd.losses.base import FeatureLoss, Requirements, Step, adapters
from yolokd.losses.tensors import as_pair, known, portions, widen, without_autocast

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

    Example:
        >>> import torch
        >>> maps = torch.full((1, 2, 8, 8), 0.5)
        >>> ssim_map(maps, maps).shape
        torch.Size([1, 2, 8, 8])
        >>> round(ssim_map(maps, maps / 2).mean().item(), 4)
        0.8001
    """
    student, teacher = as_pair(student, teacher, rank=4)
    blur = _blur_of(student, window, sigma)
    c1, c2 = _constants(data_range)
    mean_s, mean_t = blur.of(student), blur.of(teacher)
    squares = mean_s**2 + mean_t**2
    luminance = 2 * mean_s * mean_t + c1
    structure = 2 * (blur.of(student * teacher) - mean_s * mean_t) + c2
    # rounding may take a variance below 0; the floor keeps the denominator positive
    variances = (blur.of(student**2 + teacher**2) - squares).clamp_min(-c2 / 2) + c2
    return luminance * structure / ((squares + c1) * variances + DENOMINATOR_EPS)


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

    Example:
        >>> import torch
        >>> features = torch.rand(2, 16, 8, 8, generator=torch.Generator().manual_seed(0))
        >>> loss = ssim_loss_map(1 - features, features)
        >>> loss.shape, bool(loss.mean() > 0.5)
        (torch.Size([2, 8, 8]), True)
        >>> ssim_loss_map(features, features).max().item()
        0.0
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

    def of(self, images: slice) -> _Range:
        """The range of some images of the batch."""
        return self if len(self.low) == 1 else _Range(self.low[images], self.span[images])


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

    def into(self, out: Tensor, x: Tensor, scratch: Tensor, *, adjoint: bool = False) -> Tensor:
        """Write what the filter, or its adjoint, makes of maps into `out`; all contiguous (n, C, H, W)."""
        h, w = x.shape[2:]
        if self.cells is not None:
            torch.mm(x.view(-1, h * w), self.cells if adjoint else self.cells.mT, out=out.view(-1, h * w))
            return out
        rows, columns = (self.rows.mT, self.columns) if adjoint else (self.rows, self.columns.mT)
        torch.mm(x.view(-1, w), columns, out=scratch.view(-1, w))
        lines = scratch.view(-1, h, w)
        torch.bmm(rows.expand(len(lines), h, h), lines, out=out.view(-1, h, w))
        return out


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


class _Dissimilarity(torch.autograd.Function):
    """1 − SSIM averaged over channels, (B, H, W), of maps that ranges bring to [0, 1]; its gradient by hand.

    Five tensors of the maps' size are kept for the backward pass, of which two, the maps themselves, exist anyway. What
    is made on the way lies in a few buffers: on a CPU, asking for memory anew costs more than the arithmetic.
    """

    @staticmethod
    def forward(
        ctx: Any, student: Tensor, teacher: Tensor, own: _Range | None, other: _Range | None, blur: _Blur
    ) -> Tensor:
        kept = [_dense(student) for _ in range(3)] if ctx.needs_input_grad[0] else []
        loss = student.new_empty(len(student), *student.shape[2:])
        parts = portions(student)
        buffers = [_dense(student[parts[0]]) for _ in range(9)]
        for part in parts:
            s, t, *work = (buffer[: len(loss[part])] for buffer in buffers)
            _unit(s, student, own, part)
            _unit(t, teacher, other, part)
            torch.mean(_dissimilarity(s, t, blur, work, [slope[part] for slope in kept]), 1, out=loss[part])
        if kept:
            ctx.save_for_backward(student, teacher, *kept)
            ctx.own, ctx.other, ctx.blur = own, other, blur
        return loss

    @staticmethod
    @torch.autograd.function.once_differentiable
    @without_autocast
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None, None]:
        student, teacher, *kept = ctx.saved_tensors
        result = _dense(student)
        parts = portions(student)
        buffers = [_dense(student[parts[0]]) for _ in range(3)]
        for part in parts:
            x, y, scratch = (buffer[: len(result[part])] for buffer in buffers)
            each = gradient[part].unsqueeze(1) * (2 / student.shape[1])
            by_mean, by_squares, by_product = (slope[part] for slope in kept)
            ctx.blur.into(result[part], torch.mul(by_mean, each, out=x), scratch, adjoint=True)
            ctx.blur.into(y, torch.mul(by_squares, each, out=x), scratch, adjoint=True)
            result[part].addcmul_(y, _unit(x, student, ctx.own, part))
            ctx.blur.into(y, torch.mul(by_product, each, out=x), scratch, adjoint=True)
            result[part].addcmul_(y, _unit(x, teacher, ctx.other, part), value=-1)
            if ctx.own is not None:
                result[part].div_(ctx.own.of(part).span)
        return result, None, None, None, None


def _dense(like: Tensor) -> Tensor:
    return like.new_empty(like.shape)


def _unit(out: Tensor, x: Tensor, span: _Range | None, part: slice) -> Tensor:
    """Write some images of the maps, brought to [0, 1], into `out`."""
    if span is None:
        return out.copy_(x[part])
    span = span.of(part)
    return torch.sub(x[part], span.low, out=out).div_(span.span)


def _dissimilarity(s: Tensor, t: Tensor, blur: _Blur, work: Sequence[Tensor], slopes: Sequence[Tensor]) -> Tensor:
    """Return 1 − SSIM of every channel at every cell, (B, C, H, W), in one of the buffers.

    With d = s − t, and the blurred map for the mean: the luminance of SSIM is 1 − a, a = mean(d)² / (mean(s)² +
    mean(t)² + c1), the rest of it 1 − b, b = var(d) / (var(s) + var(t) + c2). So 1 − SSIM = a + b · (1 − a), exactly 0
    for equal maps, however the rest is rounded.

    Args:
        s: Maps in [0, 1], contiguous; is written over.
        t: The same of the teacher; is written over.
        blur: The window.
        work: Seven buffers of the maps' shape.
        slopes: Empty, or three tensors of the maps' shape to be filled with the slopes by mean(s), halved, by mean(s²),
            and by mean(s · t), halved and with the sign changed.
    """
    mean_s, mean_t, squares, variances, between, other, scratch = work
    c1, c2 = _constants(1.0)
    one = s.new_ones(())
    blur.into(mean_s, s, scratch)
    blur.into(mean_t, t, scratch)
    torch.mul(mean_s, mean_s, out=squares).addcmul_(mean_t, mean_t).add_(c1)
    difference = torch.sub(mean_s, mean_t, out=mean_t)
    blur.into(variances, torch.mul(s, s, out=other).addcmul_(t, t), scratch)
    # rounding may take a variance below 0; the floor keeps the denominator positive
    variances.sub_(squares).clamp_min_(-c1 - c2 / 2).add_(c1 + c2)
    blur.into(between, torch.sub(s, t, out=other).square_(), scratch)
    b = between.addcmul_(difference, difference, value=-1).div_(variances)
    a = torch.mul(difference, difference, out=s).div_(squares)
    rest = torch.sub(one, a, out=t)
    loss = torch.addcmul(a, b, rest, out=scratch)
    if slopes:
        by_mean, by_squares, by_product = slopes
        torch.div(rest, variances, out=by_product)
        torch.sub(one, b, out=other)
        torch.mul(by_product, other, out=by_squares)
        other.div_(squares)
        b.mul_(by_product).addcmul_(a, other, value=-1).mul_(mean_s)
        torch.addcmul(b, difference, other.sub_(by_product), out=by_mean)
    return loss


class SSIM(FeatureLoss):
    """(1 − SSIM)/2 averaged over the cells of each level, levels summed; 1×1 adapters where channels differ."""

    terms = ("ssim",)

    def __init__(self, config: SSIMConfig) -> None:
        self.config = config
        self.requires = Requirements(levels=tuple(config.levels or ()))

    def build(self, student: Mapping[str, int], teacher: Mapping[str, int]) -> nn.ModuleDict:
        """Make an adapter for each level of the recipe."""
        return adapters(self.levels, student, teacher)

    def level_maps(self, step: Step, parts: nn.ModuleDict, level: str, active: Collection[str]) -> dict[str, Tensor]:
        """Return {"ssim": (B, H, W)}; on small levels the window shrinks to the largest that their border allows."""
        h, w = step.grid.shapes[level]
        loss = ssim_loss_map(
            parts[level](widen(step.student[level])),
            step.teacher[level],
            window=min(self.config.window, 2 * min(h, w) - 1),
            sigma=self.config.sigma,
            normalize=self.config.normalize,
        )
        return {"ssim": loss / (h * w)}
