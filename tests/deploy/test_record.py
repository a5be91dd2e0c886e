from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from yolokd.deploy.record import FILE, keep, read
from yolokd.deploy.report import Calibrated, ExportReport, Side


@pytest.fixture
def run(tmp_path: Path) -> Path:
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "last.pt").write_bytes(b"a checkpoint")
    (tmp_path / "args.yaml").write_text("epochs: 3\n")
    return tmp_path


def made(run: Path, **options: Any) -> ExportReport:
    sides = {
        "before": Side(str(run / "weights" / "last.pt"), 6, 20.0, 0.4, 0.6),
        "after": Side(str(run / "weights" / "last_int8.onnx"), 3, 5.0, 0.39, 0.6),
    }
    return ExportReport(format="onnx", precision="int8", imgsz=64, ap_interval=(-0.02, 0.01), **{**sides, **options})


def test_keep__an_export_made_again_replaces_its_entry(run: Path) -> None:
    assert keep(made(run), "road.yaml") == run / FILE
    keep(made(run, keep_float=("stem",)), "road.yaml")
    again = made(run, after=Side("last_int8.onnx", 3, 4.0, 0.38, 0.6))
    keep(again, "road.yaml")
    assert [(entry["keep_float"], entry["after"]["AP"]) for entry in read(run)] == [(["stem"], 0.39), ([], 0.38)]
    assert all(entry["data"] == "road.yaml" for entry in read(run))
    keep(again, "other.yaml")
    assert len(read(run)) == 3


def test_keep__weights_of_a_training_in_8_bits_have_both_exports(run: Path) -> None:
    side = Side("last.pt", 6, 20.0, 0.41, 0.6)
    keep(made(run, own_ranges=True, calibrated=Calibrated(side, side, (-0.1, 0.1), 0.0, (-0.1, 0.1))), "road.yaml")
    (entry,) = read(run)
    assert entry["calibrated"]["before"]["AP"] == 0.41
    assert entry["calibrated"]["ap_interval"] == [-0.1, 0.1]


def test_read__not_of_a_checkpoint_that_has_changed(run: Path) -> None:
    keep(made(run), "road.yaml")
    (run / "weights" / "last.pt").write_bytes(b"trained again")
    assert read(run) == []
    keep(made(run), "road.yaml")
    assert len(json.loads((run / FILE).read_text())) == 1


def test_keep__nothing_outside_of_a_run_or_without_scores(run: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "alone.pt"
    elsewhere.write_bytes(b"a checkpoint")
    assert keep(replace(made(run), before=Side(str(elsewhere), 6, 20.0, 0.4, 0.6)), "road.yaml") is None
    assert keep(made(run), None) is None
    assert keep(made(run, after=Side("last_int8.onnx", 3)), "road.yaml") is None
    (run / "args.yaml").unlink()
    assert keep(made(run), "road.yaml") is None
    assert not (run / FILE).exists()


@pytest.mark.parametrize(
    "change",
    [
        {"checkpoint": "../weights/last.pt"},
        {"imgsz": "64"},
        {"before": {"AP": 0.4}},
        {"after": None},
        {"ap_interval": [1]},
        {"ap_interval": ["low", "high"]},
        {"calibrated": {"before": {}}},
    ],
)
def test_read__damaged_entries_are_left_out(run: Path, change: dict[str, Any]) -> None:
    keep(made(run), "road.yaml")
    (good,) = json.loads((run / FILE).read_text())
    (run / FILE).write_text(json.dumps([good | change, "no entry", good]))
    assert read(run) == [good]


@pytest.mark.parametrize("content", ["{", "{}", "[[]]", "7"])
def test_read__no_such_file_or_none_of_ours(run: Path, content: str) -> None:
    assert read(run) == []
    (run / FILE).write_text(content)
    assert read(run) == []
