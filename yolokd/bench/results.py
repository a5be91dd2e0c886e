"""What `bench` found, as typed results and as plain data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from yolokd.bench.timer import Time

Kind = Literal["wall", "cpu"]
KINDS: tuple[Kind, ...] = ("wall", "cpu")
MIB = 2**20


@dataclass(frozen=True)
class Spread:
    """Median and quartiles over the rounds, in milliseconds."""

    median: float
    low: float
    high: float


@dataclass(frozen=True)
class Cost:
    """Time on the clock, and processor time of all threads of the process."""

    wall: Spread
    cpu: Spread

    def median(self, kind: Kind) -> float:
        """One of the two medians, in milliseconds."""
        spread: Spread = getattr(self, kind)
        return spread.median


def cost_of(times: Sequence[Time]) -> Cost:
    """Return medians and quartiles of some measurements of the same thing."""
    spreads = []
    for kind in KINDS:
        low, middle, high = np.percentile([getattr(time, kind) for time in times], [25, 50, 75])
        spreads.append(Spread(float(middle), float(low), float(high)))
    return Cost(*spreads)


@dataclass(frozen=True)
class Part:
    """One part of a recipe's cost, measured by itself."""

    name: str  # of a loss, or "aid" (weights), or "ikd" (adversarial examples)
    share: float  # of the steps that have it
    forward: Cost
    backward: Cost | None  # None for weights, which have no gradient

    def mean(self, kind: Kind) -> float:
        """What it adds to an average step, in milliseconds."""
        return self.share * (self.forward.median(kind) + (self.backward.median(kind) if self.backward else 0.0))


@dataclass(frozen=True)
class RecipeCost:
    """What a recipe costs."""

    name: str
    teacher: Cost  # the teacher's pass as far as the recipe needs it
    parts: tuple[Part, ...]
    step: Cost  # the whole training step
    memory: int  # bytes: what the models hold and the most that a step makes
    trained: int  # parameters that are trained, the student's included


@dataclass(frozen=True)
class Conditions:
    """What the figures hold for."""

    teacher: str
    student: str
    scratch: tuple[str, ...]  # of "teacher" and "student", those with random weights
    machine: str  # name of the processor or GPU
    device: str  # "cpu", "cuda:0", …
    threads: int  # of the processor's work
    imgsz: int
    batch: int
    precision: str  # of the student's step
    objects: int  # per image
    rounds: int
    versions: dict[str, str]


@dataclass(frozen=True)
class Report:
    """Everything that was measured."""

    conditions: Conditions
    plain: Cost  # the student's step without distillation
    unfused: Cost  # the teacher's pass in the built-in distiller
    built_in: Cost  # the built-in distiller's step
    recipes: tuple[RecipeCost, ...]
    memory_plain: int
    memory_built_in: int

    def floor(self, recipe: RecipeCost, kind: Kind) -> float:
        """The least that distillation can cost: the plain step and the teacher's pass, in milliseconds."""
        return self.plain.median(kind) + recipe.teacher.median(kind)

    def rest(self, recipe: RecipeCost, kind: Kind) -> float:
        """What the step takes beyond its parts, each measured by itself; negative where they run faster together."""
        parts = sum(part.mean(kind) for part in recipe.parts)
        return recipe.step.median(kind) - self.floor(recipe, kind) - parts

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON: times in milliseconds, memory in MiB."""
        return {
            "conditions": asdict(self.conditions),
            "plain": {**_cost(self.plain), "memory_mib": self.memory_plain / MIB},
            "teacher_unfused": _cost(self.unfused),
            "built_in": {**_cost(self.built_in), "memory_mib": self.memory_built_in / MIB},
            "recipes": {recipe.name: self._recipe(recipe) for recipe in self.recipes},
        }

    def _recipe(self, recipe: RecipeCost) -> dict[str, Any]:
        step = recipe.step
        return {
            "teacher": _cost(recipe.teacher),
            "floor": {f"{kind}_ms": self.floor(recipe, kind) for kind in KINDS},
            "parts": {
                part.name: {
                    "share_of_steps": part.share,
                    "forward": _cost(part.forward),
                    "backward": None if part.backward is None else _cost(part.backward),
                }
                for part in recipe.parts
            },
            "rest": {f"{kind}_ms": self.rest(recipe, kind) for kind in KINDS},
            "step": _cost(step),
            "step_to_floor": {kind: step.median(kind) / self.floor(recipe, kind) for kind in KINDS},
            "step_to_plain": {kind: step.median(kind) / self.plain.median(kind) for kind in KINDS},
            "step_to_built_in": {kind: step.median(kind) / self.built_in.median(kind) for kind in KINDS},
            "memory_mib": recipe.memory / MIB,
            "memory_to_built_in": recipe.memory / self.memory_built_in,
            "trained_parameters": recipe.trained,
        }


def _cost(cost: Cost) -> dict[str, dict[str, float]]:
    return {
        f"{kind}_ms": {"median": spread.median, "quartile_1": spread.low, "quartile_3": spread.high}
        for kind, spread in (("wall", cost.wall), ("cpu", cost.cpu))
    }
