"""The Fourier heat map against the discrete Fourier transform and a filter whose response is known."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.distributions import Bernoulli, kl_divergence

from tests.helpers.lively import lively
from yolokd.backend.heads import split_branches
from yolokd.inspection.fourier import heat_map, moved_scores, wave
from yolokd.teachers.detector import DetectorTeacher


@pytest.mark.parametrize(("row", "column"), [(0, 0), (3, 0), (0, -5), (2, 7), (4, -1)])
def test_wave__is_one_frequency_of_norm_one(row: int, column: int) -> None:
    pattern = wave(row, column, (32, 24))
    assert float(pattern.norm()) == pytest.approx(1, abs=1e-12)
    spectrum = torch.fft.fft2(pattern).abs()
    there = {(row % 32, column % 24), (-row % 32, -column % 24)}
    assert {tuple(place) for place in (spectrum > 1e-9).nonzero().tolist()} == there


def test_heat_map__of_a_filter_is_its_squared_response() -> None:
    side, strength = 32, 0.05
    generator = torch.Generator().manual_seed(0)
    response = torch.fft.fft2(torch.randn(side, side, generator=generator, dtype=torch.float64))

    def energy(images: Tensor) -> Tensor:
        filtered: Tensor = torch.fft.ifft2(torch.fft.fft2(images) * response)
        return filtered.real.square().sum((1, 2, 3)) + 7

    image = torch.zeros(1, 3, side, side, dtype=torch.float64)
    found = heat_map(energy, image, strength=strength, reach=3, batch=5)
    step = (side // 2 - 1) // 3
    assert found.spacing == pytest.approx(step / side)
    for i in range(-3, 4):
        for j in range(-3, 4):
            expected = 3 * (strength * side) ** 2 * float(response[i * step, j * step].abs() ** 2)
            assert found.rise[3 + i, 3 + j] == pytest.approx(expected, rel=1e-9)


def test_heat_map__does_not_depend_on_how_many_waves_go_at_a_time() -> None:
    image = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(1))

    def loss(images: Tensor) -> Tensor:
        return (images.double() ** 3).sum((1, 2, 3))

    one, many = (heat_map(loss, image, reach=2, batch=size).rise for size in (1, 16))
    torch.testing.assert_close(torch.from_numpy(one), torch.from_numpy(many))


def test_moved_scores__rise_is_the_divergence_of_the_scores() -> None:
    teacher = DetectorTeacher(lively(seed=1))
    generator = torch.Generator().manual_seed(2)
    clean = torch.rand(1, 3, 64, 64, generator=generator)
    others = torch.rand(2, 3, 64, 64, generator=generator)
    loss = moved_scores(teacher, clean)

    def scores(images: Tensor) -> Bernoulli:
        raw = teacher(images).raw
        assert raw is not None
        return Bernoulli(logits=split_branches(raw)["one2many"]["scores"].double())

    divergence = kl_divergence(scores(clean.expand_as(others)), scores(others)).sum((1, 2))
    assert float(divergence.min()) > 0.1
    torch.testing.assert_close((loss(others) - loss(clean)).double(), divergence, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(loss(clean).double(), scores(clean).entropy().sum((1, 2)), rtol=1e-5, atol=0)
