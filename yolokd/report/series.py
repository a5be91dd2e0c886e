"""What the charts of one student show: its teacher, plain training and the best recipes, always in the same look."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from yolokd.report.arms import Arm
from yolokd.report.charts import Curve, Look
from yolokd.report.runs import RunFolder
from yolokd.report.scoring import Finding, Scores

MOST = 6  # recipes in a chart

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Series:
    """A teacher or an arm, with what its finished runs found and the runs themselves."""

    label: str
    look: Look
    findings: Sequence[Finding]
    runs: Mapping[str, RunFolder]


def series_of(arms: Sequence[Arm], scores: Scores) -> list[Series]:
    """Return the teachers of the arms, plain training, and the recipes of highest AP, at most `MOST`."""
    digests = dict.fromkeys(run.teacher_sha256 for arm in arms for run in arm.runs.values())
    masters = [finding for digest, finding in scores.teachers.items() if digest in digests]
    found = [Series("teacher", Look("teacher"), [finding], {}) for finding in masters[:1]]
    for arm, look in looks(arms):
        if look.number >= MOST:
            continue
        done = [scores.runs[n] for n, run in arm.runs.items() if run.state == "finished" and n in scores.runs]
        found.append(Series(arm.label, look, done, arm.runs))
    return found


def looks(arms: Sequence[Arm]) -> list[tuple[Arm, Look]]:
    """Return each arm of a student with its look in all charts; the `MOST` recipes of highest AP are numbered first."""
    recipes = [arm for arm in arms if not arm.control]
    best = sorted(recipes, key=lambda arm: -(arm.result.spread["AP"].mean if arm.result.spread else -1))[:MOST]
    numbered = sorted(recipes, key=lambda arm: arm not in best)  # stable: else as given
    return [(arm, Look("baseline") if arm.control else Look("recipe", numbered.index(arm))) for arm in arms]


def class_curve(series: Series, names: Sequence[str]) -> Curve:
    """AP of each class in percent, the mean over runs, bounded by the lowest and highest of several."""
    table = 100 * np.array([[finding.score.per_class[name] for name in names] for finding in series.findings])
    return banded(series, range(len(names)), table)


def recall_curve(series: Series, names: Sequence[str]) -> Curve:
    """Precision at IoU 0.50 over recall, the mean over the classes and then over the runs."""
    table = [np.mean([finding.precision50[name] for name in names], axis=0) for finding in series.findings]
    return banded(series, np.linspace(0, 1, 101).tolist(), np.array(table))


def epoch_curve(series: Series, column: str, factor: float = 1.0) -> Curve | None:
    """A column of results.csv, the mean over the runs that have the epoch; None if no run has a number in it."""
    epochs, table = by_epoch(series.runs.values(), column)
    seen = np.isfinite(table).any(0)
    if not seen.any():
        return None
    return banded(series, epochs[seen].tolist(), factor * table[:, seen])


def by_epoch(runs: Iterable[RunFolder], column: str) -> tuple[Floats, Floats]:
    """Return epochs (E,) and a column's values (runs, E), NaN where a run has none."""
    pairs = [dict(zip(run.columns.get("epoch", ()), run.columns.get(column, ()), strict=False)) for run in runs]
    epochs = sorted({epoch for pair in pairs for epoch in pair})
    table = np.array([[pair.get(epoch, np.nan) for epoch in epochs] for pair in pairs]).reshape(len(pairs), -1)
    return np.array(epochs), table


def banded(series: Series, x: Sequence[float], table: Floats) -> Curve:
    """Return the mean of rows, bounded by their lowest and highest if there are several."""
    several = len(table) > 1
    low, high = (list(bound(table, axis=0)) for bound in (np.nanmin, np.nanmax)) if several else (None, None)
    return Curve(series.label, series.look, list(x), np.nanmean(table, axis=0).tolist(), low, high)


def score_curve(series: Series, x: float) -> Curve:
    """AP in percent at one place, with its range over the runs."""
    return banded(series, [x], 100 * np.array([[finding.score.AP] for finding in series.findings]))


def latency(series: Series, all_series: Sequence[Series]) -> float:
    """Median latency in ms over all models of the same size and cost, which differ by chance alone."""

    def kind(finding: Finding) -> tuple[int, float, int]:
        return finding.score.parameters, finding.score.gflops, finding.score.imgsz

    mine = kind(series.findings[0])
    return statistics.median(
        finding.score.latency_ms for other in all_series for finding in other.findings if kind(finding) == mine
    )
