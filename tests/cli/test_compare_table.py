"""The table of `yolokd compare`: whole cells in narrow lines, a table for each student."""

from __future__ import annotations

import io
import shutil
from pathlib import Path

import pytest
from rich.console import Console

from tests.helpers.calling import Run
from tests.helpers.comparing import FakeExecutor
from yolokd.cli.compare_table import show_results
from yolokd.comparison.results import results
from yolokd.comparison.spec import read


@pytest.mark.parametrize(("width", "complete"), [(80, False), (119, False), (120, True)])
def test_show_results__narrow_lines_have_whole_cells(
    run: Run, fake: FakeExecutor, tmp_path: Path, width: int, complete: bool
) -> None:
    run()
    comparison = read(tmp_path / "runs" / "small")
    text = io.StringIO()
    show_results(Console(file=text, width=width), comparison, results(comparison))
    shown = text.getvalue()
    assert max(map(len, shown.splitlines()[2:9])) <= width
    assert "+1.5   [-4.9, +7.9]   [-4.9, +7.9] undecided" in shown
    assert "…" not in shown
    assert ("AP50, time and memory: in --json" in shown, "32.5 ± 2.1" in shown) == (not complete, complete)


def test_show_results__several_students_have_a_table_each(run: Run, fake: FakeExecutor, tmp_path: Path) -> None:
    run()
    comparison = read(tmp_path / "runs" / "small")
    shutil.copytree(comparison.folder / "student", comparison.folder / "tiny")
    (comparison.folder / "compare.json").write_text(
        (comparison.folder / "compare.json").read_text().replace('"students": {', '"students": {"tiny": {"spec": "t", "digest": "d"},')  # noqa: E501
    )  # fmt: skip
    both = read(comparison.folder)
    text = io.StringIO()
    show_results(Console(file=text, width=200), both, results(both))
    assert text.getvalue().count("+1.5") == 2
    assert "tiny on" in text.getvalue()
