"""Outputs of a deployed network by their meaning: boxes and scores, and what its task gives beside them.

The first output is (4 + K + E, A): boxes and K scores of A anchors, and E further numbers of each, such as mask
coefficients; or, without need of NMS, (N, 6 + E). Behind it come outputs of the whole image, such as prototypes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from yolokd.backend.tasks import Output
from yolokd.deploy.parity import MOST_BOX_PX, MOST_SCORE, Gap, is_final


@dataclass(frozen=True, eq=False)
class Outputs:
    """What a network gives for one image.

    Attributes:
        boxes: Boxes and scores, (4 + K, A) or (N, 6), as `yolokd.deploy.parity` compares them.
        columns: Further numbers of each anchor, (A, E), or of each row, (N, E); E may be 0.
        of_image: Outputs of the whole image.
    """

    boxes: Tensor
    columns: Tensor
    of_image: tuple[Tensor, ...]


def split(tensors: Sequence[Tensor], classes: int, *, final: bool) -> Outputs:
    """Return the outputs of a network for one image by their meaning.

    Args:
        tensors: From `yolokd.backend.runtimes.open_run`.
        classes: Number of classes, K.
        final: Whether the output needs no NMS.

    Raises:
        ValueError: The first output has no columns for boxes and scores.
    """
    first, *rest = tensors
    width, axis = (6, -1) if final else (4 + classes, 0)
    if first.ndim != 2 or first.shape[axis] < width:
        raise ValueError(f"an output of the shape {tuple(first.shape)} holds no boxes and scores of {classes} classes")
    rows = first if final else first.mT
    boxes = rows[:, :width]
    return Outputs(boxes if final else boxes.mT, rows[:, width:], tuple(rest))


def gaps(pairs: Iterable[tuple[Outputs, Outputs]], outputs: Sequence[Output]) -> tuple[Gap, ...]:
    """Return the largest differences over all images of what a task gives beside boxes and scores.

    Anchors are compared place by place. Rows of an output that needs no NMS may change places: each is compared with
    the nearest of the rows that have its class, its box and its score within the limits of boxes and scores.

    Args:
        pairs: Outputs of the checkpoint and of the exported network.
        outputs: Of the task.

    Returns:
        Infinity for an output that one of the two lacks, that has another shape, or that is not finite.

    Raises:
        ValueError: The checkpoint gives an output that the task does not list.
    """
    most = {output.name: 0.0 for output in outputs}
    for reference, exported in pairs:
        _check_listed(reference, outputs)
        images = iter(zip(_padded(reference, outputs), _padded(exported, outputs), strict=True))
        for output in outputs:
            found = _largest(*next(images)) if output.of_image else _of_columns(reference, exported)
            most[output.name] = max(most[output.name], found)
    return tuple(Gap(output.name, most[output.name], output.limit) for output in outputs)


def _check_listed(found: Outputs, outputs: Sequence[Output]) -> None:
    listed = sum(output.of_image for output in outputs)
    if len(found.of_image) > listed or (found.columns.shape[-1] and listed == len(outputs)):
        raise ValueError("the model has outputs that its task does not list")


def _padded(found: Outputs, outputs: Sequence[Output]) -> list[Tensor | None]:
    """The outputs of the whole image, None for those that are missing."""
    wanted = sum(output.of_image for output in outputs)
    return [*found.of_image[:wanted], *[None] * (wanted - len(found.of_image))]


def _largest(reference: Tensor | None, exported: Tensor | None) -> float:
    if reference is None or exported is None or reference.shape != exported.shape or not reference.numel():
        return float("inf")
    gap = (reference - exported).abs()
    return float(gap.max()) if gap.isfinite().all() else float("inf")


def _of_columns(reference: Outputs, exported: Outputs) -> float:
    whole = _largest(reference.columns, exported.columns)
    if not is_final(reference.boxes) or whole == float("inf"):
        return whole
    ours, theirs = reference.boxes, exported.boxes
    score = float((ours[:, 4] - theirs[:, 4]).abs().max())
    clear = ours[:, 4] > ours[-1, 4] + 2 * score + 1e-6  # of the others, one may have missed the cut
    near = (ours[:, None, :4] - theirs[None, :, :4]).abs().amax(-1) <= MOST_BOX_PX  # (N, N)
    near &= (ours[:, None, 4] - theirs[None, :, 4]).abs() <= MOST_SCORE
    near &= ours[:, None, 5] == theirs[None, :, 5]
    apart = torch.cdist(reference.columns, exported.columns, p=float("inf")).masked_fill(~near, float("inf"))
    nearest = apart.amin(1)[clear]
    return float(nearest.max()) if len(nearest) else 0.0
