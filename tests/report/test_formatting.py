from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from yolokd.comparison.results import ArmResult
from yolokd.comparison.statistics import Difference, ImageDraws, Interval, Spread, paired_difference
from yolokd.report.arms import Arm
from yolokd.report.formatting import (
    counted,
    interval,
    listed,
    mean_and_spread,
    percent,
    second_interval,
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
def test_statement__speaks_of_a_gain_exactly_if_both_intervals_lie_above_0(plain: list[float], shift: float) -> None:
    own = {seed: value + shift * (1 + seed / 10) for seed, value in enumerate(plain)}
    each = np.array([own[seed] - value for seed, value in enumerate(plain)])
    draws = ImageDraws(50, each[:, None] + np.linspace(-0.1, 0.1, 30))
    difference = paired_difference(own, dict(enumerate(plain)), draws)
    assert difference is not None
    said = statement(arm(difference))
    assert said is not None
    first, second = difference.seeds, difference.images_and_seeds
    proven = first is not None and second is not None and min(first.low, second.low) > 0
    assert (" gains " in said.text, said.kind == "gain", said.word == "Gain.") == (proven,) * 3
    assert (" closes " in said.text) == proven
    lost = first is not None and second is not None and max(first.high, second.high) < 0
    assert (" loses " in said.text, said.kind == "loss") == (lost,) * 2
    assert ("proves nothing" in said.text) == (len(plain) == 1)


def test_statement__wording() -> None:
    said = statement(arm(Difference(0.015, 0.004, 0.026, 3, None, Interval(0.001, 0.029))), "small")
    assert said is not None
    assert said.text == (
        "bckd on small gains +1.5 AP over plain training (95 % intervals +0.4 to +2.6 over 3 paired seeds and +0.1 to "
        "+2.9 over images and seeds). That closes 25 % of the gap to the teacher."
    )
    assert statement(arm(None)) is None
    assert statement(arm(Difference(0.1, 0.1, 0.1, 2), control=True)) is None


@pytest.mark.parametrize(
    ("difference", "kind", "text"),
    [
        (
            Difference(0.015, 0.004, 0.026, 3, None, Interval(-0.01, 0.04)),
            "undecided",
            "bckd: +1.5 AP against plain training, 95 % intervals +0.4 to +2.6 over 3 paired seeds and −1.0 to +4.0 "
            "over images and seeds. The second interval holds 0: no gain or loss was shown.",
        ),
        (
            Difference(0.015, -0.004, 0.034, 3, None, Interval(-0.01, 0.04)),
            "undecided",
            "bckd: +1.5 AP against plain training, 95 % intervals −0.4 to +3.4 over 3 paired seeds and −1.0 to +4.0 "
            "over images and seeds. Both intervals hold 0: no gain or loss was shown.",
        ),
        (
            Difference(0.015, -0.004, 0.034, 3),
            "undecided",
            "bckd: +1.5 AP against plain training, 95 % interval −0.4 to +3.4 over 3 paired seeds. The interval holds "
            "0: no gain or loss was shown.",
        ),
        (
            Difference(0.015, 0.004, 0.026, 3),
            "seeds",
            "bckd: +1.5 AP against plain training on these images (95 % interval +0.4 to +2.6 over 3 paired seeds); of "
            "new images nothing is known.",
        ),
        (
            Difference(0.015, None, None, 1, Interval(0.01, 0.02)),
            "open",
            "bckd: +1.5 AP against plain training with one seed, which proves nothing (95 % interval +1.0 to +2.0 for "
            "these two networks on new images).",
        ),
    ],
)
def test_statement__what_shows_nothing_says_why(difference: Difference, kind: str, text: str) -> None:
    said = statement(arm(difference))
    assert said is not None
    assert (said.kind, said.text) == (kind, text)


def test_together__many_that_show_nothing_become_one() -> None:
    said = [Statement("undecided", "Undecided.", "long", about=name) for name in "abcd"]
    assert together(said[:3]) == said[:3]
    (one,) = together(said)
    assert one.text == "Neither a gain nor a loss was shown of a, b, c and d: intervals hold 0."
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
    assert interval(Interval(-0.02, 0.04)) == "[−2.0, +4.0]"
    assert interval(None) == "–"
    two = Interval(-0.02, 0.04)
    assert second_interval(Difference(0.01, 0.0, 0.02, 3, Interval(0, 1), two)) == "[−2.0, +4.0]"
    assert second_interval(Difference(0.01, None, None, 1, two)) == "[−2.0, +4.0] images"
    assert second_interval(Difference(0.01, 0.0, 0.02, 3)) == "–"
    assert [counted(1, "seed"), counted(2, "class", "classes"), counted(0, "seed")] == [
        "1 seed",
        "2 classes",
        "0 seeds",
    ]
    assert [listed([]), listed(["a"]), listed(["a", "b", "c"])] == ["", "a", "a, b and c"]
