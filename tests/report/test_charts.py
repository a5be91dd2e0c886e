from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable

import pytest

from yolokd.report.charts import (
    DARK,
    LIGHT,
    Chart,
    Curve,
    Draw,
    Look,
    bars,
    differences,
    lines,
    make,
    points,
    power_of_ten,
    shortened,
)

SVG = "{http://www.w3.org/2000/svg}"
EVIL = '<script>alert("$x$")</script>'
ONE = [Curve(EVIL, Look("teacher"), [1, 2, 3], [0.1, 0.2, 0.4], [0, 0.1, 0.2], [0.2, 0.3, 0.5])]
TWO = [*ONE, Curve("_hidden_", Look("recipe", 1), [1, 2, 3], [3, 2, 1])]
DRAWS: dict[str, Callable[[], Draw]] = {
    "lines": lambda: lines(TWO, x="x", y="$y$", log=True, at=1),
    "share": lambda: lines(TWO, x="x", y="y", share=True),
    "bars": lambda: bars([EVIL, "車", "b"], TWO, x="x"),
    "points": lambda: points(
        [Curve(EVIL, Look(), [1], [2], [1], [3]), Curve("_hidden_", Look(), [3], [4])], x="x", y="y"
    ),
    "differences": lambda: differences([Curve(EVIL, Look(), [1, -1], [0], [-5], [5], (-9, 9))], x="x"),
}


@pytest.fixture(params=DRAWS)
def chart(request: pytest.FixtureRequest) -> Chart:
    return make("name", "title", "alt", DRAWS[request.param]())


def texts(svg: bytes) -> list[str]:
    return ["".join(node.itertext()) for node in ElementTree.fromstring(svg).iter(f"{SVG}text")]


def test_make__is_harmless_svg_in_which_names_are_text(chart: Chart) -> None:
    for svg in (chart.light, chart.dark):
        tree = ElementTree.fromstring(svg)
        assert tree.tag == f"{SVG}svg"
        names = {node.tag.removeprefix(SVG) for node in tree.iter()}
        assert names.isdisjoint({"script", "foreignObject", "image", "a", "animate", "set"})
        for node in tree.iter():
            for key, value in node.attrib.items():
                assert not key.startswith("on")
                assert not key.endswith("href") or value.startswith("#")
        assert b"<script" not in svg
        assert any("<script>" in text for text in texts(svg))


def test_make__light_and_dark_differ_and_nothing_else_changes(chart: Chart) -> None:
    assert texts(chart.light) == texts(chart.dark)
    assert LIGHT.paper in chart.light.decode()
    assert LIGHT.paper not in chart.dark.decode()
    assert DARK.paper in chart.dark.decode()


def test_make__no_name_is_hidden_or_read_as_a_formula() -> None:
    found = texts(make("n", "t", "a", DRAWS["lines"]()).light)
    assert [text.strip() for text in found if "hidden" in text or text == "$y$"] == ["$y$", "_hidden_"]


def test_make__draws_the_same_twice() -> None:
    assert make("n", "t", "a", DRAWS["lines"]()) == make("n", "t", "a", DRAWS["lines"]())


def test_make__a_longer_legend_takes_nothing_from_the_chart() -> None:
    def height(count: int) -> float:
        curves = [Curve(f"a rather long name {n}", Look(number=n), [1, 2], [1, 2]) for n in range(count)]
        found = re.search(rb'height="([\d.]+)pt"', make("n", "t", "a", lines(curves, x="x", y="y")).light)
        assert found is not None
        return float(found[1])

    assert height(8) > height(1) + 70


def luminance(color: str) -> float:
    """Relative luminance by WCAG 2.2."""
    parts = [int(color[n : n + 2], 16) / 255 for n in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("theme", [LIGHT, DARK], ids=["light", "dark"])
def test_themes__stand_out_from_the_page(theme: object) -> None:
    def contrast(color: str) -> float:
        high, low = sorted((luminance(color), luminance(theme.paper)), reverse=True)  # type: ignore[attr-defined]
        return (high + 0.05) / (low + 0.05)

    for color in theme.series:  # type: ignore[attr-defined]
        assert contrast(color) >= 3
    for color in (theme.ink, theme.muted):  # type: ignore[attr-defined]
        assert contrast(color) >= 4.5


def test_look__recipes_beyond_the_palette_still_differ() -> None:
    looks = [Look(number=n) for n in range(12)]
    assert len({(look.color(LIGHT), look.marker, look.dashes) for look in looks}) == 12


def test_shortened__keeps_both_ends() -> None:
    assert shortened("short") == "short"
    assert shortened("a" * 30 + "z" * 30, 10) == "aaaaa…zzzz"
    assert shortened("_x") == " _x"
    assert shortened("two\nlines") == "two lines"


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([1e-6, 1e3], {"10⁻⁶", "10⁻⁴", "0.01", "1", "100"}),
        ([2e6, 9e8], {"10⁷", "10⁸"}),
        ([2.0, 70.0], {"10", "3", "20", "60"}),  # one power of ten within, so numbers between are shown too
        ([3.0, 5000.0], {"10", "100", "1000"}),
    ],
)
def test_lines__ticks_over_decades_are_plain_text(values: list[float], expected: set[str]) -> None:
    chart = make("n", "t", "a", lines([Curve("a", Look(), [1, 2], values)], x="x", y="y", log=True))
    for svg in (chart.light, chart.dark):
        assert expected <= set(texts(svg))
        assert not any("mathdefault" in text or "$" in text or "\\" in text for text in texts(svg))


def test_power_of_ten() -> None:
    found = [power_of_ten(value) for value in (0.0, 0.001, 0.25, 9999, 10000, 2.5e-7, -3e6)]
    assert found == ["0", "0.001", "0.25", "9999", "10⁴", "2.5×10⁻⁷", "-3×10⁶"]
