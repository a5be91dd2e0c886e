from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.helpers.pairs import build, check_maps, check_optimum, config, equal_step
from tests.helpers.steps import GRID, TEACHER_CHANNELS, make_step
from yolokd.errors import ShapeError
from yolokd.losses.pkd import PKD, pkd_map


def features(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_pkd_map__scale_and_shift_of_a_channel_do_not_matter() -> None:
    teacher = features(2, 3, 8, 8)
    scale = torch.tensor([3.0, 0.5, 7.0], dtype=torch.float64).view(1, 3, 1, 1)
    assert pkd_map(scale * teacher + 2, teacher).max() < 1e-10


def test_pkd_map__opposite_features_reach_the_largest_value() -> None:
    teacher = features(2, 3, 8, 8)
    assert pkd_map(-teacher, teacher).mean().item() == pytest.approx(2 * 127 / 128, abs=1e-5)  # 1.984375


def test_pkd_map__mean_is_one_minus_pearsons_correlation() -> None:
    student, teacher = features(2, 3, 4, 8), features(2, 3, 4, 8, seed=1)
    correlations = [np.corrcoef(student[:, c].flatten(), teacher[:, c].flatten())[0, 1] for c in range(3)]
    expected = (1 - np.mean(correlations)) * 63 / 64
    assert pkd_map(student, teacher).mean().item() == pytest.approx(expected, abs=1e-5)


def test_pkd_map__equals_a_slow_loop() -> None:
    student, teacher = features(2, 3, 2, 3), features(2, 3, 2, 3, seed=1)
    expected = np.zeros((2, 2, 3))
    for c in range(3):
        hats = []
        for x in (student, teacher):
            values = x[:, c].numpy()
            mean = values.sum() / 12
            std = (((values - mean) ** 2).sum() / 11) ** 0.5
            hats.append((values - mean) / (std + 1e-6))
        expected += (hats[0] - hats[1]) ** 2 / 2 / 3
    torch.testing.assert_close(pkd_map(student, teacher), torch.from_numpy(expected), atol=1e-12, rtol=0)


def test_pkd_map__gradient() -> None:
    teacher = features(2, 2, 2, 2, seed=1).requires_grad_()
    student = features(2, 2, 2, 2).requires_grad_()
    assert torch.autograd.gradcheck(lambda s: pkd_map(s, teacher), student)
    torch.autograd.backward(pkd_map(student, teacher).sum())
    assert teacher.grad is None


def test_pkd_map__a_dead_channel_stays_finite() -> None:
    student, teacher = torch.zeros(2, 1, 2, 2, requires_grad=True), torch.randn(2, 1, 2, 2)
    values = pkd_map(student, teacher)
    torch.autograd.backward(values.sum())
    standardized = (teacher - teacher.mean()) / teacher.std()
    torch.testing.assert_close(values, standardized[:, 0].square() / 2)
    torch.testing.assert_close(student.grad, -standardized / 1e-6, rtol=1e-3, atol=1.0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_pkd_map__half_precision_is_computed_in_float32(dtype: torch.dtype) -> None:
    student, teacher = features(2, 3, 4, 4).to(dtype) + 100, features(2, 3, 4, 4, seed=1).to(dtype)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        values = pkd_map(student, teacher)
    assert values.dtype == torch.float32
    torch.testing.assert_close(values, pkd_map(student.double(), teacher.double()).float(), atol=1e-4, rtol=1e-4)


def test_pkd_map__refuses_a_single_place_and_unequal_shapes() -> None:
    with pytest.raises(ShapeError, match=r"at least two places, got maps of shape \(1, 3, 1, 1\)"):
        pkd_map(torch.zeros(1, 3, 1, 1), torch.zeros(1, 3, 1, 1))
    with pytest.raises(ShapeError, match=r"\(1, 2, 3, 3\) and \(1, 1, 3, 3\)"):
        pkd_map(torch.zeros(1, 2, 3, 3), torch.zeros(1, 1, 3, 3))


def test_pkd__value_is_the_sum_over_levels_of_the_mean() -> None:
    step, loss = make_step(), PKD(config())
    parts = build(loss)
    values = loss.maps(step, parts, ["pkd"])["pkd"]
    expected = sum(pkd_map(parts[level](step.student[level]), step.teacher[level]).mean() for level in GRID.shapes)
    torch.testing.assert_close(values.sum(1).mean(0), torch.as_tensor(expected))


def test_pkd__maps_and_optimum() -> None:
    loss = PKD(config())
    assert check_maps(loss, make_step(), {"pkd": (2, GRID.anchors)})
    assert check_optimum(loss, equal_step(make_step()), build(loss, TEACHER_CHANNELS))
