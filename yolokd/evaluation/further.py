"""What a task is scored by beside the AP of its boxes: masks of segment models, keypoints of pose models.

A further metric is AP by COCO's rules with another overlap than that of boxes. Its entry says all that evaluation,
comparisons and the check of an export need: how it is called, where it is kept, when data and models cannot be scored
by it, and the overlap.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from yolokd.evaluation.coco import AP_METRICS, CocoScores
from yolokd.evaluation.matches import MOST, LeftOut, Matches, Overlap, Truth, match, no_object

if TYPE_CHECKING:
    from yolokd.backend.dataset import Dataset
    from yolokd.backend.networks import Identity
    from yolokd.data.check import DataReport

Result = dict[str, Any]  # of COCO's results


@dataclass(frozen=True)
class OverlapMetric:
    """AP by an overlap.

    Attributes:
        word: What is compared, in the singular; "mask" makes "mask AP", and `mask_AP` in files.
        overlap: Of detections with objects, as `yolokd.evaluation.matches.match` takes it.
        most: Detections of an image and class that count.
        left_out: Whether an object is neither found nor missed.
    """

    word: str
    overlap: Overlap
    most: int = MOST
    left_out: LeftOut = no_object

    def named(self, metric: str) -> str:
        """Return the name of one of COCO's metrics for readers: "mask AP"."""
        return f"{self.word} {metric}"

    def key(self, metric: str) -> str:
        """Return the name of one of COCO's metrics in files: "mask_AP"."""
        return f"{self.word}_{metric}"


def _of_any_data(metric: Further, data: Dataset) -> Further:
    return metric


def _fits(identity: Identity) -> str:
    return ""


@dataclass(frozen=True, kw_only=True)
class Further(OverlapMetric):
    """A metric of a task beside the AP of its boxes.

    Attributes:
        annotation: Key of annotations and of detections, under which is what the overlap is of.
        hindrance: Data set, split and the report on its labels → why they cannot be scored by it; "" if they can.
        score: COCO's scores of detections, from the ground truth and the detections.
        of_data: Itself and a data set → itself with what the data say of it, such as constants.
        unfit: Why a network cannot be scored by it although its task is; "" if it can.
    """

    annotation: str
    hindrance: Callable[[Dataset, str, DataReport], str]
    score: Callable[[Any, Any], CocoScores]
    of_data: Callable[[Further, Dataset], Further] = _of_any_data
    unfit: Callable[[Identity], str] = _fits


@dataclass(frozen=True)
class FurtherScore:
    """COCO's metrics by another overlap, in [0, 1], −1 where the data has no such object or COCO knows no such size."""

    AP: float
    AP50: float
    AP75: float
    APs: float
    APm: float
    APl: float
    per_class: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class FurtherFound:
    """The score of a network by another overlap than that of upright boxes, and what it was computed from."""

    metric: OverlapMetric
    AP: float  # in [0, 1]; −1 without objects
    AP50: float
    detections: list[Result] = field(repr=False)  # with what the overlap is of

    def matches(self, truth: Truth) -> Matches:
        """Return the detections, matched to the objects of the ground truth that they were scored against."""
        return match(truth, self.detections, self.metric.overlap, self.metric.most, self.metric.left_out)


def score_further(
    metric: Further, truth: Any, detections: Sequence[Result], values: Sequence[Any], names: Mapping[int, str]
) -> tuple[FurtherScore, FurtherFound]:
    """Return the scores by a further metric, and what they were computed from.

    Args:
        metric: Of the data (`Further.of_data`).
        truth: Ground truth whose annotations have what the overlap is of.
        detections: Of COCO's results.
        values: What the overlap is of, of each of them.
        names: Class index → name.
    """
    found = [{**one, metric.annotation: value} for one, value in zip(detections, values, strict=True)]
    scores = metric.score(truth, found)
    per_class = {names[index]: ap for index, ap in scores.per_class.items()}
    score = FurtherScore(**{name: scores.summary.get(name, -1.0) for name in AP_METRICS}, per_class=per_class)
    return score, FurtherFound(metric, score.AP, score.AP50, found)
