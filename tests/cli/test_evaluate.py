from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from yolokd.cli.evaluate import evaluate
from yolokd.errors import UserError
from yolokd.evaluation import models
from yolokd.evaluation.models import ModelScore

app = typer.Typer()
app.command()(evaluate)
runner = CliRunner()

SCORE = ModelScore(
    name="[bold]best.pt",
    path="runs/[bold]best.pt",
    AP=0.5744,
    AP50=0.7567,
    AP75=0.6292,
    APs=-1.0,
    APm=0.5378,
    APl=0.8019,
    parameters=3_157_200,
    gflops=3.188,
    latency_ms=42.285,
    imgsz=384,
    per_class={"car": 0.5744},
    notes=("does not know [red]bus[/red] (counted as missed)",),
)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the command asks of the library, which answers with one score."""
    seen: dict[str, Any] = {}

    def fake(weights: list[str], data: str, **options: Any) -> list[ModelScore]:
        seen.update(weights=weights, data=data, **options)
        options["progress"]("best.pt", 0.5)
        return [SCORE]

    monkeypatch.setattr(models, "evaluate", fake)
    return seen


def test_evaluate__one_row_per_model(asked: dict[str, Any]) -> None:
    result = runner.invoke(app, ["a.pt", "b.pt", "--data", "d.yaml", "--imgsz", "320", "--classes", "van=car"])
    assert result.exit_code == 0
    header, row, note = result.stdout.splitlines()
    assert " ".join(header.split()) == "model AP AP50 AP75 APs APm APl params M GFLOPs ms imgsz"
    assert row.split() == ["[bold]best.pt", "57.4", "75.7", "62.9", "–", "53.8", "80.2", "3.16", "3.2", "42.3", "384"]
    assert note == "[bold]best.pt: does not know [red]bus[/red] (counted as missed)"
    assert asked.pop("progress") is not None
    assert asked == {
        "weights": ["a.pt", "b.pt"],
        "data": "d.yaml",
        "protocol": "coco",
        "split": "val",
        "imgsz": 320,
        "batch": 16,
        "device": None,
        "classes": {"van": "car"},
    }


def test_evaluate__json_on_stdout_is_all_there_is(asked: dict[str, Any]) -> None:
    result = runner.invoke(app, ["a.pt", "--data", "d.yaml", "--json", "-"])
    (record,) = json.loads(result.stdout)
    assert (record["AP"], record["APs"], record["per_class"]) == (0.5744, -1.0, {"car": 0.5744})
    assert record["notes"] == ["does not know [red]bus[/red] (counted as missed)"]


def test_evaluate__json_file_comes_with_the_table(asked: dict[str, Any], tmp_path: Path) -> None:
    result = runner.invoke(app, ["a.pt", "--data", "d.yaml", "--json", str(tmp_path / "scores.json")])
    assert "57.4" in result.stdout
    assert json.loads((tmp_path / "scores.json").read_text())[0]["parameters"] == 3_157_200


def test_evaluate__bad_options_are_the_user_s_mistake(asked: dict[str, Any], tmp_path: Path) -> None:
    result = runner.invoke(app, ["a.pt", "--data", "d.yaml", "--classes", "van"])
    assert isinstance(result.exception, UserError)
    assert str(result.exception) == "--classes expects MODEL=DATA, such as motorcycle=motorbike, got 'van'."
    result = runner.invoke(app, ["a.pt", "--data", "d.yaml", "--json", str(tmp_path / "no" / "folder.json")])
    assert isinstance(result.exception, UserError)
    assert "folder.json': there is no such folder" in str(result.exception)


@pytest.mark.parametrize("command", ["evaluate", "export", "predict"])
def test_commands__import_neither_torch_nor_ultralytics(command: str) -> None:
    code = (
        f"import sys, yolokd.cli.{command}; "
        "print([m for m in ('torch', 'ultralytics', 'numpy', 'cv2') if m in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
