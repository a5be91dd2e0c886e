from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.mutations import ENDLESS, LAUGHS
from yolokd.inputs import FormatError, parse_json, parse_yaml, read_text


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[" * 3000, "nested too deeply"),
        (LAUGHS, "aliases unfold into too many values"),
        ("a: &a [*a]", "an alias stands for what holds it"),
        ("a: 1\nb: 2024-99-99", "line 2: '2024-99-99' is no valid timestamp"),
        (f"a: {ENDLESS}", "is no valid int"),
        ("a: !!bool x", "'x' is no valid bool"),
        ("a: [1", "line 1"),
        ("a: \0", "special characters are not allowed"),
    ],
)
def test_parse_yaml__refuses_what_is_not_plain(text: str, reason: str) -> None:
    with pytest.raises(FormatError, match=reason):
        parse_yaml(text)


def test_parse_yaml__takes_aliases_of_a_sensible_size() -> None:
    assert parse_yaml("a: &a [1, 2]\nb: *a") == {"a": [1, 2], "b": [1, 2]}


@pytest.mark.parametrize(
    ("text", "reason"),
    [("[" * 100_000, "nested too deeply"), (ENDLESS, "limit"), (str(10**400), "1000 bits"), ("{", "line 1")],
)
def test_parse_json__refuses_what_is_not_plain(text: str, reason: str) -> None:
    with pytest.raises(FormatError, match=reason):
        parse_json(text)


def test_read_text__neither_a_pipe_nor_too_much(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="not a file"):
        read_text(tmp_path / "pipe")
    (tmp_path / "file").write_bytes(b"\xef\xbb\xbfabc")
    assert read_text(tmp_path / "file", limit=6) == "abc"
    with pytest.raises(OSError, match="larger than"):
        read_text(tmp_path / "file", limit=5)
