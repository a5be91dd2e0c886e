"""Gradient ratios and automatic gains, on gradients that are known in closed form."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from yolokd.distillation.balance import FLOOR, SMOOTHING, Balance
from yolokd.errors import RunError


def balance(*auto: str, share: float = 0.1, every: int = 1, state: dict[str, Any] | None = None) -> Balance:
    return Balance(auto, share=share, every=every, state={} if state is None else state)


def measure(balance: Balance, **slopes: float) -> None:
    """Measure terms whose gradients are so many times the detection loss's, which has slope 2 everywhere."""
    features = [torch.zeros(3, requires_grad=True), torch.zeros(2, 2, requires_grad=True)]
    total = sum((feature.sum() for feature in features), torch.zeros(()))
    balance.measure(2 * total, {term: 2 * slope * total for term, slope in slopes.items()}, features)


def test_measure__first_ratio_is_taken_as_it_is_and_later_ones_are_smoothed() -> None:
    found = balance("a")
    expected = None
    for slope in (4.0, 1.0, 6.0):
        measure(found, a=slope)
        expected = slope if expected is None else SMOOTHING * expected + (1 - SMOOTHING) * slope
        assert found.ratios == {"a": pytest.approx(expected, rel=1e-5)}
        assert found.gain("a") == pytest.approx(0.1 / expected, rel=1e-5)
    assert expected == pytest.approx(0.8 * (0.8 * 4 + 0.2 * 1) + 0.2 * 6)


def test_measure__the_ratio_falls_no_lower_than_a_share_of_the_first() -> None:
    found = balance("a")
    measure(found, a=5.0)
    values = []
    for _ in range(40):
        measure(found, a=1e-6)
        values.append(found.ratios["a"])
    steps = [max(5.0 * SMOOTHING**n, 5.0 * FLOOR) for n in range(1, 41)]
    assert values == pytest.approx(steps, rel=1e-4)
    assert values[-1] == pytest.approx(0.05)
    assert found.gain("a") == pytest.approx(0.1 / 0.05)
    measure(found, a=5.0)  # and it comes back from there
    assert found.ratios["a"] == pytest.approx(SMOOTHING * 0.05 + (1 - SMOOTHING) * 5, rel=1e-5)


def test_measure__terms_are_apart() -> None:
    found = balance("a", "b", share=0.2)
    measure(found, a=4.0, b=0.5)
    measure(found, b=1.0)
    assert found.ratios == {"a": pytest.approx(4), "b": pytest.approx(0.6)}
    assert [found.gain("a"), found.gain("b")] == pytest.approx([0.05, 1 / 3])


@pytest.mark.parametrize("slope", [0.0, float("nan"), float("inf")])
def test_measure__what_is_no_positive_number_is_left_out(slope: float) -> None:
    found = balance("a")
    measure(found, a=slope)
    assert (found.ratios, found.gain("a")) == ({}, 0.0)
    measure(found, a=3.0)
    measure(found, a=slope)
    assert found.ratios == {"a": pytest.approx(3)}


def test_measure__ratios_and_floor_go_on_from_the_saved_state() -> None:
    state: dict[str, Any] = {}
    first = balance("a", state=state)
    measure(first, a=5.0)
    measure(first, a=1.0)
    second = balance("a", state=state)
    assert second.ratios == first.ratios
    for _ in range(40):
        measure(second, a=1e-6)
    assert second.ratios["a"] == pytest.approx(5 * FLOOR)


def test_measure__small_gradients_do_not_vanish_in_half_precision() -> None:
    feature = torch.zeros(4, dtype=torch.float16, requires_grad=True)

    def value(slope: float) -> Tensor:
        return (feature.float() * slope).sum()

    found = balance("a")
    found.measure(value(2e-7), {"a": value(6e-7)}, [feature])  # below the smallest normal number of 16 bits
    assert found.ratios["a"] == pytest.approx(3, rel=0.02)


def test_measure__frozen_features_are_an_error_for_automatic_gains_only() -> None:
    frozen = [torch.zeros(3)]
    value = torch.zeros((), requires_grad=True) * 1
    fixed = balance()
    fixed.measure(value, {"a": value}, frozen)
    assert fixed.ratios == {}
    with pytest.raises(RunError, match="all layers up to it are frozen; give a number"):
        balance("a").measure(value, {"a": value}, frozen)


@pytest.mark.parametrize(("every", "expected"), [(1, [1, 1, 1, 1, 1, 1, 1]), (3, [1, 0, 0, 1, 0, 0, 1])])
def test_due__every_so_many_steps(every: int, expected: list[int]) -> None:
    found = balance("a", every=every)
    measure(found, a=1.0)
    assert [found.due(number, ["a"]) for number in range(1, 8)] == [bool(due) for due in expected]


def test_due__while_an_automatic_term_has_no_ratio() -> None:
    found = balance("a", every=5)
    assert [found.due(number, ["a", "b"]) for number in (1, 2, 3)] == [True, True, True]
    measure(found, a=1.0)
    assert not found.due(4, ["a", "b"])  # b has a number for a gain
