"""`benchmarks/gpu.py` on a CPU, where all but what needs CUDA runs, with tiny models."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
import traceback
from pathlib import Path
from typing import Any

import pytest
import torch

import yolokd

FOLDER = Path(__file__).resolve().parents[2] / "benchmarks"
PACKAGE = Path(yolokd.__file__).resolve().parent


@pytest.fixture
def modules(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Imports a module of the folder, which is no package."""
    monkeypatch.syspath_prepend(str(FOLDER))
    return importlib.import_module


def gpu(out: Path, *options: str) -> tuple[int, dict[str, Any], str]:
    """Run the script; return its exit code, gpu.json and gpu.md."""
    command = [sys.executable, str(FOLDER / "gpu.py"), "--out", str(out), "--device", "cpu", "--small", *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280)
    assert (out / "gpu.json").exists(), done.stdout + done.stderr
    return done.returncode, json.loads((out / "gpu.json").read_text()), (out / "gpu.md").read_text()


def states(found: dict[str, Any], part: int) -> dict[str, str]:
    return {line["name"]: line["state"] for line in found["lines"] if line["part"] == part}


@pytest.mark.slow
def test_gpu__steps_on_a_cpu(tmp_path: Path) -> None:
    code, found, table = gpu(tmp_path, "--parts", "1,2,3,4,5", "--recipes", "bckd,pseudo,everything,ld")
    assert code == 0, table
    assert states(found, 1) == {
        **{f"v8n <- v8s, {name}": "ok" for name in ("bckd", "everything", "ld", "pseudo")},
        **{f"26n <- 26s, {name}": "ok" for name in ("bckd", "everything", "pseudo")},
        "26n <- 26s, ld": "skipped",  # no box distributions
    }
    assert states(found, 2)["v8, everything"] == states(found, 2)["26, bckd"] == "ok"
    assert states(found, 3)["bckd, fp16"] == "ok"
    assert set(states(found, 4).values()) == set(states(found, 5).values()) == {"skipped"}
    assert "| 5 | bckd | skipped |" in table
    assert "needs CUDA" in table
    assert set(found["facts"]["seconds_of_parts"]) == set("12345")
    assert found["facts"]["conditions"]["torch"] == str(torch.__version__)


@pytest.mark.slow
def test_gpu__whole_runs_on_a_cpu(tmp_path: Path) -> None:
    code, found, table = gpu(tmp_path, "--parts", "7")
    assert code == 0, table
    assert states(found, 7) == {"images and teacher": "ok", "killed and resumed": "ok", "--batch -1": "skipped"}


@pytest.mark.slow
def test_gpu__timing_and_two_processes_on_a_cpu(tmp_path: Path) -> None:
    code, found, table = gpu(tmp_path, "--parts", "6,8")
    assert code == 0, table
    assert set(states(found, 6).values()) == {"ok"}
    assert {"plain training", "built-in distiller", "everything"} < set(states(found, 6))
    assert states(found, 8)["gloo, CPU tensors"] == "ok"
    assert states(found, 8)["DDP on two GPUs, a whole run"] == "skipped"


@pytest.mark.slow
def test_gpu__a_failed_line_is_exit_code_1_and_the_next_part_runs(tmp_path: Path) -> None:
    code, found, _ = gpu(tmp_path, "--parts", "1,5", "--recipes", "unknown")
    assert code == 1
    assert set(states(found, 1).values()) == {"failed"}
    assert 5 in {line["part"] for line in found["lines"]}


def test_gpu__no_time_left_skips_every_part(tmp_path: Path) -> None:
    code, found, _ = gpu(tmp_path, "--parts", "1,6", "--total", "0")
    assert code == 0
    assert [(line["part"], line["state"]) for line in found["lines"]] == [(1, "skipped"), (6, "skipped")]


def test_check__writes_every_line_and_goes_on(tmp_path: Path, modules: Any) -> None:
    results = modules("gpu_results").Results(tmp_path)
    with results.check(1, "first") as figures:
        figures["error"] = 0.25
    with results.check(1, "second"):
        raise RuntimeError("CUDA error: an illegal | access")
    with results.check(2, "third"):
        raise modules("gpu_results").Skip("no GPU")
    again = modules("gpu_results").Results(tmp_path)
    assert [line.state for line in again.lines] == ["ok", "failed", "skipped"]
    table = (tmp_path / "gpu.md").read_text()
    assert "1 ok, 1 failed, 1 skipped" in table
    assert "| 1 | first | ok | 0.0 | error 0.25 |" in table
    assert "RuntimeError: CUDA error: an illegal \\| access" in table


@pytest.mark.parametrize(("lost", "left"), [(2, [5, 7]), (7, [])])
def test_lost__the_part_has_failed_and_those_after_it_are_left(
    tmp_path: Path, modules: Any, lost: int, left: list[int]
) -> None:
    results = modules("gpu_results").Results(tmp_path)
    results.begin(lost)
    assert modules("gpu").lost(tmp_path, [1, 2, 5, 7], "its process ended with code -11") == left
    again = modules("gpu_results").Results(tmp_path)
    assert [(line.part, line.state) for line in again.lines] == [(lost, "failed")]
    assert again.running == (None, 0.0)


def test_counted__by_the_innermost_line_outside_torch(modules: Any) -> None:
    waits = modules("gpu_waits")
    soft, model = str(PACKAGE / "losses" / "soft.py"), str(PACKAGE / "distillation" / "model.py")
    inside, criterion = str(Path(torch.__file__).parent / "functional.py"), "/site-packages/ultralytics/utils/loss.py"
    stacks = [
        traceback.StackSummary.from_list([(file, 7, "f", "") for file in files])
        for files in (
            ["/run.py", model, soft, inside, waits.warnings.__file__, waits.__file__],
            ["/run.py", model, criterion, inside],
            ["/run.py", inside],
        )
    ]
    found = waits.counted(stacks)
    assert (found.total, found.own) == (3, 1)
    assert found.places == {
        "yolokd/losses/soft.py:7": 1,
        "loss.py:7 from model.py:7": 1,
        "run.py:7": 1,
    }


def test_differences__beyond_a_tolerance_are_named(modules: Any) -> None:
    parts, steps = modules("gpu_parts"), modules("gpu_steps")
    expected = steps.Outcome({"kd_a": 2.0, "kd_b": 1.0}, {"student": torch.tensor([3.0, 4.0])})
    near = steps.Outcome({"kd_a": 2.001, "kd_b": 1.0}, {"student": torch.tensor([3.0, 4.05])})
    found = parts.differences(expected, near, attacked=False)
    assert found == {"value": pytest.approx(5e-4), "gradient": pytest.approx(0.01, rel=1e-4)}
    far = steps.Outcome({"kd_a": 2.1, "kd_b": float("nan")}, {"student": torch.tensor([3.0, -4.0])})
    with pytest.raises(AssertionError, match=r"kd_a differs by 0\.05; kd_b differs by nan; gradient of student"):
        parts.differences(expected, far, attacked=False)


def test_masks_of_the_cpu__are_put_back(modules: Any) -> None:
    from yolokd.losses import mgd, samkd

    before = (mgd.own_random_mask, samkd.own_random_mask, mgd.MaskStream.go_to)
    with modules("gpu_steps").masks_of_the_cpu():
        assert mgd.own_random_mask is not before[0]
        numbers = mgd.MaskStream(3).go_to(2, torch.device("cpu"))
        drawn = mgd.own_random_mask((2, 4, 4), 0.5, generator=numbers)
    assert (mgd.own_random_mask, samkd.own_random_mask, mgd.MaskStream.go_to) == before
    numbers = mgd.MaskStream(3).go_to(2, torch.device("cpu"))
    assert torch.equal(drawn, mgd.own_random_mask((2, 4, 4), 0.5, generator=numbers))
