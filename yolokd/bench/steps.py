"""One recipe under test by `bench`: its steps, and each of its parts by itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from yolokd.bench.models import Models, Setting, make_pair
from yolokd.bench.results import Part, RecipeCost, cost_of
from yolokd.bench.timer import Arm, Time, Timer, held_bytes, peak_bytes
from yolokd.distillation.adversarial import Examples
from yolokd.distillation.balance import Balance
from yolokd.distillation.state import Distillation, reduce_map
from yolokd.loaders.batch import TrainingBatch
from yolokd.losses.base import Answered, Branch, Head, Loss, Step, requirements
from yolokd.recipe import Recipe, Schedule

NEVER = 10**9  # steps


def training(model: Any, setting: Setting, batch: dict[str, Any]) -> Callable[[], None]:
    """Return a training step of a model: forward, loss, backward."""

    def step() -> None:
        with setting.autocast():
            loss = model.loss(batch)[0].sum()
        loss.backward()

    return step


def timed(name: str, step: Callable[[], None], model: nn.Module) -> Arm:
    """Return an arm that times a step, which starts without gradients."""

    def run(timer: Timer) -> None:
        model.zero_grad(set_to_none=True)
        with timer(name):
            step()

    return run


def occupied(step: Callable[[], None], model: nn.Module, setting: Setting) -> int:
    """Return the bytes that a step needs: what the models hold, and the most that it makes, gradients included."""
    model.zero_grad(set_to_none=True)
    peak = held_bytes(model) + peak_bytes(step, setting.device)
    model.zero_grad(set_to_none=True)
    return peak


class RecipeSteps:
    """A recipe under test.

    Its steps are of several kinds: ordinary ones; those on which the gradient ratios of the terms are measured, every
    `balance.every` steps; those with adversarial examples. The cost of a step is the mean over them as they come.
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
            balance = Balance(wired.balance.auto, share=wired.balance.share, every=every, state=state)
            return replace(wired, balance=balance)

        ordinary = balanced(NEVER)
        self.kinds: dict[str, tuple[float, Distillation, int]] = {  # share of the steps, wiring, number of the step
            "ordinary": (1.0, ordinary, 2),
            "measuring": (1 / wired.balance.every, balanced(1), 2),
        }
        if wired.attack is not None:
            every = wired.attack.config.every
            self.kinds["adversarial"] = (1 / every, ordinary, 1 + every)
        self.run = training(self.pair, setting, batch)
        taught = self.pair.teach(TrainingBatch.of(batch), self.active)
        needs = [] if taught is None else [str(self.pair.teacher_model.dtype), *taught.features]
        self.teacher = "/".join(("teacher", *needs, "" if taught is None or taught.raw is None else "head"))
        self.seen = self._look()

    def teach(self, timer: Timer) -> None:
        """Time the teacher's pass, under a name that is the same for recipes that need the same of it."""
        with timer(self.teacher):
            self.pair.teach(TrainingBatch.of(self.batch), self.active)

    def arms(self) -> list[Arm]:
        """Everything else that is timed of this recipe."""
        parts = [self._loss(name, loss) for name, loss in self.wired.on_clean_images(self.active).items()]
        if self.wired.weighting is not None:
            parts.append(self._weigh)
        if self.wired.attack is not None:
            parts.append(self._adversarial)
        return [*parts, *map(self._step, self.kinds)]

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
        names = [*self.wired.on_clean_images(self.active)]
        names += ["aid"] * (self.wired.weighting is not None) + ["ikd"] * (self.wired.attack is not None)
        parts = []
        for name in names:
            back = times.get(self._key(name, "backward"))
            share = self.kinds["adversarial"][0] if name == "ikd" else 1.0
            forward = cost_of(times[self._key(name, "forward")])
            parts.append(Part(name, share, forward, None if back is None else cost_of(back)))
        return RecipeCost(
            name=self.name,
            teacher=cost_of(times[self.teacher]),
            parts=tuple(parts),
            step=cost_of(steps),
            memory=memory,
            trained=sum(p.numel() for p in self.pair.parameters() if p.requires_grad),
        )

    def _key(self, *words: str) -> str:
        return "/".join((self.name, *words))

    def _prepare(self, kind: str) -> None:
        _, wiring, number = self.kinds[kind]
        wiring.step = number
        self.pair.distillation = wiring

    def _step(self, kind: str) -> Arm:
        arm = timed(self._key("step", kind), self.run, self.pair)

        def run(timer: Timer) -> None:
            self._prepare(kind)
            arm(timer)

        return run

    def _loss(self, name: str, loss: Loss) -> Arm:
        parts: Any = self.pair.projector
        terms = [term for term in loss.terms if term in self.active]

        def run(timer: Timer) -> None:
            step = with_leaves(self.seen)
            self.pair.zero_grad(set_to_none=True)
            with timer(self._key(name, "forward")):
                maps = loss.maps(step, parts[name], terms)
                value = torch.stack([reduce_map(values, step.grid).sum() for values in maps.values()]).sum()
            with timer(self._key(name, "backward")):
                value.backward()

        return run

    def _weigh(self, timer: Timer) -> None:
        assert self.wired.weighting is not None
        taught = self.pair.teach(TrainingBatch.of(self.batch), self.active)
        assert taught is not None
        with timer(self._key("aid", "forward")):
            self.wired.weighting(taught.raw or {}, self.batch, self.seen.grid)

    def _adversarial(self, timer: Timer) -> None:
        attack, pair = self.wired.attack, self.pair
        assert attack is not None
        losses = self.wired.losses_of(self.active)
        teacher: Any = pair.teacher_model
        pair.zero_grad(set_to_none=True)
        with timer(self._key("ikd", "forward")), self.setting.autocast():
            images = attack.make(teacher, self.batch, 1)
            assert images is not None
            examples = Examples(images, pair.student_model, teacher, self.wired.levels)
            parts: Any = pair.projector["ikd"]
            (values,) = losses["ikd"].maps(replace(self.seen, adversarial=examples), parts, ("ikd",)).values()
            value = reduce_map(values, self.seen.grid).sum()
        with timer(self._key("ikd", "backward")):
            value.backward()

    def _look(self) -> Step:
        """Return what the losses see in a step."""
        onlooker = Onlooker(list(self.wired.on_clean_images(self.active).values()))
        term = onlooker.terms[0]
        self.pair.projector[term] = nn.ModuleDict()
        self.pair.distillation = replace(
            self.wired,
            losses={term: onlooker},
            gains={term: 1.0},
            schedules={term: Schedule()},
            weighting=None,
            attack=None,
        )
        with self.setting.autocast():
            self.pair.look(TrainingBatch.of(self.batch), {term: 1.0})
        del self.pair.projector[term]
        self.pair.distillation = self.wired
        self.pair.zero_grad(set_to_none=True)
        return onlooker.step


class Onlooker(Loss):
    """A loss that only keeps what it is shown: all that some other losses need."""

    terms = ("onlooker",)
    step: Step

    def __init__(self, losses: Sequence[Loss]) -> None:
        self.requires = requirements(losses)

    def maps(self, step: Step, parts: nn.ModuleDict, active: Any) -> dict[str, Tensor]:
        """Keep the step; the map is 0 everywhere."""
        self.step = step
        feature = next(iter(step.student.values()))
        return {self.terms[0]: feature.new_zeros(len(feature), step.grid.anchors)}


def with_leaves(step: Step) -> Step:
    """Return the step with the student's tensors cut off from the student, so that gradients end there."""

    def leaf(x: Tensor) -> Tensor:
        return x.detach().requires_grad_()

    def branch(one: Branch) -> Branch:
        own, other = one.student, one.teacher  # made anew, since a head keeps the boxes that it once decoded
        return replace(
            one,
            student=Head(leaf(own.logits), leaf(own.raw), own.grid),
            teacher=Head(other.logits, other.raw, other.grid),
        )

    def answered(one: Answered) -> Answered:
        return replace(one, student=Head(leaf(one.student.logits), leaf(one.student.raw), one.student.grid))

    return replace(
        step,
        student={level: leaf(x) for level, x in step.student.items()},
        branches=tuple(map(branch, step.branches)),
        answered=tuple(map(answered, step.answered)),
    )
