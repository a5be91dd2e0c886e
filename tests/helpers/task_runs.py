"""Whole runs of students of any task: a small world, plans in it, and what holds for each."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.runs import rows, stop_after
from yolokd.backend.checkpoints import load
from yolokd.errors import UserError
from yolokd.training.plan import Plan, make_plan
from yolokd.training.run import resolve_recipe, resume, start


def plan(world: Path, teacher: str, student: str, recipe: str, overrides: Sequence[str] = (), **changes: Any) -> Any:
    """Plan two epochs on `world/data` with models that lie in the world."""
    budget = {"data": str(world / "data" / "data.yaml"), "epochs": 2, "imgsz": 64, "batch": 4, "device": "cpu"}
    resolved = resolve_recipe(recipe, ["train.plots=false", "train.workers=0", *overrides], **{**budget, **changes})
    return make_plan(world / teacher, world / student, resolved, runs=world / "runs")


def check_plain(run: Path, world: Path, metrics: str, says: str) -> Any:
    """Check that a finished student is used without yolokd; return the model of last.pt.

    Args:
        run: Folder of the run.
        world: Folder with the data.
        metrics: Field of Ultralytics' metrics: "box", "seg" or "pose".
        says: Class and task of the model.
    """
    code = (
        "import sys; sys.modules['yolokd'] = None\n"
        "from ultralytics import YOLO\n"
        f"model = YOLO({str(run / 'weights' / 'best.pt')!r})\n"
        f"found = model.val(data={str(world / 'data' / 'data.yaml')!r}, imgsz=64, plots=False, verbose=False)\n"
        f"print(type(model.model).__name__, model.task, found.{metrics}.map >= 0)\n"
        "print(model.export(format='torchscript', imgsz=64))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=world)
    assert done.returncode == 0, done.stderr
    assert f"{says} True" in done.stdout
    assert "best.torchscript" in done.stdout
    model, checkpoint = load(run / "weights" / "last.pt")
    assert checkpoint["train_args"]["task"] == says.split()[1]
    assert not [key for key in model.state_dict() if "teacher" in key or "projector" in key]
    return model


def check_goes_on(made: Plan, monkeypatch: pytest.MonkeyPatch, terms: Sequence[str], kind: type) -> bool:
    """Check that a run of two epochs goes on after an interruption behind the first, with all terms; return True."""
    with monkeypatch.context() as patch:
        stop_after(patch, 1)
        with pytest.raises(KeyboardInterrupt):
            start(made)
    assert resume(str(made.folder)) == made.folder
    assert [row["epoch"] for row in rows(made.folder)] == ["1", "2"]
    assert all(float(rows(made.folder)[-1][f"train/kd_{term}"]) > 0 for term in terms)
    assert type(load(made.folder / "weights" / "best.pt")[0]) is kind
    return True


def check_across_tasks(
    world: Path,
    description: Path,
    teacher: str,
    student: str,
    kind: type,
    *,
    terms: Sequence[str] = ("bckd_cls", "bckd_box", "pkd"),
    changes: Sequence[str] = (),
    note: str = "only the detect part is distilled",
) -> bool:
    """Check that what two tasks have in common is distilled, and that the plan says what is left out; return True.

    Args:
        world: Folder with data and models.
        description: Of a detect student, which is `detect.yaml` in the world then.
        teacher: Name of its file.
        student: Likewise.
        kind: Class of the student.
        terms: That have a value.
        changes: Of the recipe `bckd` with `pkd`.
        note: Is in one of the plan's notes.
    """
    (world / "detect.yaml").write_text(description.read_text())
    name = f"{teacher}-{student}".replace(".", "")
    made = plan(world, teacher, student, "bckd", [f"train.name={name}", "losses.pkd={}", *changes], epochs=1)
    assert [one for one in made.notes if note in one]
    run = start(made)
    assert all(float(rows(run)[-1][f"train/kd_{term}"]) > 0 for term in terms)
    assert type(load(run / "weights" / "best.pt")[0]) is kind
    return True


def check_boxes_alone_are_refused(world: Path, family: str, task: str) -> bool:
    """Check that what teaches by boxes, or with labels of detect models, is refused in a line; return True."""
    cases: list[tuple[str, dict[str, Any], str]] = [
        ("soft", {}, "teacher.answers: stored keeps boxes"),
        ("bckd", {"batch": -1}, "train.batch -1 is sought with labels of detect models"),
    ]
    for recipe, changes, words in cases:
        with pytest.raises(UserError, match=f"The student's task is {task}, but {words}"):
            plan(world, f"{family}.pt", f"{family}.yaml", recipe, **changes)
    return True
