"""Does an exported network say the same as its checkpoint? Raw outputs and final detections, image by image.

A head's output is (4 + K, A): center x, center y, width, height in pixels, then K scores, for A anchors; or, without
need of NMS, (N, 6): left, top, right, bottom, score, class of the N best, falling. Numbers of the second kind may
change places where scores are all but equal, so there scores are compared rank by rank and boxes with their nearest
counterpart, and only rows that clear the cut at rank N by more than scores differ.

Final detections are those of at least 0.25. Two of them agree if they have the same class, overlap by at least 0.9 and
differ by at most 0.02 in score; they are paired one to one, the best first. So that a score at the threshold does not
count as a difference, the partner may lie below it by as much as two scores may differ.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor
from torchvision.ops import batched_nms, box_convert, box_iou

CONFIDENCE = 0.25
NMS_IOU = 0.7
MAX_DETECTIONS = 300
PAIR_IOU = 0.9
PAIR_SCORE = 0.02
LEAST_AGREEMENT = 0.99  # share of detections that have a counterpart
MOST_BOX_PX = 0.5  # of raw outputs in full precision
MOST_SCORE = 0.01


@dataclass(frozen=True)
class Gap:
    """How far an output beside boxes and scores is from the checkpoint's, in its own unit."""

    name: str
    most: float  # largest difference
    limit: float  # of the largest difference in full precision

    @property
    def agrees(self) -> bool:
        """Whether the outputs are as close as single precision makes them."""
        return self.most <= self.limit


@dataclass(frozen=True)
class Parity:
    """How far an exported network is from its checkpoint, over all images."""

    images: int
    box_px: float  # largest difference of a raw coordinate, pixels of the input image
    score: float  # largest difference of a raw score
    detections: int  # of both sides
    paired: int  # of both sides, those that have a counterpart on the other
    further: tuple[Gap, ...] = ()  # of what the task gives beside boxes and scores

    @property
    def agreement(self) -> float | None:
        """Share of the detections that have a counterpart; None without any."""
        return self.paired / self.detections if self.detections else None

    @property
    def boxes_agree(self) -> bool:
        """Whether raw boxes and scores are as close as single precision makes them."""
        return self.box_px <= MOST_BOX_PX and self.score <= MOST_SCORE

    @property
    def raw_agrees(self) -> bool:
        """Whether raw outputs are as close as single precision makes them."""
        return self.boxes_agree and all(gap.agrees for gap in self.further)

    @property
    def detections_agree(self) -> bool:
        """Whether nearly all detections have a counterpart; also without any."""
        return self.agreement is None or self.agreement >= LEAST_AGREEMENT


def compare(pairs: Iterable[tuple[Tensor, Tensor]]) -> Parity:
    """Compare outputs of the checkpoint and of the exported network for one image at a time.

    Args:
        pairs: Two tensors of equal shape, (4 + K, A) or (N, 6), float32; the checkpoint's first.
    """
    images = detections = paired = 0
    box_px = score = 0.0
    for reference, exported in pairs:
        box, confidence = raw_difference(reference, exported)
        found, matched = pair_detections(reference, exported)
        images, detections, paired = images + 1, detections + found, paired + matched
        box_px, score = max(box_px, box), max(score, confidence)
    return Parity(images, box_px, score, detections, paired)


def raw_difference(reference: Tensor, exported: Tensor) -> tuple[float, float]:
    """Return the largest absolute differences of boxes (pixels) and scores; infinity if anything is not finite."""
    if reference.shape != exported.shape or not (reference.isfinite().all() and exported.isfinite().all()):
        return float("inf"), float("inf")
    if not is_final(reference):
        gap = (reference - exported).abs()
        return float(gap[:4].max()), float(gap[4:].max())
    score = float((reference[:, 4] - exported[:, 4]).abs().max())
    clear = reference[reference[:, 4] > reference[-1, 4] + 2 * score + 1e-6]
    distance = (clear[:, None, :4] - exported[None, :, :4]).abs().amax(-1)  # (clear, N)
    distance[clear[:, None, 5] != exported[None, :, 5]] = float("inf")
    return float(distance.amin(1).max()) if len(clear) else 0.0, score


def pair_detections(reference: Tensor, exported: Tensor) -> tuple[int, int]:
    """Return how many final detections both sides have together, and how many of them have a counterpart."""
    low = CONFIDENCE - PAIR_SCORE
    ours, theirs = final_detections(reference, low), final_detections(exported, low)
    paired_ours = torch.zeros(len(ours), dtype=torch.bool)
    paired_theirs = torch.zeros(len(theirs), dtype=torch.bool)
    overlap = box_iou(ours[:, :4], theirs[:, :4])  # (ours, theirs)
    close = (overlap >= PAIR_IOU) & (ours[:, None, 5] == theirs[None, :, 5])
    close &= (ours[:, None, 4] - theirs[None, :, 4]).abs() <= PAIR_SCORE
    overlap = overlap.masked_fill(~close, -1.0)
    for i in range(len(ours)):  # falling scores
        j = int(overlap[i].argmax()) if len(theirs) else -1
        if j >= 0 and overlap[i, j] >= 0:
            paired_ours[i] = paired_theirs[j] = True
            overlap[:, j] = -1.0
    sure_ours, sure_theirs = ours[:, 4] >= CONFIDENCE, theirs[:, 4] >= CONFIDENCE
    paired = (paired_ours & sure_ours).sum() + (paired_theirs & sure_theirs).sum()
    return int(sure_ours.sum() + sure_theirs.sum()), int(paired)


def final_detections(output: Tensor, confidence: float) -> Tensor:
    """Return left, top, right, bottom, score, class of what is left after NMS, best first, (M, 6)."""
    if is_final(output):
        found = output[output[:, 4] >= confidence]
        return found[found[:, 4].argsort(descending=True, stable=True)]
    scores, classes = output[4:].max(0)  # (A,)
    sure = scores >= confidence
    boxes = box_convert(output[:4, sure].T, "cxcywh", "xyxy")
    kept = batched_nms(boxes, scores[sure], classes[sure], NMS_IOU)[:MAX_DETECTIONS]
    return torch.cat((boxes[kept], scores[sure][kept, None], classes[sure][kept, None].to(boxes.dtype)), 1)


def is_final(output: Tensor) -> bool:
    """Whether an output needs no NMS: rows of six numbers rather than columns of 4 + K."""
    return output.shape[-1] == 6
