"""Boxes of several detectors as one set, without anchors in common.

Source: Solovyev et al., "Weighted boxes fusion: Ensembling boxes from different object detection models", Image and
Vision Computing 2021, by the authors' package `ensemble-boxes`, an optional requirement.
Differs: a score is an average over the detectors that know the class, not over all; every box keeps the probabilities
of all classes; a box that a stronger one covers is dropped, whatever their classes, as of a single detector.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchvision.ops import box_convert, box_iou

from yolokd.errors import ShapeError, UserError
from yolokd.loaders.answers import Answer
from yolokd.teachers.asking import detections

SAME = 0.55  # IoU from which on boxes are of one object; the authors' choice
Floats = NDArray[np.float64]


def fuse_boxes(answers: Sequence[Answer], know: Tensor, *, overlap: float = SAME) -> Answer:
    """Return one answer for an image from those of several detectors, strongest box first.

    The class of a box is the one of its largest probability. Per class, weighted boxes fusion joins the boxes of the
    detectors that know it: a fused box is the mean of its cluster, weighted by score, and its score is the mean of the
    cluster, less the share of these detectors that did not find the object.

    The probabilities of a fused box are means over the detectors that know each class. Of each detector one box counts:
    of its boxes whose IoU with the fused box exceeds `overlap` the strongest of the same class, else the one of the
    largest IoU; a detector without such a box counts as zeros. The probability of the fused box's own class is at least
    the score from weighted boxes fusion. Last, `yolokd.teachers.asking.detections` drops duplicates across classes and
    boxes without a probability above its least one.

    Args:
        answers: Of T detectors, over K united classes; boxes are cut to the image, and empty ones dropped.
        know: Which detector knows which class, (T, K) bool; each class is known by at least one.
        overlap: IoU above which boxes are of one object.

    Raises:
        ShapeError: `know` does not fit the answers.
        UserError: The package `ensemble-boxes` is not installed.
    """
    if know.shape != (len(answers), *{answer.probabilities.shape[1] for answer in answers}):
        shapes = ", ".join(str(answer.probabilities.shape) for answer in answers)
        raise ShapeError(f"know must be (detectors, classes), got {tuple(know.shape)} for probabilities of {shapes}.")
    require_fusion()
    mask = know.cpu().numpy()
    sets = [_Boxes.of(answer, known) for answer, known in zip(answers, mask, strict=True)]
    boxes, rows = [np.zeros((0, 4))], [np.zeros((0, mask.shape[1]))]
    for kind in sorted({int(kind) for one in sets for kind in one.kinds}):
        experts = [one for one, known in zip(sets, mask, strict=True) if known[kind]]
        fused, scores = _weighted(experts, kind, overlap)
        own = _probabilities(fused, kind, sets, mask, overlap)
        own[:, kind] = np.maximum(own[:, kind], scores)
        boxes.append(fused)
        rows.append(own)
    ((found, probabilities),) = detections(_batch(np.concatenate(rows)), _batch(np.concatenate(boxes)))
    return Answer(box_convert(found, "xyxy", "cxcywh").numpy(), probabilities.numpy())


def require_fusion() -> None:
    """Raise `UserError` unless the package for weighted boxes fusion is installed."""
    if importlib.util.find_spec("ensemble_boxes") is None:
        raise UserError("Fusing the boxes of models needs ensemble-boxes: pip install 'yolokd[footage]'")


class _Boxes:
    """The boxes of one detector that has some: corners in shares (N, 4), probabilities (N, K), classes and scores."""

    def __init__(self, corners: Floats, probabilities: Floats) -> None:
        self.corners, self.probabilities = corners, probabilities
        self.kinds, self.scores = probabilities.argmax(1), probabilities.max(1, initial=0.0)

    @classmethod
    def of(cls, answer: Answer, known: NDArray[np.bool_]) -> _Boxes:
        """Return an answer's boxes inside the image, with the classes that the detector knows."""
        corners = box_convert(torch.from_numpy(answer.boxes).double().view(-1, 4), "cxcywh", "xyxy").clamp(0, 1).numpy()
        probabilities = answer.probabilities.astype(np.float64) * known
        solid = (corners[:, 2:] > corners[:, :2]).all(1) & (probabilities.max(1, initial=0.0) > 0)
        return cls(corners[solid], probabilities[solid])


def _weighted(experts: Sequence[_Boxes], kind: int, overlap: float) -> tuple[Floats, Floats]:
    """Return the fused boxes of a class, (N, 4), and their scores, (N,)."""
    fusion: Any = importlib.import_module("ensemble_boxes")
    chosen = [one.kinds == kind for one in experts]
    boxes, scores, _ = fusion.weighted_boxes_fusion(
        [one.corners[own] for one, own in zip(experts, chosen, strict=True)],
        [one.scores[own] for one, own in zip(experts, chosen, strict=True)],
        [one.kinds[own] for one, own in zip(experts, chosen, strict=True)],
        iou_thr=overlap,
    )
    return boxes, scores


def _probabilities(fused: Floats, kind: int, sets: Sequence[_Boxes], know: NDArray[np.bool_], overlap: float) -> Floats:
    """Return the mean probabilities of the boxes that count for each fused box, (N, K)."""
    total: Floats = np.zeros((len(fused), know.shape[1]))
    for one in sets:
        shares = box_iou(torch.from_numpy(fused), torch.from_numpy(one.corners)).numpy()  # (N, own boxes)
        near = shares > overlap
        same = near & (one.kinds == kind)
        rank = np.where(same, 1 + one.scores, np.where(near, shares, 0.0))  # IoU is at most 1, so the class goes first
        total += _picked(rank, one.probabilities)
    mean: Floats = total / know.sum(0)
    return mean


def _picked(rank: Floats, probabilities: Floats) -> Floats:
    """Return the row of `probabilities` (M, K) of the largest rank (N, M); zeros where no rank is above 0."""
    if not rank.shape[1]:
        return np.zeros((len(rank), probabilities.shape[1]))
    picked: Floats = probabilities[rank.argmax(1)] * (rank.max(1, keepdims=True) > 0)
    return picked


def _batch(rows: Floats) -> Tensor:
    return torch.from_numpy(rows).float()[None]
