"""Which trainer a task has."""

from __future__ import annotations

import pytest

from yolokd.training.trainers import trainer_of


@pytest.mark.parametrize(
    ("task", "names"),
    [
        ("detect", ["DistillTrainer", "DetectionTrainer"]),
        ("segment", ["SegmentDistillTrainer", "DistillTrainer", "SegmentationTrainer", "DetectionTrainer"]),
        ("pose", ["PoseDistillTrainer", "DistillTrainer", "PoseTrainer", "DetectionTrainer"]),
        ("obb", ["OBBDistillTrainer", "DistillTrainer", "OBBTrainer", "DetectionTrainer"]),
    ],
)
def test_trainer_of__stands_before_ultralytics_own(task: str, names: list[str]) -> None:
    assert [kind.__name__ for kind in trainer_of(task).__mro__[: len(names)]] == names
