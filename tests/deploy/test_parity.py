from __future__ import annotations

import pytest
import torch
from torch import Tensor
from ultralytics.utils.nms import non_max_suppression

from yolokd.deploy.parity import Parity, compare, final_detections, pair_detections, raw_difference

INF = float("inf")


def _columns(boxes: list[list[float]], scores: list[float], classes: list[int], count: int = 3) -> Tensor:
    """A raw output (4 + K, A); boxes are center x, center y, width, height."""
    output = torch.zeros(4 + count, len(boxes))
    output[:4] = torch.tensor(boxes).T
    output[torch.tensor(classes) + 4, torch.arange(len(boxes))] = torch.tensor(scores)
    return output


def _random_columns(seed: int, anchors: int = 400, classes: int = 3) -> Tensor:
    torch.manual_seed(seed)
    boxes = torch.cat((torch.rand(2, anchors) * 300, torch.rand(2, anchors) * 80 + 20))
    return torch.cat((boxes, torch.rand(classes, anchors) ** 3))


def _rows(seed: int, count: int = 50) -> Tensor:
    """A final output (N, 6), falling scores."""
    torch.manual_seed(seed)
    corner = torch.rand(count, 2) * 300
    scores = torch.linspace(0.99, 0.01, count)[:, None]
    return torch.cat((corner, corner + torch.rand(count, 2) * 80 + 20, scores, torch.randint(3, (count, 1)).float()), 1)


@pytest.mark.parametrize("seed", range(3))
def test_final_detections__equals_ultralytics_nms(seed: int) -> None:
    output = _random_columns(seed)
    (expected,) = non_max_suppression(output[None].clone(), 0.25, 0.7, max_det=300, max_nms=30000)
    found = final_detections(output, 0.25)
    assert len(found) > 50
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)


def test_final_detections__of_a_final_output_are_its_rows_above_the_threshold() -> None:
    rows = _rows(0)
    assert torch.equal(final_detections(rows, 0.5), rows[rows[:, 4] >= 0.5])


def test_raw_difference__separates_pixels_from_scores() -> None:
    output = _random_columns(0)
    other = output.clone()
    other[2, 17] += 0.75
    other[5, 3] -= 0.125
    assert raw_difference(output, other) == pytest.approx((0.75, 0.125), abs=1e-5)
    assert raw_difference(output, output) == (0.0, 0.0)


@pytest.mark.parametrize("poison", [float("nan"), INF])
def test_raw_difference__is_infinite_where_a_number_is_not_finite(poison: float) -> None:
    output = _random_columns(0)
    other = output.clone()
    other[0, 0] = poison
    assert raw_difference(output, other) == (INF, INF)
    assert raw_difference(output, output[:, :-1]) == (INF, INF)


def test_raw_difference__of_final_outputs_ignores_the_order_of_ties_and_the_cut() -> None:
    rows = _rows(1)
    rows[10:13, 4] = rows[11, 4]
    rows[-3:, 4] = rows[-1, 4]
    other = rows.clone()
    other[10:13] = rows[[12, 10, 11]]
    other[-1, :4] = 0.0  # another of the equal ones made the cut
    assert raw_difference(rows, other) == (0.0, 0.0)


def test_raw_difference__of_final_outputs_sees_boxes_scores_and_classes() -> None:
    rows = _rows(2)
    moved = rows.clone()
    moved[5, 2] += 0.5
    assert raw_difference(rows, moved) == pytest.approx((0.5, 0.0), abs=1e-4)
    fainter = rows.clone()
    fainter[:, 4] -= 0.005
    assert raw_difference(rows, fainter)[1] == pytest.approx(0.005, abs=1e-6)
    renamed = rows.clone()
    renamed[:, 5] = 9
    assert raw_difference(rows, renamed)[0] == INF


@pytest.mark.parametrize(
    ("box", "score", "label", "paired"),
    [
        ([50.0, 50.0, 20.0, 20.0], 0.8, 0, 2),
        ([50.5, 50.0, 20.0, 20.0], 0.8, 0, 2),  # IoU 0.95
        ([52.0, 50.0, 20.0, 20.0], 0.8, 0, 0),  # IoU 0.82
        ([50.0, 50.0, 20.0, 20.0], 0.785, 0, 2),
        ([50.0, 50.0, 20.0, 20.0], 0.77, 0, 0),
        ([50.0, 50.0, 20.0, 20.0], 0.8, 1, 0),
    ],
)
def test_pair_detections__tolerances(box: list[float], score: float, label: int, paired: int) -> None:
    ours = _columns([[50.0, 50.0, 20.0, 20.0]], [0.8], [0])
    assert pair_detections(ours, _columns([box], [score], [label])) == (2, paired)


def test_pair_detections__partner_may_lie_just_below_the_threshold() -> None:
    box = [[50.0, 50.0, 20.0, 20.0]]
    assert pair_detections(_columns(box, [0.255], [0]), _columns(box, [0.245], [0])) == (1, 1)
    assert pair_detections(_columns(box, [0.26], [0]), _columns(box, [0.2], [0])) == (1, 0)


def test_pair_detections__is_one_to_one() -> None:
    rows = torch.tensor([[0.0, 0.0, 20.0, 20.0, 0.9, 1.0]])
    assert pair_detections(rows, rows.repeat(2, 1)) == (3, 2)
    assert pair_detections(rows.repeat(2, 1), rows) == (3, 2)


def test_pair_detections__nothing_found() -> None:
    faint = _columns([[50.0, 50.0, 20.0, 20.0]], [0.1], [0])
    assert pair_detections(faint, faint) == (0, 0)
    assert pair_detections(_columns([[50.0, 50.0, 20.0, 20.0]], [0.9], [0]), faint) == (1, 0)


def test_compare__takes_the_worst_image_and_all_detections() -> None:
    first, second = _random_columns(0), _random_columns(1)
    moved = second.clone()
    moved[0] += 0.25
    found = len(final_detections(first, 0.25)) + len(final_detections(second, 0.25))
    parity = compare([(first, first), (second, moved)])
    assert parity == Parity(2, pytest.approx(0.25, abs=1e-4), 0.0, 2 * found, 2 * found)  # type: ignore[arg-type]
    assert parity.agreement == 1.0
    assert parity.raw_agrees
    assert parity.detections_agree


@pytest.mark.parametrize(
    ("parity", "raw", "final"),
    [
        (Parity(1, 0.0, 0.0, 0, 0), True, True),
        (Parity(1, 0.6, 0.0, 0, 0), False, True),
        (Parity(1, 0.0, 0.02, 200, 199), False, True),
        (Parity(1, 0.0, 0.0, 200, 196), True, False),
        (Parity(1, float("nan"), 0.0, 0, 0), False, True),
    ],
)
def test_parity__verdicts(parity: Parity, raw: bool, final: bool) -> None:
    assert parity.raw_agrees is raw
    assert parity.detections_agree is final
