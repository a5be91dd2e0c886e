"""Settings, recipes and reports of a benchmark."""

from __future__ import annotations

from typing import Any

import torch

from yolokd.bench.models import Setting
from yolokd.bench.results import Conditions, Cost, Part, RecipeCost, Report, Spread
from yolokd.recipe import Recipe
from yolokd.training.run import resolve_recipe

MIB = 1024 * 1024
CPU = Setting(imgsz=64, batch=3, device=torch.device("cpu"), amp=False)


def cost(wall: float, cpu: float | None = None) -> Cost:
    cpu = wall / 2 if cpu is None else cpu
    return Cost(Spread(wall, wall - 1, wall + 1), Spread(cpu, cpu, cpu))


def conditions(*, device: str = "cpu", scratch: tuple[str, ...] = ()) -> Conditions:
    return Conditions("large.pt", "small.pt", scratch, "a processor", device, 1, 64, 2, "float32", 8, 3, {"torch": "2"})


def report(*, device: str = "cpu", scratch: tuple[str, ...] = ()) -> Report:
    """Plain 100, teacher 50, losses 3 + 5 and 40 on every fourth step, weights 2, step 180; built-in 200."""
    parts = (
        Part("ssim", 1.0, cost(3.0), cost(5.0)),
        Part("aid", 1.0, cost(2.0), None),
        Part("ikd", 0.25, cost(30.0), cost(10.0)),
    )
    recipe = RecipeCost("mine", cost(50.0), parts, cost(180.0), memory=30 * MIB, trained=7)
    return Report(
        conditions(device=device, scratch=scratch),
        plain=cost(100.0),
        unfused=cost(60.0),
        built_in=cost(200.0),
        recipes=(recipe,),
        memory_plain=10 * MIB,
        memory_built_in=20 * MIB,
    )


def recipe(name: str = "bckd", *overrides: str, **options: Any) -> Recipe:
    return resolve_recipe(name, overrides, device="cpu", **options)
