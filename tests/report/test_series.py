from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest

from yolokd.comparison.results import ArmResult
from yolokd.comparison.statistics import Spread
from yolokd.evaluation.matches import Matches
from yolokd.evaluation.models import ModelScore
from yolokd.report.arms import Arm
from yolokd.report.charts import Look
from yolokd.report.runs import RunFolder
from yolokd.report.scoring import Finding, Scores
from yolokd.report.series import (
    MOST,
    Series,
    class_curve,
    epoch_curve,
    latency,
    looks,
    recall_curve,
    score_curve,
    series_of,
)

SCORE = ModelScore("m", "m.pt", 0.2, 0.4, 0, 0, 0, 0, 100, 1.0, 5.0, 64, {"car": 0.1, "bus": 0.3})


def finding(**changes: object) -> Finding:
    return Finding(replace(SCORE, **changes), {"car": [1.0] * 101, "bus": [0.5] * 101}, 0.5, [], Matches(2, ()))  # type: ignore[arg-type]


def folder(**columns: tuple[float, ...]) -> RunFolder:
    named = {name.replace("__", "/"): values for name, values in columns.items()}
    return RunFolder(Path("r"), {}, {}, {}, named, (), "finished", "d", ())


def arm(label: str, ap: float | None) -> Arm:
    spread = {} if ap is None else {"AP": Spread(ap, None)}
    return Arm(label, {}, label == "baseline", ArmResult("s", label, {}, spread, {}, {}, None, None, ()), {})


def test_looks__the_best_recipes_are_numbered_first_in_their_own_order() -> None:
    arms = [arm("baseline", 0.1), arm("none", None), arm("low", 0.01)]
    arms += [arm(f"r{n}", 0.2 + 0.1 * (n % 3)) for n in range(MOST)]
    numbers = {one.label: look for one, look in looks(arms)}
    assert numbers["baseline"] == Look("baseline")
    assert [numbers[f"r{n}"].number for n in range(MOST)] == list(range(MOST))
    assert {numbers["none"].number, numbers["low"].number} == {MOST, MOST + 1}
    assert [one.label for one in series_of(arms, Scores({}, {}))] == ["baseline", *(f"r{n}" for n in range(MOST))]


def test_curves__are_means_bounded_by_the_lowest_and_highest_run() -> None:
    series = Series("a", Look(), [finding(), finding(AP=0.4, per_class={"car": 0.3, "bus": 0.3})], {})
    classes = class_curve(series, ["car", "bus"])
    assert list(classes.y) == pytest.approx([20, 30])
    assert classes.low is not None
    assert classes.high is not None
    assert list(classes.low) == pytest.approx([10, 30])
    assert list(classes.high) == pytest.approx([30, 30])
    recall = recall_curve(series, ["car", "bus"])
    assert (recall.x[0], recall.x[-1], len(recall.x)) == (0, 1, 101)
    assert set(recall.y) == {0.75}
    score = score_curve(series, 7.0)
    assert list(score.x) == [7.0]
    assert list(score.y) == pytest.approx([30])
    assert score_curve(replace(series, findings=series.findings[:1]), 7.0).low is None


def test_epoch_curve__runs_of_different_length_and_values_that_are_missing() -> None:
    long = folder(epoch=(1, 2, 3), train__a=(3.0, math.nan, 5.0), b=(math.nan,) * 3)
    short = folder(epoch=(1, 2), train__a=(1.0, math.nan), b=(math.nan,) * 2)
    series = Series("a", Look(), [], {"x": long, "y": short})
    curve = epoch_curve(series, "train/a", 10)
    assert curve is not None
    assert (list(curve.x), list(curve.y)) == ([1, 3], [20, 50])  # epoch 2 has no value
    assert epoch_curve(series, "b") is None
    assert epoch_curve(series, "gone") is None


def test_latency__equal_networks_share_the_median() -> None:
    small = Series("a", Look(), [finding(latency_ms=2.0), finding(latency_ms=9.0)], {})
    example = Series("b", Look(), [finding(latency_ms=3.0)], {})
    large = Series("c", Look(), [finding(latency_ms=40.0, parameters=900)], {})
    assert [latency(one, [small, example, large]) for one in (small, example, large)] == [3.0, 3.0, 40.0]
