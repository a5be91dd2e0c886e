from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from tests.helpers import tiny
from yolokd.backend import checkpoints, parts, runtimes
from yolokd.cli.export import export
from yolokd.cli.main import main
from yolokd.deploy import export as library
from yolokd.deploy.change import Change
from yolokd.deploy.parity import Gap, Parity
from yolokd.deploy.report import Calibrated, ExportReport, Side
from yolokd.deploy.sensitivity import Outcome, PartEffect, Sensitivity
from yolokd.errors import RunError, UserError

app = typer.Typer()
app.command()(export)
runner = CliRunner()

CLOSE = Parity(2, 0.00123, 2.4e-06, 200, 199)


def _report(parity: Parity | None = CLOSE, **changes: Any) -> ExportReport:
    made: dict[str, Any] = {
        "format": "onnx",
        "precision": "float32",
        "imgsz": 640,
        "before": Side("best.pt", 6_500_000, 12.34),
        "after": Side("[b]best.onnx", 12_700_000, 5.0),
        "parity": parity,
    }
    return ExportReport(**{**made, **changes})


def _install(monkeypatch: pytest.MonkeyPatch, *reports: ExportReport) -> list[dict[str, Any]]:
    """Let the command get these reports, one for each checkpoint, whatever their names."""
    seen: list[dict[str, Any]] = []
    left = list(reports)

    def fake(weights: Path, **options: Any) -> ExportReport:
        options.pop("progress")("working on [it]")
        seen.append({"weights": weights, **options})
        return left.pop(0)

    monkeypatch.setattr(library, "export", fake)
    monkeypatch.setattr(checkpoints, "find", Path)
    monkeypatch.setattr(checkpoints, "load_detector", lambda *_: None)
    return seen


def _main(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    """Run the whole command line; return exit code, stdout and stderr with lines joined."""
    with pytest.raises(SystemExit) as end:
        main(["export", *arguments])
    out, err = capsys.readouterr()
    return int(end.value.code or 0), out, " ".join(err.split())


def test_export__tells_what_agrees(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = _install(monkeypatch, _report())
    result = runner.invoke(app, ["best.pt", "--imgsz", "640", "--check", "road.yaml", "--nms-free"])
    assert result.exit_code == 0
    assert [line.rstrip() for line in result.stdout.splitlines()] == [
        "[b]best.onnx (onnx, float32, 640 px)",
        "raw outputs: boxes differ by at most 0.0012 px, scores by 2.4e-06, on 2 images",
        "detections: 199 of 200 agree (99.5%)",
        "equals the checkpoint",
        "model   as           AP change 95 % interval AP50    MB   ms",
        "best.pt checkpoint    –                         –  6.50 12.3",
        "        onnx float32  –      –             –    – 12.70  5.0",
    ]
    options = {"format": "onnx", "precision": "float32", "imgsz": 640, "check": "road.yaml", "nms_free": True}
    options |= {"keep_float": [], "sensitivity": False}
    assert seen == [{"weights": Path("best.pt"), **options}]


def test_export__one_table_of_ap_before_and_after_for_several(monkeypatch: pytest.MonkeyPatch) -> None:
    values = {"teacher": (0.388, 0.375), "baseline": (0.134, 0.1341), "student": (0.139, 0.138)}
    reports = [
        _report(
            Parity(16, 200.0, 0.4, 70, 21),
            precision="int8",
            before=Side(f"runs/{name}/last.pt", 1, 1.0, before, 0.5),
            after=Side(f"runs/{name}/last_int8.onnx", 1, None, after, -1.0),
            ap_interval=(after - before - 0.01, after - before + 0.005),
            own_ranges=name == "student",
        )
        for name, (before, after) in values.items()
    ]
    seen = _install(monkeypatch, *reports)
    result = runner.invoke(app, [*(f"runs/{name}/last.pt" for name in values), "runs/teacher/last.pt", "--int8"])
    assert result.exit_code == 0
    assert [call["precision"] for call in seen] == ["int8"] * 3  # the same checkpoint twice is one
    lines = [line.split() for line in result.stdout.splitlines()]
    assert result.stdout.count("keeps enough of the checkpoint's AP") == 3
    assert "raw outputs" not in result.stdout
    assert lines[-6:] == [
        ["teacher/last.pt", "checkpoint", "38.8", "50.0", "0.00", "1.0"],
        ["onnx", "int8", "37.5", "-1.30", "-2.30", "to", "-0.80", "–", "0.00", "–"],
        ["baseline/last.pt", "checkpoint", "13.4", "50.0", "0.00", "1.0"],
        ["onnx", "int8", "13.4", "+0.01", "-0.99", "to", "+0.51", "–", "0.00", "–"],
        ["student/last.pt", "checkpoint,", "int8", "13.9", "50.0", "0.00", "1.0"],
        ["onnx", "int8,", "trained", "13.8", "-0.10", "-1.10", "to", "+0.40", "–", "0.00", "–"],
    ]


def test_export__masks_have_a_table_and_lines_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    gaps = (Gap("mask coefficients", 1e-6, 0.01), Gap("prototypes", 2e-5, 0.01))
    parity = Parity(2, 0.001, 1e-6, 10, 10, gaps)
    sides = {"before": Side("best.pt", 1, 1.0, 0.4, 0.6), "after": Side("best.onnx", 1, 1.0, 0.4, 0.6)}
    masks = Change("mask AP", 0.3, 0.28, (-0.03, -0.01))
    _install(monkeypatch, _report(parity, **sides, ap_interval=(-0.01, 0.01), further=(masks,)), _report())
    result = runner.invoke(app, ["best.pt", "b.pt"])
    assert result.exit_code == 1
    assert isinstance(result.exception, RunError)
    assert "'best.onnx': mask AP changed by -2.00 points (limit -0.5)." in str(result.exception)
    assert "scores by 1e-06, mask coefficients by 1e-06, prototypes by 2e-05, on 2 images" in result.stdout
    assert "box AP on square images: 40.0 to 40.0 (+0.00)" in result.stdout
    assert "mask AP on square images: 30.0 to 28.0 (-2.00)" in result.stdout
    rows = [line.split() for line in result.stdout.splitlines()]
    assert ["best.pt", "checkpoint", "40.0", "60.0", "0.00", "1.0"] in rows
    assert rows[-3:] == [  # of the other nothing was scored
        ["model", "as", "mask", "AP", "change", "95", "%", "interval"],
        ["best.pt", "checkpoint", "30.0"],
        ["onnx", "float32", "28.0", "-2.00", "-3.00", "to", "-1.00"],
    ]


def test_export__ranges_of_a_training_beside_calibrated_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    sides = [Side("best.pt", 6_000_000, 20.0, ap, 0.6) for ap in (0.411, 0.405, 0.41, 0.412)]
    calibrated = Calibrated(sides[0], sides[1], (-0.01, 0.001), 0.007, (-0.002, 0.016))
    made = {"precision": "int8", "before": sides[2], "after": sides[3], "ap_interval": (-0.001, 0.005)}
    _install(monkeypatch, _report(None, **made, own_ranges=True, calibrated=calibrated))
    result = runner.invoke(app, ["best.pt", "--int8", "--check", "road.yaml"])
    assert "ranges of the training against calibrated ones, same weights: +0.70 AP (-0.20 to +1.60)" in result.stdout
    lines = [line.split() for line in result.stdout.splitlines()]
    assert lines[-4:] == [
        ["best.pt", "its", "weights,", "float32", "41.1", "60.0", "6.00", "20.0"],
        ["onnx", "int8,", "calibrated", "40.5", "-0.60", "-1.00", "to", "+0.10", "60.0", "6.00", "20.0"],
        ["checkpoint,", "int8", "41.0", "60.0", "6.00", "20.0"],
        ["onnx", "int8,", "trained", "41.2", "+0.20", "-0.10", "to", "+0.50", "60.0", "6.00", "20.0"],
    ]


def test_export__one_failure_among_several_is_told_after_the_table(monkeypatch: pytest.MonkeyPatch) -> None:
    _install(monkeypatch, _report(), _report(Parity(2, 3.0, 0.5, 100, 20), before=Side("b.pt", 1)))
    result = runner.invoke(app, ["best.pt", "b.pt"])
    assert isinstance(result.exception, RunError)
    assert str(result.exception) == (
        "Not within the limits (see yolokd.deploy.report): '[b]best.onnx': raw outputs differ by 3 px and 0.5 in score "
        "(limits 0.5 and 0.01), 20 of 100 detections agree (limit 99%). "
        "What was written was kept; do not deploy it unseen."
    )
    assert "DIFFERS from the checkpoint: raw outputs differ by 3 px" in result.stdout
    assert result.stdout.splitlines()[-2].startswith("b.pt ")


def test_export__a_failure_is_exit_1_and_still_written_as_json(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    lost = _report(precision="int8", before=Side("a.pt", 1, AP=0.4), after=Side("a.onnx", 1, AP=0.2))
    _install(monkeypatch, lost)
    file = tmp_path / "results.json"
    code, out, err = _main(capsys, "a.pt", "--int8", "--check", "road.yaml", "--json", str(file))
    assert code == 1
    assert "AP fell from 40.0 to 20.0, below 90% of it" in err
    assert "AP on square images: 40.0 to 20.0 (-20.00)" in out
    (plain,) = json.loads(file.read_text())
    assert plain == lost.to_dict() | {"notes": []}
    assert plain["passed"] is False


def test_export__json_on_stdout_is_all_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    report = _report()
    _install(monkeypatch, report)
    result = runner.invoke(app, ["best.pt", "--json", "-"])
    assert json.loads(result.stdout)[0]["after"]["path"] == "[b]best.onnx"


def test_export__without_a_check_it_says_nothing_about_equality(monkeypatch: pytest.MonkeyPatch) -> None:
    _install(monkeypatch, _report(None, notes=("not checked, as rknn cannot be run here: no rknnlite",)))
    result = runner.invoke(app, ["best.pt", "--format", "rknn"])
    assert result.exit_code == 0
    assert result.stdout.splitlines()[:3] == [
        "[b]best.onnx (onnx, float32, 640 px)",
        "note: not checked, as rknn cannot be run here: no rknnlite",
        "model   as           AP change 95 % interval AP50    MB   ms",
    ]


def test_export__what_each_part_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = Outcome(0.35, 1.234, 0.05, 200.0, 0.5, 0.8, 3_500_000, 4.0)
    better = Outcome(0.37, 0.5, 0.0123, 100.0, 0.3, 0.955, 4_100_000, 5.25)
    blind = Outcome(0.34, None, None, 0.0, 0.0, None, 3_600_000, 4.5)
    effects = (PartEffect("head.cls", better, 0.02, (0.011, 0.03)), PartEffect("neck", blind, -0.01, (-0.02, 0.0)))
    made = {"precision": "int8", "before": Side("best.pt", 1, AP=0.4), "after": Side("best.xml", 1, AP=0.35)}
    _install(monkeypatch, _report(None, **made, keep_float=("stem",), sensitivity=Sensitivity(whole, effects)))
    asked = ["--int8", "--check", "road.yaml", "--format", "openvino", "--sensitivity", "--keep-float", "stem"]
    monkeypatch.setattr(parts, "partition_of", lambda _: parts.Partition({0: "stem"}, 1))
    result = runner.invoke(app, ["best.pt", *asked])
    lines = [line.split() for line in result.stdout.splitlines()]
    assert lines[0] == ["best.xml", "(onnx,", "int8,", "stem", "in", "float32,", "640", "px)"]
    start = lines.index(["best.pt:", "int8", "with", "one", "part", "in", "full", "precision"])
    assert lines[start + 2 : start + 5] == [
        ["stem", "35.0", "1.23", "0.050", "80%", "3.50", "4.0"],
        ["+", "head.cls", "37.0", "+2.00", "+1.10", "to", "+3.00", "0.50", "0.012", "96%", "4.10", "5.2"],
        ["+", "neck", "34.0", "-1.00", "-2.00", "to", "+0.00", "–", "–", "–", "3.60", "4.5"],
    ]


def test_export__tiny_changes_carry_no_minus(monkeypatch: pytest.MonkeyPatch) -> None:
    _install(monkeypatch, _report(before=Side("a.pt", 1, AP=0.4), after=Side("a.onnx", 1, AP=0.39999)))
    assert "AP on square images: 40.0 to 40.0 (+0.00)" in runner.invoke(app, ["best.pt"]).stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["absent.pt"], "There is no file 'absent.pt'"),
        (["best.pt", "--half", "--int8"], "Give --half or --int8, not both."),
        (["best.pt", "--int8"], "An int8 export measures the range of every layer on a data set"),
        (["best.pt", "--int8", "--check", "images"], "name the data set, --check road.yaml"),
        (["best.pt", "--format", "onx"], "There is no export format 'onx'. Did you mean 'onnx'?"),
        (["best.pt", "--format", "torchscript", "--int8"], "Ultralytics cannot export torchscript in int8"),
        (["best.pt", "--check", "nothing.yaml"], "There is no data YAML 'nothing.yaml'"),
        (["best.pt", "--check", "empty"], "There are no images in 'empty'"),
        (["best.pt", "--json", "nowhere/a.json"], "there is no such folder"),
        (
            ["best.pt", "--sensitivity", "--format", "openvino", "--check", "data"],
            "--sensitivity is about exports in 8 bits: add",
        ),
        (
            ["best.pt", "--keep-float", "stem", "--format", "openvino"],
            "--keep-float is about exports in 8 bits: add --int8",
        ),
        (["best.pt", "--sensitivity", "--int8", "--format", "openvino"], "--sensitivity compares AP: name a data set"),
        (["best.pt", "--sensitivity", "--int8", "--check", "data"], "--sensitivity is for --format openvino, not onnx"),
        (
            ["best.pt", "--keep-float", "stem", "--int8", "--format", "mnn", "--check", "data"],
            "for --format openvino or onnx, not mnn",
        ),
        (
            ["best.pt", "--keep-float", "stem,,neck", "--int8", "--check", "data"],
            "--keep-float expects words with commas between",
        ),
        (
            ["best.pt", "--keep-float", "haed", "--int8", "--check", "data"],
            "has no part 'haed'; known: stem, backbone.p2, ",
        ),
        (["best.pt", "notes.pt"], "'notes.pt'"),
        (["notes.pt"], "'notes.pt'"),
    ],
)
def test_export__mistakes(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    tiny.checkpoint(tmp_path / "best.pt")
    tiny.data_set(tmp_path / "data")
    (tmp_path / "data" / "images" / "val").rename(tmp_path / "images")
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes.pt").write_text("no checkpoint")
    before = sorted(p.name for p in tmp_path.iterdir())
    code, _, err = _main(capsys, *arguments)
    assert code == 2
    assert message in err
    assert sorted(p.name for p in tmp_path.iterdir()) == before


@pytest.mark.slow
def test_export__through_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(runtimes, "TIMED_PASSES", 1)
    path = tiny.checkpoint(tmp_path / "best.pt")
    data = tiny.data_set(tmp_path / "data")
    code, out, _ = _main(capsys, str(path), "--format", "torchscript", "--check", str(data), "--json", "-")
    assert code == 0
    (plain,) = json.loads(out)
    assert plain["after"]["path"] == str(tmp_path / "best.torchscript")
    assert plain["before"]["AP"] == pytest.approx(plain["after"]["AP"], abs=1e-3)
    assert set(plain["before"]["per_class"]) == set(tiny.NAMES)


def test_export__half_reaches_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = _install(monkeypatch, _report(precision="float16"))
    assert runner.invoke(app, ["best.pt", "--half"]).exit_code == 0
    assert seen[0]["precision"] == "float16"


def test_export__clash_is_the_users_mistake() -> None:
    assert isinstance(runner.invoke(app, ["best.pt", "--half", "--int8"]).exception, UserError)
