from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torchvision.ops import box_iou

from tests.helpers.waits import Waits
from yolokd.errors import ShapeError
from yolokd.losses.instances import confident_anchors, mean_map, pairwise_iou, pick


def boxes(count: int, seed: int = 0) -> Tensor:
    corners = torch.rand(2, count, 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 20
    return torch.cat((corners.amin(0), corners.amax(0)), 1)


def test_pairwise_iou__equals_torchvision() -> None:
    both = torch.stack((boxes(20), boxes(20, 1)))
    torch.testing.assert_close(pairwise_iou(both), torch.stack([box_iou(one, one) for one in both]))
    assert pairwise_iou(torch.zeros(1, 2, 4)).eq(0).all()


@pytest.mark.parametrize("iou", [0.2, 0.7, 1.0])
def test_confident_anchors__equal_a_slow_loop(iou: float) -> None:
    scores = torch.rand(2, 60, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    places = torch.stack((boxes(60), boxes(60, 1)))
    anchors, taken = confident_anchors(scores, places, confidence=0.4, iou=iou, most=5)
    for image in range(2):
        order = scores[image].argsort(descending=True).tolist()
        overlaps = box_iou(places[image], places[image])
        kept = [
            one
            for rank, one in enumerate(order)
            if scores[image, one] >= 0.4 and not any(overlaps[one, better] > iou for better in order[:rank])
        ]
        assert anchors[image][taken[image]].tolist() == kept[:5]
        assert len(set(anchors[image].tolist())) == 5


def test_confident_anchors__none_and_fewer_anchors_than_instances() -> None:
    anchors, taken = confident_anchors(torch.full((1, 3), 0.1), boxes(3)[None], most=8)
    assert anchors.shape == (1, 3)
    assert not taken.any()


def test_confident_anchors__name_what_is_wrong() -> None:
    with pytest.raises(ShapeError, match=r"boxes \(B, A, 4\), got \(1, 3\) and \(1, 2, 4\)"):
        confident_anchors(torch.zeros(1, 3), torch.zeros(1, 2, 4))
    with pytest.raises(ValueError, match="most must be at least 1, got 0"):
        confident_anchors(torch.zeros(1, 3), torch.zeros(1, 3, 4), most=0)


def test_pick__rows_of_each_image() -> None:
    values, index = torch.randn(2, 5, 3), torch.tensor([[4, 0], [1, 1]])
    found = pick(values, index)
    for image in range(2):
        for slot in range(2):
            assert torch.equal(found[image, slot], values[image, index[image, slot]])


def test_mean_map__sums_to_the_mean_of_what_is_taken() -> None:
    values = torch.tensor([[1.0, 3.0, torch.inf], [7.0, 7.0, 7.0]])
    taken = torch.tensor([[True, True, False], [False, False, False]])
    with Waits() as waits:
        found = mean_map(values, torch.tensor([[5, 2, 0], [0, 1, 2]]), taken, 6)
    assert found.tolist() == [[0.0, 0.0, 1.5, 0.0, 0.0, 0.5], [0.0] * 6]
    assert waits.seen == []
