"""What a recipe costs: a training step and its parts, against plain training and Ultralytics' built-in distiller.

A step here is the forward pass, the losses and the backward pass of one batch that lies ready. What follows every few
batches, the optimizer with its clipping and the moving average, is left out on all sides, and so is the loading of
pictures. Everything is timed in alternation within one process; see `yolokd.engine.bench_clock`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn
from ultralytics.nn.distill_model import DistillationModel

from yolokd.engine.balance import Balance
from yolokd.engine.bench_clock import Arm, Clock, Time, held_bytes, in_turn, peak_bytes
from yolokd.engine.bench_models import Models, Setting, make_batch, make_pair, make_student
from yolokd.engine.bench_report import Cost, Part, RecipeCost, Report, cost_of
from yolokd.engine.distillation import Distillation, reduce_map
from yolokd.engine.model import TeacherStudent
from yolokd.errors import RunError
from yolokd.losses.base import LEVELS, Branch, Head, Loss, Step
from yolokd.recipe import Recipe, Schedule

NEVER = 10**9  # steps


def bench(
    models: Models,
    setting: Setting,
    recipes: Sequence[Recipe],
    *,
    rounds: int = 15,
    warm_up: int = 2,
    report: Callable[[float], None] = lambda share: None,
) -> Report:
    """Time the recipes.

    Args:
        models: The pair.
        setting: Size, batch, device and precision.
        recipes: Recipes with losses that suit the pair.
        rounds: How often everything is timed; medians and quartiles are over them.
        warm_up: Rounds before that.
        report: Called with the share that is done.

    Raises:
        UserError: A recipe without losses, or one that does not suit the pair.
        RunError: The device failed, for want of memory for example.
    """
    batch = make_batch(models, setting)
    subjects = [Subject(models, setting, recipe, batch) for recipe in recipes]
    student = make_student(models, setting)
    built_in = setting.place(DistillationModel(setting.place(models.teacher), make_student(models, setting))).train()
    plain, other = training(student, setting, batch), training(built_in, setting, batch)

    def untouched_teacher(clock: Clock) -> None:
        with clock("unfused"), torch.no_grad(), setting.autocast():
            built_in.teacher_model(batch["img"])

    arms = [timed("plain", plain, student), timed("built-in", other, built_in), untouched_teacher]
    arms += [arm for subject in subjects for arm in subject.arms()]
    try:
        times = in_turn(arms, setting.device, rounds=rounds, warm_up=warm_up, report=report).times
        memory = {
            "plain": occupied(plain, student, setting),
            "built-in": occupied(other, built_in, setting),
            **{subject.name: subject.occupied() for subject in subjects},
        }
    except RuntimeError as error:  # whatever a device or its memory may do
        raise RunError(f"Timing failed: {str(error).strip()}") from error
    return Report(
        plain=cost_of(times["plain"]),
        unfused=cost_of(times["unfused"]),
        built_in=cost_of(times["built-in"]),
        recipes=tuple(subject.cost(times, memory[subject.name]) for subject in subjects),
        memory_plain=memory["plain"],
        memory_built_in=memory["built-in"],
        rounds=rounds,
    )


def training(model: Any, setting: Setting, batch: dict[str, Any]) -> Callable[[], None]:
    """Return a training step of a model: forward, loss, backward."""

    def step() -> None:
        with setting.autocast():
            loss = model.loss(batch)[0].sum()
        loss.backward()

    return step


def timed(name: str, step: Callable[[], None], model: nn.Module) -> Arm:
    """Return an arm that times a step, which starts without gradients."""

    def run(clock: Clock) -> None:
        model.zero_grad(set_to_none=True)
        with clock(name):
            step()

    return run


def occupied(step: Callable[[], None], model: nn.Module, setting: Setting) -> int:
    """Return the bytes that a step needs: what the models hold, and the most that it makes, gradients included."""
    model.zero_grad(set_to_none=True)
    peak = held_bytes(model) + peak_bytes(step, setting.device)
    model.zero_grad(set_to_none=True)
    return peak


class Subject:
    """A recipe under test.

    Its steps are of several kinds: ordinary ones; those on which the pull of the terms is measured, every
    `balance.every` steps; those with adversarial twins. The cost of a step is the mean over them as they come.
    """

    def __init__(self, models: Models, setting: Setting, recipe: Recipe, batch: dict[str, Any]) -> None:
        self.name = recipe.name
        self.setting, self.batch = setting, batch
        self.pair = make_pair(models, setting, recipe)
        wired = self.pair.distillation
        assert wired is not None
        self.wired: Distillation = wired
        self.active = wired.active()
        state: dict[str, Any] = {}

        def balanced(every: int) -> Distillation:
            return replace(wired, balance=Balance(wired.balance.auto, share=wired.balance.share, every=every, state=state))

        ordinary = balanced(NEVER)
        self.kinds: dict[str, tuple[float, Distillation, int]] = {  # share of the steps, wiring, number of the step
            "ordinary": (1.0, ordinary, 1),
            "measuring": (1 / wired.balance.every, balanced(1), 1),
        }
        if wired.twin is not None:
            self.kinds["twin"] = (1 / wired.twin.config.every, ordinary, 0)
        self.run = training(self.pair, setting, batch)
        self.seen = self._look()

    def arms(self) -> list[Arm]:
        """Everything that is timed of this recipe."""
        parts = [self._loss(name, loss) for name, loss in self.wired.losses_of(self.active).items()]
        if self.wired.weighting is not None:
            parts.append(self._weigh)
        if self.wired.twin is not None:
            parts.append(self._twin)
        return [self._teach, *parts, *map(self._step, self.kinds)]

    def occupied(self) -> int:
        """Return the bytes that the largest kind of step needs."""
        peaks = []
        for kind in self.kinds:
            self._prepare(kind)
            peaks.append(occupied(self.run, self.pair, self.setting))
        return max(peaks)

    def cost(self, times: Mapping[str, Sequence[Time]], memory: int) -> RecipeCost:
        """Put together what was timed."""
        kinds = {kind: times[self._key("step", kind)] for kind in self.kinds}
        steps = []
        for place, ordinary in enumerate(kinds["ordinary"]):
            extra = [(self.kinds[kind][0], kinds[kind][place]) for kind in kinds if kind != "ordinary"]
            wall = ordinary.wall + sum(share * (time.wall - ordinary.wall) for share, time in extra)
            cpu = ordinary.cpu + sum(share * (time.cpu - ordinary.cpu) for share, time in extra)
            steps.append(Time(wall, cpu))
        names = [*self.wired.losses_of(self.active)]
        names += ["aid"] * (self.wired.weighting is not None) + ["ikd"] * (self.wired.twin is not None)
        parts = []
        for name in names:
            back = times.get(self._key(name, "backward"))
            share = self.kinds["twin"][0] if name == "ikd" else 1.0
            forward = cost_of(times[self._key(name, "forward")])
            parts.append(Part(name, share, forward, None if back is None else cost_of(back)))
        return RecipeCost(
            name=self.name,
            teacher=cost_of(times[self._key("teacher")]),
            parts=tuple(parts),
            step=cost_of(steps),
            memory=memory,
            trained=sum(p.numel() for p in self.pair.parameters() if p.requires_grad),
        )

    def _key(self, *words: str) -> str:
        return "/".join((self.name, *words))

    def _prepare(self, kind: str) -> None:
        _, wiring, wiring.step = self.kinds[kind]
        self.pair.distillation = wiring

    def _step(self, kind: str) -> Arm:
        arm = timed(self._key("step", kind), self.run, self.pair)

        def run(clock: Clock) -> None:
            self._prepare(kind)
            arm(clock)

        return run

    def _teach(self, clock: Clock) -> None:
        with clock(self._key("teacher")):
            self.pair.teach(self.batch["img"], self.active)

    def _loss(self, name: str, loss: Loss) -> Arm:
        parts: Any = self.pair.projector
        terms = [term for term in loss.terms if term in self.active]

        def run(clock: Clock) -> None:
            step = with_leaves(self.seen)
            self.pair.zero_grad(set_to_none=True)
            with clock(self._key(name, "forward")):
                maps = loss.maps(step, parts[name], terms)
                value = torch.stack([reduce_map(values, step.grid).sum() for values in maps.values()]).sum()
            with clock(self._key(name, "backward")):
                value.backward()

        return run

    def _weigh(self, clock: Clock) -> None:
        assert self.wired.weighting is not None
        taught = self.pair.teach(self.batch["img"], self.active)
        assert taught is not None
        with clock(self._key("aid", "forward")):
            self.wired.weighting(taught.raw or {}, self.batch, self.seen.grid)

    def _twin(self, clock: Clock) -> None:
        twin, pair, parts = self.wired.twin, self.pair, self.pair.projector
        assert twin is not None
        part: Any = parts[twin.term]
        pair.zero_grad(set_to_none=True)
        with clock(self._key("ikd", "forward")), self.setting.autocast():
            twins = twin.make(pair.teacher_model, self.batch, 0)
            assert twins is not None
            value = reduce_map(twin.map(pair.student_model, pair.teacher_model, part, twins), self.seen.grid).sum()
        with clock(self._key("ikd", "backward")):
            value.backward()

    def _look(self) -> Step:
        """Return what the losses see in a step."""
        onlooker = Onlooker(list(self.wired.losses_of(self.active).values()))
        term = onlooker.terms[0]
        self.pair.projector[term] = nn.ModuleDict()
        self.pair.distillation = replace(
            self.wired,
            losses={term: onlooker},
            gains={term: 1.0},
            schedules={term: Schedule()},
            weighting=None,
            twin=None,
        )
        with self.setting.autocast():
            self.pair.look(self.batch, {term: 1.0})
        del self.pair.projector[term]
        self.pair.zero_grad(set_to_none=True)
        return onlooker.step


class Onlooker(Loss):
    """A loss that only keeps what it is shown: all that some other losses need."""

    terms = ("onlooker",)
    step: Step

    def __init__(self, losses: Sequence[Loss]) -> None:
        self.levels = tuple(level for level in LEVELS if any(level in loss.levels for loss in losses))
        self.needs_head = any(loss.needs_head for loss in losses)
        self.needs_scores = any(loss.needs_scores for loss in losses)
        self.needs_boxes = any(loss.needs_boxes for loss in losses)

    def maps(self, step: Step, parts: nn.ModuleDict, active: Any) -> dict[str, torch.Tensor]:
        """Keep the step; the map is 0 everywhere."""
        self.step = step
        feature = step.student["p3"]
        return {self.terms[0]: feature.new_zeros(len(feature), step.grid.anchors)}


def with_leaves(step: Step) -> Step:
    """Return the step with the student's tensors cut off from the student, so that gradients end there."""

    def leaf(x: torch.Tensor) -> torch.Tensor:
        return x.detach().requires_grad_()

    def branch(one: Branch) -> Branch:
        own, other = one.student, one.teacher  # made anew, since a head keeps the boxes that it once decoded
        return replace(
            one,
            student=Head(leaf(own.logits), leaf(own.raw), own.grid),
            teacher=Head(other.logits, other.raw, other.grid),
        )

    student = {level: leaf(x) for level, x in step.student.items()}
    return replace(step, student=student, branches=tuple(map(branch, step.branches)))
