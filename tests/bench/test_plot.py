from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import pytest

from tests.helpers.benching import cost, report
from yolokd.bench.plot import bars_of, draw, title_of


def test_bars_of__are_as_long_as_the_steps() -> None:
    bars = {name: (segments, floor) for name, segments, floor in bars_of(report())}
    assert list(bars) == ["plain training", "mine", "built-in distiller"]
    lengths = {name: sum(segment.milliseconds for segment in segments) for name, (segments, _) in bars.items()}
    assert lengths == pytest.approx({"plain training": 100, "mine": 180, "built-in distiller": 200})
    assert [floor for _, floor in bars.values()] == [0, 150, 0]
    mine = [(s.name, s.milliseconds, bool(s.hatch)) for s in bars["mine"][0]]
    assert mine == [
        ("student's step", 100, False),
        ("teacher's pass", 50, False),
        ("ssim", 3, False),
        ("ssim", 5, True),
        ("aid", 2, False),
        ("ikd", 7.5, False),
        ("ikd", 2.5, True),
        ("everything else", 10, False),
    ]


def test_bars_of__parts_that_ran_faster_together_are_shrunk() -> None:
    whole = report()
    quick = replace(whole, recipes=(replace(whole.recipes[0], step=cost(160.0)),))
    segments = next(segments for name, segments, _ in bars_of(quick) if name == "mine")
    assert sum(s.milliseconds for s in segments) == pytest.approx(160)
    assert segments[-1].milliseconds == 0
    assert segments[0].milliseconds == pytest.approx(100 * 160 / 170)


def test_title_of__says_what_and_where() -> None:
    assert title_of(report(scratch=("teacher", "student"))) == [
        "large.pt → small.pt, 64 px, batch 2, float32; random weights: teacher, student",
        "a processor, 1 thread, torch 2, 3 rounds in alternation",
    ]
    assert "thread" not in title_of(report(device="cuda:0"))[1]


def test_draw__writes_an_image_and_nothing_else(tmp_path: Path) -> None:
    draw(report(), tmp_path / "speed.png")
    assert [path.name for path in tmp_path.iterdir()] == ["speed.png"]
    image = cv2.imread(str(tmp_path / "speed.png"))
    assert image is not None
    colors = {tuple(int(v) for v in pixel) for pixel in image[::2, ::2].reshape(-1, 3)}
    wanted = {"student's step": (0xA7, 0x79, 0x4E), "teacher's pass": (0x2B, 0x8E, 0xF2), "rest": (0xAC, 0xB0, 0xBA)}
    assert set(wanted.values()) <= colors
