"""`yolokd report` as a user meets it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers import tiny
from tests.helpers.calling import Run, call, flat
from tests.helpers.making import checkpoint, make_run


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run `yolokd report` in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def run_with(*words: str) -> tuple[int, str, str]:
        return call(capsys, "report", *words)

    return run_with


@pytest.mark.slow
def test_report__two_runs_on_two_real_networks(run: Run, tmp_path: Path) -> None:
    data = tiny.data_set(tmp_path / "data", names=("class0", "class1", "[red]"), images=2)
    teacher = checkpoint(tmp_path / "teacher.pt", "teacher")
    make_run(tmp_path / "a", data)
    make_run(tmp_path / "b", data, "bckd", teacher=teacher)
    code, out, notified = run("a", "b", "--device", "cpu", "--out", "page.html")
    assert code == 0, notified
    assert flat(out) == f"The report is {tmp_path / 'page.html'} The same as Markdown: {tmp_path / 'page.md'}"
    text = (tmp_path / "page.md").read_text(encoding="utf-8")
    assert "| baseline | 1 |" in text
    assert "one seed, which proves nothing" in text
    cache = tmp_path / "page_files" / "cache"
    assert [len(list(cache.glob(kind))) for kind in ("*.json", "*.npz")] == [3, 3]
    assert {path.name for path in tmp_path.iterdir()} >= {"page.html", "page.md", "page_files"}
    code, out, _ = run("a", "--device", "cpu")
    assert (code, (tmp_path / "a" / "report.html").is_file()) == (0, True)


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["nowhere"], "There is no folder"),
        (["."], "It holds runs; name them, such as"),
        (["a/weights/last.pt"], "Give the run's folder"),
        (["a", "--out", "page.md"], "must end in .html, got 'page.md'"),
        (["a", "--out", "no/page.html"], "there is no such folder"),
        (["a", "--data", "gone.yaml"], "no data YAML 'gone.yaml'"),
        (["a", "--device", "gpu7"], "device 'gpu7' cannot be used"),
        (["a", "other"], "trained on different data"),
        ([], "Missing argument"),
    ],
)
def test_report__mistakes_are_named_and_nothing_is_written(
    run: Run, tmp_path: Path, words: list[str], error: str
) -> None:
    make_run(tmp_path / "a", Path("data.yaml"))
    make_run(tmp_path / "other", Path("data.yaml"), digest="g")
    before = sorted(tmp_path.rglob("*"))
    code, _, notified = run(*words)
    assert code == 2, notified
    assert error in flat(notified)
    assert "Traceback" not in notified
    assert sorted(tmp_path.rglob("*")) == before


def test_report__imports_neither_torch_nor_matplotlib() -> None:
    code = (
        "import sys, yolokd.cli.report, yolokd.report; print([m for m in ('torch', 'matplotlib') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
