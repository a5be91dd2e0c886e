"""Which part of a detector loses what in 8 bits: exports that leave one part each in full precision, compared.

A part's gain is the AP of the export that leaves it in full precision, less the AP of the one that does not, on the
same images. Gains of several parts do not add up. The distance of raw outputs to the checkpoint is a mean over the
places where the checkpoint has a score of at least 0.25; the largest differences over all places are reported beside
it, but come mostly from places where there is nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor

from yolokd.deploy.parity import CONFIDENCE, compare, is_final
from yolokd.evaluation.bootstrap import ap_interval

if TYPE_CHECKING:
    from yolokd.evaluation.models import Examined

Pair = tuple[Tensor, Tensor]  # outputs of checkpoint and export for one image


@dataclass(frozen=True)
class Trial:
    """An export in 8 bits and what it says."""

    pairs: Sequence[Pair]
    examined: Examined
    bytes: int


@dataclass(frozen=True)
class Outcome:
    """How far an export is from its checkpoint, and what it is worth."""

    AP: float  # in [0, 1]; −1 without objects
    box_px: float | None  # mean difference of a coordinate where the checkpoint is confident; None: it never is
    score: float | None  # mean difference of a score there
    most_box_px: float  # largest difference of a coordinate, anywhere
    most_score: float
    agreement: float | None  # share of the detections that agree; None without any
    bytes: int
    latency_ms: float  # median forward pass at batch 1


@dataclass(frozen=True)
class PartEffect:
    """What leaving one part in full precision wins."""

    part: str
    outcome: Outcome
    ap_gain: float  # AP less that of the export without this part in full precision, in [−1, 1]
    ap_interval: tuple[float, float]  # of `ap_gain`, 95 %, over the images


@dataclass(frozen=True)
class Sensitivity:
    """Effects of all parts, the largest gain first."""

    whole: Outcome  # of the export itself
    parts: tuple[PartEffect, ...]


def measure(whole: Trial, parts: Sequence[str], attempt: Callable[[str], Trial]) -> Sensitivity:
    """Return what each part wins over the export itself, the largest gain in AP first.

    Args:
        whole: The export itself.
        parts: Names of the parts.
        attempt: Part → the export that leaves it in full precision as well.
    """
    effects = [_effect(part, attempt(part), whole) for part in parts]
    return Sensitivity(outcome(whole), tuple(sorted(effects, key=lambda effect: -effect.ap_gain)))


def _effect(part: str, trial: Trial, whole: Trial) -> PartEffect:
    gain = trial.examined.score.AP - whole.examined.score.AP
    interval = ap_interval(whole.examined.truth, whole.examined.detections, trial.examined.detections)
    return PartEffect(part, outcome(trial), gain, interval)


def outcome(trial: Trial) -> Outcome:
    """Return the distances of an export to its checkpoint, AP, size and latency."""
    parity = compare(trial.pairs)
    box_px, score = mean_difference(trial.pairs)
    found = trial.examined.score
    return Outcome(
        found.AP, box_px, score, parity.box_px, parity.score, parity.agreement, trial.bytes, found.latency_ms
    )


def mean_difference(pairs: Sequence[Pair]) -> tuple[float, float] | tuple[None, None]:
    """Return the mean absolute differences of a coordinate (pixels) and of the score that makes the place confident.

    Places are those where the checkpoint's best score is at least 0.25. Rows of an output that needs no NMS are
    compared with the other side's nearest row of the same class, if it has one.

    Args:
        pairs: Outputs of checkpoint and export, (4 + K, A) or (N, 6), one pair per image.

    Returns:
        The two means; None for both without such a place.
    """
    boxes, scores = 0.0, 0.0
    count = 0
    for reference, exported in pairs:
        box, score = _final_gaps(reference, exported) if is_final(reference) else _raw_gaps(reference, exported)
        boxes, scores, count = boxes + float(box.sum()), scores + float(score.sum()), count + len(score)
    return (boxes / count, scores / count) if count else (None, None)


def _raw_gaps(reference: Tensor, exported: Tensor) -> tuple[Tensor, Tensor]:
    """Differences of box (mean of four coordinates) and score at confident places, (M,) each."""
    best, classes = reference[4:].max(0)  # (A,)
    sure = best >= CONFIDENCE
    box = (reference[:4, sure] - exported[:4, sure]).abs().mean(0)
    return box, (best[sure] - exported[4:, sure].gather(0, classes[None, sure])[0]).abs()


def _final_gaps(reference: Tensor, exported: Tensor) -> tuple[Tensor, Tensor]:
    ours = reference[reference[:, 4] >= CONFIDENCE]
    same = ours[:, None, 5] == exported[None, :, 5]  # (M, N)
    distance = (ours[:, None, :4] - exported[None, :, :4]).abs().mean(-1).masked_fill(~same, float("inf"))
    nearest = distance.argmin(1)
    box, score = distance.amin(1), (ours[:, 4] - exported[nearest, 4]).abs()
    return box[box.isfinite()], score[box.isfinite()]
