"""The process of a run: bad input is named in the last line of stderr, exit code 1; what is trained and what is not."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.helpers import segments, tiny
from tests.helpers.making import make_comparison
from yolokd.comparison import worker as comparison_worker
from yolokd.comparison.metrics import metrics_of
from yolokd.comparison.spec import Comparison
from yolokd.errors import RunError, UserError
from yolokd.evaluation.bootstrap import weighted_ap
from yolokd.evaluation.matches import read_matches
from yolokd.evaluation.models import evaluate
from yolokd.training.settings import KEY

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


def said(folder: Path, name: str) -> str:
    """Do a job in this process, which fails; return what it ends with."""
    with pytest.raises(SystemExit) as end:
        comparison_worker.main(str(folder), name, "cpu", "again")
    return str(end.value.code)


@pytest.fixture
def comparison(tmp_path: Path) -> Path:
    data, teacher = tiny.data_set(tmp_path / "data"), tiny.checkpoint(tmp_path / "teacher.pt")
    return make_comparison(tmp_path / "compared", data, teacher, {"baseline": (0.1,), "bckd": (0.2,)})


def last_line(err: str) -> str:
    assert "Traceback" not in err
    return err.splitlines()[-1]


@pytest.mark.parametrize("text", [None, "{", "[]", "{}", json.dumps({"students": 3})])
def test_main__a_folder_without_a_comparison(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / "compare.json").write_text(text)
    assert said(tmp_path, "student/bckd-0").startswith(f"'{tmp_path}' holds no comparison that can be read (")


def test_main__a_run_that_the_comparison_does_not_have(comparison: Path) -> None:
    assert said(comparison, "student/bckd-7").startswith(f"'{comparison}' has no run 'student/bckd-7'")


@pytest.mark.slow
def test_worker__a_teacher_that_has_changed(comparison: Path) -> None:
    teacher = tiny.checkpoint(comparison.parent / "teacher.pt", family="11")
    code, err = work(str(comparison), "teacher", "cpu", "again")
    assert code == 1
    assert last_line(err) == f"The teacher '{teacher}' has changed since the comparison was started."


@pytest.mark.slow
@pytest.mark.parametrize("words", [("folder",), ("folder", "teacher", "cpu", "again", "more")])
def test_worker__the_wrong_number_of_words(words: tuple[str, ...]) -> None:
    code, err = work(*words)
    assert code != 0
    assert last_line(err).startswith(
        "Usage: python -m yolokd.comparison.worker FOLDER NAME DEVICE again|continue [--end-with-stdin]"
    )


@pytest.mark.slow
def test_worker__ends_with_its_parent_where_it_is_asked_to(comparison: Path) -> None:
    """Stdin that has ended: the worker ends without having touched the comparison."""
    before = {path: path.stat().st_mtime_ns for path in comparison.rglob("*")}
    code, err = work(str(comparison), "student/bckd-0", "cpu", "again", "--end-with-stdin")
    assert (code, err) == (1, "")
    assert {path: path.stat().st_mtime_ns for path in comparison.rglob("*")} == before


@pytest.fixture
def done(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the worker does instead of training."""
    calls: list[str] = []
    monkeypatch.setattr(comparison_worker, "resume", lambda run, device: calls.append(f"resume {Path(run).name}"))

    def start(plan: Any, *, paired: bool) -> None:
        assert paired
        assert not plan.folder.exists()
        plan.folder.mkdir(parents=True)
        calls.append(f"start {plan.folder.name} under {plan.teacher and plan.teacher.path.name}")

    monkeypatch.setattr(comparison_worker, "start", start)
    return calls


def leave(plan: Comparison, monkeypatch: pytest.MonkeyPatch, epoch: int | None, **checkpoint: Any) -> None:
    """A run of bckd-1 that was stopped after some epochs; None: before its first was saved."""
    folder = plan.runs[3].folder
    (folder / "weights").mkdir(parents=True)
    (folder / "args.yaml").touch()
    if epoch is not None:
        (folder / "weights" / "last.pt").touch()
        settings = {"epochs": 3, KEY: {"recipe": {}, "recipe_name": "bckd"}}
        saved = {"epoch": epoch - 1, "train_args": settings, **checkpoint}
        monkeypatch.setattr(comparison_worker, "load", lambda path: (None, saved))
        monkeypatch.setattr("yolokd.training.resume.load", lambda path: (None, saved))


@pytest.mark.parametrize(
    ("epoch", "keep_epochs", "expected"),
    [
        (None, False, "start"), (None, True, "start"), (1, False, "start"), (1, True, "resume"),
        (3, False, "resume"), (3, True, "resume"),
    ],
)  # fmt: skip
def test_train__an_interrupted_run(
    plan: Comparison,
    done: list[str],
    monkeypatch: pytest.MonkeyPatch,
    epoch: int | None,
    keep_epochs: bool,
    expected: str,
) -> None:
    leave(plan, monkeypatch, epoch)
    run = plan.runs[3]
    comparison_worker.train(plan, run, "cpu", keep_epochs=keep_epochs)
    assert done == ["resume bckd-1" if expected == "resume" else "start bckd-1 under teacher.pt"]
    if epoch != 3:
        assert json.loads((run.folder / "memory.json").read_text())["continued"] == (epoch == 1 and keep_epochs)


def test_train__a_finished_run_is_left_alone(
    plan: Comparison, done: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    leave(plan, monkeypatch, 0, **{KEY: {}})
    comparison_worker.train(plan, plan.runs[3], "cpu")
    assert done == []


def test_train__the_baseline_has_no_teacher(plan: Comparison, done: list[str]) -> None:
    comparison_worker.train(plan, plan.runs[0], "cpu")
    assert done == ["start baseline-0 under None"]


def test_train__the_teachers_file_has_changed(plan: Comparison, done: list[str]) -> None:
    with pytest.raises(UserError, match="has changed since the comparison was started"):
        comparison_worker.train(replace(plan, teacher_sha256="f"), plan.runs[1], "cpu")
    assert done == []


@pytest.mark.slow
def test_peak_memory__grows_with_what_is_held() -> None:
    before = comparison_worker.peak_memory()
    assert before is not None
    block = np.ones(before, np.uint8)
    after = comparison_worker.peak_memory()
    assert after is not None
    assert after >= len(block)
    assert before < after < 3 * before


# Students that give more than boxes


@pytest.mark.parametrize(("task", "family", "word"), [("segment", "v8-seg", "mask"), ("pose", "v8-pose", "keypoint")])
def test_score__masks_and_keypoints_are_kept_beside_boxes(
    plan: Comparison, tmp_path: Path, task: str, family: str, word: str
) -> None:
    make = segments.make_poses if task == "pose" else segments.make_polygons
    data = make(tmp_path / "data", train=1, val=3)
    comparison = replace(plan, data=str(data), task=task)
    run = comparison.runs[0]
    last = run.folder / "weights" / "last.pt"
    last.parent.mkdir(parents=True)
    segments.save(segments.model_of(family, keypoints=(4, 3)), last)
    comparison_worker.score(comparison, run, "cpu")
    kept = json.loads((run.folder / "score.json").read_text())
    assert {"AP", "AP50", f"{word}_AP", f"{word}_AP50"} < kept.keys()
    (expected,) = evaluate(last, data, imgsz=64, device="cpu")
    own = expected.masks or expected.keypoints
    assert own is not None
    assert (kept["AP"], kept[f"{word}_AP"]) == (expected.AP, own.AP)
    for metric in metrics_of(task):
        matches = read_matches(run.folder / metric.matches, kept["sha256"])
        assert matches is not None
        whole = weighted_ap(matches, np.ones((1, 3), np.float32))
        assert whole.mean() == pytest.approx(kept[metric.AP], abs=1e-6)
    for file in (tmp_path / "data" / "labels" / "val").iterdir():
        file.write_text("0 0.5 0.5 0.4 0.4\n")
    with pytest.raises(RunError, match=rf"last\.pt' has no {word} AP: {word}s are not scored: 3 of the 3 objects"):
        comparison_worker.score(comparison, run, "cpu")
