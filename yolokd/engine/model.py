"""Teacher and student as one model that Ultralytics already knows how to train, save, resume and strip.

`TeacherStudent` is a `DistillationModel`, since a dozen places in Ultralytics' engine treat that class on purpose: the
teacher is frozen, kept out of the moving average and of checkpoints, and the final files hold the plain student.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from ultralytics.nn.distill_model import DistillationModel
from ultralytics.nn.tasks import DetectionModel
from ultralytics.utils.ops import xywh2xyxy
from ultralytics.utils.torch_utils import copy_attr

from yolokd.engine.assignment import Assigned, branch_criteria, watch
from yolokd.engine.distillation import Distillation, reduce_map
from yolokd.engine.heads import as_head, grid_of, neck_features, read_head, split_branches
from yolokd.engine.teacher import Teacher, TeacherOutput
from yolokd.losses.base import Branch, Step

PREFIX = "kd_"  # of a term's column in results.csv and in the progress line


class TeacherStudent(DistillationModel):
    """A student that trains under a frozen teacher.

    Attributes:
        student_model: The detector that is trained, and all that remains in the end.
        teacher_model: The frozen teacher; None in copies and checkpoints.
        projector: Every trainable part that is not the student, by method: plain torch modules only.
        terms: Names of the distillation terms, in the order of the loss vector.
    """

    def __init__(self, student: DetectionModel, teacher: Teacher, distillation: Distillation) -> None:
        nn.Module.__init__(self)  # the parent's constructor makes the built-in projector and hooks
        copy_attr(self, student)
        self.student_model = student
        self.teacher_model = teacher
        self.terms = tuple(distillation.gains)
        widths = read_head(student, "The student").widths
        self.projector = nn.ModuleDict(
            {name: loss.build(widths, teacher.info.widths) for name, loss in distillation.losses.items()}
        )
        self.distillation: Distillation | None = distillation

    def __getstate__(self) -> dict[str, Any]:
        """Leave teacher and run-time state out of copies and checkpoints."""
        state = self.__dict__.copy()
        state["_modules"] = {**self._modules, "teacher_model": None}
        state["distillation"] = None
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restore without the parent's hooks, which this class does not use."""
        self.__dict__.update(state)

    def _remove_feature_hooks(self) -> None:
        """Nothing to remove: neck features come with the head's raw output, assignments from short-lived hooks."""

    def loss(self, batch: dict[str, Any], preds: Any = None) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the detection loss with one value per distillation term appended, and the items to log.

        The vector holds value · gain · schedule · B, as Ultralytics multiplies every loss by the batch size; the items
        hold value · gain · schedule. The keys are the same in every step, in training and in validation.
        """
        images: Tensor = batch["img"]
        zeros = torch.zeros(len(self.terms), device=images.device)
        if not self.training or self.distillation is None:
            detection, items = self.student_model.loss(batch, preds)
            return self._join(detection, items, zeros, len(images))
        active = self.distillation.active()
        taught = self._teach(images, active) if active else None
        if getattr(self.student_model, "criterion", None) is None:
            self.student_model.criterion = self.student_model.init_criterion()
        raw = self.student_model(images)
        with watch(self.student_model.criterion) as assigned:
            detection, items = self.student_model.loss(batch, raw)
        if taught is None:
            return self._join(detection, items, zeros, len(images))
        step = self._step(batch, raw, taught, assigned)
        values = self._distil(step, active)
        self.distillation.alarms.record(values, batch)
        if self.distillation.balance.due(list(values)):
            self.distillation.balance.measure(detection.sum() / len(images), values, list(step.student.values()))
        strengths = {term: self.distillation.strength(term, active[term]) for term in values}
        weighted = torch.stack([values[t] * strengths[t] if t in values else zeros[0] for t in self.terms])
        return self._join(detection, items, weighted, len(images))

    def _join(
        self, detection: Tensor, items: dict[str, Tensor], weighted: Tensor, batch_size: int
    ) -> tuple[Tensor, dict[str, Tensor]]:
        items = {**items, **{PREFIX + term: value for term, value in zip(self.terms, weighted.detach(), strict=True)}}
        return torch.cat([detection, weighted * batch_size]), items

    def _run(self) -> Distillation:
        if self.distillation is None:
            raise RuntimeError("this copy of the model was made for saving or validation and cannot distil")
        return self.distillation

    def _teach(self, images: Tensor, active: Mapping[str, float]) -> TeacherOutput:
        losses = self._run().losses_of(active).values()
        levels = {level for loss in losses for level in loss.levels}
        output: TeacherOutput = self.teacher_model(
            images, head=any(loss.needs_head for loss in losses), levels=tuple(sorted(levels))
        )
        return output

    def _step(
        self, batch: dict[str, Any], raw: Mapping[str, Any], taught: TeacherOutput, assigned: Mapping[str, Assigned]
    ) -> Step:
        features = neck_features(raw)
        grid = grid_of(features)
        return Step(
            student=features,
            teacher=taught.features,
            grid=grid,
            branches=() if taught.raw is None else self._branches(raw, taught.raw, assigned, grid),
            teacher_scores=None if taught.raw is None else teacher_scores(taught.raw),
            boxes_xyxy_px=boxes_of(batch),
        )

    def _branches(
        self, raw: Mapping[str, Any], taught: Mapping[str, Any], assigned: Mapping[str, Assigned], grid: Any
    ) -> tuple[Branch, ...]:
        own, other = split_branches(raw), split_branches(taught)
        pick, pick_other = self._run().common_classes(own["one2many"]["scores"].device)
        return tuple(
            Branch(
                name=name,
                weight=weight,
                student=as_head(own[name], grid, pick),
                teacher=as_head(other[name], grid, pick_other),
                positives=assigned[name].positives,
                target_scores_sum=assigned[name].target_scores_sum,
            )
            for name, (_, weight) in branch_criteria(self.student_model.criterion).items()
            if name in own and name in other
        )

    def _distil(self, step: Step, active: Mapping[str, float]) -> dict[str, Tensor]:
        """Return the value of each active term before its gain."""
        values: dict[str, Tensor] = {}
        parts: Any = self.projector
        with torch.autocast(step.student["p3"].device.type, enabled=False):
            for name, loss in self._run().losses_of(active).items():
                maps = loss.maps(step, parts[name], [term for term in loss.terms if term in active])
                values.update({term: reduce_map(values) for term, values in maps.items()})
        return values


def teacher_scores(raw: Mapping[str, Any]) -> Tensor:
    """Return the teacher's largest score at each anchor, (B, A), over its own classes.

    A dual head's two branches are averaged before the sigmoid, as in Ultralytics' built-in distiller.
    """
    logits = [branch["scores"].float() for branch in split_branches(raw).values()]
    mean: Tensor = logits[0] if len(logits) == 1 else torch.stack(logits).mean(0)
    return mean.amax(1).sigmoid()


def boxes_of(batch: Mapping[str, Any]) -> tuple[Tensor, ...]:
    """Return the ground-truth boxes of each picture, (N, 4) xyxy in pixels of the batch's pictures."""
    height, width = batch["img"].shape[-2:]
    boxes = xywh2xyxy(batch["bboxes"]) * torch.tensor([width, height, width, height], device=batch["bboxes"].device)
    index = batch["batch_idx"]
    return tuple(boxes[index == i] for i in range(len(batch["img"])))
