"""Asking detectors what they see in images as they are: boxes with the probabilities of all classes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchvision.ops import box_convert

from yolokd.backend.api import LetterBox, non_max_suppression, scale_boxes
from yolokd.backend.heads import as_head, grid_of, neck_features, split_branches
from yolokd.images.reader import read_image
from yolokd.loaders.answers import LOWEST, Answer
from yolokd.losses.base import LEVEL_OF_STRIDE
from yolokd.teachers.detector import DetectorTeacher
from yolokd.teachers.fusion import fuse, unite

OVERLAP = 0.7  # IoU above which the weaker of two boxes goes, whatever their classes
MOST = 300  # boxes of an image
BATCH = 16  # images of one pass


class Labeler(Protocol):
    """Whatever finds objects in images, with the probabilities of all its classes."""

    names: dict[int, str]  # class index → name

    def answers(self, images: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Return for each image boxes (N, 4), xyxy in pixels, and probabilities (N, K), strongest first.

        Without duplicates, down to a largest probability of `LOWEST`.

        Args:
            images: (B, 3, H, W) in [0, 1].
        """
        ...


class Panel:
    """Detectors that are asked together.

    Args:
        teachers: The detectors.
        names: The class names of each.
        flip: Ask about the mirrored image as well.
    """

    def __init__(
        self, teachers: Sequence[DetectorTeacher], names: Sequence[dict[int, str]], *, flip: bool = False
    ) -> None:
        self.teachers, self.flip = teachers, flip
        self.united = unite(names)
        self.names = self.united.names

    def answers(self, images: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Return the boxes of each image; see `Labeler`."""
        return detections(*self.look(images))

    @torch.no_grad()
    def look(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return probabilities (B, A, K) over the united classes and boxes (B, A, 4), xyxy in pixels, at each anchor.

        Args:
            images: (B, 3, H, W) in [0, 1].
        """
        probabilities, boxes, know = [], [], []
        for teacher, places, mask in zip(self.teachers, self.united.places, self.united.know, strict=True):
            for mirrored in (False, True) if self.flip else (False,):
                scores, own = self._one(teacher, images, mirrored=mirrored)
                united = scores.new_zeros(*scores.shape[:2], len(self.names))
                united[..., list(places)] = scores
                probabilities.append(united)
                boxes.append(own)
                know.append(mask)
        return fuse(probabilities, boxes, torch.stack(know))

    @staticmethod
    def _one(teacher: DetectorTeacher, images: Tensor, *, mirrored: bool) -> tuple[Tensor, Tensor]:
        raw = teacher(images.flip(3) if mirrored else images).raw or {}
        grid = grid_of(neck_features(raw))
        head = as_head(split_branches(raw)["one2many"], grid, None)
        scores, boxes = head.logits.sigmoid(), head.boxes
        if not mirrored:
            return scores, boxes
        width = images.shape[3]
        left, top, right, bottom = boxes.unbind(-1)
        boxes = torch.stack((width - right, top, width - left, bottom), -1)
        order = torch.cat(
            [
                torch.arange(h * w, device=images.device).view(h, w).flip(1).flatten() + grid.places(level).start
                for level, (h, w) in grid.shapes.items()
            ]
        )
        return scores[:, order], boxes[:, order]


def detections(probabilities: Tensor, boxes: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Return the boxes of each image without duplicates, strongest first: (N, 4) as given, and (N, K).

    Args:
        probabilities: At each anchor, (B, A, K).
        boxes: (B, A, 4), xyxy in pixels.
    """
    classes = probabilities.shape[-1]
    rows = torch.cat((box_convert(boxes, "xyxy", "cxcywh"), probabilities, probabilities), -1).mT
    kept = non_max_suppression(
        rows, conf_thres=LOWEST, iou_thres=OVERLAP, agnostic=True, max_det=MOST, nc=classes, max_time_img=60.0
    )
    return [(one[:, :4], one[:, 6:]) for one in kept]


def ask(panel: Labeler, files: Sequence[str], *, imgsz: int, device: torch.device) -> Iterator[tuple[str, Answer]]:
    """Yield the answers for image files, in their order.

    Args:
        panel: Who is asked.
        files: Color images.
        imgsz: Longer side of an image in pixels when it is asked about, a multiple of 32.
        device: Where the detectors are.

    Raises:
        DataError: A file cannot be read as an image.
    """
    fit = LetterBox((imgsz, imgsz), auto=True, stride=max(LEVEL_OF_STRIDE))
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
    panel: Labeler, images: Sequence[tuple[str, tuple[int, int], NDArray[np.uint8]]], device: torch.device
) -> Iterator[tuple[str, Answer]]:
    stacked = np.stack([pixels[..., ::-1].transpose(2, 0, 1) for _, _, pixels in images])  # BGR to RGB
    batch = torch.from_numpy(stacked).to(device).float() / 255
    for (file, size, fitted), (boxes, probabilities) in zip(images, panel.answers(batch), strict=True):
        corners = scale_boxes(fitted.shape[:2], boxes.clone(), size)
        shares = box_convert(corners / corners.new_tensor([size[1], size[0]] * 2), "xyxy", "cxcywh")
        solid = (shares[:, 2:] > 0).all(1)
        yield file, Answer(shares[solid].cpu().numpy(), probabilities[solid].cpu().numpy())
