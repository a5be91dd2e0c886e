"""Asking detectors what they see in images as they are: boxes with the probabilities of all classes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchvision.ops import box_convert

from yolokd.backend.api import LetterBox, make_divisible, non_max_suppression, scale_boxes
from yolokd.backend.heads import as_head, grid_of, neck_features, split_branches
from yolokd.images.reader import read_image
from yolokd.loaders.answers import LOWEST, Answer
from yolokd.teachers.base import TeacherOutput
from yolokd.teachers.fusion import fuse, unite

OVERLAP = 0.7  # IoU above which the weaker of two boxes goes, whatever their classes
MOST = 300  # boxes of an image
BATCH = 16  # images of one pass
STRIDE = 32  # sides of images are multiples of it at least


class BoxModel(Protocol):
    """A model, or several together, that can be asked what is in an image."""

    @property
    def names(self) -> dict[int, str]:
        """Class index → name."""
        ...

    @property
    def stride(self) -> int:
        """What the sides of its images are multiples of, in pixels."""
        ...

    def answers(self, images: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Return boxes (N, 4), xyxy in pixels, and class probabilities (N, K) of each image.

        They come strongest first, without duplicates, at most `MOST`, and down to a probability of `LOWEST`.

        Args:
            images: (B, 3, H, W) in [0, 1], sides that are multiples of `stride`.
        """
        ...


class Labeler(BoxModel, Protocol):
    """One model that can be asked, with what identifies its answers."""

    @property
    def digest(self) -> str:
        """SHA-256 of the checkpoint; where class names were given as prompts, of that digest and the names."""
        ...

    @property
    def path(self) -> Path:
        """The checkpoint."""
        ...


class GridModel(Protocol):
    """A detector that gives the raw outputs of its head at all anchors."""

    @property
    def stride(self) -> int:
        """Pixels per cell of its coarsest level."""
        ...

    def __call__(self, images: Tensor) -> TeacherOutput:
        """Return the raw outputs for images, (B, 3, H, W) in [0, 1]."""
        ...


class Panel:
    """Detectors that are asked together.

    Args:
        teachers: The detectors, all of the same levels.
        names: The class names of each.
        flip: Ask about the mirrored image as well.
    """

    def __init__(
        self,
        teachers: Sequence[GridModel],
        names: Sequence[dict[int, str]],
        *,
        flip: bool = False,
    ) -> None:
        self.teachers, self.flip = teachers, flip
        self.united = unite(names)
        self.names = self.united.names
        self.stride = max(STRIDE, *(teacher.stride for teacher in teachers))

    def answers(self, images: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Return boxes and probabilities of each image; see `BoxModel`."""
        return detections(*self.look(images))

    @torch.no_grad()
    def look(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return probabilities (B, A, K) over the united classes and boxes (B, A, 4), xyxy in pixels, at each anchor.

        Args:
            images: (B, 3, H, W) in [0, 1].
        """
        probabilities, boxes, know = [], [], []
        for teacher, places, mask in zip(self.teachers, self.united.places, self.united.know, strict=True):
            for flipped in (False, True) if self.flip else (False,):
                scores, own = self._one(teacher, images, flipped=flipped)
                united = scores.new_zeros(*scores.shape[:2], len(self.names))
                united[..., list(places)] = scores
                probabilities.append(united)
                boxes.append(own)
                know.append(mask)
        return fuse(probabilities, boxes, torch.stack(know))

    @staticmethod
    def _one(teacher: GridModel, images: Tensor, *, flipped: bool) -> tuple[Tensor, Tensor]:
        raw = teacher(images.flip(3) if flipped else images).raw or {}
        grid = grid_of(neck_features(raw, images))
        head = as_head(split_branches(raw)["one2many"], grid, None)
        scores, boxes = head.logits.sigmoid(), head.boxes
        if not flipped:
            return scores, boxes
        boxes = mirrored(boxes, images.shape[3])
        order = torch.cat(
            [
                torch.arange(h * w, device=images.device).view(h, w).flip(1).flatten() + grid.places(level).start
                for level, (h, w) in grid.shapes.items()
            ]
        )
        return scores[:, order], boxes[:, order]


def mirrored(boxes: Tensor, width: int) -> Tensor:
    """Return the boxes of a mirrored image, (..., 4), xyxy in pixels, for the image as it was.

    Args:
        boxes: (..., 4).
        width: Of the image in pixels.
    """
    left, top, right, bottom = boxes.unbind(-1)
    return torch.stack((width - right, top, width - left, bottom), -1)


def detections(probabilities: Tensor, boxes: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Return the boxes of each image without duplicates, strongest first: (N, 4) as given, and (N, K).

    Args:
        probabilities: At each anchor, (B, A, K).
        boxes: (B, A, 4), xyxy in pixels.
    """
    classes = probabilities.shape[-1]
    rows = torch.cat((box_convert(boxes, "xyxy", "cxcywh"), probabilities, probabilities), -1).mT
    if rows.shape[-1] == 6:  # which Ultralytics takes for boxes that were chosen already
        rows = torch.nn.functional.pad(rows, (0, 1))
    kept = non_max_suppression(
        rows, conf_thres=LOWEST, iou_thres=OVERLAP, agnostic=True, max_det=MOST, nc=classes, max_time_img=60.0
    )
    return [(one[:, :4], one[:, 6:]) for one in kept]


def ask(panel: BoxModel, files: Sequence[str], *, imgsz: int, device: torch.device) -> Iterator[tuple[str, Answer]]:
    """Yield the answers for image files, in their order.

    Args:
        panel: Who is asked: teachers, or a model from `yolokd.teachers.opening`.
        files: Color images.
        imgsz: Longer side of an image in pixels when it is asked about, rounded up to a multiple of `panel.stride`.
        device: Where they are.

    Raises:
        DataError: A file cannot be read as an image.
    """
    side = int(make_divisible(imgsz, panel.stride))
    fit = LetterBox((side, side), auto=True, stride=panel.stride)
    waiting: list[tuple[str, tuple[int, int], NDArray[np.uint8]]] = []
    for file in files:
        pixels = read_image(file)
        fitted: NDArray[np.uint8] = fit(image=pixels)
        if waiting and (fitted.shape != waiting[0][2].shape or len(waiting) == BATCH):
            yield from _answers(panel, waiting, device)
            waiting = []
        waiting.append((file, pixels.shape[:2], fitted))
    if waiting:
        yield from _answers(panel, waiting, device)


def _answers(
    panel: BoxModel, images: Sequence[tuple[str, tuple[int, int], NDArray[np.uint8]]], device: torch.device
) -> Iterator[tuple[str, Answer]]:
    stacked = np.stack([pixels[..., ::-1].transpose(2, 0, 1) for _, _, pixels in images])  # BGR to RGB
    batch = torch.from_numpy(stacked).to(device).float() / 255
    for (file, size, fitted), (boxes, probabilities) in zip(images, panel.answers(batch), strict=True):
        corners = scale_boxes(fitted.shape[:2], boxes.clone(), size)
        shares = box_convert(corners / corners.new_tensor([size[1], size[0]] * 2), "xyxy", "cxcywh")
        solid = (shares[:, 2:] > 0).all(1)
        yield file, Answer(shares[solid].cpu().numpy(), probabilities[solid].cpu().numpy())
