"""COCO's metric of keypoints, and whether a data set has keypoints to score on.

The similarity of keypoints (OKS) takes the area of the object, which COCO's own annotations give as that of the mask.
YOLO labels have none, so it is that of the box: larger, so that OKS and AP are higher than against COCO's annotations.
Ultralytics' own pose mAP takes 0.53 of the box.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from yolokd.backend.dataset import Dataset
from yolokd.backend.networks import Identity
from yolokd.data.check import DataReport
from yolokd.data.description import load_yaml
from yolokd.errors import DataError
from yolokd.evaluation import ground_truth
from yolokd.evaluation.coco import score
from yolokd.evaluation.further import Further
from yolokd.evaluation.instances import has_instances
from yolokd.losses.keypoint import sigmas_of

SIGMAS_KEY = "kpt_oks_sigmas"  # of a data YAML


def hindrance_to_keypoints(data: Dataset, split: str, report: DataReport) -> str:
    """Why the keypoints of a split cannot be scored; "" if they can."""
    found = report.splits[split]
    objects = found.objects.total()
    if has_instances(data.yaml_path, split):
        return "keypoints are not scored: the data's COCO annotations are read for boxes only"
    if not data.keypoints[0]:
        return "keypoints are not scored: the data have none (no kpt_shape in the data YAML)"
    if lacking := objects - found.keypoints:
        first = f"; the first is {found.without_keypoints}"
        return f"keypoints are not scored: {lacking} of the {objects} objects have none that can be used{first}"
    return ""


def oks_overlap(
    found: Sequence[Mapping[str, Any]],
    objects: Sequence[Mapping[str, Any]],
    crowds: NDArray[np.bool_],
    *,
    sigmas: Sequence[float] | None = None,
) -> NDArray[np.float64]:
    """Return the OKS of each detection's keypoints with each object's, (D, G), as COCO defines it.

    Args:
        found: D detections with their `keypoints`: x, y and visibility, one after the other.
        objects: G objects, likewise, with `area`, and with `bbox` where none of their keypoints is visible: then the
            distance is that to the box with its sides added on each side.
        crowds: Which of the objects are crowds, (G,); they are treated alike.
        sigmas: Constants of the K keypoints; None: see `sigmas_of`.
    """
    ours, theirs = (
        np.array([record["keypoints"] for record in records], np.float64).reshape(len(records), -1, 3)
        for records in (found, objects)
    )
    constants = 2 * np.array(sigmas_of(theirs.shape[1]) if sigmas is None else sigmas)
    area = np.array([record["area"] for record in objects], np.float64) + np.spacing(1)
    apart = ours[:, None, :, :2] - theirs[None, :, :, :2]  # (D, G, K, 2)
    visible = theirs[..., 2] > 0  # (G, K)
    for place in np.flatnonzero(~visible.any(-1)).tolist():
        apart[:, place] = _beyond(ours[..., :2], np.array(objects[place]["bbox"], np.float64))
        visible[place] = True
    near = np.exp(-(apart**2).sum(-1) / (2 * constants**2 * area[None, :, None]))
    similarity: NDArray[np.float64] = (near * visible).sum(-1) / visible.sum(-1)
    return similarity


def without_keypoints(record: Mapping[str, Any]) -> bool:
    """Whether no keypoint of an object is visible, so that COCO takes it for neither found nor missed."""
    return not any(value > 0 for value in record["keypoints"][2::3])


def _beyond(points: NDArray[np.float64], box: NDArray[np.float64]) -> NDArray[np.float64]:
    """How far points, (D, K, 2), are outside of a box (x, y, width, height) with its sides added on each side."""
    corner, sides = box[:2], box[2:]
    beyond: NDArray[np.float64] = np.maximum(corner - sides - points, 0) + np.maximum(points - corner - 2 * sides, 0)
    return beyond


def sigmas_of_data(data: Dataset) -> tuple[float, ...]:
    """Return the OKS constants of a data set's keypoints: its own (`kpt_oks_sigmas`), else COCO's of 17, else 1 / n.

    Raises:
        DataError: Its own are not one positive number per keypoint.
    """
    own, count = load_yaml(data.yaml_path).get(SIGMAS_KEY), data.keypoints[0]
    if own is None:
        return sigmas_of(count)
    try:
        sigmas = tuple(float(value) for value in np.ravel(np.asarray(own, dtype=np.float64)))
    except (TypeError, ValueError):
        sigmas = ()
    if len(sigmas) != count or not all(0 < value < float("inf") for value in sigmas):
        raise DataError(f"'{data.yaml_path}': {SIGMAS_KEY} must be {count} positive numbers, got {own!r}.")
    return sigmas


def other_keypoints(known: int, identity: Identity) -> str:
    """Return why a model's keypoints are not scored on data whose objects have so many; "" if they are."""
    if identity.keypoints == known:
        return ""
    return f"keypoints are not scored: it gives {identity.keypoints} of each object, the data have {known}"


def with_constants(metric: Further, data: Dataset) -> Further:
    """Return the metric with the constants of a data set's keypoints; errors as `sigmas_of_data`."""
    sigmas = sigmas_of_data(data)
    return replace(
        metric,
        overlap=partial(oks_overlap, sigmas=sigmas),
        score=partial(score, sigmas=sigmas),
        unfit=partial(other_keypoints, len(sigmas)),
    )


KEYPOINTS = Further(
    "keypoint",
    oks_overlap,
    most=20,
    left_out=without_keypoints,
    annotation=ground_truth.KEYPOINTS,
    hindrance=hindrance_to_keypoints,
    score=score,
    of_data=with_constants,
)
