"""What exports in 8 bits show in a report."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.helpers.making import Oracle, checkpoint, make_run
from tests.helpers.reading import read_html, tables
from yolokd.deploy.record import FILE
from yolokd.files import sha256, write_json
from yolokd.report import eight_bits, write
from yolokd.report.pairs import Pair, pairs

CALIBRATED = {"ap_interval": [-0.003, 0.004], "gain": 0.0, "gain_interval": [-0.1, 0.1]}


def side(ap: float, ms: float) -> dict[str, Any]:
    return {"path": "x", "bytes": 3_500_000, "latency_ms": ms, "AP": ap, "AP50": 0.6, "per_class": None}


def entry(path: Path, before: dict[str, Any], after: dict[str, Any], **others: Any) -> dict[str, Any]:
    made = {"format": "openvino", "precision": "int8", "imgsz": 64, "data": "road.yaml", "own_ranges": False}
    made |= {"checkpoint": path.name, "sha256": sha256(path), "before": before, "after": after, "calibrated": None}
    return {**made, "keep_float": [], "ap_interval": [-0.0123, 0.001], **others}


def rounded(point: tuple[float, float] | None) -> tuple[float, ...]:
    return () if point is None else tuple(round(value, 9) for value in point)


@pytest.fixture
def joined(monkeypatch: pytest.MonkeyPatch) -> list[Pair]:
    """What is drawn."""
    found: list[Pair] = []

    def spy(joined: list[Pair], **options: Any) -> Any:
        found.extend(joined)
        return pairs(joined, **options)

    monkeypatch.setattr(eight_bits, "pairs", spy)
    return found


@pytest.fixture
def folders(odd_data: Path, tmp_path: Path, oracle: Oracle) -> list[Path]:
    """Plain training, and a training in 8 bits under a teacher that is a run as well."""
    teacher = checkpoint(tmp_path / "teacher" / "weights" / "best.pt", "teacher")
    found = [make_run(tmp_path / "plain", odd_data), make_run(tmp_path / "qad", odd_data, "qad", teacher=teacher)]
    plain, qad = (folder / "weights" / "last.pt" for folder in found)
    write_json(tmp_path / "teacher" / FILE, [entry(teacher, side(0.5, 30), side(0.45, 9))])
    whole = entry(plain, side(0.4, 20), side(0.4, 8), precision="float32")
    write_json(found[0] / FILE, [whole, entry(plain, side(0.4, 20), side(0.39, 5))])
    calibrated = {"before": side(0.412, 20), "after": side(0.41, 5), **CALIBRATED}
    write_json(found[1] / FILE, [entry(qad, side(0.41, 150), side(0.415, 5), own_ranges=True, calibrated=calibrated)])
    return found


@pytest.mark.usefixtures("undrawn")
def test_section__the_table_of_export_and_a_line_for_each(
    folders: list[Path], joined: list[Pair], tmp_path: Path
) -> None:
    text = write(folders, tmp_path / "r.html").read_text(encoding="utf-8")
    assert eight_bits.TITLE in [node.text for node in read_html(text).all("h2")]
    (table,) = [table for table in tables(read_html(text)) if table[0][:2] == ["model", "as"]]
    assert [row[:5] for row in table[1:]] == [
        ["teacher", "checkpoint", "50.0", "–", "–"],
        ["", "openvino int8", "45.0", "−5.00", "[−1.23, +0.10]"],
        ["plain", "checkpoint", "40.0", "–", "–"],
        ["", "openvino int8", "39.0", "−1.00", "[−1.23, +0.10]"],
        ["qad", "its weights, float32", "41.2", "–", "–"],
        ["", "openvino int8, calibrated", "41.0", "−0.20", "[−0.30, +0.40]"],
        ["", "checkpoint, int8", "41.0", "–", "–"],
        ["", "openvino int8, trained", "41.5", "+0.50", "[−1.23, +0.10]"],
    ]
    assert [row[-1] for row in table[1:]] == ["30.0", "9.0", "20.0", "5.0", "20.0", "5.0", "–", "5.0"]
    shown = [(pair.label, rounded(pair.start), rounded(pair.end), pair.solid) for pair in joined]
    assert shown == [
        ("teacher", (30.0, 50.0), (9.0, 45.0), False),
        ("baseline", (8.0, 40.0), (5.0, 39.0), False),  # from the float32 export, not from the checkpoint
        ("qad, calibrated", (20.0, 41.2), (5.0, 41.0), False),
        ("qad", (20.0, 41.2), (5.0, 41.5), True),
    ]


@pytest.mark.usefixtures("undrawn")
def test_section__exports_on_different_data_are_not_drawn_together(
    folders: list[Path], joined: list[Pair], tmp_path: Path
) -> None:
    path = folders[0] / "weights" / "last.pt"
    write_json(folders[0] / FILE, [entry(path, side(0.4, 20), side(0.39, 5), data="other.yaml")])
    text = write(folders, tmp_path / "r.html").read_text(encoding="utf-8")
    assert len([table for table in tables(read_html(text)) if table[0][:2] == ["model", "as"]]) == 2
    assert "No chart: the exports were scored on different data or at different sizes." in text
    assert joined == []


@pytest.mark.usefixtures("undrawn")
def test_section__none_without_exports_in_8_bits(folders: list[Path], tmp_path: Path) -> None:
    for folder in (*folders, tmp_path / "teacher"):
        (folder / FILE).unlink()
    path = folders[0] / "weights" / "last.pt"
    write_json(folders[0] / FILE, [entry(path, side(0.4, 20), side(0.4, 8), precision="float32")])
    text = write(folders, tmp_path / "r.html").read_text(encoding="utf-8")
    assert eight_bits.TITLE not in [node.text for node in read_html(text).all("h2")]
