"""What is refused before the first step, and what a run is said to cost."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.helpers.fixtures import Pair
from tests.helpers.unlabeled import make_images
from yolokd.backend import checkpoints
from yolokd.backend.api import build_yolo_dataset, get_cfg
from yolokd.errors import PairError, UserError
from yolokd.training import plan as planning
from yolokd.training import trainer
from yolokd.training.run import start
from yolokd.training.task import trained_images

TRAIN = 16  # images of the tiny data set


# The last batch


@pytest.mark.parametrize(("batch", "imgsz"), [(5, 32), (3, 32), (1, 32), (15, 32)])
def test_make_plan__refuses_a_last_batch_of_one_small_image(tiny_pair: Pair, batch: int, imgsz: int) -> None:
    assert TRAIN % batch == 1 or batch == 1
    with pytest.raises(UserError, match=rf"The last batch would hold one image, and at {imgsz} px .* Change --batch"):
        tiny_pair.plan("baseline", batch=batch, imgsz=imgsz)


@pytest.mark.parametrize(("batch", "imgsz"), [(8, 32), (16, 32), (17, 32), (14, 32), (5, 64), (1, 64)])
def test_make_plan__takes_every_other_last_batch(tiny_pair: Pair, batch: int, imgsz: int) -> None:
    plan = tiny_pair.plan("baseline", batch=batch, imgsz=imgsz)
    assert (plan.imgsz, plan.recipe.train["batch"]) == (imgsz, batch)


def test_make_plan__the_last_batch_is_that_of_the_images_trained_on(tiny_pair: Pair) -> None:
    few = ["train.fraction=0.5"]  # 8 images
    with pytest.raises(UserError, match="The last batch would hold one image"):
        tiny_pair.plan("baseline", few, batch=7, imgsz=32)
    assert tiny_pair.plan("baseline", few, batch=5, imgsz=32).imgsz == 32


def test_make_plan__a_share_below_one_image_is_one_image(tiny_pair: Pair) -> None:
    plan = tiny_pair.plan("baseline", ["train.fraction=0.01"])  # of 16
    assert trained_images(plan.recipe.train, plan.report) == 1
    args = get_cfg(overrides={"fraction": 0.01})
    assert len(build_yolo_dataset(args, str(plan.data.splits["train"][0]), 8, {"names": plan.data.names})) == 1


# Channels


def gray(pair: Pair, folder: Path) -> Pair:
    """The pair with data of one channel."""
    content = yaml.safe_load(pair.data.read_text())
    description = folder / "gray.yaml"
    description.write_text(yaml.safe_dump({**content, "path": str(pair.data.parent), "channels": 1}))
    return replace(pair, data=description)


def test_make_plan__refuses_a_teacher_of_other_channels(tiny_pair: Pair, tmp_path: Path) -> None:
    with pytest.raises(PairError, match=r"'.*teacher\.pt' takes images of 3 channels, the data have 1\."):
        gray(tiny_pair, tmp_path).plan("bckd")


def test_make_plan__channels_are_the_students_affair_without_a_teacher(tiny_pair: Pair, tmp_path: Path) -> None:
    plan = gray(tiny_pair, tmp_path).plan("baseline")
    assert (plan.teacher, plan.data.channels) == (None, 1)


# Cost: a step of plain training is three forward passes of the student


def work(plan: Any) -> tuple[float, float]:
    """Floating-point operations of a forward pass: student, teacher."""
    student, teacher = plan.student.gflops, plan.teacher.gflops
    assert 0 < student < teacher
    return student, teacher


def test_cost__without_a_teacher_is_that_of_plain_training(tiny_pair: Pair) -> None:
    assert tiny_pair.plan("baseline").cost == 1


def test_cost__a_teacher_without_any_gain_does_not_run(tiny_pair: Pair) -> None:
    plan = tiny_pair.plan("bckd", ["losses.bckd.cls=0", "losses.bckd.box=0"])
    assert plan.teacher is not None
    assert plan.cost == 1


@pytest.mark.parametrize("recipe", ["bckd", "bckd_ssim"])
def test_cost__a_teacher_adds_one_forward_pass(tiny_pair: Pair, recipe: str) -> None:
    plan = tiny_pair.plan(recipe)
    student, teacher = work(plan)
    assert plan.cost == pytest.approx((3 * student + teacher) / (3 * student), rel=1e-12)


@pytest.mark.parametrize("share", [0.25, 0.5, 0.75])
def test_cost__unlabeled_images_come_on_top_of_the_batch(tiny_pair: Pair, tmp_path: Path, share: float) -> None:
    free = make_images(tmp_path / "free")
    plan = tiny_pair.plan("bckd", [f"train.unlabeled_share={share}"], unlabeled=str(free))
    student, teacher = work(plan)
    assert plan.unlabeled is not None
    images = (8 + plan.unlabeled.per_step(8)) / 8  # of a step, per labeled image
    assert images == pytest.approx(1 / (1 - share), abs=1 / 16)
    assert plan.cost == pytest.approx((3 * student + teacher) / (1 - share) / (3 * student), rel=1e-12)


@pytest.mark.parametrize(("steps", "every", "until"), [(5, 4, 0.5), (1, 1, 1.0), (3, 2, 0.25)])
def test_cost__adversarial_examples(tiny_pair: Pair, steps: int, every: int, until: float) -> None:
    adversarial = f"{{gain: 1.0e-5, eps: 8, step: 2, steps: {steps}, every: {every}}}"
    overrides = [f"augment.ikd.adversarial={adversarial}", f"augment.ikd.until={until}"]
    plan = tiny_pair.plan("ikd", overrides)
    student, teacher = work(plan)
    # forward and backward through the teacher for each step of the attack, then its features of the example; of the
    # student once the forward pass and once a training step
    extra = (2 * steps + 1) * teacher + (1 + 3) * student
    expected = (3 * student + teacher + until * extra / every) / (3 * student)
    assert plan.cost == pytest.approx(expected, rel=1e-12)


def test_cost__ikd_without_adversarial_examples_adds_nothing(tiny_pair: Pair) -> None:
    plan = tiny_pair.plan("ikd", ["augment.ikd.adversarial=null"])
    student, teacher = work(plan)
    assert plan.cost == pytest.approx(1 + teacher / (3 * student), rel=1e-12)


def test_start__the_teacher_is_loaded_once(tiny_pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded: list[str] = []

    def counted(path: Path, *rest: Any) -> Any:
        loaded.append(path.name)
        return checkpoints.load_detector(path)

    monkeypatch.setattr(planning, "load_detector", counted)
    monkeypatch.setattr(trainer, "load_detector", counted)
    start(tiny_pair.plan("bckd", epochs=1))
    assert loaded == [tiny_pair.teacher.name]
