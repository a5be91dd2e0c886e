"""What a detector finds on a data set, by Ultralytics' own validation, and how long a forward pass takes."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from yolokd.errors import DataError

WARM_UPS = 3
TIMED_PASSES = 20
GREY = 114  # Ultralytics' padding

Detection = tuple[str, int, list[float], float]  # picture, class index, x y width height in its pixels, score


def detect(
    yolo: Any,
    data: Path,
    pictures: Collection[str],
    *,
    options: Mapping[str, Any],
    progress: Callable[[float], None],
) -> list[Detection]:
    """Run Ultralytics' validation; it would round the detections, write and score them: they are taken before that.

    Args:
        yolo: `ultralytics.YOLO`.
        data: Data YAML whose split `val` is to be looked at.
        pictures: The paths in that split; a detection names its picture so.
        options: Of Ultralytics' validation.
        progress: Called with the share of the pictures that are done.

    Raises:
        DataError: Ultralytics leaves some of the pictures out.
        Exception: Whatever a device, a driver or a picture may do to Ultralytics.
    """
    found: list[Detection] = []

    def started(validator: Any) -> None:
        validator.pred_to_json = keep  # called for each picture with detections

    def keep(predicted: Mapping[str, Any], picture: Mapping[str, Any]) -> None:
        corners = predicted["bboxes"]  # (N, 4) xyxy in pixels of the original picture
        sides = corners[:, 2:] - corners[:, :2]
        origins = (corners[:, :2] + corners[:, 2:]) / 2 - sides / 2  # by the middle, bit for bit as Ultralytics does
        columns = (predicted["cls"].int(), origins, sides, predicted["conf"])
        rows = zip(*(column.tolist() for column in columns), strict=True)
        found.extend((picture["im_file"], index, origin + side, p) for index, origin, side, p in rows)

    def batch_done(validator: Any) -> None:
        progress((validator.batch_i + 1) / len(validator.dataloader))

    def done(validator: Any) -> None:
        if skipped := sorted(set(pictures).difference(validator.dataloader.dataset.im_files)):
            raise DataError(f"Ultralytics cannot read {len(skipped)} of the pictures, such as '{skipped[0]}'.")

    for event, callback in {"on_val_start": started, "on_val_batch_end": batch_done, "on_val_end": done}.items():
        yolo.add_callback(event, callback)
    yolo.val(
        data=str(data),
        split="val",
        conf=0.001,
        iou=0.7,
        max_det=300,
        save_json=True,
        plots=False,
        verbose=False,
        exist_ok=True,
        **options,
    )
    return found


def latency(yolo: Any, imgsz: int, device: str | None) -> float:
    """Return the median milliseconds of a forward pass at batch 1 on a square picture."""
    picture = np.full((imgsz, imgsz, 3), GREY, dtype=np.uint8)
    passes = [
        yolo.predict(picture, imgsz=imgsz, device=device, save=False, verbose=False)[0].speed["inference"]
        for _ in range(WARM_UPS + TIMED_PASSES)
    ]
    return float(statistics.median(passes[WARM_UPS:]))
