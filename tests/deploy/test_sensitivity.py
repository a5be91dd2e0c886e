from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tests.helpers.sensitivity import examined
from yolokd.deploy.sensitivity import Trial, mean_difference, measure, outcome


def raw(*places: tuple[float, float, float, float, float, float]) -> Tensor:
    """Center x, center y, width, height and two scores of each place, (6, A)."""
    return torch.tensor(places).T


REFERENCE = raw((10, 10, 4, 4, 0.9, 0.1), (30, 30, 8, 8, 0.1, 0.25), (50, 50, 9, 9, 0.2, 0.1))
EXPORTED = raw((10, 12, 4, 6, 0.7, 0.9), (31, 30, 8, 8, 0.1, 0.15), (500, 500, 90, 90, 0.9, 0.9))
TRIAL = Trial([(REFERENCE.repeat(1, 3), EXPORTED.repeat(1, 3))], examined([0.9, 0.8]), 1000)


def test_mean_difference__is_over_confident_places_only() -> None:
    box_px, score = mean_difference([(REFERENCE.repeat(1, 3), EXPORTED.repeat(1, 3))])
    assert box_px == pytest.approx((1.0 + 0.25) / 2)
    assert score == pytest.approx((0.2 + 0.1) / 2)


def test_mean_difference__none_without_a_confident_place() -> None:
    assert mean_difference([(REFERENCE[:, 2:].repeat(1, 3), EXPORTED[:, 2:].repeat(1, 3))]) == (None, None)


def test_mean_difference__of_an_output_without_nms_is_to_the_nearest_row_of_the_class() -> None:
    ours = torch.tensor([[0, 0, 10, 10, 0.9, 0], [5, 5, 9, 9, 0.8, 1], [5, 5, 9, 9, 0.5, 2], [1, 1, 2, 2, 0.1, 0]])
    theirs = torch.tensor(
        [[0, 0, 10, 10, 0.9, 1], [5, 5, 9, 13, 0.6, 1], [2, 0, 10, 10, 0.8, 0], [0, 0, 50, 10, 0.9, 0]]
    )
    box_px, score = mean_difference([(ours, theirs)])
    assert box_px == pytest.approx((0.5 + 1.0) / 2)  # the class 2 is not found again
    assert score == pytest.approx((0.1 + 0.2) / 2)


def test_outcome__has_the_largest_differences_beside_the_means() -> None:
    found = outcome(TRIAL)
    assert found.most_box_px == pytest.approx(450)
    assert found.most_score == pytest.approx(0.8)
    assert found.AP == TRIAL.examined.score.AP
    assert (found.bytes, found.latency_ms) == (1000, 1.5)


def test_measure__sorts_by_gain_and_gives_the_interval_of_the_paired_difference() -> None:
    scores = {"stem": [0.9, 0.8], "neck": [0.9, 0.8, 0.7, 0.6], "head.cls": [0.9]}
    asked: list[str] = []

    def attempt(part: str) -> Trial:
        asked.append(part)
        return Trial(TRIAL.pairs, examined(scores[part]), 2000)

    found = measure(TRIAL, list(scores), attempt)
    assert asked == ["stem", "neck", "head.cls"]
    assert [effect.part for effect in found.parts] == ["neck", "stem", "head.cls"]
    neck, stem, cls = found.parts
    assert stem.ap_gain == 0
    assert stem.ap_interval == (0.0, 0.0)
    assert neck.ap_gain == pytest.approx(neck.outcome.AP - found.whole.AP)
    assert neck.ap_gain > 0 > cls.ap_gain
    assert neck.ap_interval[0] <= neck.ap_gain <= neck.ap_interval[1]
    assert neck.outcome.bytes == 2000
