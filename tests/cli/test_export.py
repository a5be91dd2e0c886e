from __future__ import annotations

from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from yolokd.cli.export import export
from yolokd.deploy import export as library
from yolokd.deploy.export import ExportReport
from yolokd.deploy.parity import Parity
from yolokd.errors import RunError

app = typer.Typer()
app.command()(export)
runner = CliRunner()


def _install(monkeypatch: pytest.MonkeyPatch, parity: Parity | None, notes: tuple[str, ...] = ()) -> dict[str, Any]:
    seen: dict[str, Any] = {}

    def fake(weights: str, **options: Any) -> ExportReport:
        seen.update(weights=weights, **options)
        return ExportReport("best.pt", "[b]best.onnx", "onnx", 640, parity, full_precision=True, notes=notes)

    monkeypatch.setattr(library, "export", fake)
    return seen


def test_export__tells_what_agrees(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = _install(monkeypatch, Parity(2, 0.00123, 2.4e-06, 200, 199))
    result = runner.invoke(app, ["best.pt", "--imgsz", "640", "--check", "streets", "--nms-free"])
    assert result.exit_code == 0
    assert result.stdout.splitlines() == [
        "[b]best.onnx (onnx, 640 px)",
        "raw outputs: boxes differ by at most 0.0012 px, scores by 2.4e-06, on 2 pictures",
        "detections: 199 of 200 agree (99.5%)",
        "equals the checkpoint",
    ]
    assert seen == {"weights": "best.pt", "format": "onnx", "imgsz": 640, "check": "streets", "nms_free": True}


def test_export__a_difference_fails_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    _install(monkeypatch, Parity(2, 3.0, 0.5, 100, 20))
    result = runner.invoke(app, ["best.pt"])
    assert isinstance(result.exception, RunError)
    assert "'[b]best.onnx' does not say what 'best.pt' says" in str(result.exception)
    assert "The file was kept" in str(result.exception)
    assert result.stdout.splitlines()[-1] == "DIFFERS from the checkpoint"


def test_export__without_a_check_it_says_nothing_about_equality(monkeypatch: pytest.MonkeyPatch) -> None:
    _install(monkeypatch, None, ("not checked: only onnx and torchscript can be run here",))
    result = runner.invoke(app, ["best.pt", "--format", "openvino"])
    assert result.exit_code == 0
    assert result.stdout.splitlines() == [
        "[b]best.onnx (onnx, 640 px)",
        "note: not checked: only onnx and torchscript can be run here",
    ]


def test_export__no_detections_leave_raw_outputs(monkeypatch: pytest.MonkeyPatch) -> None:
    _install(monkeypatch, Parity(2, 0.0, 0.0, 0, 0), ("no detections to compare, so raw outputs decide",))
    lines = runner.invoke(app, ["best.pt"]).stdout.splitlines()
    assert lines[1:] == [
        "raw outputs: boxes differ by at most 0 px, scores by 0, on 2 pictures",
        "note: no detections to compare, so raw outputs decide",
        "equals the checkpoint",
    ]
