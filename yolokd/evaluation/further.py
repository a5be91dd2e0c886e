"""What a task is scored by beside the AP of its boxes: masks of segment models, keypoints of pose models.

A further metric is AP by COCO's rules with another overlap than that of boxes. Its entry says all that comparisons and
the check of an export need: how it is called, where it is kept, when data cannot be scored by it, and the overlap.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from yolokd.evaluation.matches import MOST, Matches, Overlap, Truth, match

if TYPE_CHECKING:
    from yolokd.backend.dataset import Dataset
    from yolokd.data.check import DataReport


@dataclass(frozen=True)
class Further:
    """A metric of a task beside the AP of its boxes.

    Attributes:
        word: What is compared, in the singular; "mask" makes "mask AP", and `mask_AP` in files.
        overlap: Of detections with objects, as `yolokd.evaluation.matches.match` takes it.
        hindrance: Data set, split and the report on its labels → why they cannot be scored by it; "" if they can.
        most: Detections of an image and class that count.
    """

    word: str
    overlap: Overlap
    hindrance: Callable[[Dataset, str, DataReport], str]
    most: int = MOST

    def named(self, metric: str) -> str:
        """Return the name of one of COCO's metrics for readers: "mask AP"."""
        return f"{self.word} {metric}"

    def key(self, metric: str) -> str:
        """Return the name of one of COCO's metrics in files: "mask_AP"."""
        return f"{self.word}_{metric}"


@dataclass(frozen=True)
class FurtherFound:
    """The score of a network by a further metric, and what it was computed from."""

    metric: Further
    AP: float  # in [0, 1]; −1 without objects
    AP50: float
    detections: list[dict[str, Any]] = field(repr=False)  # COCO's results, with what the overlap is of

    def matches(self, truth: Truth) -> Matches:
        """Return the detections, matched to the objects of the ground truth that they were scored against."""
        return match(truth, self.detections, self.metric.overlap, self.metric.most)
