"""Calling the command line in the tests' own process."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

import pytest

from yolokd.cli.main import main

Result = tuple[int, str, str]
Run = Callable[..., Result]


def call(capsys: pytest.CaptureFixture[str], *line: str) -> Result:
    """Run `yolokd` and return its exit code, output and errors."""
    with pytest.raises(SystemExit) as end:
        main(list(line))
    captured = capsys.readouterr()
    return int(end.value.code or 0), captured.out, captured.err


def filled(options: Collection[str], standard: Mapping[str, str], without: Collection[str] = ()) -> list[str]:
    """Return the options, and the standard ones that are neither among them nor left out."""
    more = [(option, value) for option, value in standard.items() if option not in {*options, *without}]
    return [*options, *(word for pair in more for word in pair)]


def flat(text: str) -> str:
    """Return the text on one line."""
    return " ".join(text.split())


def fails(result: Result, *words: str, code: int = 2) -> bool:
    """Expect a short error with these words, and no traceback."""
    got, _, error = result
    assert got == code, error
    assert error.startswith("Error: ") or "Usage: " in error
    for word in words:
        assert word in flat(error)
    assert "Traceback" not in error
    return True
