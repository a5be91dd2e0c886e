from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from yolokd.cli.evaluate import class_map, evaluate, split_pairs
from yolokd.errors import UserError
from yolokd.evaluation import models
from yolokd.evaluation.further import FurtherScore
from yolokd.evaluation.kitti_set import KittiScore
from yolokd.evaluation.models import ModelScore
from yolokd.evaluation.rotated_scores import METRIC, RotatedScore
from yolokd.outputs import write_file

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


def test_evaluate__masks_get_columns_and_a_key_of_their_own(
    asked: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    masked = replace(SCORE, name="seg.pt", masks=FurtherScore(0.4, 0.6, 0.5, -1.0, 0.3, 0.2, {"car": 0.4}))
    monkeypatch.setattr(models, "evaluate", lambda *_, **__: [SCORE, masked])
    file = tmp_path / "scores.json"
    result = runner.invoke(app, ["a.pt", "b.pt", "--data", "d.yaml", "--json", str(file)], env={"COLUMNS": "80"})
    kinds, header, plain, _, row, *_ = result.stdout.splitlines()
    assert kinds.split() == ["box"] * 6 + ["mask"] * 3 + ["params"]
    assert " ".join(header.split()) == "model AP AP50 AP75 APs APm APl AP AP50 AP75 M GFLOPs ms imgsz"
    assert plain.split()[1:10] == ["57.4", "75.7", "62.9", "–", "53.8", "80.2", "–", "–", "–"]
    assert row.split()[1:10] == ["57.4", "75.7", "62.9", "–", "53.8", "80.2", "40.0", "60.0", "50.0"]
    first, second = json.loads(file.read_text())
    assert "masks" not in first
    assert second["masks"]["per_class"] == {"car": 0.4}


def test_evaluate__keypoints_get_columns_and_a_key_of_their_own(
    asked: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    posed = replace(SCORE, name="pose.pt", keypoints=FurtherScore(0.4, 0.6, 0.5, -1.0, 0.3, -1.0, {"car": 0.4}))
    masked = replace(SCORE, name="seg.pt", masks=FurtherScore(0.1, 0.3, 0.2, -1.0, 0.3, 0.2, {"car": 0.1}))
    monkeypatch.setattr(models, "evaluate", lambda *_, **__: [SCORE, posed])
    file = tmp_path / "scores.json"
    result = runner.invoke(app, ["a.pt", "b.pt", "--data", "d.yaml", "--json", str(file)], env={"COLUMNS": "80"})
    kinds, _, plain, _, row, *_ = result.stdout.splitlines()
    assert kinds.split() == ["box"] * 6 + ["pose"] * 3 + ["params"]
    assert plain.split()[1:10] == ["57.4", "75.7", "62.9", "–", "53.8", "80.2", "–", "–", "–"]
    assert row.split()[1:10] == ["57.4", "75.7", "62.9", "–", "53.8", "80.2", "40.0", "60.0", "50.0"]
    first, second = json.loads(file.read_text())
    assert not {"masks", "keypoints"} & {*first}
    assert second["keypoints"]["per_class"] == {"car": 0.4}
    monkeypatch.setattr(models, "evaluate", lambda *_, **__: [masked, posed])
    result = runner.invoke(app, ["a.pt", "b.pt", "--data", "d.yaml"], env={"COLUMNS": "120"})
    kinds, _, one, other, *_ = result.stdout.splitlines()
    assert kinds.split() == ["box"] * 6 + ["mask"] * 3 + ["pose"] * 3 + ["params"]
    assert one.split()[7:13] == ["10.0", "30.0", "20.0", "–", "–", "–"]
    assert other.split()[7:13] == ["–", "–", "–", "40.0", "60.0", "50.0"]


def test_evaluate__rotated_boxes_have_a_table_and_a_key_of_their_own(
    asked: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    rotated = RotatedScore(0.25, 0.678, -1.0, {"ship": 0.25})
    score = replace(SCORE, name="obb.pt", AP=-1.0, notes=(), per_class={}, rotated=rotated)
    monkeypatch.setattr(models, "evaluate", lambda *_, **__: [score])
    file = tmp_path / "scores.json"
    result = runner.invoke(app, ["a.pt", "--data", "d.yaml", "--json", str(file)])
    header, row, said = result.stdout.splitlines()
    assert header.split() == ["model", "mAP50-95", "mAP50", "mAP75", "params", "M", "GFLOPs", "ms", "imgsz"]
    assert row.split() == ["obb.pt", "25.0", "67.8", "–", "3.16", "3.2", "42.3", "384"]
    assert said == f"In percent: {METRIC}"
    (written,) = json.loads(file.read_text())
    assert not {"AP", "AP50", "AP75", "APs", "APm", "APl", "per_class", "masks"} & set(written)
    assert written["rotated"]["metric"] == METRIC
    assert written["rotated"]["map50_95"] == 0.25
    assert write_file(str(file), b"{}", "--json") is None  # known for a result of yolokd, so nothing is kept of it


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
        "metric": None,
        "split": "val",
        "imgsz": 320,
        "batch": None,
        "device": None,
        "classes": {"van": "car"},
    }


def test_evaluate__size_of_an_export_is_not_known(monkeypatch: pytest.MonkeyPatch) -> None:
    score = replace(SCORE, name="best.onnx", parameters=0, gflops=0.0, notes=())
    monkeypatch.setattr(models, "evaluate", lambda *_, **__: [score])
    row = runner.invoke(app, ["best.onnx", "--data", "d.yaml"]).stdout.splitlines()[1]
    assert row.split()[-4:] == ["–", "–", "42.3", "384"]


@pytest.fixture
def kitti(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two models, scored by KITTI's protocol."""
    levels = {"easy": 71.39, "moderate": 64.93, "hard": 0.0}
    counts = {"easy": 9, "moderate": 80, "hard": 91}
    score = KittiScore("R11", {"Car": levels, "Cyclist": levels}, {"Car": counts}, ("with fewer than 41 objects …",))
    scores = [replace(SCORE, kitti=score), replace(SCORE, name="teacher.pt", kitti=score, notes=())]
    monkeypatch.setattr(models, "evaluate", lambda *_, **__: scores)


def test_evaluate__kitti_has_a_row_per_model_and_class(kitti: None) -> None:
    options = ["--data", "d.yaml", "--protocol", "kitti", "--metric", "R11"]
    lines = runner.invoke(app, ["a.pt", "b.pt", *options]).stdout.splitlines()
    assert " ".join(lines[0].split()) == "model class easy moderate hard params M GFLOPs ms imgsz"
    assert lines[1].split() == ["[bold]best.pt", "Car", "71.4", "64.9", "0.0", "3.16", "3.2", "42.3", "384"]
    assert lines[2].split() == ["Cyclist", "71.4", "64.9", "0.0"]
    assert lines[3].split()[0] == "teacher.pt"
    assert lines[5:] == [
        "KITTI's AP in percent by R11: IoU above 0.7 for Car, 0.5 for the others",
        "with fewer than 41 objects …",
        "[bold]best.pt: does not know [red]bus[/red] (counted as missed)",
    ]


def test_evaluate__kitti_as_json(kitti: None) -> None:
    result = runner.invoke(app, ["a.pt", "b.pt", "--data", "d.yaml", "--protocol", "kitti", "--json", "-"])
    first, second = json.loads(result.stdout)
    assert first["kitti"]["metric"] == "R11"
    assert first["kitti"]["ap_percent"]["Car"] == {"easy": 71.39, "moderate": 64.93, "hard": 0.0}
    assert second["kitti"]["objects"] == {"Car": {"easy": 9, "moderate": 80, "hard": 91}}
    assert first["AP"] == 0.5744


def test_evaluate__classes_may_be_a_shipped_map(asked: dict[str, Any]) -> None:
    assert runner.invoke(app, ["a.pt", "--data", "d.yaml", "--classes", "coco-to-kitti"]).exit_code == 0
    assert asked["classes"] == "coco-to-kitti"


def test_evaluate__json_on_stdout_is_all_there_is(asked: dict[str, Any]) -> None:
    result = runner.invoke(app, ["a.pt", "--data", "d.yaml", "--json", "-"])
    (record,) = json.loads(result.stdout)
    assert (record["AP"], record["APs"], record["per_class"]) == (0.5744, -1.0, {"car": 0.5744})
    assert record["notes"] == ["does not know [red]bus[/red] (counted as missed)"]


@pytest.mark.parametrize(
    ("names", "shown"),
    [
        (["a/weights/last.pt", "b/c/weights/last.pt"], ["weights/last.pt of", "a", "b/c"]),
        (["a/last.pt", "a/best.pt"], ["model", "a/last.pt", "a/best.pt"]),
        (["weights/last.pt", "b/weights/last.pt"], ["last.pt of", "weights", "b/weights"]),
        (["a/last.pt"], ["model", "a/last.pt"]),
    ],
)
def test_evaluate__names_without_the_end_that_they_share(
    monkeypatch: pytest.MonkeyPatch, asked: dict[str, Any], names: list[str], shown: list[str]
) -> None:
    scores = [replace(SCORE, name=name, notes=()) for name in names]
    monkeypatch.setattr(models, "evaluate", lambda *_, **__: scores)
    result = runner.invoke(app, ["a.pt", "--data", "d.yaml"], env={"COLUMNS": "120"})
    lines = result.stdout.splitlines()
    assert [line[: len(start)] for line, start in zip(lines, shown, strict=True)] == shown
    assert all(line[len(start)] == " " for line, start in zip(lines, shown, strict=True))


def test_evaluate__json_file_comes_with_the_table(asked: dict[str, Any], tmp_path: Path) -> None:
    result = runner.invoke(app, ["a.pt", "--data", "d.yaml", "--json", str(tmp_path / "scores.json")])
    assert "57.4" in result.stdout
    assert json.loads((tmp_path / "scores.json").read_text())[0]["parameters"] == 3_157_200


def test_evaluate__bad_options_are_the_user_s_mistake(asked: dict[str, Any], tmp_path: Path) -> None:
    result = runner.invoke(app, ["a.pt", "--data", "d.yaml", "--classes", "van"])
    assert isinstance(result.exception, UserError)
    assert str(result.exception) == (
        "--classes expects MODEL=DATA, such as motorcycle=motorbike, or one shipped map (coco-to-kitti); got 'van'."
    )
    result = runner.invoke(app, ["a.pt", "--data", "d.yaml", "--classes", "coco-to-kitti", "--classes", "van=car"])
    assert isinstance(result.exception, UserError)
    assert "got 'coco-to-kitti'" in str(result.exception)
    result = runner.invoke(app, ["a.pt", "--data", "d.yaml", "--json", str(tmp_path / "no" / "folder.json")])
    assert isinstance(result.exception, UserError)
    assert "folder.json' cannot be written: there is no such folder" in str(result.exception)


@pytest.mark.parametrize("command", ["evaluate", "export", "predict"])
def test_commands__import_neither_torch_nor_ultralytics(command: str) -> None:
    code = (
        f"import sys, yolokd.cli.{command}; "
        "print([m for m in ('torch', 'ultralytics', 'numpy', 'cv2') if m in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def test_split_pairs__lists_and_names_with_commas() -> None:
    assert split_pairs([]) == []
    assert split_pairs(["a=b,c=d", "e=f"]) == ["a=b", "c=d", "e=f"]
    assert split_pairs(["a,b=c"]) == ["a", "b=c"]
    assert split_pairs(["a=b,c"]) == ["a=b,c"]
    assert split_pairs(["coco-to-kitti"]) == ["coco-to-kitti"]


def test_class_map__a_class_that_is_given_two_of_the_data() -> None:
    assert class_map(["van=car,van=car", "bus=car"]) == {"van": "car", "bus": "car"}
    with pytest.raises(UserError, match="maps 'van' to 'car' and to 'truck'"):
        class_map(["van=car", "van=truck"])
