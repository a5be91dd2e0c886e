"""COCO's metrics of masks, and whether a data set has masks to score on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from yolokd.backend.dataset import Dataset
from yolokd.data.check import DataReport
from yolokd.evaluation.coco import score
from yolokd.evaluation.further import Further, FurtherFound
from yolokd.evaluation.instances import has_instances
from yolokd.evaluation.masks import Rle, mask_overlap

if TYPE_CHECKING:
    from yolokd.evaluation.task import Truth


@dataclass(frozen=True)
class MaskScore:
    """COCO's metrics of masks, in [0, 1], −1 where the data has no such object; sizes are areas of masks."""

    AP: float
    AP50: float
    AP75: float
    APs: float
    APm: float
    APl: float
    per_class: dict[str, float] = field(default_factory=dict)


def hindrance_to_masks(data: Dataset, split: str, report: DataReport) -> str:
    """Why the masks of a split cannot be scored; "" if they can."""
    found = report.splits[split]
    objects = found.objects.total()
    if has_instances(data.yaml_path, split):
        return "masks are not scored: the data's COCO annotations hold boxes only"
    if found.polygons < objects:
        boxes = objects - found.polygons
        return f"masks are not scored: {boxes} of the {objects} objects are labeled as boxes, not as polygons"
    return ""


def has_masks(truth: Truth) -> bool:
    """Whether all objects of the ground truth have masks."""
    return all("segmentation" in entry for entry in truth["annotations"])


MASKS = Further("mask", mask_overlap, hindrance_to_masks)


def score_masks(
    truth: Truth, detections: Sequence[dict[str, Any]], masks: Sequence[Rle], names: Mapping[int, str]
) -> tuple[MaskScore, FurtherFound]:
    """Return the metrics of masks, and what they were computed from.

    Args:
        truth: Ground truth with masks.
        detections: Of COCO's results.
        masks: Of each of them.
        names: Class index → name.
    """
    found = [{**one, "segmentation": mask} for one, mask in zip(detections, masks, strict=True)]
    scores = score(truth, found, masks=True)
    metrics = {metric: scores.summary[metric] for metric in ("AP", "AP50", "AP75", "APs", "APm", "APl")}
    per_class = {names[index]: ap for index, ap in scores.per_class.items()}
    return MaskScore(**metrics, per_class=per_class), FurtherFound(MASKS, metrics["AP"], metrics["AP50"], found)
