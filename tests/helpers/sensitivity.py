"""Scores of a network that finds the first objects of a few images and misses the rest."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from yolokd.evaluation.coco import AP_METRICS, score
from yolokd.evaluation.models import Examined, ModelScore

IMAGES = 6


def examined(scores: Sequence[float]) -> Examined:
    """Return the scores of detections on images of one object each.

    Args:
        scores: Of the detection in the first, second, … image; in the others nothing is found.
    """
    box = [8.0, 8.0, 40.0, 40.0]
    truth: dict[str, list[dict[str, Any]]] = {
        "images": [{"id": n, "width": 64, "height": 64, "file_name": f"{n}.png"} for n in range(1, IMAGES + 1)],
        "annotations": [
            {"id": n, "image_id": n, "category_id": 0, "bbox": box, "area": 1600.0, "iscrowd": 0}
            for n in range(1, IMAGES + 1)
        ],
        "categories": [{"id": 0, "name": "car"}],
    }
    found = [{"image_id": n, "category_id": 0, "bbox": box, "score": s} for n, s in enumerate(scores, start=1)]
    summary = score(truth, found).summary
    metrics: dict[str, Any] = {metric: summary[metric] for metric in AP_METRICS}
    row = ModelScore(
        name="a", path="a.onnx", **metrics,
        parameters=0, gflops=0.0, latency_ms=1.5, imgsz=64, per_class={}, notes=(), kitti=None,
    )  # fmt: skip
    return Examined(row, found, {}, truth)
