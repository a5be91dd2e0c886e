from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from yolokd.backend.formats import Precision
from yolokd.deploy.parity import Parity
from yolokd.deploy.report import ExportReport, Side, size_of
from yolokd.deploy.sensitivity import Outcome, PartEffect, Sensitivity

CLOSE = Parity(2, 0.1, 0.001, 100, 100)
FAR = Parity(2, 3.0, 0.5, 100, 20)


def _report(
    precision: Precision, parity: Parity | None, before: float | None = None, after: float | None = None
) -> ExportReport:
    return ExportReport("onnx", precision, 64, Side("a.pt", 10, AP=before), Side("a.onnx", 20, AP=after), parity)


@pytest.mark.parametrize(
    ("precision", "parity", "passed"),
    [
        ("float32", CLOSE, True),
        ("float32", Parity(2, 3.0, 0.001, 100, 100), False),
        ("float32", Parity(2, 0.1, 0.02, 100, 100), False),
        ("float16", Parity(2, 3.0, 0.02, 100, 100), True),
        ("float16", Parity(2, 3.0, 0.001, 0, 0), False),  # no detections: raw outputs decide
        ("float32", Parity(2, 0.1, 0.001, 100, 90), False),
        ("float16", Parity(2, 0.1, 0.001, 100, 90), False),
        ("float32", None, None),
        ("int8", FAR, None),  # without AP there is nothing to judge 8 bits by
    ],
)
def test_passed__by_outputs(precision: Precision, parity: Parity | None, passed: bool | None) -> None:
    assert _report(precision, parity).passed is passed


@pytest.mark.parametrize(
    ("precision", "parity", "before", "after", "passed"),
    [
        ("float32", CLOSE, 0.400, 0.396, True),
        ("float32", CLOSE, 0.400, 0.394, False),
        ("float16", CLOSE, 0.400, 0.500, True),  # a better AP never fails
        ("float32", FAR, 0.400, 0.400, False),
        ("float32", None, 0.400, 0.400, True),  # contains its own NMS: AP alone
        ("int8", FAR, 0.400, 0.361, True),
        ("int8", FAR, 0.400, 0.359, False),
        ("int8", CLOSE, 0.400, 0.0, False),
        ("int8", CLOSE, 0.400, None, None),  # could not be run here
        ("int8", CLOSE, 0.0, 0.0, None),  # finds nothing before: AP says nothing
        ("int8", CLOSE, -1.0, -1.0, None),
        ("float32", CLOSE, -1.0, -1.0, True),
    ],
)
def test_passed__by_ap(
    precision: Precision, parity: Parity | None, before: float, after: float | None, passed: bool | None
) -> None:
    assert _report(precision, parity, before, after).passed is passed


@pytest.mark.parametrize("precision", ["float32", "float16", "int8"])
@pytest.mark.parametrize(
    ("interval", "passed"),
    [((-0.3, -0.001), False), ((-0.3, 0.02), True), ((-1.0, 1.0), True), (None, False)],
)
def test_passed__a_loss_of_ap_must_be_certain(
    precision: Precision, interval: tuple[float, float] | None, passed: bool
) -> None:
    report = replace(_report(precision, CLOSE, 0.4, 0.3), ap_interval=interval)
    assert report.passed is passed


def test_failures__hold_the_numbers() -> None:
    assert _report("float32", FAR, 0.4, 0.31).failures == (
        "raw outputs differ by 3 px and 0.5 in score (limits 0.5 and 0.01)",
        "20 of 100 detections agree (limit 99%)",
        "AP changed by -9.00 points (limit -0.5)",
    )
    assert _report("int8", FAR, 0.4, 0.31).failures == ("AP fell from 40.0 to 31.0, below 90% of it",)
    assert _report("float32", CLOSE, 0.4, 0.4).failures == ()


def test_to_dict__is_plain_and_holds_the_verdict() -> None:
    report = replace(_report("float32", CLOSE, 0.4, 0.25), notes=("a",))
    plain = json.loads(json.dumps(report.to_dict()))
    assert plain["before"] == {
        "path": "a.pt",
        "bytes": 10,
        "latency_ms": None,
        "AP": 0.4,
        "AP50": None,
        "per_class": None,
    }
    assert plain["parity"] == {"pictures": 2, "box_px": 0.1, "score": 0.001, "detections": 100, "paired": 100}
    assert (plain["agreement"], plain["passed"], plain["notes"]) == (1.0, False, ["a"])
    assert plain["ap_change"] == pytest.approx(-0.15)
    assert plain["ap_interval"] is None
    assert (plain["keep_float"], plain["own_ranges"], plain["sensitivity"]) == ([], False, None)
    assert plain["failures"] == ["AP changed by -15.00 points (limit -0.5)"]


def test_to_dict__holds_the_interval_and_what_each_part_wins() -> None:
    whole, better = (Outcome(ap, 1.0, 0.1, 9.0, 0.5, 0.9, 100, 1.0) for ap in (0.3, 0.35))
    found = Sensitivity(whole, (PartEffect("stem", better, 0.05, (0.01, 0.09)),))
    report = replace(_report("int8", FAR, 0.4, 0.3), ap_interval=(-0.2, -0.01), keep_float=("neck",), sensitivity=found)
    plain = json.loads(json.dumps(report.to_dict()))
    assert plain["ap_interval"] == [-0.2, -0.01]
    assert plain["keep_float"] == ["neck"]
    (part,) = plain["sensitivity"]["parts"]
    assert (part["part"], part["ap_gain"], part["ap_interval"]) == ("stem", 0.05, [0.01, 0.09])
    assert part["outcome"]["AP"] == 0.35
    assert plain["sensitivity"]["whole"]["AP"] == 0.3


def test_size_of(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "x").write_bytes(b"12345")
    (tmp_path / "a" / "b" / "y").write_bytes(b"678")
    assert size_of(tmp_path / "a" / "x") == 5
    assert size_of(tmp_path / "a") == 8
