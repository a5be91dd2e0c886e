from __future__ import annotations

import pytest

from yolokd.recipe.problems import dotted, listing, shown


def test_listing__one_problem_stays_on_one_line() -> None:
    assert listing("recipe x", ["a: bad"]) == "recipe x: a: bad"
    assert listing("recipe x", ["a: bad", "b: bad"]) == "recipe x: 2 problems\n  a: bad\n  b: bad"


def test_dotted__quotes_keys_that_are_no_words() -> None:
    assert dotted(("losses", "ssim", "levels", 1)) == "losses.ssim.levels[1]"
    assert dotted(("teacher", "traffic light", "a\nb", "box-gain")) == "teacher.'traffic light'.'a\\nb'.box-gain"


@pytest.mark.parametrize(
    ("value", "text"), [(None, "null"), (True, "true"), (False, "false"), (1.5, "1.5"), ("4", "'4'")]
)
def test_shown__spells_values_as_yaml_does(value: object, text: str) -> None:
    assert shown(value) == text


def test_shown__is_short_and_has_no_control_characters() -> None:
    assert len(shown("x" * 10_000)) == 60
    assert len(shown([["x" * 10_000] * 100] * 100)) < 1000
    assert shown("\x1b[31m\n") == r"'\x1b[31m\n'"
