"""COCO's metric of masks, and whether a data set has masks to score on."""

from __future__ import annotations

from functools import partial

from yolokd.backend.dataset import Dataset
from yolokd.data.check import DataReport
from yolokd.evaluation.coco import score
from yolokd.evaluation.further import Further
from yolokd.evaluation.ground_truth import SEGMENTATION
from yolokd.evaluation.instances import has_instances
from yolokd.evaluation.masks import mask_overlap


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


MASKS = Further(
    "mask", mask_overlap, annotation=SEGMENTATION, hindrance=hindrance_to_masks, score=partial(score, masks=True)
)
