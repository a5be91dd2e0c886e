"""Options of `yolokd compare` for stopping, and how times are written."""

from __future__ import annotations

import pytest

from yolokd.cli.compare_plan import check_precision, duration, parse_budget, parse_seeds
from yolokd.errors import UserError


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("8h", 28800), ("90m", 5400), ("30s", 30), ("1h30m", 5400), ("0.5h", 1800), ("1h1m1s", 3661), (" 2m ", 120)],
)
def test_parse_budget__reads_hours_minutes_and_seconds(text: str, seconds: float) -> None:
    assert parse_budget(text) == seconds


@pytest.mark.parametrize("text", ["0", "0h", "", "8", "h", "-1h", "1d", "30m1h", "1e3s", "٣h", "9" * 40 + "h", "inf"])
def test_parse_budget__refuses_other_words(text: str) -> None:
    with pytest.raises(UserError, match="--budget expects a time above 0"):
        parse_budget(text)


def test_parse_budget__none_is_no_limit() -> None:
    assert parse_budget(None) is None


def test_parse_seeds__more_to_choose_from_where_it_stops_by_itself() -> None:
    assert parse_seeds(None, until_decided=False) == [0, 1, 2]
    assert parse_seeds(None, until_decided=True) == [*range(10)]
    assert parse_seeds("4, 7", until_decided=True) == [4, 7]


def test_check_precision__points_become_a_share() -> None:
    assert check_precision(0.5, until_decided=True) == pytest.approx(0.005)
    assert check_precision(None, until_decided=False) is None
    with pytest.raises(UserError, match="above 0"):
        check_precision(float("inf"), until_decided=True)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0 s"), (99, "99 s"), (100, "2 min"), (5940, "99 min"), (5999, "1 h 40 min"), (7500, "2 h 05 min")],
)
def test_duration__in_the_unit_that_fits(seconds: float, text: str) -> None:
    assert duration(seconds) == text
