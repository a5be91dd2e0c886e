"""`yolokd diagnose` as a user meets it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.helpers import tiny
from tests.helpers.calling import Run, call, flat
from tests.helpers.making import checkpoint, make_run
from yolokd.outputs import write_file

NAMES = ("class0", "class1", "[red]")


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run `yolokd diagnose` in a folder with data, a run and a teacher."""
    monkeypatch.chdir(tmp_path)
    data = tiny.data_set(tmp_path / "data", names=NAMES, images=3)
    make_run(tmp_path / "run", data)
    checkpoint(tmp_path / "teacher.pt", "teacher")

    def run_with(*words: str) -> tuple[int, str, str]:
        return call(capsys, "diagnose", *words)

    return run_with


@pytest.mark.slow
def test_diagnose__evidence_verdict_and_what_follows(run: Run, tmp_path: Path) -> None:
    options = ("--data", "data", "--classes", "class2=[red]", "--device", "cpu")
    code, out, error = run("--student", "run", "--teacher", "teacher.pt", "--json", "found.json", *options)
    assert code == 0, error
    lines = out.splitlines()
    assert flat(lines[0]) == "AP in percent 3 training images 3 validation images gap imgsz"
    assert lines[1].split()[:2] == ["student", "last.pt"]
    assert lines[2].split()[:2] == ["teacher", "teacher.pt"]
    assert lines[3] == "labels: 3 labeled images, no unlabeled ones"
    assert lines[4] == "curve: not known, since 3 epochs are too few (at least 10)"
    assert lines[5].startswith("The student lacks steps or capacity: AP on its training images is ")
    assert lines[6].startswith("- Steps: train longer")
    plain = json.loads((tmp_path / "found.json").read_text())
    assert plain["evidence"]["train_ap"] == plain["scores"]["student"]["train"]["AP"]
    assert plain["evidence"]["teacher_val_ap"] == plain["scores"]["teacher"]["val"]["AP"]
    assert (plain["evidence"]["curve"]["epochs"], plain["evidence"]["rising"]) == (3, None)
    assert plain["diagnosis"]["lacks"] == ["steps", "capacity"]
    assert plain["thresholds"]["low_ap"] == 0.5
    assert write_file("found.json", b"{}", "--json") is None  # known for a result of yolokd, so nothing is kept of it

    code, out, error = run("--student", "run/weights/last.pt", "--json", "-", *options)
    assert code == 0, error
    assert json.loads(out)["evidence"]["curve"] is None  # a checkpoint has no curve

    code, out, error = run("--student", "run/weights/last.pt", *options)
    assert "curve: not known\n" in out


@pytest.mark.parametrize(
    ("words", "error"),
    [
        ([], "Give --student, a run or a checkpoint, and --data"),
        (["--student", "run"], "Give --student, a run or a checkpoint, and --data"),
        (["--student", "gone", "--data", "data"], "There is no run and no checkpoint 'gone'"),
        (["--student", "data", "--data", "data"], "'data' is neither a run nor a comparison"),
        (["--student", "unfinished", "--data", "data"], "The run 'unfinished' is unfinished, 3 of 3 epochs"),
        (["--student", "data/data.yaml", "--data", "data"], "is not a PyTorch checkpoint"),
        (["--student", "run", "--data", "gone.yaml"], "no data YAML 'gone.yaml'"),
        (["--student", "run", "--data", "data", "--teacher", "t.yaml"], "'t.yaml' is a model YAML"),
        (["--student", "run", "--data", "data", "--teacher", "gone.pt"], "There is no file 'gone.pt'"),
        (["--student", "run", "--data", "data", "--teacher", "run"], "'run' is a folder, not a checkpoint"),
        (["--student", "run", "--data", "data", "--teacher-imgsz", "64"], "give --teacher too"),
        (["--student", "run", "--data", "other"], "have no class in common"),
        (["--student", "run", "--data", "untrained"], "train"),
        (["--student", "run", "--data", "data", "--classes", "class2"], "--classes expects MODEL=DATA"),
        (["--student", "run", "--data", "data", "--classes", "class9=class0"], "class9"),
        (["--student", "run", "--data", "data", "--json", "no/found.json"], "there is no such folder"),
        (["--student", "run", "--data", "data", "--device", "gpu7"], "device 'gpu7' cannot be used"),
        (["--student", "run", "--data", "data", "--imgsz", "0"], "imgsz"),
    ],
)
def test_diagnose__mistakes_are_named_in_a_line(run: Run, tmp_path: Path, words: list[str], error: str) -> None:
    tiny.data_set(tmp_path / "other", names=("ship",), images=2)
    untrained = tiny.data_set(tmp_path / "untrained", names=NAMES, images=2)
    content = yaml.safe_load(untrained.read_text())
    del content["train"]
    untrained.write_text(yaml.safe_dump(content))
    make_run(tmp_path / "unfinished", tmp_path / "data" / "data.yaml", epoch=1)
    code, out, notified = run(*words)
    assert (code, out) == (2, ""), notified
    assert error in flat(notified)
    assert "Traceback" not in notified


def test_diagnose__first_line_of_help(run: Run) -> None:
    assert "steps, capacity or knowledge" in flat(run("--help")[1])


def test_diagnose__imports_neither_torch_nor_ultralytics() -> None:
    code = "import sys, yolokd.cli.diagnose; print([m for m in ('torch', 'ultralytics', 'numpy') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
