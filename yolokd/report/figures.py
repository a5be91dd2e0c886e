"""Which charts a report has: accuracy by class, precision over recall, cost, and curves over the epochs."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from yolokd.report.arms import Arm
from yolokd.report.charts import HEIGHT, Chart, Curve, Look, bars, differences, lines, make, points
from yolokd.report.formatting import interval, listed, signed
from yolokd.report.series import Series, class_curve, epoch_curve, latency, looks, recall_curve, score_curve

CLASSES = 12  # in the chart; the table holds all
CLASS_CURVES = 4  # classes with a precision curve of their own
BAR, MARGIN = 0.085, 0.7  # inches: of a bar, and of what surrounds them
LOG_RANGE = 30  # from this ratio on an axis is logarithmic
WHOLE = {
    "train/box_loss": "Box loss",
    "train/cls_loss": "Classification loss",
    "train/dfl_loss": "Distribution focal loss",
}


def gains(arms: Sequence[Arm], prefix: str) -> Iterator[Chart]:
    """Yield the paired differences of the recipes to plain training; nothing where no recipe has an interval."""
    curves, words = [], []
    for arm, look in looks(arms):
        found, own = arm.result.difference.get("AP"), arm.result.scores["AP"]
        if arm.control or found is None or found.seeds is None:
            continue
        each = [100 * (own[seed] - arm.against[seed]) for seed in own if seed in arm.against]
        both = found.images_and_seeds
        outer = None if both is None else (100 * both.low, 100 * both.high)
        low, high = [100 * found.seeds.low], [100 * found.seeds.high]
        curves.append(Curve(arm.label, look, each, [100 * found.mean], low, high, outer))
        second = "" if both is None else f", over images and seeds {interval(both)}"
        words.append(f"{arm.label} {signed(found.mean)}, over seeds {interval(found.seeds)}{second}")
    if curves:
        title = "Difference to plain training"
        draw = differences(curves, x="AP in points")
        alt = f"{title} in AP, mean and 95 % intervals: {'; '.join(words)}."
        yield make(f"{prefix}-difference", title, alt, draw, height=0.7 + 0.32 * len(curves))


def accuracy(series: Sequence[Series], classes: Sequence[str], objects: dict[str, int], prefix: str) -> Iterator[Chart]:
    """Yield bars of AP by class and curves of precision over recall.

    Args:
        series: From `series_of`.
        classes: Those that the images hold, in the order of the data.
        objects: Class → number of objects.
        prefix: Of the charts' names.
    """
    series = [one for one in series if one.findings]
    if not series or not classes:
        return
    shown = sorted(classes, key=lambda name: -objects[name])[:CLASSES]
    curves = [class_curve(one, shown) for one in series]
    labels = listed([curve.label for curve in curves])
    more = f" of the {CLASSES} most frequent classes" if len(classes) > CLASSES else " by class"
    yield make(
        f"{prefix}-classes",
        f"AP{more}",
        f"Bars of AP{more} for {labels}. The table of AP by class holds the numbers.",
        bars(shown, curves, x="AP in percent"),
        height=max(HEIGHT, MARGIN + BAR * len(curves) * len(shown) * 1.25),
    )
    common = [name for name in shown if objects[name]][:CLASS_CURVES]
    parts = [("all", "all classes", list(classes)), *((f"class{n}", c, [c]) for n, c in enumerate(common))]
    for key, words, names in parts if len(classes) > 1 else parts[:1]:
        yield make(
            f"{prefix}-precision-{key}",
            f"Precision over recall: {words}",
            f"Precision over recall at IoU 0.5, {words}, for {labels}.",
            lines([recall_curve(one, names) for one in series], x="recall", y="precision at IoU 0.5", share=True),
        )


def cost(series: Sequence[Series]) -> Iterator[Chart]:
    """Yield AP over latency and over parameters, for all students together."""
    series = [one for one in series if one.findings]
    if not series:
        return
    scales: list[tuple[str, str, Callable[[Series], float], str]] = [
        ("latency", "AP against latency", lambda one: latency(one, series), "latency in ms, one image"),
        ("size", "AP against size", lambda one: one.findings[0].score.parameters / 1e6, "parameters in millions"),
    ]
    for key, title, of, axis in scales:
        curves = [score_curve(one, of(one)) for one in series]
        each = "; ".join(f"{curve.label}: AP {curve.y[0]:.1f} at {curve.x[0]:.3g}" for curve in curves)
        yield make(key, title, f"{title} ({axis}). {each}.", points(curves, x=axis, y="AP in percent"))


def training(series: Sequence[Series], prefix: str) -> Iterator[Chart]:
    """Yield the losses over the epochs, AP where training measured it, and gradients and shares of each term."""
    series = [one for one in series if one.runs]
    metric = curves_of(series, "metrics/mAP50-95(B)", 100)
    if any(value > 0 for curve in metric for value in curve.y[:-1]):  # without validation only the end is measured
        yield over_epochs(f"{prefix}-ap", "mAP50-95 while training, by Ultralytics", metric, "percent")
    for column, title in WHOLE.items():
        if curves := curves_of(series, column):
            yield over_epochs(f"{prefix}-{column[6:]}", title, curves, "training loss")
    for number, one in enumerate(series):
        for part, title, axis, at in (
            ("train", "distillation terms", "value × gain × schedule", None),
            ("gradient", "gradient ratio of each term", "gradient at the neck / detection's", 1.0),
            ("share", "share of each term", "share of the whole loss", None),
        ):
            if curves := terms_of(one, part):
                yield over_epochs(f"{prefix}-{part}{number}", f"{one.label}: {title}", curves, axis, at)


def curves_of(series: Sequence[Series], column: str, factor: float = 1.0) -> list[Curve]:
    """A column of results.csv for each series that has it."""
    found = (epoch_curve(one, column, factor) for one in series)
    return [curve for curve in found if curve is not None]


def terms_of(one: Series, part: str) -> list[Curve]:
    """A curve for each distillation term of a recipe, in looks of their own."""
    head = f"{part}/kd_"
    columns = list(dict.fromkeys(c for run in one.runs.values() for c in run.columns if c.startswith(head)))
    found = [(column, epoch_curve(one, column)) for column in columns]
    kept = [(column, curve) for column, curve in found if curve is not None]
    return [replace(c, label=f"kd_{n.removeprefix(head)}", look=Look("recipe", i)) for i, (n, c) in enumerate(kept)]


def over_epochs(name: str, title: str, curves: Sequence[Curve], axis: str, at: float | None = None) -> Chart:
    """Draw curves over the epochs; logarithmic where they span more than `LOG_RANGE`."""
    values: list[Any] = [value for curve in curves for value in curve.y]
    positive = [value for value in values if value > 0]
    log = len(positive) == len(values) and max(positive) > LOG_RANGE * min(positive)
    each = "; ".join(f"{curve.label} from {number(curve.y[0])} to {number(curve.y[-1])}" for curve in curves)
    draw = lines(curves, x="epoch", y=axis, log=log, at=at)
    return make(name, title, f"{title} ({axis}) over the epochs: {each}.", draw)


def number(value: float) -> str:
    """Three digits."""
    return f"{value:.3g}" if math.isfinite(value) else "not a number"
