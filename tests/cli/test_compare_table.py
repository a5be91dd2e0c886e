"""The table of `yolokd compare`: whole cells in narrow lines, a table for each student."""

from __future__ import annotations

import io
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from tests.helpers.calling import Run
from tests.helpers.comparing import APS, FakeExecutor, leave_results
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


def test_show_results__masks_have_a_table_and_a_verdict_of_their_own(
    run: Run, fake: FakeExecutor, tmp_path: Path
) -> None:
    run()
    folder = tmp_path / "runs" / "small"
    comparison = replace(read(folder), task="segment")
    for name, masks in {"baseline-0": 0.1, "baseline-1": 0.1, "bckd-0": 0.3, "bckd-1": 0.302}.items():
        leave_results(folder, f"student/{name}", APS[f"student/{name}"], masks)
    text = io.StringIO()
    show_results(Console(file=text, width=160), comparison, results(comparison))
    boxes, masks_table = text.getvalue().removeprefix("box AP: student on ").split("\nmask AP: student on ")
    assert "undecided, box AP" in boxes
    assert "gain, mask AP" in masks_table
    assert "+20.1" in masks_table
    assert ("MiB" in boxes, "MiB" in masks_table) == (True, False)
    assert ("teacher" in boxes, "The teacher has no mask AP." in masks_table) == (True, True)


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
