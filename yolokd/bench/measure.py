"""What a recipe costs: a training step and its parts, against plain training and Ultralytics' built-in distiller.

A step here is the forward pass, the losses and the backward pass of one batch that lies ready. What follows every few
batches, the optimizer with its clipping and the moving average, is left out on all sides, and so is the loading of
images. Everything is timed in alternation within one process; see `yolokd.bench.timer`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from yolokd.backend.api import DistillationModel
from yolokd.bench.models import OBJECTS, Models, Setting, make_batch, make_student
from yolokd.bench.results import Conditions, Report, cost_of
from yolokd.bench.steps import RecipeSteps, occupied, timed, training
from yolokd.bench.timer import Timer, in_turn
from yolokd.errors import RunError, YolokdError
from yolokd.recipe import Recipe
from yolokd.training.run_files import versions


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
    try:
        return _bench(models, setting, recipes, rounds, warm_up, report)
    except YolokdError:
        raise
    except (RuntimeError, ValueError) as error:  # whatever a device, its memory or the built-in distiller may do
        raise RunError(f"Timing failed: {str(error).strip()}") from error


def _bench(
    models: Models,
    setting: Setting,
    recipes: Sequence[Recipe],
    rounds: int,
    warm_up: int,
    report: Callable[[float], None],
) -> Report:
    setting = setting.for_stride(max(32, int(models.student.stride.max())))
    batch = make_batch(models, setting)
    steps_of = [RecipeSteps(models, setting, recipe, batch) for recipe in recipes]
    student = make_student(models, setting)
    built_in = setting.place(DistillationModel(setting.place(models.teacher), make_student(models, setting))).train()
    plain, other = training(student, setting, batch), training(built_in, setting, batch)

    def untouched_teacher(timer: Timer) -> None:
        with timer("unfused"), torch.no_grad(), setting.autocast():
            built_in.teacher_model(batch["img"])

    arms = [timed("plain", plain, student), timed("built-in", other, built_in), untouched_teacher]
    arms += {steps.teacher: steps.teach for steps in steps_of}.values()
    arms += [arm for steps in steps_of for arm in steps.arms()]
    times = in_turn(arms, setting.device, rounds=rounds, warm_up=warm_up, report=report).times
    memory = {
        "plain": occupied(plain, student, setting),
        "built-in": occupied(other, built_in, setting),
        **{steps.name: steps.occupied() for steps in steps_of},
    }
    conditions = Conditions(
        *models.specs,
        scratch=models.scratch,
        machine=setting.machine,
        device=str(setting.device),
        threads=torch.get_num_threads(),
        imgsz=setting.imgsz,
        batch=setting.batch,
        precision=setting.precision,
        objects=OBJECTS,
        rounds=rounds,
        versions=versions(),
    )
    return Report(
        conditions=conditions,
        plain=cost_of(times["plain"]),
        unfused=cost_of(times["unfused"]),
        built_in=cost_of(times["built-in"]),
        recipes=tuple(steps.cost(times, memory[steps.name]) for steps in steps_of),
        memory_plain=memory["plain"],
        memory_built_in=memory["built-in"],
    )
