"""What a detector finds on a data set, by Ultralytics' own validation, and how long a forward pass takes.

`KINDS` is the one place of the layer where tasks are told apart: what is scored of each, and by which validator.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from yolokd.backend.api import DetectionValidator, OBBValidator, PoseValidator, SegmentationValidator, YOLODataset
from yolokd.backend.image_set import WithoutLabels
from yolokd.backend.networks import MAX_DETECTIONS
from yolokd.errors import DataError, printable
from yolokd.evaluation.further import Further
from yolokd.evaluation.keypoint_scores import KEYPOINTS
from yolokd.evaluation.mask_scores import MASKS
from yolokd.evaluation.masks import Rle, encode
from yolokd.images.reader import ImageCheck, check_images

WARM_UPS = 3
TIMED_PASSES = 20
GRAY = 114  # Ultralytics' padding
NMS_IOU = 0.7

# image, class index, x y width height in its pixels, score; of rotated boxes x y of the middle, width, height, radians
Detection = tuple[str, int, list[float], float]


def detect(
    yolo: Any,
    data: Path,
    images: Collection[str],
    *,
    options: Mapping[str, Any],
    progress: Callable[[float], None],
    beside: list[Any] | None = None,
) -> list[Detection]:
    """Run Ultralytics' validation; it would round the detections, write and score them: they are taken before that.

    Args:
        yolo: `ultralytics.YOLO`.
        data: Data YAML that gives class names and channels; what it says of splits and labels is not read.
        images: Paths of the images; a detection names its image so.
        options: Of Ultralytics' validation.
        progress: Called with the share of the images that are done.
        beside: Gets what the model's task gives beside the box of each detection, in their order: its mask in pixels of
            its image, run lengths; or its keypoints there, x, y and confidence, one after the other.

    Raises:
        DataError: Some of the images cannot be read; known before the first is looked at.
        Exception: Whatever a device, a driver or an image may do to Ultralytics.
    """
    checks, kind = _usable(images), KINDS[yolo.task]
    found: list[Detection] = []

    def started(validator: Any) -> None:
        validator.pred_to_json = keep  # called for each image with detections

    def keep(predicted: Mapping[str, Any], image: Mapping[str, Any]) -> None:
        found.extend(kind.read(predicted, image["im_file"]))
        if beside is not None:
            beside.extend(kind.beside(predicted))

    def batch_done(validator: Any) -> None:
        progress((validator.batch_i + 1) / len(validator.dataloader))

    for event, callback in {"on_val_start": started, "on_val_batch_end": batch_done}.items():
        yolo.add_callback(event, callback)
    yolo.val(
        validator=partial(kind.validator, checks),
        data=str(data),
        split="val",
        conf=0.001,
        iou=NMS_IOU,
        max_det=MAX_DETECTIONS,
        save_json=True,
        plots=False,
        verbose=False,
        exist_ok=True,
        **options,
    )
    return found


def _usable(images: Collection[str]) -> dict[str, ImageCheck]:
    checks = check_images(sorted(images))
    if bad := [path for path, check in checks.items() if not check.usable]:
        first = f"'{printable(bad[0])}' ({checks[bad[0]].problem})"
        raise DataError(f"Ultralytics cannot read {len(bad)} of the images, such as {first}.")
    return checks


def _detections(predicted: Mapping[str, Any], file: str) -> Iterator[Detection]:
    corners = predicted["bboxes"]  # (N, 4) xyxy in pixels of the original image
    sides = corners[:, 2:] - corners[:, :2]
    origins = (corners[:, :2] + corners[:, 2:]) / 2 - sides / 2  # by the middle, bit for bit as Ultralytics does
    columns = (predicted["cls"].int(), origins, sides, predicted["conf"])
    for index, origin, side, p in zip(*(column.tolist() for column in columns), strict=True):
        yield file, index, origin + side, p


def _rotated_detections(predicted: Mapping[str, Any], file: str) -> Iterator[Detection]:
    columns = (predicted["cls"].int(), predicted["bboxes"], predicted["conf"])  # (N, 5): already with the angle
    for index, box, p in zip(*(column.tolist() for column in columns), strict=True):
        yield file, index, box, p


def _nothing(predicted: Mapping[str, Any]) -> list[Any]:
    return []


def _masks(predicted: Mapping[str, Any]) -> list[Rle]:
    return encode(predicted["masks"])


def _keypoints(predicted: Mapping[str, Any]) -> list[list[float]]:
    """Keypoints as COCO lists them; a confidence of 1 where there is none."""
    points: Tensor = predicted["keypoints"]  # (N, K, 2 or 3)
    if points.shape[-1] == 2:
        points = torch.cat((points, torch.ones_like(points[..., :1])), -1)
    found: list[list[float]] = points.flatten(1).tolist()
    return found


class _Validator(DetectionValidator):  # type: ignore[misc]
    """Ultralytics' validator on images that are given to it instead of read from a list."""

    def __init__(self, checks: Mapping[str, ImageCheck], **options: Any) -> None:
        super().__init__(**options)
        self.checks = checks

    def build_dataset(self, img_path: str, mode: str = "val", batch: int | None = None) -> YOLODataset:
        """Build the data set as `build_yolo_dataset` of Ultralytics does for a validation."""
        return _Images(
            self.checks,
            imgsz=self.args.imgsz,
            batch_size=batch,
            augment=False,
            hyp=self.args,
            rect=self.args.rect,
            cache=None,
            stride=self.stride,
            pad=0.5,
            prefix="val: ",
            task=self.args.task,
            data=self.data,
        )


class _SegmentValidator(_Validator, SegmentationValidator):  # type: ignore[misc]
    """The same for segment models, whose detections have masks."""


class _PoseValidator(_Validator, PoseValidator):  # type: ignore[misc]
    """The same for pose models, whose detections have keypoints: as many as the model gives, whatever the data have."""

    def build_dataset(self, img_path: str, mode: str = "val", batch: int | None = None) -> YOLODataset:
        """Build the data set, which must know of keypoints, whatever they are, although none is read."""
        own: Any = self
        own.data = {"kpt_shape": [1, 3], **own.data}
        return super().build_dataset(img_path, mode, batch)

    def init_metrics(self, model: Any) -> None:
        """Prepare Ultralytics' own metrics, which nobody reads, for the model's keypoints."""
        own: Any = self
        own.data = {**own.data, "kpt_shape": list(model.kpt_shape), "kpt_oks_sigmas": None}
        super().init_metrics(model)


class _RotatedValidator(_Validator, OBBValidator):  # type: ignore[misc]
    """The same for OBB models, whose boxes are rotated."""


@dataclass(frozen=True)
class Kind:
    """What a task brings to the evaluation."""

    validator: type[_Validator]
    rotated: bool = False  # whether boxes are rotated, and scored as Ultralytics does
    read: Callable[[Mapping[str, Any], str], Iterator[Detection]] = _detections
    further: Further | None = None  # the metric beside the AP of boxes
    beside: Callable[[Mapping[str, Any]], list[Any]] = _nothing  # what it is computed from


KINDS = {
    "detect": Kind(_Validator),
    "segment": Kind(_SegmentValidator, further=MASKS, beside=_masks),
    "pose": Kind(_PoseValidator, further=KEYPOINTS, beside=_keypoints),
    "obb": Kind(_RotatedValidator, rotated=True, read=_rotated_detections),
}


class _Images(WithoutLabels, YOLODataset):  # type: ignore[misc]
    """The images of a validation, of known size."""

    def __init__(self, checks: Mapping[str, ImageCheck], **options: Any) -> None:
        self.shapes = {file: (check.height, check.width) for file, check in checks.items()}
        super().__init__(list(checks), **options)


def latency(yolo: Any, imgsz: int, device: str | None, channels: int = 3) -> float:
    """Return the median milliseconds of a forward pass at batch 1 on a square image of so many channels."""
    image = np.full((imgsz, imgsz, channels), GRAY, dtype=np.uint8)
    passes = [
        yolo.predict(image, imgsz=imgsz, device=device, save=False, verbose=False)[0].speed["inference"]
        for _ in range(WARM_UPS + TIMED_PASSES)
    ]
    return float(statistics.median(passes[WARM_UPS:]))
