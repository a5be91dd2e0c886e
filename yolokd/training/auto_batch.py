"""The search for a batch size (`batch: -1`) on whole training steps: teacher, losses and unlabeled images included.

Ultralytics measures the memory of a model's forward and backward pass at several batch sizes. Under a teacher that
would be the student's alone, so a step stands in the model's place.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from copy import copy, deepcopy
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from yolokd.distillation.model import TeacherStudent
from yolokd.distillation.pseudo_labels import PseudoLabels
from yolokd.loaders.batch import ANSWERS, COUNTS, FILES, TEACHER, UNLABELED, Answers
from yolokd.loaders.unlabeled import on_top
from yolokd.recipe import Recipe
from yolokd.recipe.arguments import SHARE
from yolokd.teachers.thresholds import DEFAULT

OBJECTS = 8  # per image; COCO has 7.3 on average


class StepProbe(nn.Module):
    """A training step as a module: images in, losses out. The pair is not copied with it.

    Args:
        pair: Teacher and student, in training mode.
        recipe: What is distilled.
    """

    def __init__(self, pair: TeacherStudent, recipe: Recipe) -> None:
        super().__init__()
        self.pair, self.recipe = pair, recipe
        student: Any = pair.student_model
        self.stride, self.names, self.yaml = student.stride, student.names, student.yaml

    def __deepcopy__(self, memo: dict[int, Any]) -> StepProbe:
        return self

    def forward(self, images: Tensor) -> Tensor:
        """Return the losses of a step on noise with random boxes.

        Args:
            images: Of the student's size, (B, 3, H, W); only their shape counts.
        """
        found: Tensor = self.pair.loss(self.batch(torch.rand_like(images)))[0]
        return found

    def batch(self, images: Tensor) -> dict[str, Any]:
        """Return a batch as the trainer hands it to the pair: unlabeled images, answers and larger images as needed."""
        recipe, count, classes = self.recipe, len(images), len(self.names)
        more = (
            0
            if recipe.train.get("unlabeled") is None
            else on_top(float(recipe.train.get("unlabeled_share", SHARE)), count)
        )
        index = torch.arange(count + more, device=images.device).repeat_interleave(OBJECTS)
        boxes = torch.rand(len(index), 4, device=images.device) * 0.4 + 0.1
        kinds = torch.randint(classes, (len(index),), device=images.device)
        own = count * OBJECTS
        labels = {"batch_idx": index[:own].float(), "cls": kinds[:own, None].float(), "bboxes": boxes[:own]}
        batch: dict[str, Any] = {"img": images, **labels, "im_file": [""] * count, COUNTS: (OBJECTS,) * count}
        if more:
            batch |= {UNLABELED: torch.rand(more, *images.shape[1:], device=images.device), FILES: [""] * more}
        if recipe.teacher.answers == "stored":
            batch[ANSWERS] = Answers(index, boxes, F.one_hot(kinds, classes) * 0.8, most=OBJECTS)
        elif recipe.teacher.scale != 1:
            every = torch.cat((images, batch[UNLABELED])) if more else images
            batch[TEACHER] = F.interpolate(every, scale_factor=float(recipe.teacher.scale))
        return batch


@contextmanager
def whole_steps(pair: TeacherStudent, recipe: Recipe) -> Iterator[StepProbe]:
    """Yield what is measured in the place of the pair, which is as before at the end: weights, statistics, counts.

    The step is the first, when every term acts, there are adversarial examples, and gradients are measured.

    Args:
        pair: Teacher and student.
        recipe: What is distilled.
    """
    trained = nn.ModuleList((pair.student_model, pair.projector))
    before, mode, run = deepcopy(trained.state_dict()), pair.training, pair.distillation
    criterion = getattr(pair.student_model, "criterion", None)  # the run's own is made once class weights are known
    if run is None:
        raise RuntimeError("this copy of the model was made for saving or validation and cannot distill")
    pair.distillation = probed = copy(run)
    probed.balance, probed.counts = deepcopy(run.balance), deepcopy(run.counts)
    probed.anomaly_checks = deepcopy(run.anomaly_checks)
    probed.step, probed.progress = 1, 0.0
    if recipe.pseudo_labels:
        classes = len(pair.student_model.names)
        probed.pseudo = PseudoLabels(torch.full((classes,), DEFAULT))
    pair.train()
    try:
        yield StepProbe(pair, recipe)
    finally:
        pair.distillation = run
        pair.student_model.criterion = criterion
        pair.zero_grad(set_to_none=True)
        trained.load_state_dict(before)
        pair.train(mode)
