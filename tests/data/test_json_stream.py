from __future__ import annotations

import json
from pathlib import Path

import pytest

from yolokd.data.json_stream import entries
from yolokd.errors import DataError


def written(folder: Path, text: str | bytes) -> Path:
    path = folder / "a.json"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_entries__are_what_json_reads(tmp_path: Path) -> None:
    content = {
        "info": {"list": [1, 2], "name": "ü"},
        "list": [1, -2.5, 1e-3, "a\u20ac", None, True, {"b": [{"c": []}], "list": [9]}, [1, [2]]],
        "rest": [4],
    }
    path = written(tmp_path, json.dumps(content))
    found = list(entries(path, "list"))
    assert found == content["list"]
    assert [type(value) for value in found[:3]] == [int, float, float]
    assert list(entries(path, "rest")) == [4]


@pytest.mark.parametrize("text", ['{"a": 3}', '{"a": {"item": 3}}', "[1, 2]", "{}", "null"])
def test_entries__no_such_list_gives_nothing(tmp_path: Path, text: str) -> None:
    assert list(entries(written(tmp_path, text), "list")) == []


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"list": [1, 2', "not valid JSON after 2 entries of 'list': parse error: premature EOF."),
        (
            '{"list": [1,, 2]}',
            "after 1 entries of 'list': parse error: unallowed token at this point in JSON text near {\"",
        ),
        ('{"list": [NaN]}', "before the first entry of 'list': lexical error: invalid char in json text"),
        ('{"list": [1]} x', "after 1 entries of 'list': parse error: trailing garbage"),
        ('{"list": [1], "b": }', "after 1 entries of 'list': parse error: unallowed token"),
        (b'{"list": ["\xff"]}', "before the first entry of 'list': lexical error: invalid bytes in UTF8 string"),
        ("", "before the first entry of 'list': parse error: premature EOF"),
    ],
)
def test_entries__malformed_json_is_named_with_its_place(tmp_path: Path, text: str | bytes, words: str) -> None:
    path = written(tmp_path, text)
    with pytest.raises(DataError) as error:
        list(entries(path, "list"))
    assert str(error.value).startswith(f"'{path}' is not valid JSON ")
    assert words in str(error.value)


def test_entries__a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no\.json' cannot be read: No such file or directory"):
        list(entries(tmp_path / "no.json", "list"))


def test_entries__progress_ends_at_one(tmp_path: Path) -> None:
    seen: list[float] = []
    assert len(list(entries(written(tmp_path, json.dumps({"list": [0] * 200_000})), "list", progress=seen.append))) > 0
    assert seen == sorted(seen)
    assert len(seen) > 10
    assert seen[-1] == 1.0
