"""The frozen teacher: as cheap as its floating-point operations allow.

Convolutions are folded with their normalization once, weights are held in the precision that they run in, boxes are
never decoded, and a pass stops at the last layer that somebody needs.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import torch
from torch import Tensor, nn

from yolokd.backend.api import DetectionModel
from yolokd.backend.heads import HeadInfo, read_head
from yolokd.backend.tasks import keep_detect_part
from yolokd.errors import UserError
from yolokd.teachers.base import Offer, Teacher, TeacherOutput

DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


class DetectorTeacher(Teacher):
    """One detector that sees the student's own images."""

    def __init__(
        self,
        model: DetectionModel,
        *,
        dtype: torch.dtype = torch.float32,
        compiled: bool = False,
        extras: Collection[str] = (),
    ) -> None:
        """Take over a detector, whose layers change.

        Args:
            model: The trained detector.
            dtype: Precision of its weights and of its pass.
            compiled: Compile the pass without gradient, at its first run on each shape of images.
            extras: What is needed beside class scores and boxes, as `yolokd.losses.base.Requirements` names it; without
                any, a head of another task computes its detect part alone.
        """
        super().__init__()
        if not extras:
            keep_detect_part(model.model[-1])
        self.info: HeadInfo = read_head(model, "The teacher")
        self.offer = Offer.of_head(self.info)
        self.layers: nn.Sequential = fold(model).model.to(dtype)
        self.saved = frozenset(model.save)
        self.dtype = dtype
        self._compiled = torch.compile(self.run, options={"freezing": True}) if compiled else None
        self.train()

    @property
    def stride(self) -> int:
        """Pixels per cell of its coarsest level."""
        return self.info.largest_stride

    def train(self, mode: bool = True) -> DetectorTeacher:
        """Stay in evaluation mode; only the head module itself is in training mode, so that it decodes no boxes."""
        super().train(False)
        for parameter in self.parameters():
            parameter.requires_grad_(False)
        self.layers[-1].training = True
        return self

    @torch.no_grad()
    def forward(self, images: Tensor, *, head: bool = True, levels: tuple[str, ...] = ()) -> TeacherOutput:
        """Run the teacher as far as needed, without gradient; see `Teacher.forward`."""
        run = self._compiled or self.run
        return run(images, head=head, levels=levels)

    def run(self, images: Tensor, *, head: bool = True, levels: tuple[str, ...] = ()) -> TeacherOutput:
        """Do what `forward` does, with the gradient to the images that an attack on the teacher needs."""
        wanted = {self.info.layers[level]: level for level in levels}
        last = self.info.index if head else max(wanted)
        features: dict[str, Tensor] = {}
        outputs: list[Any] = []
        x: Any = images.to(self.dtype)
        cpu = images.device.type == "cpu"
        if cpu:  # a tenth faster; on a GPU the trainer has put all models into that format
            x = x.contiguous(memory_format=torch.channels_last)
        with torch.autocast(images.device.type, enabled=False):
            for index, layer in enumerate(self.layers):
                source: Any = layer.f
                if source != -1:
                    many = isinstance(source, list)
                    x = [x if j == -1 else outputs[j] for j in source] if many else outputs[source]
                x = layer(x)
                outputs.append(x if index in self.saved else None)
                if index in wanted:
                    features[wanted[index]] = x.contiguous() if cpu else x  # in the format of the student's
                if index == last:
                    break
        return TeacherOutput(features, x if head else None)


def require_compiler(device: torch.device) -> None:
    """Raise `UserError` unless torch can compile for this device; tried on one addition."""
    try:
        torch.compile(lambda x: x + 1)(torch.zeros(1, device=device))
    except Exception as error:  # whatever is missing, each backend of torch says it in its own way
        reason = next((line.strip(" .") for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise UserError(
            f"teacher.compile is on, but torch cannot compile for the device '{device}' ({reason}). Install a C++ "
            f"compiler, on a GPU also Triton, or set teacher.compile to false."
        ) from error


def fold(model: DetectionModel) -> DetectionModel:
    """Fold every convolution with its normalization in place, and keep both branches of a dual head.

    Ultralytics' own `fuse()` does the folding but also lets the head drop a branch, so the head's part is held off.
    """
    head = model.model[-1]
    head.fuse = lambda: None
    try:
        model.fuse(verbose=False)
    finally:
        del head.fuse
    return model
