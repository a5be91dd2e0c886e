"""Training steps of `gpu.py`: every recipe on synthetic batches, its values and its gradients."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from yolokd.backend.classes import match_classes
from yolokd.bench.models import Models, Setting, make_batch, make_pair, make_student
from yolokd.distillation.model import PREFIX, TeacherStudent
from yolokd.distillation.pair import Parts, build_pair
from yolokd.distillation.pseudo_labels import PseudoLabels
from yolokd.loaders.answers import joined
from yolokd.loaders.batch import ANSWERS, FILES, UNLABELED, Answers, TrainingBatch
from yolokd.losses import mgd, samkd
from yolokd.recipe import Recipe
from yolokd.training.first_weights import select_first_weights

FULL_STEP = (64, 0, 1, 98)  # epoch, batch, batches, epochs: all schedules at 1, an attack, automatic gains measured


@dataclass
class Prepared:
    """A model that is ready to be trained, alone or under a teacher, and its batch."""

    model: Any
    batch: dict[str, Any]
    recipe: Recipe

    def begin(self, epoch: int, batch: int, batches: int, epochs: int) -> None:
        if isinstance(self.model, TeacherStudent):
            self.model._run().begin(epoch, batch, batches, epochs)


def prepare(models: Models, setting: Setting, recipe: Recipe) -> Prepared:
    """Return a recipe's student and teacher, with first weights, stored answers and unlabeled images as it says."""
    batch = make_batch(models, setting)
    if recipe.student.from_teacher:
        models = replace(models, student=with_first_weights(models, setting, recipe, batch))
    if recipe.pseudo_labels:
        return with_pseudo_labels(models, setting, recipe, batch)
    if not any(recipe.terms().values()):
        return Prepared(make_student(models, setting), batch, recipe)
    return Prepared(make_pair(models, setting, recipe), batch, recipe)


def with_first_weights(models: Models, setting: Setting, recipe: Recipe, batch: dict[str, Any]) -> Any:
    student, teacher = deepcopy(models.student), deepcopy(models.teacher)
    match = match_classes(student.names, teacher.names, recipe.teacher.classes)
    select_first_weights(student, teacher, match, recipe, setting.device, lambda: [batch["img"]])
    return student.to("cpu")


def with_pseudo_labels(models: Models, setting: Setting, recipe: Recipe, batch: dict[str, Any]) -> Prepared:
    """Return the recipe with as many unlabeled images as labeled ones, some of whose boxes are doubtful."""
    other = make_batch(models, setting, seed=1)
    found: Answers = other[ANSWERS]
    chances = found.probabilities.clone()
    chances[::3] *= 0.4
    answers = joined(None, replace(found, probabilities=chances), setting.batch)
    match = match_classes(models.student.names, models.teacher.names, recipe.teacher.classes)
    student, teacher = make_student(models, setting), deepcopy(models.teacher)
    pair = build_pair(Parts(recipe, student, teacher, match, setting.device, half=bool(setting.amp)))
    pair._run().pseudo = PseudoLabels(torch.full((len(models.student.names),), 0.5))
    batch = {**batch, UNLABELED: other["img"], FILES: [""] * setting.batch, ANSWERS: answers}
    return Prepared(setting.place(pair).train(), batch, recipe)


def train_steps(prepared: Prepared, setting: Setting, steps: int) -> dict[str, Any]:
    """Train for some steps over which all schedules pass; return how often mixed precision left a step out.

    Raises:
        AssertionError: A value or the last gradients are not finite, a term was 0 on every step, a parameter of the
            student got no gradient, or one of the teacher did.
    """
    model, cuda = prepared.model, setting.device.type == "cuda"
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    optimizer = torch.optim.SGD(trained.values(), lr=1e-3, momentum=0.9)
    scaler = torch.amp.GradScaler(setting.device.type, enabled=cuda and bool(setting.amp))
    logged: list[dict[str, Tensor]] = []
    norms, scales, reached = [], [], set[str]()
    for step in range(steps):
        prepared.begin(step, 0, 1, steps)
        optimizer.zero_grad(set_to_none=True)
        with setting.autocast():
            loss, items = model.loss(prepared.batch)
        scaler.scale(loss.sum()).backward()
        reached |= {name for name, parameter in trained.items() if parameter.grad is not None}
        scaler.unscale_(optimizer)
        norms.append(torch.nn.utils.clip_grad_norm_(trained.values(), max_norm=10.0))
        scaler.step(optimizer)
        scaler.update()
        scales.append(scaler.get_scale())
        logged.append(items)
    if isinstance(model, TeacherStudent):
        model._run().anomaly_checks.read()
    check_values(logged, [term for term, gain in prepared.recipe.terms().items() if gain])
    check_gradients(prepared, [name for name in trained if name not in reached])
    if not bool(norms[-1].isfinite()):
        raise AssertionError(f"the gradients of the last step are not finite, at a scale of {scales[-1]}")
    skipped = sum(not bool(norm.isfinite()) for norm in norms)
    return {"terms": len(prepared.recipe.terms()), "steps": steps, "left out by the scaler": skipped}


def check_values(logged: list[dict[str, Tensor]], terms: list[str]) -> None:
    for key in logged[0]:
        values = torch.stack([items[key].detach().float().cpu() for items in logged])
        if not bool(values.isfinite().all()):
            raise AssertionError(f"{key} is not finite on step {int((~values.isfinite()).nonzero()[0]) + 1}")
        if key.removeprefix(PREFIX) in terms and not bool(values.any()):
            raise AssertionError(f"{key} is 0 on every step")


def check_gradients(prepared: Prepared, without: list[str]) -> None:
    if without:
        raise AssertionError(f"no gradient reaches {len(without)} parameters, {without[0]} the first")
    if not isinstance(prepared.model, TeacherStudent):
        return
    taught = list(prepared.model.teacher_model.parameters())
    if any(parameter.requires_grad or parameter.grad is not None for parameter in taught):
        raise AssertionError("a gradient reaches the teacher")


@dataclass
class Outcome:
    """What one step gives, on the CPU."""

    values: dict[str, float]
    gradients: dict[str, Tensor]


def values_and_gradients(prepared: Prepared) -> Outcome:
    """Return the logged values of one step and the gradients of the student and of each method's parts."""
    prepared.begin(*FULL_STEP)
    with masks_of_the_cpu():
        loss, items = prepared.model.loss(prepared.batch)
    loss.sum().backward()
    groups: dict[str, list[Tensor]] = {}
    for name, parameter in prepared.model.named_parameters():
        if parameter.grad is not None:
            group = ".".join(name.split(".")[:2]) if name.startswith("projector.") else "student"
            groups.setdefault(group, []).append(parameter.grad.detach().double().cpu().flatten())
    values = {key: float(value) for key, value in items.items()}
    return Outcome(values, {name: torch.cat(parts) for name, parts in groups.items()})


def first_values(prepared: Prepared) -> dict[str, float]:
    """Return each term before its gain, of one batch."""
    prepared.begin(*FULL_STEP)
    run = prepared.model._run()
    with torch.no_grad(), masks_of_the_cpu():
        seen = prepared.model.look(TrainingBatch.of(prepared.batch), run.active())
    return {term: float(value) for term, value in seen.values.items()}


@contextmanager
def masks_of_the_cpu() -> Iterator[None]:
    """Draw random masks on the CPU, since a GPU draws others from the same seed."""
    own, go_to = mgd.own_random_mask, mgd.MaskStream.go_to
    place: list[torch.device] = []

    def draw(*args: Any, **options: Any) -> Tensor:
        return own(*args, **options).to(place[-1])

    def go(stream: Any, number: int, device: torch.device) -> Any:
        place.append(device)
        return go_to(stream, number, torch.device("cpu"))

    mgd.own_random_mask = samkd.own_random_mask = draw
    mgd.MaskStream.go_to = go
    try:
        yield
    finally:
        mgd.own_random_mask = samkd.own_random_mask = own
        mgd.MaskStream.go_to = go_to


def flat(output: Any) -> Tensor:
    """Return all features, scores and boxes of a teacher's output in one row, on the CPU."""
    parts = [*output.features.values()]
    raw = output.raw or {}
    for branch in raw.values() if "one2many" in raw else [raw]:
        parts += [branch["scores"], branch["boxes"]]
    return torch.cat([part.detach().double().cpu().flatten() for part in parts])


def relative(found: Tensor, expected: Tensor) -> float:
    """Return the L2 norm of the difference, as a share of that of the expected values."""
    return float((found - expected).norm() / expected.norm().clamp(min=1e-12))
