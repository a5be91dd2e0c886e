"""Looks of a comparison that adds seeds, and what is undecided at one of them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.helpers.comparing import leave_results
from yolokd.comparison.results import Results, results
from yolokd.comparison.spec import Comparison, opened
from yolokd.comparison.stopping import looks, missing_pairs, undecided


def finish(plan: Comparison, **gains: float) -> None:
    """Leave the results of seeds 0, 1, … with these gains over a baseline of 0.2."""
    for seed, gain in enumerate(gains.values()):
        leave_results(plan.folder, f"student/baseline-{seed}", 0.2)
        leave_results(plan.folder, f"student/bckd-{seed}", 0.2 + gain)


@pytest.fixture
def four(plan: Comparison) -> Comparison:
    with opened(replace(plan, seeds=(0, 1, 2, 3), sequential=True)) as comparison:
        return comparison


def seen(four: Comparison, count: int) -> Results:
    return results(replace(four, seeds=four.seeds[:count]))


def test_looks__begin_with_two_seeds_or_with_all_that_are_complete(four: Comparison) -> None:
    assert [look.seeds for look in looks(four)] == [(0, 1), (0, 1, 2), (0, 1, 2, 3)]
    finish(four, a=0.01, b=0.01, c=0.02)
    assert [look.seeds for look in looks(four)] == [(0, 1, 2), (0, 1, 2, 3)]
    (four.folder / "student/bckd-1/score.json").unlink()
    assert [len(look.seeds) for look in looks(four)] == [2, 3, 4]


def test_undecided__by_the_sign_or_the_width(four: Comparison) -> None:
    finish(four, a=0.01, b=0.012, c=0.011)  # 0.011 ± 10.41 · 0.001 / √3
    assert undecided(seen(four, 2)) == [("student", "bckd")]
    assert undecided(seen(four, 3)) == []
    finish(four, a=0.001, b=0.003, c=0.002)  # 0.002 ± 0.00601
    assert undecided(seen(four, 3)) == [("student", "bckd")]
    assert undecided(seen(four, 3), precision=0.0060) == [("student", "bckd")]
    assert undecided(seen(four, 3), precision=0.0061) == []
    assert undecided(seen(four, 1), precision=1.0) == [("student", "bckd")]  # one seed has no interval


def test_undecided__by_boxes_and_masks(four: Comparison) -> None:
    masks = replace(four, task="segment", seeds=four.seeds[:3])
    for seed, gain in enumerate((0.01, 0.012, 0.011)):
        leave_results(four.folder, f"student/baseline-{seed}", 0.2, 0.1)
        leave_results(four.folder, f"student/bckd-{seed}", 0.2 + gain, 0.1 + (-gain if seed else gain))
    assert undecided(results(replace(masks, task="detect"))) == []
    assert undecided(results(masks)) == [("student", "bckd")]
    assert undecided(results(masks), precision=1.0) == []


def test_missing_pairs__names_seeds_without_a_pair(four: Comparison) -> None:
    finish(four, a=0.01, b=0.01)
    leave_results(four.folder, "student/baseline-2", 0.2)
    assert missing_pairs(four, seen(four, 4)) == {("student", "baseline"): [3], ("student", "bckd"): [2, 3]}
    two = replace(four, seeds=(0, 1))
    assert missing_pairs(two, results(two)) == {}
