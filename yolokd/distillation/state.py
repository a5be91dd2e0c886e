"""What only a training run needs: losses, gains, schedules, weights, checks. Rebuilt from the recipe, never saved."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from yolokd.backend.classes import ClassMatch
from yolokd.distillation.adversarial import Attack
from yolokd.distillation.anomalies import AnomalyChecks
from yolokd.distillation.balance import Balance
from yolokd.distillation.instance_weights import InstanceWeighting
from yolokd.distillation.levels import Levels
from yolokd.distillation.positives import PositiveCounts
from yolokd.distillation.pseudo_labels import PseudoLabels
from yolokd.distillation.weight_files import WeightLog
from yolokd.losses.base import Grid, Loss
from yolokd.losses.table import losses_of
from yolokd.recipe import Gain, Recipe, Schedule


@dataclass
class Distillation:
    """The recipe at work.

    Attributes:
        losses: Wired losses by method.
        gains: Term → gain, or "auto", as the recipe says.
        schedules: Term → its schedule.
        classes: Which classes both partners know.
        levels: Levels of both.
        balance: Gradient ratios and the gains that follow from them.
        counts: Average number of positives per image over the run.
        weighting: Weights of places by how well the teacher does there; None weighs everything 1.
        pseudo: Chooses pseudo-labels for unlabeled images; None where these have none.
        attack: Makes adversarial examples for the losses that require them; None if none does.
        step: Number of the training step in the run, from 1; the only count of steps, set before each, see `begin`.
        progress: Epochs behind us in the middle of that step.
        epochs: Epochs of the whole run.
    """

    losses: Mapping[str, Loss]
    gains: Mapping[str, Gain]
    schedules: Mapping[str, Schedule]
    classes: ClassMatch
    levels: Levels
    balance: Balance
    counts: PositiveCounts
    weighting: InstanceWeighting | None = None
    attack: Attack | None = None
    pseudo: PseudoLabels | None = None
    weight_log: WeightLog = field(default_factory=WeightLog)
    anomaly_checks: AnomalyChecks = field(default_factory=AnomalyChecks)
    step: int = 1
    progress: float = 0.0
    epochs: int = 1
    _picked: dict[torch.device, tuple[Tensor, Tensor]] = field(default_factory=dict)

    def begin(self, epoch: int, batch: int, batches: int, epochs: int) -> None:
        """Begin a step: `batch` of `batches` in an epoch, both epoch and batch from 0. So a resumed run goes on."""
        self.step = epoch * batches + batch + 1
        self.progress = epoch + (batch + 0.5) / batches
        self.epochs = epochs

    def active(self) -> dict[str, float]:
        """Terms that act now, each with the factor of its schedule; a gain of 0 is off."""
        factors = {t: self.schedules[t].factor(self.progress, self.epochs) for t, gain in self.gains.items() if gain}
        return {term: factor for term, factor in factors.items() if factor > 0}

    def strength(self, term: str, factor: float) -> float:
        """Gain times schedule."""
        gain = self.gains[term]
        return factor * (self.balance.gain(term) if gain == "auto" else gain)

    def gradient_ratios(self) -> dict[str, float]:
        """Return ‖gradient of each measured term with its gain‖ / ‖gradient of the detection loss‖, at the neck."""
        active = self.active()
        return {t: self.strength(t, active[t]) * ratio for t, ratio in self.balance.ratios.items() if t in active}

    def losses_of(self, active: Mapping[str, float]) -> dict[str, Loss]:
        """The losses of which at least one term acts."""
        return {name: loss for name, loss in self.losses.items() if any(term in active for term in loss.terms)}

    def on_clean_images(self, active: Mapping[str, float]) -> dict[str, Loss]:
        """The active losses on the images of the batch themselves; the others are on adversarial examples."""
        return {name: loss for name, loss in self.losses_of(active).items() if not loss.requires.adversarial}

    def common_classes(self, device: torch.device) -> tuple[Tensor | None, Tensor | None]:
        """Indices of the common classes in student and teacher; None, None where nothing needs to be selected."""
        if self.classes.identical:
            return None, None
        if device not in self._picked:  # made once: copying them to a GPU at each step would wait for it
            match = self.classes
            self._picked[device] = (
                torch.tensor(match.student, device=device, dtype=torch.long),
                torch.tensor(match.columns, device=device, dtype=torch.long),
            )
        return self._picked[device]


def build_distillation(
    recipe: Recipe, match: ClassMatch, levels: Levels, *, epochs: int = 1, state: MutableMapping[str, Any] | None = None
) -> Distillation:
    """Return the recipe at work on one pair.

    Args:
        recipe: What to distill.
        match: Which classes both partners know.
        levels: Levels of both.
        epochs: Epochs of the whole run.
        state: A plain dict that is saved with the run; None keeps nothing.
    """
    gains, balance, aid = recipe.terms(), recipe.balance, recipe.weighting.aid
    state = {} if state is None else state
    return Distillation(
        losses=losses_of(recipe, levels.features),
        gains=gains,
        schedules={term: recipe.schedule_of(term) for term in gains},
        classes=match,
        levels=levels,
        balance=Balance(
            [term for term, gain in gains.items() if gain == "auto"],
            share=balance.share,
            every=balance.every,
            state=state,
        ),
        counts=PositiveCounts(state),
        weighting=None if aid is None else InstanceWeighting(aid, match),
        attack=None if (adversarial := recipe.augment.adversarial) is None else Attack(adversarial, match),
        epochs=epochs,
    )


def reduce_map(values: Tensor, grid: Grid) -> Tensor:
    """Return what each level adds to the value of a loss map, (L,); the value itself is their sum.

    The value is Σ over anchors, mean over images. A loss without a place has one entry, (1,).

    Args:
        values: A loss map (B, A), or (B,) for a loss without a place.
        grid: Where the anchors lie.
    """
    if values.ndim == 1:
        return values.mean().view(1)
    return torch.stack([values[:, grid.places(level)].sum() for level in grid.shapes]) / len(values)
