"""A recipe under test: what is timed is what a run does."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from tests.helpers.benching import CPU, recipe
from tests.helpers.models import detector
from yolokd.bench.measure import bench
from yolokd.bench.models import Models, make_batch
from yolokd.bench.steps import RecipeSteps, with_leaves
from yolokd.bench.timer import Time, Timer
from yolokd.errors import RunError
from yolokd.loaders.batch import TrainingBatch
from yolokd.losses.base import Step

SMALL = replace(CPU, batch=2)
AID = "weighting.aid.alpha=0.1"
ADVERSARIAL = ("augment.ikd.adversarial.steps=1", "augment.ikd.adversarial.every=4")


@pytest.fixture
def models() -> Models:
    pair = detector("v8", width=0.25, seed=1), detector("v8")
    return Models(*pair, specs=("large", "small"), scratch=("teacher",))


def steps(models: Models, name: str, *overrides: str) -> RecipeSteps:
    return RecipeSteps(models, SMALL, recipe(name, *overrides), make_batch(models, SMALL))


def timed(*arms: Any) -> dict[str, list[Time]]:
    timer = Timer(SMALL.device)
    for arm in arms:
        arm(timer)
    return timer.times


@pytest.mark.slow
def test_bench__times_and_weighs_every_arm(models: Models) -> None:
    shares: list[float] = []
    recipes = [recipe("bckd"), recipe("bckd_ssim", AID, "losses.ssim.gain=auto")]
    found = bench(models, SMALL, recipes, rounds=2, warm_up=1, report=shares.append)
    assert shares[-1] == 1.0
    assert [r.name for r in found.recipes] == ["bckd", "bckd_ssim"]
    assert [[p.name for p in r.parts] for r in found.recipes] == [["bckd"], ["bckd", "ssim", "aid"]]
    for r in found.recipes:
        costs = [found.plain, found.unfused, found.built_in, r.teacher, r.step, *(p.forward for p in r.parts)]
        assert all(0 < cost.wall.low <= cost.wall.median <= cost.wall.high for cost in costs)
        assert found.memory_plain < r.memory
    small = sum(p.numel() for p in models.student.parameters()) - 16  # numbers of the bins, which are fixed
    assert found.recipes[0].trained == small
    assert found.recipes[1].trained == small + sum(s * t + t for s, t in ((32, 64), (64, 128), (128, 256)))  # adapters
    here = found.conditions
    assert (here.teacher, here.student, here.scratch, here.rounds) == ("large", "small", ("teacher",), 2)
    assert (here.imgsz, here.batch, here.device, here.objects) == (64, 2, "cpu", 8)


def test_bench__a_device_that_fails_is_a_failed_run(models: Models, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise torch.OutOfMemoryError("out of memory")

    monkeypatch.setattr("yolokd.bench.measure.in_turn", full)
    with pytest.raises(RunError, match="Timing failed: out of memory"):
        bench(models, SMALL, [recipe("bckd")])


def test_subject__loses_nothing_by_taking_losses_one_by_one(models: Models) -> None:
    one = steps(models, "everything", "augment.ikd.adversarial=null", "weighting.aid=null")
    step = with_leaves(one.seen)
    one._prepare("ordinary")
    whole = one.pair.look(TrainingBatch.of(one.batch), one.active)
    parts: Any = one.pair.projector
    for name, loss in one.wired.losses.items():
        for term, values in loss.maps(step, parts[name], list(loss.terms)).items():
            torch.testing.assert_close(values, whole.maps[term])


def test_subject__what_a_loss_sees_is_cut_off_from_the_student(models: Models) -> None:
    def tensors(step: Step) -> list[torch.Tensor]:
        heads = [x for branch in step.branches for x in (branch.student.logits, branch.student.raw)]
        return [*step.student.values(), *heads]

    one = steps(models, "bckd_ssim")
    first, second = with_leaves(one.seen), with_leaves(one.seen)
    assert all(x.is_leaf and x.requires_grad for x in tensors(first))
    assert first.branches[0].student is not second.branches[0].student  # a head keeps its decoded boxes
    times = timed(*one.arms())
    assert {"bckd_ssim/ssim/forward", "bckd_ssim/ssim/backward", "bckd_ssim/step/measuring"} <= set(times)
    assert all(x.grad is None for x in tensors(first))


def test_subject__a_step_is_the_mean_over_its_kinds(models: Models) -> None:
    one = steps(models, "bckd", *ADVERSARIAL, "balance.every=10")
    assert {kind: share for kind, (share, _, _) in one.kinds.items()} == {
        "ordinary": 1.0,
        "measuring": 0.1,
        "adversarial": 0.25,
    }
    names = [*one.wired.losses, "ikd"]
    times = {f"bckd/{name}/{way}": [Time(1, 1)] for name in names for way in ("forward", "backward")}
    times |= {
        one.teacher: [Time(1, 1)],
        "bckd/step/ordinary": [Time(100, 10)],
        "bckd/step/measuring": [Time(150, 20)],
        "bckd/step/adversarial": [Time(300, 50)],
    }
    cost = one.cost(times, memory=0)
    # of 20 steps 5 have adversarial examples, 2 are measured
    assert cost.step.wall.median == pytest.approx(100 + 0.25 * 200 + 0.1 * 50)
    assert cost.step.cpu.median == pytest.approx(10 + 0.25 * 40 + 0.1 * 10)
    assert [(part.name, part.share) for part in cost.parts] == [("bckd", 1.0), ("ikd", 0.25)]


def test_subject__its_kinds_of_steps_do_what_they_say(models: Models, monkeypatch: pytest.MonkeyPatch) -> None:
    one = steps(models, "bckd", *ADVERSARIAL)
    timed(*one.arms())  # the first step of all measures
    done: list[str] = []
    attack = one.wired.attack
    assert attack is not None
    monkeypatch.setattr("yolokd.distillation.balance.Balance.measure", lambda *_: done.append("measured"))
    make = attack.make

    def noted(*arguments: Any) -> Any:
        images = make(*arguments)
        done.append("none" if images is None else "some")
        return images

    monkeypatch.setattr(attack, "make", noted)
    for kind, expected in (("ordinary", ["none"]), ("measuring", ["none", "measured"]), ("adversarial", ["some"])):
        done.clear()
        timed(one._step(kind))
        assert done == expected


def test_subject__recipes_that_need_the_same_of_the_teacher_share_its_name(models: Models) -> None:
    names = {name: steps(models, name).teacher for name in ("bckd", "ld", "ssim", "cwd", "bckd_ssim")}
    assert names["bckd"] == names["ld"] != names["ssim"] == names["cwd"] != names["bckd_ssim"]
