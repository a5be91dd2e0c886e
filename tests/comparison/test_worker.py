"""The worker's entry point: bad input is said in the last line of stderr, with exit code 1."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers import tiny
from tests.helpers.making import make_comparison

pytestmark = pytest.mark.slow  # whole runs

REPOSITORY = Path(__file__).resolve().parents[2]


def work(*words: str) -> tuple[int, str]:
    """Run the worker with a stdin that has ended; return its exit code and what it wrote on stderr."""
    done = subprocess.run(
        [sys.executable, "-m", "yolokd.comparison.worker", *words],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    return done.returncode, done.stderr.strip()


@pytest.fixture
def comparison(tmp_path: Path) -> Path:
    data, teacher = tiny.data_set(tmp_path / "data"), tiny.checkpoint(tmp_path / "teacher.pt")
    return make_comparison(tmp_path / "compared", data, teacher, {"baseline": (0.1,), "bckd": (0.2,)})


def last_line(err: str) -> str:
    assert "Traceback" not in err
    return err.splitlines()[-1]


@pytest.mark.parametrize("text", [None, "{", "[]", "{}", json.dumps({"students": 3})])
def test_worker__a_folder_without_a_comparison(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / "compare.json").write_text(text)
    code, err = work(str(tmp_path), "student/bckd-0", "cpu", "again")
    assert code == 1
    assert last_line(err).startswith(f"'{tmp_path}' holds no comparison that can be read (")


def test_worker__a_run_that_the_comparison_does_not_have(comparison: Path) -> None:
    code, err = work(str(comparison), "student/bckd-7", "cpu", "again")
    assert code == 1
    assert last_line(err).startswith(f"'{comparison}' has no run 'student/bckd-7'")


def test_worker__a_teacher_that_has_changed(comparison: Path) -> None:
    teacher = tiny.checkpoint(comparison.parent / "teacher.pt", family="11")
    code, err = work(str(comparison), "teacher", "cpu", "again")
    assert code == 1
    assert last_line(err) == f"The teacher '{teacher}' has changed since the comparison was started."


@pytest.mark.parametrize("words", [(), ("folder",), ("folder", "teacher", "cpu", "again", "more")])
def test_worker__the_wrong_number_of_words(words: tuple[str, ...]) -> None:
    code, err = work(*words)
    assert code != 0
    assert last_line(err).startswith(
        "Usage: python -m yolokd.comparison.worker FOLDER NAME DEVICE again|continue [--end-with-stdin]"
    )


def test_worker__ends_with_its_parent_where_it_is_asked_to(comparison: Path) -> None:
    """Stdin that has ended: the worker ends without having touched the comparison."""
    before = {path: path.stat().st_mtime_ns for path in comparison.rglob("*")}
    code, err = work(str(comparison), "student/bckd-0", "cpu", "again", "--end-with-stdin")
    assert (code, err) == (1, "")
    assert {path: path.stat().st_mtime_ns for path in comparison.rglob("*")} == before
