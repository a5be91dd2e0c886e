"""Teacher and student as one model that Ultralytics already knows how to train, save, resume and strip.

`TeacherStudent` is a `DistillationModel`, since a dozen places in Ultralytics' engine treat that class on purpose: the
teacher is frozen, kept out of the moving average and of checkpoints, and the final files hold the plain student.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from yolokd.backend.api import DetectionModel, copy_attr
from yolokd.backend.checkpoints import SavedPair
from yolokd.backend.heads import neck_features, read_head
from yolokd.backend.tasks import reader_of_head
from yolokd.distillation.adversarial import Examples
from yolokd.distillation.assignment import branch_criteria, watch
from yolokd.distillation.instance_weights import Weights
from yolokd.distillation.levels import Grids
from yolokd.distillation.loss_accumulator import LossAccumulator
from yolokd.distillation.pseudo_labels import live_answers
from yolokd.distillation.state import Distillation
from yolokd.distillation.step_inputs import answered, gather
from yolokd.loaders.batch import TrainingBatch, first_rows
from yolokd.losses.base import Answered, Grid, Loss, Step, requirements
from yolokd.teachers.base import Teacher, TeacherOutput

PREFIX = "kd_"  # of a term's column in results.csv and in the progress line


@dataclass(frozen=True)
class Look:
    """What teacher and student make of one batch, before gains and schedules."""

    detection: Tensor  # the student's detection loss, times the batch size
    items: dict[str, Tensor]  # the same, to be logged
    features: dict[str, Tensor]  # level → the student's neck features, (B, C, H, W)
    maps: dict[str, Tensor]  # active term → its loss map under the weights, (B, A), or (B,) without a place; detached
    levels: dict[str, Tensor]  # active term → what each level adds to its value, (L,) or (1,); detached
    values: dict[str, Tensor]  # active term → the value of that map, (), with gradient
    weights: Weights | None  # None if nothing is weighed
    adversarial: Tensor | None  # adversarial examples of the images, (B, 3, H, W); None on a step without
    grid: Grid  # of the maps: the levels that both have


class TeacherStudent(SavedPair):
    """A student that trains under a frozen teacher.

    Attributes:
        student_model: The detector that is trained, and all that remains in the end.
        teacher_model: The frozen teacher; None in copies and checkpoints.
        projector: Every trainable part that is not the student, by method: plain torch modules only.
        terms: Names of the distillation terms, in the order of the loss vector.
    """

    def __init__(self, student: DetectionModel, teacher: Teacher, distillation: Distillation) -> None:
        nn.Module.__init__(self)  # the parent's constructor makes the built-in projector and hooks
        self.student_model = student  # first: `criterion`, in trained students, is a property that goes there
        copy_attr(self, student)
        self.teacher_model = teacher
        self.terms = tuple(distillation.gains)
        widths = read_head(student, "The student").widths
        self.projector = nn.ModuleDict(
            {name: loss.build(widths, teacher.offer.widths) for name, loss in distillation.losses.items()}
        )
        self.distillation: Distillation | None = distillation

    def __getstate__(self) -> dict[str, Any]:
        """Leave teacher and run-time state out of copies and checkpoints."""
        return {**super().__getstate__(), "distillation": None}

    def loss(self, batch: dict[str, Any], preds: Any = None) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the detection loss with one value per distillation term appended, and the items to log.

        The vector holds value · gain · schedule · B, as Ultralytics multiplies every loss by the batch size; the items
        hold value · gain · schedule. The keys are the same in every step, in training and in validation.
        """
        typed = TrainingBatch.of(batch)
        zeros = torch.zeros(len(self.terms), device=batch["img"].device)
        if not self.training:
            detection, items = self.student_model.loss(batch, preds)
            return self._join(detection, items, zeros, len(typed))
        run = self._run()
        active = run.active()
        seen = self.look(typed, active)
        if not seen.maps:
            return self._join(seen.detection, seen.items, zeros, len(typed))
        run.anomaly_checks.record(run.step, seen.levels, typed, seen.detection.sum(), tuple(seen.grid.shapes))
        self._measure(seen.detection.sum() / len(typed), seen.values, seen.features)
        strengths = {term: run.strength(term, active[term]) for term in seen.values}
        weighted = torch.stack([seen.values[t] * strengths[t] if t in strengths else zeros[0] for t in self.terms])
        return self._join(seen.detection, seen.items, weighted, len(typed))

    def look(self, batch: TrainingBatch, active: Mapping[str, float]) -> Look:
        """Run both models on a batch and return the loss map of each active term; the student in training mode."""
        if not self._acts_on_clean_images(batch, active):  # images without labels take part in nothing else
            batch = batch.without_unlabeled()
        examples = self._attack(batch, active)
        ahead = self._on_adversarial(examples, active)
        taught = self.teach(batch, active, attacked=examples is not None)
        if getattr(self.student_model, "criterion", None) is None:
            self.student_model.criterion = self.student_model.init_criterion()
        images = batch.images
        raw = self.student_model(images)
        run, features = self._run(), neck_features(raw, images)
        grids = run.levels.grids(images)
        with watch(self.student_model.criterion, grids.student, run.levels.common) as assigned:
            detection, items = self._detection_loss(batch, raw, taught, grids)
        weights = None if taught is None else self._weigh(batch, taught, grids)
        heads = {term for loss in run.losses.values() for term in loss.head_terms}
        accumulator = LossAccumulator(grids.common, weights, heads)
        if taught is not None:
            with torch.autocast(images.device.type, enabled=False):
                shares = {name: share for name, (_, share) in branch_criteria(self.student_model.criterion).items()}
                losses = run.on_clean_images(active)
                inputs = (batch.labeled, raw, features, grids, taught, assigned, shares)
                readers = (reader_of_head(self.student_model.model[-1]), self.teacher_model.offer.read)
                step = gather(*inputs, losses.values(), run.common_classes, run.counts, readers)
                step = replace(step, number=run.step, answered=self._answered(batch, raw, grids.student, losses))
                self._compare(step, losses, active, accumulator)
        accumulator.add(ahead)
        images_of = None if examples is None else examples.images
        found = accumulator.maps, accumulator.levels, accumulator.values
        return Look(detection, items, features, *found, weights, images_of, grids.common)

    def _detection_loss(
        self, batch: TrainingBatch, raw: Any, taught: TeacherOutput | None, grids: Grids
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the student's detection loss times B, and its parts; pseudo-labeled images take part in it."""
        run = self._run()
        if run.pseudo is None or batch.unlabeled is None:
            return self.student_model.loss(dict(batch.labeled), first_rows(raw, len(batch)))  # type: ignore[no-any-return]
        chosen, answers = batch.pseudo, batch.answers
        if chosen is None:
            if answers is None:
                if taught is None or taught.raw is None:
                    raise RuntimeError("pseudo-labels take the teacher's answers, stored or live")
                classes = len(self.student_model.names)
                answers = live_answers(taught.raw, grids.teacher, *run.common_classes(batch.images.device), classes)
            chosen = run.pseudo.choose(answers, len(batch))
        pseudo = run.pseudo.apply(batch, chosen, grids.student)
        detection, items = self.student_model.loss(pseudo.labels, pseudo.without_doubt(raw))
        return detection * (len(batch) / len(batch.images)), items

    def _answered(self, batch: TrainingBatch, raw: Any, grid: Grid, losses: Mapping[str, Loss]) -> tuple[Answered, ...]:
        """Return what stored answers ask of each branch of the student; () if no loss compares with them."""
        run = self._run()
        if batch.answers is None or not requirements(losses.values()).answers:
            return ()
        criteria = branch_criteria(self.student_model.criterion)
        return answered(batch.answers, raw, criteria, grid, run.common_classes, run.counts)

    def _join(
        self, detection: Tensor, items: dict[str, Tensor], weighted: Tensor, batch_size: int
    ) -> tuple[Tensor, dict[str, Tensor]]:
        items = {**items, **{PREFIX + term: value for term, value in zip(self.terms, weighted.detach(), strict=True)}}
        return torch.cat([detection, weighted * batch_size]), items

    def _run(self) -> Distillation:
        if self.distillation is None:
            raise RuntimeError("this copy of the model was made for saving or validation and cannot distill")
        return self.distillation

    def _acts_on_clean_images(self, batch: TrainingBatch, active: Mapping[str, float]) -> bool:
        """Whether a loss does, or pseudo-labels do."""
        return bool(self._run().on_clean_images(active)) or self._has_pseudo_labels(batch)

    def _has_pseudo_labels(self, batch: TrainingBatch) -> bool:
        return self._run().pseudo is not None and batch.unlabeled is not None

    def teach(
        self, batch: TrainingBatch, active: Mapping[str, float], *, attacked: bool = False
    ) -> TeacherOutput | None:
        """Run the teacher as far as losses, weighting and pseudo-labels need it; not at all if nothing acts.

        Args:
            batch: What it sees.
            active: Term → gain of those that act.
            attacked: Whether the step has adversarial examples, whose loss is weighed by the clean images too.
        """
        run = self._run()
        if not self._acts_on_clean_images(batch, active) and not (attacked and run.weighting is not None):
            return None
        needs = requirements(run.on_clean_images(active).values())
        live = self._has_pseudo_labels(batch) and batch.pseudo is None and batch.answers is None
        head = needs.teacher_head or run.weighting is not None or live
        if not (head or needs.levels):
            return TeacherOutput({}, None)
        output: TeacherOutput = self.teacher_model(batch.teacher_images, head=head, levels=needs.levels)
        return output

    def _attack(self, batch: TrainingBatch, active: Mapping[str, float]) -> Examples | None:
        """Make adversarial examples, on the steps that have them: before the student's pass, so one graph is alive."""
        run = self._run()
        if run.attack is None or not requirements(run.losses_of(active).values()).adversarial:
            return None
        teacher: Any = self.teacher_model  # `check_pair` refuses one that cannot be attacked
        images = run.attack.make(teacher, batch.labeled, run.step)
        return None if images is None else Examples(images, self.student_model, teacher, run.levels)

    def _on_adversarial(self, examples: Examples | None, active: Mapping[str, float]) -> dict[str, Tensor]:
        """Return the maps of the losses on adversarial examples, which go ahead of the student's pass."""
        step = Step(student={}, teacher={}, grid=Grid({}, {}), adversarial=examples)
        maps: dict[str, Tensor] = {}
        for name, loss in self._run().losses_of(active).items():
            if loss.requires.adversarial:
                parts: Any = self.projector[name]
                maps.update(loss.maps(step, parts, [term for term in loss.terms if term in active]))
        return maps

    def _measure(self, detection: Tensor, values: Mapping[str, Tensor], features: Mapping[str, Tensor]) -> None:
        """Measure, now and then, the gradient ratio of each term at the neck; 0 for those on other images."""
        run = self._run()
        if run.balance.due(run.step, list(values)):
            run.balance.measure(detection, values, list(features.values()))

    def _compare(
        self, step: Step, losses: Mapping[str, Loss], active: Mapping[str, float], accumulator: LossAccumulator
    ) -> None:
        """Add the terms of all losses. Those on features are settled, the largest first, with few gradients held."""
        modules: Any = self.projector
        size = {name: sum(p.numel() for p in modules[name].parameters()) for name in losses}
        leaves = {level: x.detach().requires_grad_(x.requires_grad) for level, x in step.student.items()}
        pairs = [(leaves[level], x) for level, x in step.student.items()]  # levels build on each other
        step = replace(step, student=leaves)
        for name in sorted(losses, key=lambda name: (not losses[name].levels, -size[name])):
            loss, parts = losses[name], modules[name]
            inputs = [*pairs, *((p, p) for p in parts.parameters())]
            for piece in loss.pieces(step, parts, [term for term in loss.terms if term in active]):
                accumulator.add(piece, () if piece.keys() <= loss.head_terms else inputs)
                del piece  # and its graph, before the next is made

    def _weigh(self, batch: TrainingBatch, taught: TeacherOutput, grids: Grids) -> Weights | None:
        run = self._run()
        if run.weighting is None or taught.raw is None:
            return None
        weights = run.weighting(taught.raw, batch.labeled, grids.teacher)
        run.weight_log.record(weights, batch.files)
        return weights.at(run.levels.common, grids.teacher)
