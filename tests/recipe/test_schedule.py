from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from yolokd.recipe import Schedule


def test_factor__constant_without_warmup_is_one_until_the_end() -> None:
    schedule = Schedule(until=0.5)
    assert [schedule.factor(p, 10) for p in (0, 2.5, 4.999, 5, 10)] == [1, 1, 1, 0, 0]


def test_factor__shapes_at_a_quarter_and_the_middle() -> None:
    linear, cosine = Schedule(shape="linear", until=0.8), Schedule(shape="cosine", until=0.8)
    assert [linear.factor(p, 10) for p in (0, 2, 4)] == pytest.approx([1, 0.75, 0.5], abs=1e-15)
    assert [cosine.factor(p, 10) for p in (0, 2, 4)] == pytest.approx([1, (2 + 2**0.5) / 4, 0.5], abs=1e-15)


def test_factor__warmup_rises_in_a_line_from_above_zero_to_one() -> None:
    rise = [Schedule(warmup=3).factor(p, 100) for p in (0, 1, 2, 3, 4)]
    assert rise == pytest.approx([0.25, 0.5, 0.75, 1, 1], abs=1e-15)


@pytest.mark.parametrize(("share", "epochs", "same"), [("65%", 100, 65), ("12.5%", 8, 1), ("0%", 9, 0), ("100%", 7, 7)])
def test_factor__warmup_as_a_share_of_the_epochs(share: str, epochs: int, same: float) -> None:
    times = range(epochs)
    rise = [Schedule(warmup=share).factor(p, epochs) for p in times]
    assert rise == pytest.approx([Schedule(warmup=same).factor(p, epochs) for p in times], abs=1e-15)


def test_factor__warmup_multiplies_the_shape() -> None:
    schedule = Schedule(warmup=3, shape="linear")
    assert schedule.factor(1, 10) == pytest.approx(0.5 * 0.9, abs=1e-15)


@given(
    st.sampled_from(["constant", "linear", "cosine"]),
    st.floats(0, 50),
    st.floats(0.01, 1),
    st.integers(1, 1000),
    st.floats(0, 1),
    st.floats(0, 1),
)
def test_factor__stays_in_bounds_and_falls_after_the_warmup(
    shape: Any, warmup: float, until: float, epochs: int, first: float, second: float
) -> None:
    schedule = Schedule(warmup=warmup, shape=shape, until=until)
    early, late = sorted((first * epochs, second * epochs))
    assert 0 <= schedule.factor(late, epochs) <= 1
    assert schedule.factor(0, epochs) > 0
    assert schedule.factor(until * epochs, epochs) == 0
    if early >= warmup:
        assert schedule.factor(early, epochs) >= schedule.factor(late, epochs)


@pytest.mark.parametrize(("progress", "epochs"), [(-0.1, 10), (math.nan, 10), (0, 0)])
def test_factor__refuses_times_outside_the_training(progress: float, epochs: int) -> None:
    with pytest.raises(ValueError, match="progress must be >= 0 and epochs >= 1"):
        Schedule().factor(progress, epochs)
