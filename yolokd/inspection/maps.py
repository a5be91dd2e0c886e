"""What a recipe sees in one image: the loss map of every term, AID's weights, adversarial examples, frequencies.

Nothing is trained and nothing changes: the student looks with its running statistics, and every term acts at full
strength, whatever its schedule.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from yolokd.augment.ikd import Image
from yolokd.backend.api import DetectionModel, non_max_suppression, xywh2xyxy
from yolokd.backend.classes import ClassMatch
from yolokd.distillation.adversarial import frozen_statistics
from yolokd.distillation.model import Look, TeacherStudent
from yolokd.distillation.positives import PositiveCounts
from yolokd.inspection.fourier import HeatMap, heat_map, moved_scores
from yolokd.inspection.images import LabeledImage
from yolokd.loaders.batch import TrainingBatch
from yolokd.losses.base import Grid
from yolokd.recipe import Gain, Recipe

CONFIDENCE = 0.25  # least score of a detection
OVERLAP = 0.7  # IoU above which the weaker of two detections goes; Ultralytics' default

Array = npt.NDArray[np.float64]
Levels = Mapping[str, Array]  # level → (H, W)


@dataclass(frozen=True)
class Boxes:
    """Objects in an image: corners in pixels of the square input, names, and scores of detections."""

    xyxy_px: Array  # (N, 4)
    names: tuple[str, ...]
    scores: tuple[float, ...] = ()  # empty for ground truth


@dataclass(frozen=True)
class Term:
    """One distillation term on one image, under the weights and before its gain."""

    name: str
    about: str
    value: float
    gain: Gain
    levels: Levels | None  # the loss map; None for a term without a place
    trained: bool  # whether its adapters and generators, if it has any, come from the student's run


@dataclass(frozen=True)
class InstanceWeights:
    """AID's weights of one image."""

    levels: Levels  # of losses on head outputs
    instances: tuple[float, ...]  # of each object, from small to large; or of the image, or of each level
    scope: str
    alpha: float


@dataclass(frozen=True)
class AdversarialView:
    """An adversarial example and what it does to the teacher."""

    difference: Array  # (S, S, 3), adversarial example minus image, in 1/255
    eps: float
    loss: tuple[float, float]  # the teacher's classification loss before and after
    detections: Boxes
    image: Image  # the adversarial example, (S, S, 3)


@dataclass(frozen=True)
class Inspection:
    """Everything about one image."""

    image: LabeledImage
    truth: Boxes | None
    teacher: Boxes
    student: Boxes
    terms: tuple[Term, ...]
    weights: InstanceWeights | None = None
    example: AdversarialView | None = None
    frequencies: HeatMap | None = None


@dataclass(frozen=True)
class Inspector:
    """A pair and a recipe, checked, ready for images."""

    recipe: Recipe
    pair: TeacherStudent
    detector: DetectionModel  # the teacher as a whole; its layers are those of `pair.teacher_model`
    match: ClassMatch
    imgsz: int
    device: torch.device
    trained: frozenset[str]  # methods whose adapters and generators come from the student's run
    notes: tuple[str, ...]
    joined: bool = False  # all classes of the labels are the student's one

    @property
    def names(self) -> dict[int, str]:
        """The data's classes, which are the student's."""
        return dict(self.pair.student_model.names)

    @torch.no_grad()
    def inspect(self, image: LabeledImage, *, fourier: bool = False) -> Inspection:
        """Look at one image with both models.

        Args:
            image: Read for this size and these classes.
            fourier: Measure the teacher's sensitivity to frequencies as well, in some hundred passes of it.
        """
        student, teacher, batch = self.pair.student_model, self.pair.teacher_model, image.batch(self.device)
        images = batch["img"]
        self.pair.train()
        self._run().counts = PositiveCounts({})  # those of this image alone, whatever was inspected before
        with frozen_statistics(student):
            seen = self.pair.look(
                TrainingBatch.of(batch), {term: 1.0 for term, gain in self.recipe.terms().items() if gain}
            )
        heat = heat_map(moved_scores(teacher, images), images) if fourier else None
        return Inspection(
            image=image,
            truth=None if image.labels is None else self._truth(image.labels),
            teacher=self._teachers(images),
            student=detect(student, images, self.names),
            terms=tuple(self._term(term, seen) for term in self.pair.terms if term in seen.maps),
            weights=self._weights(seen),
            example=None if seen.adversarial is None else self._adversarial(seen.adversarial, batch),
            frequencies=heat,
        )

    def _run(self) -> Any:
        return self.pair.distillation

    def _truth(self, labels: Tensor) -> Boxes:
        corners = xywh2xyxy(labels[:, 1:]) * self.imgsz
        return Boxes(as_array(corners), tuple(self.names[int(label)] for label in labels[:, 0]))

    def _teachers(self, images: Tensor) -> Boxes:
        """The teacher's detections, with the data's names for the classes that both know."""
        teacher_of = zip(self.match.student, self.match.teacher, strict=True)
        common = {other: self.names[own] for own, others in teacher_of for other in others}
        found = detect(self.detector, images, {**self.detector.names, **common})
        self.pair.teacher_model.train()  # detecting has left its head in evaluation mode
        return found

    def _term(self, term: str, seen: Look) -> Term:
        values, run = seen.maps[term], self._run()
        gain: Gain = "auto" if run.gains[term] == "auto" else run.strength(term, 1.0)
        owner, about = owner_of(term, self.recipe)
        parts: Any = self.pair.projector[owner]
        head = term in getattr(run.losses.get(owner), "head_terms", ())  # head outputs pass no adapter
        return Term(
            name=term,
            about=about,
            value=float(values.sum()),
            gain=gain,
            levels=None if values.ndim == 1 else by_level(values[0], seen.grid),
            trained=head or owner in self.trained or not list(parts.parameters()),
        )

    def _weights(self, seen: Look) -> InstanceWeights | None:
        aid = self.recipe.weighting.aid
        if aid is None or seen.weights is None:
            return None
        instances = seen.weights.instances
        each = instances.weight[0][instances.counted[0]].tolist()
        return InstanceWeights(by_level(seen.weights.head[0], seen.grid), tuple(each), aid.scope, aid.alpha)

    def _adversarial(self, examples: Tensor, batch: dict[str, Any]) -> AdversarialView:
        attack: Any = self._run().attack
        attacked = attack.attack_loss(self.pair.teacher_model, batch)
        before, after = (float(attacked(images)) for images in (batch["img"], examples))  # the clean image first
        return AdversarialView(
            difference=as_array((examples - batch["img"])[0].permute(1, 2, 0) * 255),
            eps=attack.config.eps,
            loss=(before, after),
            detections=self._teachers(examples),
            image=(as_array(examples[0].permute(1, 2, 0)) * 255).round().astype(np.uint8),
        )


def detect(model: DetectionModel, images: Tensor, names: Mapping[int, str]) -> Boxes:
    """Return what a model detects in the first image, as it would after training; it is left in evaluation mode."""
    model.eval()
    rows = non_max_suppression(model(images), conf_thres=CONFIDENCE, iou_thres=OVERLAP, end2end=model.end2end)[0]
    return Boxes(
        as_array(rows[:, :4]),
        tuple(names[int(label)] for label in rows[:, 5].tolist()),
        tuple(rows[:, 4].tolist()),
    )


def owner_of(term: str, recipe: Recipe) -> tuple[str, str]:
    """Return the method that a term belongs to, and a line about it."""
    for name, config in recipe.losses.items():
        if term in config.gains():
            return name, (type(config).__doc__ or "").splitlines()[0]
    every = getattr(getattr(recipe.augment.ikd, "adversarial", None), "every", 1)
    once = f"; on one batch in {every}, with {every} times the gain" if every > 1 else ""
    return term, f"Neck features on the adversarial example (Liang et al., ACM MM 2023){once}."


def by_level(values: Tensor, grid: Grid) -> Levels:
    """Cut a map over all anchors, (A,), into levels, (H, W) each."""
    return {level: as_array(values[grid.places(level)].view(shape)) for level, shape in grid.shapes.items()}


def over_image(levels: Levels, side: int) -> Array:
    """Return the sum of all levels over the pixels of the square image, (S, S): a cell covers its pixels evenly."""
    spread = [np.kron(values, np.ones((side // len(values), side // values.shape[1]))) for values in levels.values()]
    total: Array = np.sum(spread, axis=0)
    return total


def as_array(tensor: Tensor) -> Array:
    """Return a tensor's numbers on the host."""
    return tensor.detach().cpu().double().numpy()
