"""IKD's sample-specific augmentation inside Ultralytics' data set: noise or a crop, before mosaic and everything else.

Source: Liang et al., "Exploring Inconsistent Knowledge Distillation for Object Detection with Data Augmentation",
ACM MM 2023, and the authors' code (JWLiang007/IKD); the rule and the changes themselves are in `yolokd.augment.ikd`.
Differs: a crop is cut out of the resized image that the loader keeps, then enlarged to its size again, at most
1 / `crop` times. Window and labels are those of a crop before resizing; cutting the file's own pixels would mean
reading four files for each mosaic, and would make cached images useless. Noise, which resizing would alter, goes onto
the file's own pixels; it is rare, so reading the file anew costs little.

What happens to an image depends on the seed, the epoch, the image and its labels only: not on the number of workers, on
what was loaded before, nor on stored answers of teachers, which are cut with the image.
"""

from __future__ import annotations

import math
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from yolokd.augment.ikd import Boxes, Image, clipped, noisy, random_crop, sample_rule
from yolokd.backend.api import InfiniteDataLoader, imread
from yolokd.loaders.epoch_sampler import CurrentEpoch, EpochSet, Key, send_epochs


def epochs_on(until: float, epochs: int) -> int:
    """Return how many epochs, from the first, IKD acts in: the share `until` of all, to the nearest whole one."""
    return round(until * epochs)


def augment_loader(loader: InfiniteDataLoader, config: Any, *, seed: int, current_epoch: CurrentEpoch) -> None:
    """Make a training loader change its images, in place and before its first use.

    Args:
        loader: Ultralytics' loader of a detection data set.
        config: `noise`, the probability for images of small objects; `crop`, the smallest share of a side that a
            window keeps; `until`, the share of the epochs after which images stay as they are.
        seed: Seed of the run, at least 0.
        current_epoch: Gives the current epoch, from 0, and the number of epochs; see `send_epochs`.
    """
    dataset = send_epochs(loader, SampleSpecific, current_epoch)
    dataset.noise, dataset.crop, dataset.until, dataset.seed = config.noise, config.crop, config.until, seed


class SampleSpecific(EpochSet):
    """A training set that changes each image before anybody sees it, mosaic's partners included.

    Attributes:
        noise: Probability of noise on an image whose objects are all small.
        crop: Smallest share of a side that a window of any other image keeps.
        until: Share of the epochs after which images stay as they are.
        seed: Seed of the run.
        draw: 1 + epoch; 0 leaves images as they are.
    """

    noise: float
    crop: float
    until: float
    seed: int
    draw = 0

    def __getitem__(self, key: Key) -> dict[str, Any]:
        """Return a sample, augmented in every way."""
        self.draw = 1 + key.epoch if key.epoch < epochs_on(self.until, key.epochs) else 0
        return super().__getitem__(key)

    def get_image_and_label(self, index: int) -> dict[str, Any]:
        """Return an image and its labels as mosaic takes them, changed by the rule for this image."""
        label: dict[str, Any] = super().get_image_and_label(index)
        if not self.draw:
            return label
        rng = np.random.default_rng((self.seed, self.draw, index))
        objects = label["cls"].flatten() < len(self.data["names"])  # the rest is what teachers saw
        if sample_rule(original_sizes(label)[objects]) == "crop":
            self._crop(label, objects, rng)
        elif rng.random() < self.noise:
            label["img"] = fit(noisy(self._original(index), rng), self.imgsz)
        return label

    def _crop(self, label: dict[str, Any], objects: npt.NDArray[np.bool_], rng: np.random.Generator) -> None:
        height, width = label["img"].shape[:2]
        instances = label["instances"]
        instances.convert_bbox("xyxy")
        instances.denormalize(width, height)
        own, seen = np.flatnonzero(objects), np.flatnonzero(~objects)
        window, inside = random_window((height, width), instances.bboxes[own], rng, low=self.crop)
        kept = np.concatenate((own[inside], seen[clipped(instances.bboxes[seen], window)[1]]))
        left, top, right, bottom = window
        instances = instances[kept]
        instances.add_padding(-left, -top)
        instances.clip(right - left, bottom - top, preserve_obb=self.use_obb)
        instances.normalize(right - left, bottom - top)
        instances.convert_bbox("xywh")
        label["instances"], label["cls"] = instances, label["cls"][kept]
        label["img"] = fit(label["img"][top:bottom, left:right].copy(), self.imgsz)  # the loader's array is shared
        label["resized_shape"] = label["img"].shape[:2]

    def _original(self, index: int) -> Image:
        image: Image | None = imread(self.im_files[index], flags=self.cv2_flag)
        if image is None:
            raise FileNotFoundError(f"The image '{self.im_files[index]}' cannot be read any more.")
        return image


def original_sizes(label: dict[str, Any]) -> npt.NDArray[np.float64]:
    """Return widths and heights of the boxes in pixels of the image's file, (N, 2).

    To the hundredth: labels are shares of the sides with about six digits, so that 32 pixels may read 31.9998.
    """
    height, width = label["ori_shape"]
    sizes: npt.NDArray[np.float64] = label["instances"].bboxes[:, 2:].astype(np.float64) * (width, height)
    return sizes.round(2)


def random_window(
    shape: tuple[int, int], boxes_xyxy_px: Boxes, rng: np.random.Generator, *, low: float
) -> tuple[tuple[int, int, int, int], npt.NDArray[np.intp]]:
    """Return where `random_crop` cuts an image of this height and width: x, y, x, y; and the boxes that it keeps."""
    height, width = shape
    places: Any = np.arange(height * width).reshape(shape)  # each pixel says where it lies
    cut, _, kept = random_crop(places, boxes_xyxy_px, rng, low=low)
    top, left = divmod(int(cut[0, 0]), width)
    return (left, top, left + cut.shape[1], top + cut.shape[0]), kept


def fit(image: Image, side: int) -> Image:
    """Return the image with its longer side `side` pixels long, (H, W, C), as Ultralytics' loader resizes."""
    height, width = image.shape[:2]
    ratio = side / max(height, width)
    if ratio != 1:
        size = min(math.ceil(width * ratio), side), min(math.ceil(height * ratio), side)
        image = cv2.resize(image, size, interpolation=cv2.INTER_LINEAR)
    return image if image.ndim == 3 else image[..., None]
