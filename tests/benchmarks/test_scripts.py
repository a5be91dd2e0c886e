"""Scripts of `benchmarks` where what they need is missing, and where a run was interrupted."""

from __future__ import annotations

import importlib
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.helpers import tiny
from tests.helpers.making import checkpoint
from yolokd.evaluation.matches import match, write_matches
from yolokd.evaluation.models import examine

FOLDER = Path(__file__).resolve().parents[2] / "benchmarks"


def call(script: str, *options: str) -> tuple[int, str]:
    """Run a script; return its exit code and what it has said."""
    command = [sys.executable, str(FOLDER / script), *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    return done.returncode, done.stdout + done.stderr


@pytest.fixture
def shared(tmp_path: Path) -> Path:
    """A folder as `--shared` names it, with a few images in the place of highway's, and without weights."""
    tiny.data_set(tmp_path / "shared" / "data" / "highway", images=2)
    return tmp_path / "shared"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("script", "options", "said"),
    [
        ("highway.py", ["--shared", "gone", "--out", "OUT"], "--shared: there is no .*gone/data/highway/data.yaml"),
        ("highway.py", ["--shared", "SHARED", "--out", "OUT"], "--shared: there is no .*weights/yolov8n-coco.pt"),
        ("overhead.py", ["--shared", "SHARED", "--out", "OUT"], "Error: "),
        ("class_rows.py", ["--shared", "SHARED", "--out", "OUT"], r"Error: .*yolov8n-coco-s128\.pt"),
        ("speed.py", ["--teachers", "gone.pt", "--out", "OUT"], r"Error: .*gone\.pt"),
        ("gradients.py", ["--teacher", "gone.pt", "--student", "a.yaml", "--data", "gone"], "Error: .*gone"),
    ],
)
def test_script__says_in_a_line_what_is_missing(
    script: str, options: list[str], said: str, shared: Path, tmp_path: Path
) -> None:
    places = {"SHARED": str(shared), "OUT": str(tmp_path / "out")}
    code, text = call(script, *(places.get(word, word) for word in options))
    assert code == 1
    assert "Traceback" not in text
    assert re.search(f"^{said}", text, re.MULTILINE)


@pytest.mark.slow
def test_highway__a_run_that_fails_is_named_with_its_reason_and_log(shared: Path, tmp_path: Path) -> None:
    (shared / "weights").mkdir()
    (shared / "weights" / "yolov8n-coco.pt").write_bytes(b"no checkpoint")
    code, text = call("highway.py", "--shared", str(shared), "--out", str(tmp_path / "out"))
    assert code == 1
    assert "Traceback" not in text
    *_, reason, last = text.splitlines()
    assert reason.strip()
    assert last == f"teacher ended with exit code 2; see {tmp_path / 'out' / 'teacher.log'}"


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The commands of the study and of what builds on it, noted instead of executed."""
    monkeypatch.syspath_prepend(str(FOLDER))
    found: list[list[str]] = []
    monkeypatch.setattr(importlib.import_module("study"), "yolokd", lambda line, out: found.append(line))
    return found


@pytest.mark.parametrize("script", ["backgrounds", "class_rows"])
def test_train__an_interrupted_run_is_continued(script: str, commands: list[list[str]], tmp_path: Path) -> None:
    module: Any = importlib.import_module(script)

    def train(name: str) -> Path:
        if script == "backgrounds":
            found = module.train(name, Path("student.pt"), Path("data.yaml"), [], tmp_path)
        else:
            found = module.train(name, 5, 0, [], tmp_path, Path("data.yaml"), tmp_path)
        assert isinstance(found, Path)
        return found

    for name, epoch in (("interrupted", 3), ("finished", -1)):
        weights = tmp_path / "runs" / name / "weights"
        checkpoint(weights / "last.pt", name, epoch=epoch)
        assert train(name) == weights / "last.pt"
    assert commands == [["train", "--resume", str(tmp_path / "runs" / "interrupted")]]


@pytest.mark.slow
def test_gradients__every_recipe_that_suits_detectors(tmp_path: Path) -> None:
    """The script writes beside itself, so a copy of it is run."""
    data = tiny.data_set(tmp_path / "data", images=4)
    for name in ("teacher.pt", "student.pt"):
        tiny.checkpoint(tmp_path / name)
    script = shutil.copy(FOLDER / "gradients.py", tmp_path)
    options = ["--teacher", "teacher.pt", "--student", "student.pt", "--data", str(data), "--imgsz", "64"]
    command = [sys.executable, script, *options, "--batch", "2", "--batches", "1", "--name", "try"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    terms = json.loads((tmp_path / "results" / "gradients-try.json").read_text())["terms"]
    assert {"bckd_cls", "bckd_box", "ssim", "ultralytics"} <= terms.keys()
    assert not {"mask", "keypoint"} & terms.keys()


@pytest.mark.parametrize("plan", ["long", "footage_100_high"])
def test_study__the_baseline_alone_of_a_plan_whose_arms_it_is_not_among(
    plan: str, commands: list[list[str]], shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As `eight_bits.py` asks for it."""
    study: Any = importlib.import_module("study")
    monkeypatch.setattr(study, "write_table", lambda *_: None)
    monkeypatch.setattr(study.json, "loads", lambda text: {})
    options = [
        "study.py",
        "--plan",
        plan,
        "--arms",
        "baseline",
        "--shared",
        str(shared),
        "--out",
        str(tmp_path / "out"),
    ]
    monkeypatch.setattr(sys, "argv", options)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / f"{plan}.json").touch()
    study.main()
    line = commands[-1]
    assert line[0] == "compare"
    assert Path(line[line.index("--recipes") + 1]).stem == "baseline"


def test_study__the_baseline_alone_does_not_replace_a_table_of_more_arms(
    commands: list[list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study: Any = importlib.import_module("study")
    monkeypatch.setattr(study, "HERE", tmp_path)
    plan = study.PLANS["long"]
    arm = {"scores": {"AP": {"0": 0.2}}, "difference": {}, "spread": {}, "gap_closed": {}, "seconds_per_epoch": None}
    arms = [{**arm, "recipe": name} for name in ("baseline", "init")]
    found = {"data": "a.yaml", "teacher": None, "budget": {"imgsz": 64, "batch": 2, "epochs": 1}, "arms": arms}
    study.write_table("long", plan, plan.seeds, found, tmp_path)
    table = tmp_path / "results" / "study-long.json"
    before = table.read_text()
    study.write_table("long", plan, plan.seeds, {**found, "arms": arms[:1]}, tmp_path)
    assert table.read_text() == before
    study.write_table("long", plan, plan.seeds, {**found, "arms": arms[::-1]}, tmp_path)
    assert table.read_text() != before


def test_label_free__students_against_the_weights_that_they_started_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One student finds what the weights find, the other every object."""
    monkeypatch.syspath_prepend(str(FOLDER))
    label_free: Any = importlib.import_module("label_free")
    data = tiny.data_set(tmp_path / "data", names=["car", "motorbike"], images=8)
    model = tiny.checkpoint(tmp_path / "weights.pt", names=["car", "motorcycle"])
    same = {"motorcycle": "motorbike"}
    (found,) = examine([model], data, imgsz=64, device="cpu", classes=same, timed=False)
    every = [{**record, "score": 1.0} for record in found.truth["annotations"]]
    folders = {seed: tmp_path / str(seed) for seed in (0, 1)}
    for folder, detections, score in zip(
        folders.values(), (found.detections, every), (found.score.AP, 1.0), strict=True
    ):
        folder.mkdir()
        (folder / "score.json").write_text(json.dumps({"AP": score, "sha256": folder.name}))
        write_matches(folder / "matches.npz", match(found.truth, detections), folder.name)
    result = label_free.against_weights(model, data, folders, "cpu", 64)
    assert result["AP"] == found.score.AP
    assert result["difference"]["mean"] == pytest.approx((1 - found.score.AP) / 2)
    assert result["difference"]["images_and_seeds"]["low"] < result["difference"]["mean"]
    shown = label_free.gain(result)
    assert f"{50 * (1 - found.score.AP):+.1f}" in shown[0]
    assert " to " in shown[1]
    (folders[0] / "matches.npz").unlink()
    with pytest.raises(SystemExit, match=re.escape(f"{folders[0]}: there are no matches")):
        label_free.against_weights(model, data, folders, "cpu", 64)
