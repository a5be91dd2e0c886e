"""COCO's box metrics, computed by faster-coco-eval (C++), with every input checked first.

The numbers are pycocotools': ten IoU thresholds 0.50:0.05:0.95, 101 recall points, at most 100 detections per image
and class, areas split at 32² and 96² pixels. Two of its habits are kept on purpose: detections match crowd boxes
without being counted, and an annotation whose id is 0 can never count as found (number annotations from 1).
Differs: missing `area` is width · height and missing `iscrowd` is 0, an empty list of detections is scored (zeros
where there is ground truth), and detections of unknown images or classes are errors; pycocotools fails on the first
two and drops the last.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from yolokd.errors import DataError
from yolokd.evaluation.masks import area
from yolokd.inputs import read_json

AP_METRICS = ("AP", "AP50", "AP75", "APs", "APm", "APl")
METRICS = (*AP_METRICS, "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")
KEYPOINT_METRICS = ("AP", "AP50", "AP75", "APm", "APl", "AR", "AR50", "AR75", "ARm", "ARl")


@dataclass(frozen=True)
class CocoScores:
    """COCO's numbers, ten of keypoints or twelve, and the AP by class; in [0, 1], −1 without ground truth."""

    summary: dict[str, float]
    per_class: dict[int, float]  # category id → AP at IoU 0.50:0.95
    precision50: dict[int, list[float]]  # category id → precision at IoU 0.50, at the 101 recalls 0, 0.01, …, 1


def evaluate_json(ground_truth: str | Path, detections: str | Path) -> dict[str, float]:
    """Score a COCO results file against a COCO ground truth file.

    Args:
        ground_truth: JSON object with `images`, `annotations` and `categories`; boxes are x, y, width, height in
            pixels.
        detections: JSON list of objects with `image_id`, `category_id`, `bbox` and `score`; may be empty.

    Returns:
        AP, AP50, AP75, APs, APm, APl, AR1, AR10, AR100, ARs, ARm, ARl in [0, 1]; −1 where there is no ground truth.

    Raises:
        DataError: A file is missing or no JSON, an entry lacks a key or holds a number that is not finite, or a
            detection belongs to an image or class that the ground truth does not have.

    Example:
        >>> import json
        >>> from pathlib import Path
        >>> from tempfile import TemporaryDirectory
        >>> box = {"image_id": 1, "category_id": 1, "bbox": [0, 0, 40, 40]}
        >>> truth = {"images": [{"id": 1}], "categories": [{"id": 1}], "annotations": [{"id": 1, **box}]}
        >>> with TemporaryDirectory() as folder:
        ...     paths = Path(folder) / "truth.json", Path(folder) / "found.json"
        ...     for path, content in zip(paths, (truth, [{**box, "score": 0.9}])):
        ...         _ = path.write_text(json.dumps(content))
        ...     scores = evaluate_json(*paths)
        >>> round(scores["AP"], 4), scores["APs"], round(scores["APm"], 4)
        (1.0, -1.0, 1.0)
    """
    return score(_load(ground_truth, "ground truth"), _load(detections, "detections")).summary


def score(
    ground_truth: Any, detections: Any, *, masks: bool = False, sigmas: Sequence[float] | None = None
) -> CocoScores:
    """Score detections held in memory; the same structures and errors as the files of `evaluate_json`.

    With `masks`, overlaps and areas are those of the `segmentation` of annotations and detections, which are run
    lengths; images then need `height` and `width`.

    With `sigmas`, the constants of keypoints, the overlap is the object keypoint similarity (OKS) of the `keypoints`,
    x, y and visibility of each; at most 20 detections per image and class count, and objects below 32² pixels belong
    to no size. An object without a visible keypoint is neither found nor missed.
    """
    # Importing faster-coco-eval pulls in nothing heavy, yet only those who score should need it.
    from faster_coco_eval import COCO, COCOeval_faster

    images, categories = _ids(ground_truth, "images"), _ids(ground_truth, "categories")
    sizes = {images[entry["id"]]: _size(entry) for entry in ground_truth["images"]} if masks else {}
    truth = {
        "images": [{"id": n, **sizes.get(n, {})} for n in images.values()],
        "categories": [{"id": n, "name": str(n)} for n in categories.values()],
        "annotations": [
            _annotation(a, what, images, categories) | _mask_of(a, what, masks) | _keypoints_of(a, what, sigmas)
            for what, a in _named("annotation", _records(ground_truth, "annotations"))
        ],
    }
    found = [
        _detection(d, what, images, categories) | _mask_of(d, what, masks) | _keypoints_of(d, what, sigmas)
        for what, d in _named("detection", _list(detections))
    ]
    kind = "segm" if masks else "bbox" if sigmas is None else "keypoints"
    if kind != "bbox":
        found = [{key: value for key, value in entry.items() if key != "bbox"} for entry in found]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # annotation id 0, see the top of this file
        reference = COCO(truth, print_function=_silent)
    results = reference.loadRes(found)
    evaluation = COCOeval_faster(reference, results, iouType=kind, print_function=_silent, kpt_oks_sigmas=sigmas)
    evaluation.run()
    precision = evaluation.eval["precision"][:, :, :, 0, -1]  # (10 IoUs, 101 recalls, K classes), −1 undefined
    names = METRICS if sigmas is None else KEYPOINT_METRICS
    return CocoScores(
        summary=dict(zip(names, (float(value) for value in evaluation.stats[: len(names)]), strict=True)),
        per_class={original: _mean(precision[:, :, k]) for k, original in enumerate(categories)},
        precision50={original: precision[0, :, k].tolist() for k, original in enumerate(categories)},
    )


def _size(image: Mapping[str, Any]) -> dict[str, Any]:
    return {"height": image["height"], "width": image["width"]}


def _mask_of(record: Any, what: str, masks: bool) -> dict[str, Any]:
    """The mask of an annotation or a detection, and for the former the area of its pixels; nothing without masks."""
    if not masks:
        return {}
    mask = record.get("segmentation") if isinstance(record, Mapping) else None
    if not isinstance(mask, Mapping) or not {"size", "counts"} <= mask.keys():
        raise DataError(f"The {what} needs a 'segmentation' of run lengths (size, counts), got {mask!r}.")
    return {"segmentation": dict(mask), "area": area(dict(mask))}


def _keypoints_of(record: Any, what: str, sigmas: Sequence[float] | None) -> dict[str, Any]:
    """The keypoints of an annotation or a detection, and how many are visible; nothing without `sigmas`."""
    if sigmas is None:
        return {}
    values = record.get("keypoints") if isinstance(record, Mapping) else None
    if not isinstance(values, (list, tuple)) or len(values) != 3 * len(sigmas):
        raise DataError(f"The {what} needs 'keypoints', x, y and visibility of {len(sigmas)}, got {values!r}.")
    _finite(values, what, "keypoints")
    return {"keypoints": list(values), "num_keypoints": sum(value > 0 for value in values[2::3])}


def _named(what: str, records: Sequence[Any]) -> list[tuple[str, Any]]:
    return [(f"{what} {number}", record) for number, record in enumerate(records)]


def _mean(precision: np.ndarray[Any, Any]) -> float:
    defined = precision[precision > -1]
    return float(defined.mean()) if defined.size else -1.0


def _silent(*_: object) -> None:
    """What the library calls instead of print."""


def _load(path: str | Path, what: str) -> Any:
    try:
        return read_json(path, limit=None)
    except OSError as error:
        raise DataError(f"The {what} file '{path}' cannot be read: {error.strerror or error}.") from error
    except ValueError as error:
        raise DataError(f"The {what} file '{path}' is not valid JSON: {error}.") from error


def _records(ground_truth: Any, key: str) -> list[Any]:
    if not isinstance(ground_truth, Mapping) or not isinstance(ground_truth.get(key), list):
        raise DataError(f"The ground truth must be an object with a list '{key}', as COCO's instances files are.")
    records: list[Any] = ground_truth[key]
    return records


def _list(detections: Any) -> Sequence[Any]:
    if not isinstance(detections, list):
        raise DataError(f"The detections must be a list of objects, got {type(detections).__name__}.")
    return detections


def _ids(ground_truth: Any, key: str) -> dict[Any, int]:
    """Number images or categories from 1 in the order of their ids, which decides ties as in pycocotools."""
    try:
        ids = sorted({record["id"] for record in _records(ground_truth, key)})
    except (KeyError, TypeError) as error:
        raise DataError(f"Every entry of the ground truth's '{key}' needs an 'id', all of one type.") from error
    if not ids:
        raise DataError(f"The ground truth's '{key}' is empty.")
    return {original: number for number, original in enumerate(ids, start=1)}


def _annotation(record: Any, what: str, images: dict[Any, int], categories: dict[Any, int]) -> dict[str, Any]:
    x, y, width, height = _box(record, what)
    area = record.get("area", width * height)
    _finite([area], what, "area")
    if not isinstance(record.get("id"), int):
        raise DataError(f"In the ground truth, {what} needs a whole number as its 'id'.")
    return {
        "id": record["id"],
        "image_id": _known(record, "image_id", images, what),
        "category_id": _known(record, "category_id", categories, what),
        "bbox": [x, y, width, height],
        "area": area,
        "iscrowd": int(bool(record.get("iscrowd", 0))),
    }


def _detection(record: Any, what: str, images: dict[Any, int], categories: dict[Any, int]) -> dict[str, Any]:
    box = _box(record, what)
    _finite([record.get("score")], what, "score")
    return {
        "image_id": _known(record, "image_id", images, what),
        "category_id": _known(record, "category_id", categories, what),
        "bbox": box,
        "score": float(record["score"]),
    }


def _box(record: Any, what: str) -> list[float]:
    box = record.get("bbox") if isinstance(record, Mapping) else None
    if not isinstance(box, (list, tuple)) or len(box) != 4:
        raise DataError(f"The {what} needs a 'bbox' of four numbers (x, y, width, height), got {box!r}.")
    _finite(box, what, "bbox")
    return [float(value) for value in box]


def _finite(values: Iterable[Any], what: str, key: str) -> None:
    for value in values:
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
            raise DataError(f"The {what} holds {value!r} in its '{key}', which is not a finite number.")


def _known(record: Mapping[str, Any], key: str, ids: dict[Any, int], what: str) -> int:
    value = record.get(key)
    try:
        return ids[value]
    except (KeyError, TypeError):
        kind = "an image" if key == "image_id" else "a class"
        raise DataError(f"The {what} has {key} {value!r}, {kind} that the ground truth does not list.") from None
