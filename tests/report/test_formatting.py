from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from yolokd.comparison.results import ArmResult
from yolokd.comparison.statistics import Difference, Spread, paired_difference
from yolokd.report.arms import Arm
from yolokd.report.formatting import (
    counted,
    interval,
    listed,
    mean_and_spread,
    percent,
    share,
    signed,
    statement,
    together,
)
from yolokd.report.view import Statement

APS = st.lists(st.floats(0, 1), min_size=1, max_size=5)


def arm(difference: Difference | None, *, control: bool = False) -> Arm:
    result = ArmResult(
        "s", "bckd", {"AP": {}}, {}, {} if difference is None else {"AP": difference}, {"AP": 0.25}, None, None, ()
    )
    return Arm("bckd", {}, control, result, {})


@given(APS, st.floats(-0.3, 0.3))
def test_statement__speaks_of_a_gain_exactly_if_the_interval_lies_above_0(plain: list[float], shift: float) -> None:
    own = {seed: value + shift * (1 + seed / 10) for seed, value in enumerate(plain)}
    difference = paired_difference(own, dict(enumerate(plain)))
    assert difference is not None
    said = statement(arm(difference))
    assert said is not None
    proven = difference.low is not None and difference.low > 0
    assert (" gains " in said.text, said.kind == "gain", said.word == "Gain.") == (proven,) * 3
    assert (" closes " in said.text) == proven
    lost = difference.high is not None and difference.high < 0
    assert (" loses " in said.text, said.kind == "loss") == (lost,) * 2
    assert ("proves nothing" in said.text) == (len(plain) == 1)


def test_statement__wording() -> None:
    said = statement(arm(Difference(0.015, 0.004, 0.026, 3)), "small")
    assert said is not None
    assert said.text == (
        "bckd on small gains +1.5 AP over plain training (95 % interval +0.4 to +2.6, 3 paired seeds). "
        "That closes 25 % of the gap to the teacher."
    )
    assert statement(arm(None)) is None
    assert statement(arm(Difference(0.1, 0.1, 0.1, 2), control=True)) is None


def test_together__many_that_show_nothing_become_one() -> None:
    said = [Statement("undecided", "Undecided.", "long", about=name) for name in "abcd"]
    assert together(said[:3]) == said[:3]
    (one,) = together(said)
    assert one.text == "Neither a gain nor a loss was shown of a, b, c and d: their intervals hold 0."
    gains = [Statement("gain", "Gain.", "text")] * 5
    assert together(gains) == gains
    assert "one seed proves nothing" in together([Statement("open", "One seed.", "long", about="a")] * 4)[0].text


@pytest.mark.parametrize(
    ("value", "text"), [(0.0123, "+1.2"), (-0.0123, "−1.2"), (0.0, "0.0"), (-0.0001, "0.0"), (0.0004, "0.0")]
)
def test_signed__a_proper_minus_and_no_signed_zero(value: float, text: str) -> None:
    assert signed(value) == text


def test_numbers__as_text() -> None:
    assert [percent(v) for v in (0.1234, 0.0, -1.0, None, float("nan"))] == ["12.3", "0.0", "–", "–", "–"]
    assert [share(v) for v in (0.051, -0.012, -0.001)] == ["5 %", "−1 %", "0 %"]
    assert mean_and_spread(Spread(0.13, 0.004)) == "13.0 ± 0.4"
    assert mean_and_spread(Spread(0.13, None)) == "13.0"
    assert interval(Difference(0.01, -0.02, 0.04, 3)) == "[−2.0, +4.0]"
    assert interval(Difference(0.01, None, None, 1)) == "–"
    assert [counted(1, "seed"), counted(2, "class", "classes"), counted(0, "seed")] == [
        "1 seed",
        "2 classes",
        "0 seeds",
    ]
    assert [listed([]), listed(["a"]), listed(["a", "b", "c"])] == ["", "a", "a, b and c"]
