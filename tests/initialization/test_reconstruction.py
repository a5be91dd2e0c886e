"""Least-squares fits against numpy, and what they do for a narrow student."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from ultralytics.data.utils import check_det_dataset
from ultralytics.nn.tasks import DetectionModel

from tests.helpers.fixtures import make_data
from tests.helpers.models import detector
from yolokd.backend.api import get_cfg
from yolokd.backend.classes import match_classes
from yolokd.initialization.reconstruction import POSITIONS, calibration, positions, reconstruct
from yolokd.initialization.weight_selection import select_weights


def images(count: int = 3) -> list[Tensor]:
    generator = torch.Generator().manual_seed(7)
    coarse = torch.rand(count, 4, 3, 8, 8, generator=generator)
    return [F.interpolate(batch, size=64, mode="bilinear") for batch in coarse]


def pair(family: str = "v8", *, width: float = 0.25) -> tuple[DetectionModel, DetectionModel]:
    return detector(family, seed=1), detector(family, width=width, seed=2)


def selected(student: DetectionModel, teacher: DetectionModel) -> object:
    return select_weights(student, teacher, match_classes(student.names, teacher.names, {})).rows


def calibrated(data: Path, **arguments: Any) -> list[Tensor]:
    args = get_cfg(overrides={"imgsz": 64, "batch": 4, "task": "detect", **arguments})
    return calibration(args, check_det_dataset(str(data)), torch.device("cpu"))


@pytest.mark.parametrize(("fraction", "count"), [(1.0, 16), (0.25, 4), (5, 5), ([1.0, 0.25], 16)])
def test_calibration__takes_the_images_that_are_trained_on(tiny_data: Path, fraction: Any, count: int) -> None:
    assert sum(map(len, calibrated(tiny_data, fraction=fraction))) == count


def test_calibration__images_of_several_shapes_are_squares_also_with_rect(tmp_path: Path) -> None:
    data = make_data(tmp_path / "data", train=6, val=1)
    for number in range(3):
        cv2.imwrite(str(data.parent / "images" / "train" / f"{number:03d}.png"), np.zeros((32, 64, 3), np.uint8))
    (batch,) = calibrated(data, rect=True, batch=3)
    assert batch.shape == (6, 3, 64, 64)


def raw_scores(model: DetectionModel, image: Tensor) -> Tensor:
    model.eval()
    model.model[-1].training = True
    with torch.no_grad():
        raw = model(image)
    scores: Tensor = raw.get("one2many", raw)["scores"]
    return scores


def test_positions__all_of_a_small_map_and_a_sample_of_a_large_one() -> None:
    assert positions(9, 0).tolist() == list(range(9))
    drawn = positions(5000, 1)
    assert len(drawn) == POSITIONS == len(set(drawn.tolist()))
    assert torch.equal(drawn, positions(5000, 1))  # both models look at the same
    assert not torch.equal(drawn, positions(5000, 2))


@pytest.mark.slow
@pytest.mark.parametrize("family", ["v8", "v10", "11"])
def test_reconstruct__an_equal_student_stays_what_it_is(family: str) -> None:
    student, teacher = pair(family, width=0.125)
    rows = selected(student, teacher)
    reconstruct(student, teacher, rows, images())  # type: ignore[arg-type]
    ours, theirs = (raw_scores(model, images()[0]) for model in (student, teacher))
    torch.testing.assert_close(ours, theirs, rtol=0.05, atol=0.05)  # but for the ridge


def test_reconstruct__first_layer_equals_numpy() -> None:
    """Layer 0 sees the image itself, so that half the channels are matched exactly; layer 1 is a real fit."""
    student, teacher = pair()
    rows = selected(student, teacher)
    batches = images()
    reconstruct(student, teacher, rows, batches)  # type: ignore[arg-type]
    with torch.no_grad():
        x = torch.cat([student.eval().model[0](batch) for batch in batches])
        y = torch.cat([teacher.eval().model[0](batch) for batch in batches])
        torch.testing.assert_close(x, y[:, ::2], rtol=0.02, atol=0.02)  # but for the ridge
        wanted = teacher.model[1].bn(teacher.model[1].conv(y))[:, ::2]
        got = student.model[1].bn(student.model[1].conv(x))
    patches = F.unfold(x, 3, padding=1, stride=2).transpose(1, 2).flatten(0, 1).double().numpy()
    design = np.concatenate([patches, np.ones((len(patches), 1))], 1)
    target = wanted.flatten(2).transpose(1, 2).flatten(0, 1).double().numpy()
    best, *_ = np.linalg.lstsq(design, target, rcond=None)
    expected = np.square(design @ best - target).mean()
    reached = np.square(got.flatten(2).transpose(1, 2).flatten(0, 1).double().numpy() - target).mean()
    assert expected <= reached < 1.01 * expected + 1e-6


def test_reconstruct__normalization_gives_the_same_in_training() -> None:
    student, teacher = pair()
    rows = selected(student, teacher)
    batch = images(1)
    reconstruct(student, teacher, rows, batch)  # type: ignore[arg-type]
    layer = student.model[9].cv1  # 2 × 2 cells: every position is looked at
    x = batch[0]
    with torch.no_grad():
        student.eval()
        for module in student.model[:9]:
            x = module(x)
        calm = layer.eval()(x)
        torch.testing.assert_close(layer.train()(x), calm, rtol=1e-2, atol=1e-2)


def test_reconstruct__narrow_student_comes_nearer_to_the_teacher() -> None:
    student, teacher = pair()
    rows = selected(student, teacher)
    image = images()[1]
    wanted = raw_scores(teacher, image)
    before = (raw_scores(student, image) - wanted).square().mean()
    reconstruct(student, teacher, rows, images(6))  # type: ignore[arg-type]
    assert (raw_scores(student, image) - wanted).square().mean() < 0.7 * before


def test_reconstruct__leaves_teacher_modes_and_hooks() -> None:
    student, teacher = pair("26")
    student.train()
    kept = deepcopy(teacher.state_dict())
    reconstruct(student, teacher, selected(student, teacher), images(1))  # type: ignore[arg-type]
    assert all(torch.equal(kept[key], value) for key, value in teacher.state_dict().items())
    assert student.training
    assert student.model[3].training
    assert not any(m._forward_hooks or m._forward_pre_hooks for x in (student, teacher) for m in x.modules())
    assert all(torch.isfinite(value).all() for value in student.state_dict().values())
