"""Adversarial examples in a run: made online from the batch, and what both models' necks make of them.

Source: Liang et al., "Exploring Inconsistent Knowledge Distillation for Object Detection with Data Augmentation",
ACM MM 2023, and the authors' code (JWLiang007/IKD). The attack is in `yolokd.augment.ikd`, the loss on the examples in
`yolokd.losses.ikd`.
Differs: examples are made of the augmented batch; targets of the attack are the teacher's own assignment of the clean
batch, not updated; the student's BatchNorm, live in YOLO, keeps its running statistics out of it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from yolokd.augment.ikd import adversarial
from yolokd.backend.api import DetectionModel
from yolokd.backend.classes import ClassMatch
from yolokd.backend.heads import as_head, by_level, grid_of, neck_features, split_branches
from yolokd.distillation.levels import Levels
from yolokd.distillation.teacher_loss import assign, pad_objects
from yolokd.errors import PairError
from yolokd.loaders.batch import COUNTS
from yolokd.losses.base import Head, LevelMaps
from yolokd.teachers.detector import DetectorTeacher

if TYPE_CHECKING:
    from yolokd.recipe import IKDAdversarialConfig


@dataclass(frozen=True)
class Passes:
    """What adversarial examples add to an average step, in forward passes of a model; a training step takes three."""

    teacher: float
    student: float


def extra_passes(config: Any) -> Passes:
    """Estimate the cost of `adversarial`: `steps` and `every`.

    Each step of the attack goes forward and, for the gradient of the images alone, backward; then the
    teacher's features of the examples are needed, and the student's twice, the second time with their gradient. Heads
    that are left out still count.
    """
    return Passes(teacher=(2 * config.steps + 1) / config.every, student=4 / config.every)


class Attack:
    """Makes adversarial examples of the batch: images on which the teacher's classification loss is larger."""

    def __init__(self, config: IKDAdversarialConfig, classes: ClassMatch) -> None:
        """Prepare for one pair.

        Args:
            config: `eps` and `step`, in 1/255; `steps`, at least 1; `every`, at least 1.
            classes: Which class of the data is which of the teacher's; the loss under attack is that of these classes.

        Raises:
            PairError: The teacher knows none of the data's classes.
        """
        if not classes.student:
            raise PairError(
                "augment.ikd.adversarial attacks the teacher's scores for the data's classes, but the teacher knows "
                f"none of them by name:\n{classes.table()}\nMap names in the recipe (teacher.classes), or set "
                "augment.ikd.adversarial to null."
            )
        self.config = config
        self._labels = torch.tensor(classes.places)
        self._picked = None if classes.identical else torch.tensor(classes.columns)

    def make(self, teacher: DetectorTeacher, batch: Mapping[str, Any], number: int) -> Tensor | None:
        """Return the adversarial examples of a batch, (B, 3, H, W), detached; None on steps that have none.

        Call it before the student's clean pass, so that the teacher's graph is gone when the student's is built.

        Args:
            teacher: In single precision; it collects no gradients.
            batch: `img` in [0, 1] and labels, as the trainer hands them to the model.
            number: Number of the step in the run, from 1; the first has some.

        Raises:
            ValueError: The teacher runs in half precision; see `yolokd.teachers.table.precision_of`.
        """
        if torch.finfo(teacher.dtype).bits < 32:
            raise ValueError(f"an attack takes a teacher in single precision, got {teacher.dtype}")
        if (number - 1) % self.config.every:
            return None
        eps, step, steps = self.config.eps, self.config.step, self.config.steps
        parts = quarters(batch)
        return torch.cat(
            [adversarial(p["img"], self.attack_loss(teacher, p), eps=eps, step=step, steps=steps) for p in parts]
        )

    def attack_loss(self, teacher: DetectorTeacher, batch: Mapping[str, Any]) -> Callable[[Tensor], Tensor]:
        """Return what the examples shall raise: the teacher's classification loss per image, a function of images.

        It is the cross-entropy of the one-to-many branch, summed over anchors and classes, (B,). The first images that
        it sees, the clean ones in an attack, decide which anchors the objects are assigned to; that stays for the rest.
        """
        targets: Tensor | None = None

        def loss(images: Tensor) -> Tensor:
            nonlocal targets
            head = self._head(teacher, images)
            if targets is None:
                targets = self._targets(head, batch)
            return F.binary_cross_entropy_with_logits(head.logits, targets, reduction="none").sum((1, 2))

        return loss

    def _head(self, teacher: DetectorTeacher, images: Tensor) -> Head:
        raw: Any = teacher.run(images, head=True).raw
        self._picked = None if self._picked is None else self._picked.to(images.device)  # it stays there
        return as_head(split_branches(raw)["one2many"], grid_of(neck_features(raw, images)), self._picked)

    @torch.no_grad()
    def _targets(self, head: Head, batch: Mapping[str, Any]) -> Tensor:
        """Return the soft labels of the teacher's own assignment, (B, A, K)."""
        self._labels = self._labels.to(head.logits.device)  # it stays there: only the first attack waits for the copy
        objects = pad_objects(batch, self._labels, head)
        return assign(head, objects)[2].to(head.logits.dtype)


@dataclass(frozen=True)
class Examples:
    """Adversarial examples of a batch, (B, 3, H, W), and the two models that are compared on them."""

    images: Tensor
    student: DetectionModel
    teacher: DetectorTeacher
    levels: Levels

    def compare(self, distance: LevelMaps) -> Tensor:
        """Return the loss map of a distance between neck features, (B, A); see `yolokd.losses.base`.

        The gradient reaches the student up to its neck; no running statistics change. Call it before the student's
        clean pass. A backward pass then reaches it last, when the memory of the clean pass is free again: it is
        computed anew there, instead of being held beside it. The gradient is that of this second time, with running
        statistics that the clean pass has updated; the value is that of the first.
        """
        levels = self.levels.features
        goal = self.teacher(self.images, head=False, levels=levels).features
        grid = self.levels.grids(self.images).common

        def compared(images: Tensor) -> Tensor:
            with frozen_statistics(self.student):
                own = neck_pass(self.student, images)
            return grid.spread(distance({level: own[level] for level in levels}, goal))

        result: Tensor = checkpoint(compared, self.images, use_reentrant=False, preserve_rng_state=False)
        return result


def quarters(batch: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return at most four parts of a batch with their labels, as the graph of a large teacher takes much memory."""
    images, index, counts = batch["img"], batch["batch_idx"].flatten(), batch.get(COUNTS)
    size = math.ceil(len(images) / 4)
    parts: list[dict[str, Any]] = []
    for start in range(0, len(images), size):
        own: Any
        part: dict[str, Any] = {"img": images[start : start + size]}
        if counts is None:
            own = (index >= start) & (index < start + size)  # for its rows the host waits for the device
        else:
            part[COUNTS] = counts[start : start + size]
            first = sum(counts[:start])
            own = slice(first, first + sum(part[COUNTS]))
        labels = {"batch_idx": index[own] - start, "cls": batch["cls"][own], "bboxes": batch["bboxes"][own]}
        parts.append({**part, **labels})
    return parts


@contextmanager
def frozen_statistics(model: nn.Module) -> Iterator[None]:
    """Let BatchNorm normalize by its running statistics, and not update them; weights still get gradients."""
    live = [module for module in model.modules() if isinstance(module, _BatchNorm) and module.training]
    for module in live:
        module.training = False
    try:
        yield
    finally:
        for module in live:
            module.training = True


def neck_pass(student: DetectionModel, images: Tensor) -> dict[str, Tensor]:
    """Run a detector up to what its head looks at, by level, (B, C, H, W); the head does not run."""
    wanted = student.model[-1].f
    features: dict[int, Tensor] = {}
    outputs: list[Any] = []
    x: Any = images
    for index, layer in enumerate(student.model[: max(wanted) + 1]):
        if layer.f != -1:
            many = isinstance(layer.f, list)
            x = [x if j == -1 else outputs[j] for j in layer.f] if many else outputs[layer.f]
        x = layer(x)
        outputs.append(x if index in student.save else None)
        if index in wanted:
            features[index] = x
    return by_level((features[index] for index in wanted), images)
