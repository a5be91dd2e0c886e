from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from yolokd.errors import RecipeError
from yolokd.recipe._yaml import dump, parse


@pytest.mark.parametrize("text", ["1e-5", "1.0e-5", "1E-5", "+1e-5", "0.1e-4", ".1e-4", "1_0e-6"])
def test_parse__scientific_numbers_need_no_dot(text: str) -> None:
    value = parse(f"a: {text}", "test")["a"]
    assert isinstance(value, float)
    assert value == pytest.approx(1e-5, rel=1e-12)


@pytest.mark.parametrize("text", ["e5", "1e", "1e-", "v1e5", "1e5x", "'1e-5'"])
def test_parse__what_only_resembles_a_number_is_text(text: str) -> None:
    assert parse(text, "test") == text.strip("'")


def test_parse__dates_and_merge_keys_are_text() -> None:
    assert parse("{name: 2024-13-45, <<: a}", "test") == {"name": "2024-13-45", "<<": "a"}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: 1\nb: 2\na: 3", "line 3, column 1: key 'a' is given twice"),
        ("losses: {ssim: {gain: 1, gain: 2}}", "line 1, column 26: key 'gain' is given twice"),
        ("a: {b: 1", "line 1, column 9: while parsing a flow mapping, expected ',' or '}'"),
        ("a: 1\n\tb: 2", "line 2, column 1: "),
        ("a: 1\n---\nb: 2", "line 2, column 1: expected a single document"),
        ("a: &x 1\nb: *x", "line 2, column 4: alias *x is not allowed, write the value out"),
        ("a: &x [*x]", "line 1, column 8: alias *x is not allowed"),
        (
            "a: !!python/object/apply:os.getcwd []",
            "line 1, column 4: tag !!python/object/apply:os.getcwd is not allowed",
        ),
        ("a: !!float x", "line 1, column 4: tag !!float is not allowed, write a plain value"),
        ("a: !own x", "line 1, column 4: tag !own is not allowed"),
        ("? [a]\n: 1", "line 1, column 3: a key must be a single word"),
        ("[" * 20_000, "nested too deeply"),
        ("a: \x07", "unacceptable character #x0007"),
        ("a: " + "9" * 5000, "Exceeds the limit (4300"),
    ],
)
def test_parse__a_mistake_is_placed(text: str, words: str) -> None:
    with pytest.raises(RecipeError) as info:
        parse(text, "my.yaml")
    assert str(info.value).startswith(f"my.yaml: {words}")


@settings(deadline=None)
@given(st.text(alphabet="ab:-[]{}&*!|>'\"#%@`,?\n \t.0e9~<=\\", max_size=40) | st.text(max_size=20))
def test_parse__any_text_gives_plain_data_or_a_recipe_error(text: str) -> None:
    try:
        value = parse(text, "test")
    except RecipeError:
        pass  # refused
    else:
        assert type(value) in (type(None), bool, int, float, str, list, dict)


SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()


@settings(deadline=None)
@given(st.recursive(SCALARS, lambda x: st.lists(x, max_size=3) | st.dictionaries(st.text(), x, max_size=3)))
def test_dump__is_read_back_unchanged(data: Any) -> None:
    assert parse(dump(data), "test") == data


@pytest.mark.parametrize("text", ["1e-5", "4", "true", "null", "2024-01-01", "~", "<<", "", "!x", "*x"])
def test_dump__keeps_text_that_looks_like_something_else(text: str) -> None:
    assert parse(dump({"a": text}), "test") == {"a": text}


def test_dump__writes_no_aliases() -> None:
    shared = ["p3"]
    assert dump({"a": shared, "b": shared}) == "a: [p3]\nb: [p3]\n"
