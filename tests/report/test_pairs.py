from __future__ import annotations

import numpy as np
import pytest
from matplotlib.figure import Figure

from yolokd.report.charts import LIGHT, Look
from yolokd.report.pairs import LEAST_SPAN, Pair, pairs


def drawn(*joined: Pair) -> Figure:
    figure = Figure()
    pairs(joined, x="ms", y="AP")(figure.add_subplot(), LIGHT)
    return figure


def test_pairs__a_hollow_start_a_filled_end_and_a_line_between() -> None:
    axes = drawn(Pair("a", Look("recipe", 0), (20.0, 40.0), (5.0, 39.0))).axes[0]
    line, start, end = axes.lines
    np.testing.assert_array_equal(line.get_xydata(), [[20, 40], [5, 39]])
    assert line.get_linestyle() == "--"
    assert start.get_markerfacecolor() == LIGHT.paper
    assert end.get_markerfacecolor() == LIGHT.series[0]
    assert (axes.get_xlabel(), axes.get_ylabel(), axes.get_xlim()[0]) == ("ms", "AP", 0)


def test_pairs__equal_labels_are_named_once_and_an_unknown_start_is_left_out() -> None:
    axes = drawn(
        Pair("a", Look(), None, (5.0, 39.0), solid=True), Pair("a", Look(), (9.0, 39.5), (5.0, 39.0), solid=True)
    ).axes[0]
    assert axes.get_legend_handles_labels()[1] == ["a"]
    assert [line.get_linestyle() for line in axes.lines if line.get_linestyle() != "None"] == ["-"]


@pytest.mark.parametrize(("low", "high", "span"), [(39.9, 40.0, LEAST_SPAN), (20.0, 50.0, 33.0)])
def test_pairs__small_differences_look_small(low: float, high: float, span: float) -> None:
    bottom, top = drawn(Pair("a", Look(), (20.0, high), (5.0, low))).axes[0].get_ylim()
    assert top - bottom == pytest.approx(span)
    assert bottom < low < high < top
