"""Alarms: terms that are not finite or stay zero."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from yolokd.distillation.anomalies import EVERY, ZERO_STEPS, AnomalyChecks
from yolokd.errors import RunError
from yolokd.loaders.batch import TrainingBatch

NUMBER = 7  # of the step in the run


def step(anomaly_checks: AnomalyChecks, objects: int = 2, detection: float = 1.0, **values: float) -> None:
    tensors: dict[str, Tensor] = {term: torch.tensor([0.0, value, 0.0]) for term, value in values.items()}
    labeled = {"img": torch.zeros(2, 3, 1, 1), "cls": torch.zeros(objects, 1), "im_file": ["data/a.jpg", "data/b.jpg"]}
    levels = ("p3", "p4", "p5")
    anomaly_checks.record(NUMBER, tensors, TrainingBatch.of(labeled), torch.tensor(detection), levels)


def test_read__the_first_term_that_is_not_finite_is_named_with_step_and_images() -> None:
    anomaly_checks = AnomalyChecks()
    step(anomaly_checks, bckd_cls=1.0, ssim=0.5)
    step(anomaly_checks, bckd_cls=1.0, ssim=float("nan"))
    with pytest.raises(RunError, match=r"kd_ssim became nan at p4 in step 7, on the images a\.jpg, b\.jpg"):
        anomaly_checks.read()


def test_read__a_term_that_stays_zero_is_an_error() -> None:
    anomaly_checks = AnomalyChecks()
    for _ in range(ZERO_STEPS - 1):
        step(anomaly_checks, bckd_cls=1.0, ssim=0.0)
    anomaly_checks.read()
    step(anomaly_checks, bckd_cls=1.0, ssim=0.0)
    with pytest.raises(RunError, match="kd_ssim was exactly 0"):
        anomaly_checks.read()


def test_read__steps_without_objects_and_single_zeros_are_fine() -> None:
    anomaly_checks = AnomalyChecks()
    for index in range(3 * ZERO_STEPS):
        step(anomaly_checks, objects=0, ssim=0.0)
        step(anomaly_checks, ssim=float(index % (ZERO_STEPS - 1)))
    anomaly_checks.read()
    assert not anomaly_checks.due


def test_due__after_the_set_number_of_steps_and_not_before() -> None:
    anomaly_checks = AnomalyChecks()
    for _ in range(EVERY - 1):
        step(anomaly_checks, ssim=1.0)
    assert not anomaly_checks.due
    step(anomaly_checks, ssim=1.0)
    seen = [anomaly_checks.due]
    anomaly_checks.read()
    assert [*seen, anomaly_checks.due] == [True, False]


def test_read__a_broken_student_is_left_to_ultralytics_own_recovery() -> None:
    anomaly_checks = AnomalyChecks()
    step(anomaly_checks, ssim=float("nan"), detection=float("nan"))
    anomaly_checks.read()
    assert not anomaly_checks.zeros
