"""What the detections of one network are worth: metrics of boxes and of what comes beside them, or of rotated boxes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from yolokd.backend.networks import Identity
from yolokd.evaluation.coco import score
from yolokd.evaluation.detections import KINDS
from yolokd.evaluation.further import FurtherFound
from yolokd.evaluation.keypoint_scores import score_keypoints
from yolokd.evaluation.mask_scores import has_masks, score_masks
from yolokd.evaluation.masks import Rle
from yolokd.evaluation.rotated_scores import ROTATED, score_rotated
from yolokd.evaluation.task import Truth

COCO_METRICS = ("AP", "AP50", "AP75", "APs", "APm", "APl")  # fields of `yolokd.evaluation.models.ModelScore`

Exact = Sequence[tuple[str, int, list[float], float]]  # image, class of the data, box in its pixels, score
Result = dict[str, Any]  # of COCO's results


@dataclass(frozen=True)
class Measured:
    """Metrics of one network, and what they come from.

    Attributes:
        metrics: Fields of `yolokd.evaluation.models.ModelScore`.
        of_classes: Class → its first metric.
        detections: What was scored, as COCO lists results.
        precision50: Class → precision over recall at IoU 0.5.
        further: The score by the metric beside that of boxes, where the task has one.
    """

    metrics: Mapping[str, Any]
    of_classes: Mapping[str, float]
    detections: list[Result]
    precision50: dict[str, list[float]]
    further: FurtherFound | None = None


@dataclass(frozen=True)
class Beside:
    """What a network finds beside boxes, in the order of its detections; None for what is not scored."""

    masks: list[Rle] | None
    keypoints: list[list[float]] | None
    sigmas: Sequence[float]  # OKS constants of the data's keypoints

    @classmethod
    def of(cls, truth: Truth, sigmas: Sequence[float], identity: Identity) -> Beside:
        """Return it empty, before the network looks at the images."""
        kind = KINDS[identity.task]
        masked = kind.masks and has_masks(truth)
        posed = kind.keypoints and identity.keypoints == len(sigmas)
        return cls([] if masked else None, [] if posed else None, sigmas)

    def scores(
        self, truth: Truth, names: Mapping[int, str], detections: Sequence[Result], kept: Sequence[int]
    ) -> tuple[dict[str, Any], FurtherFound | None]:
        """Return the fields `masks` and `keypoints` of a score, and the further metric with what it comes from.

        Args:
            truth: Ground truth.
            names: Class index → name of the classes that count.
            detections: Of COCO's results, those that count.
            kept: Their places among all detections.
        """
        fields: dict[str, Any] = {"masks": None, "keypoints": None}
        further = None
        if self.masks is not None:
            own = [self.masks[place] for place in kept]
            fields["masks"], further = score_masks(truth, detections, own, names)
        if self.keypoints is not None:
            points = [self.keypoints[place] for place in kept]
            fields["keypoints"], further = score_keypoints(truth, detections, points, self.sigmas, names)
        return fields, further


def measure_boxes(
    truth: Truth, names: Mapping[int, str], exact: Exact, places: Mapping[str, int], beside: Beside, kept: Sequence[int]
) -> Measured:
    """Return COCO's metrics of boxes, and those of masks or keypoints beside them.

    Args:
        truth: Ground truth.
        names: Class index → name of the classes that count.
        exact: The detections that count; boxes x, y, width, height.
        places: Image → its id.
        beside: What was found beside boxes.
        kept: Places of the detections among all that were found.
    """
    detections = [
        {"image_id": places[file], "category_id": index, "bbox": [round(x, 3) for x in box], "score": round(p, 5)}
        for file, index, box, p in exact
    ]
    scores = score(truth, detections)
    fields, further = beside.scores(truth, names, detections, kept)
    per_class = {names[index]: ap for index, ap in scores.per_class.items()}
    metrics = {metric: scores.summary[metric] for metric in COCO_METRICS}
    curves = {names[index]: curve for index, curve in scores.precision50.items()}
    return Measured({**metrics, "per_class": per_class, **fields}, per_class, detections, curves, further)


def measure_rotated(truth: Truth, names: Mapping[int, str], exact: Exact, places: Mapping[str, int]) -> Measured:
    """Return Ultralytics' metrics of rotated boxes, also as the further one; COCO's are −1.

    Args:
        truth: Ground truth whose annotations have `corners`.
        names: Class index → name of the classes that count.
        exact: The detections that count; boxes x, y of the middle, width, height, angle.
        places: Image → its id.
    """
    detections = [
        {"image_id": places[file], "category_id": index, "rbox": box, "score": p} for file, index, box, p in exact
    ]
    rotated = score_rotated(truth, detections, names)
    metrics = {**dict.fromkeys(COCO_METRICS, -1.0), "per_class": {}, "rotated": rotated}
    further = FurtherFound(ROTATED, rotated.map50_95, rotated.map50, detections)
    return Measured(metrics, rotated.per_class, detections, {}, further)
