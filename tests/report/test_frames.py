from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from yolokd.evaluation.matches import Matches
from yolokd.evaluation.models import ModelScore
from yolokd.report.frames import Cast, accumulator, choose, frames
from yolokd.report.scoring import Finding, ScoredImages

SCORE = ModelScore("m", "m.pt", 0, 0, 0, 0, 0, 0, 1, 1.0, 1.0, 64, {})
FAR = [500.0, 500.0, 9.0, 9.0]


def box(place: int, slot: int, **more: Any) -> dict[str, Any]:
    """The object number `slot` of an image, apart from all others."""
    return {"image_id": place, "category_id": 0, "bbox": [30.0 * slot, 0.0, 20.0, 20.0], **more}


def images(counts: list[int]) -> ScoredImages:
    objects = [box(place, slot) for place, count in enumerate(counts) for slot in range(count)]
    files = tuple(Path(f"{n}.jpg") for n in range(len(counts)))
    return ScoredImages("d.yaml", {0: "car"}, files, tuple(objects), (), frozenset({"w"}), "f")


def finding(right: list[int], false: list[int]) -> Finding:
    boxes = [box(place, slot, score=0.9, right=True) for place, n in enumerate(right) for slot in range(n)]
    boxes += [box(place, 0, score=0.5, right=False) | {"bbox": FAR} for place, n in enumerate(false) for _ in range(n)]
    return Finding(SCORE, {}, 0.5, boxes, Matches(2, ()))


def test_choose__where_student_and_baseline_differ_most_in_f1_in_either_direction() -> None:
    data = images([2, 2, 4, 0, 2])
    plain = finding([2, 0, 0, 0, 1], [0, 0, 0, 0, 0])  # F1: 1, 0, 0, –, 2/3
    student = finding([1, 0, 4, 0, 2], [0, 3, 0, 5, 0])  # F1: 2/3, 0, 1, –, 1
    cast = Cast({"teacher": finding([0] * 5, [0] * 5), "baseline": plain, "student": student})
    assert cast.pair == ("baseline", "student")
    assert choose(data, cast) == [2, 0, 4]  # of equals the earlier; 1 is the same, 3 has no objects
    assert choose(data, cast, count=1) == [2]


def test_choose__of_equals_the_fuller_image_comes_first() -> None:
    data = images([1, 3, 2])
    cast = Cast({"a": finding([0, 0, 0], [0, 0, 0]), "b": finding([1, 3, 2], [0, 0, 0])})
    assert choose(data, cast) == [1, 2, 0]


def test_choose__a_single_model_is_shown_where_it_is_worst() -> None:
    data = images([2, 2, 2])
    assert choose(data, Cast({"a": finding([2, 0, 1], [0, 0, 0])})) == [1, 2]


def test_tally__per_image() -> None:
    data = images([2, 0, 1])
    counts = accumulator(data, finding([1, 0, 1], [0, 2, 1]))
    assert [(c.right, c.false, c.missed) for c in counts] == [(1, 0, 1), (0, 2, 0), (1, 1, 0)]
    assert [c.f1 for c in counts] == [pytest.approx(2 / 3), 0, pytest.approx(2 / 3)]


def test_frames__say_what_is_missed() -> None:
    data = images([3])
    (frame,) = frames(data, Cast({"a": finding([2], [1])}), [0])
    (shown,) = frame.shown
    assert frame.counts == {"car": 3}
    assert [m["bbox"] for m in shown.missed] == [box(0, 2)["bbox"]]
    assert (shown.accumulator.right, shown.accumulator.false, shown.accumulator.missed) == (2, 1, 1)
