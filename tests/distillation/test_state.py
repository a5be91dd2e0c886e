from __future__ import annotations

from yolokd.backend.classes import match_classes
from yolokd.distillation.levels import Levels
from yolokd.distillation.state import build_distillation
from yolokd.recipe import Recipe

NAMES = {0: "car"}
LEVELS = Levels(*[("p3", "p4", "p5")] * 4)


def test_begin__counts_steps_of_the_run_and_goes_on_after_a_resume() -> None:
    recipe = Recipe.from_dict({"losses": {"bckd": {}}, "schedule": {"warmup": 2}})
    run = build_distillation(recipe, match_classes(NAMES, NAMES, {}), LEVELS)
    run.begin(0, 0, 4, 10)
    assert (run.step, run.progress, run.epochs) == (1, 0.125, 10)
    early = run.active()
    run.begin(2, 1, 4, 10)
    assert (run.step, run.progress) == (10, 2.375)
    assert run.active()["bckd_cls"] > early["bckd_cls"]
    resumed = build_distillation(recipe, match_classes(NAMES, NAMES, {}), LEVELS)
    resumed.begin(2, 1, 4, 10)
    assert (resumed.step, resumed.active()) == (run.step, run.active())
