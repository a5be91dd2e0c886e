"""Alarms: terms that are not finite or stay zero."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from yolokd.distillation.anomalies import EVERY, ZERO_STEPS, Alarms
from yolokd.errors import RunError


def step(alarms: Alarms, objects: int = 2, detection: float = 1.0, **values: float) -> None:
    tensors: dict[str, Tensor] = {term: torch.tensor([0.0, value, 0.0]) for term, value in values.items()}
    alarms.record(
        tensors, {"cls": torch.zeros(objects, 1), "im_file": ["data/a.jpg", "data/b.jpg"]}, torch.tensor(detection)
    )


def test_read__the_first_term_that_is_not_finite_is_named_with_step_and_pictures() -> None:
    alarms = Alarms()
    step(alarms, bckd_cls=1.0, ssim=0.5)
    step(alarms, bckd_cls=1.0, ssim=float("nan"))
    with pytest.raises(RunError, match=r"kd_ssim became nan at p4 in active step 2, on the pictures a\.jpg, b\.jpg"):
        alarms.read()


def test_read__a_term_that_stays_zero_is_an_error() -> None:
    alarms = Alarms()
    for _ in range(ZERO_STEPS - 1):
        step(alarms, bckd_cls=1.0, ssim=0.0)
    alarms.read()
    step(alarms, bckd_cls=1.0, ssim=0.0)
    with pytest.raises(RunError, match="kd_ssim was exactly 0"):
        alarms.read()


def test_read__steps_without_objects_and_single_zeros_are_fine() -> None:
    alarms = Alarms()
    for index in range(3 * ZERO_STEPS):
        step(alarms, objects=0, ssim=0.0)
        step(alarms, ssim=float(index % (ZERO_STEPS - 1)))
    alarms.read()
    assert alarms.step == 6 * ZERO_STEPS


def test_due__after_the_set_number_of_steps_and_not_before() -> None:
    alarms = Alarms()
    for _ in range(EVERY - 1):
        step(alarms, ssim=1.0)
    assert not alarms.due
    step(alarms, ssim=1.0)
    seen = [alarms.due]
    alarms.read()
    assert [*seen, alarms.due] == [True, False]


def test_read__a_broken_student_is_left_to_ultralytics_own_recovery() -> None:
    alarms = Alarms()
    step(alarms, ssim=float("nan"), detection=float("nan"))
    alarms.read()
    assert alarms.step == 1
