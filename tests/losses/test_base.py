from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from ultralytics.utils.loss import v8DetectionLoss
from ultralytics.utils.ops import xywhr2xyxyxyxy
from ultralytics.utils.tal import dist2bbox, dist2rbox, make_anchors

from tests.helpers.steps import GRID, STRIDES, gradient, make_step
from yolokd.losses.base import ANGLES, Grid, Head, adapters

CPU = torch.device("cpu")


def test_grid__places_cut_the_anchors_into_levels() -> None:
    anchors = list(range(GRID.anchors))
    assert [anchor for level in GRID.shapes for anchor in anchors[GRID.places(level)]] == anchors
    assert GRID.places("p4") == slice(96, 120)
    with pytest.raises(KeyError, match="p6"):
        GRID.places("p6")


def test_grid__spread_puts_each_cell_at_its_anchor() -> None:
    maps = {level: torch.rand(2, *shape, requires_grad=True) for level, shape in GRID.shapes.items()}
    spread = GRID.spread({level: maps[level] for level in ("p5", "p3")})
    assert spread.shape == (2, GRID.anchors)
    assert torch.equal(spread[:, GRID.places("p3")].view(2, 8, 12), maps["p3"])
    assert torch.equal(spread[:, GRID.places("p5")].view(2, 2, 3), maps["p5"])
    assert not spread[:, GRID.places("p4")].any()
    assert gradient(spread, maps["p3"]).eq(1).all()


def test_grid__centers_equal_those_of_ultralytics() -> None:
    points, strides = GRID.centers(CPU)
    features = [torch.empty(1, 1, *shape) for shape in GRID.shapes.values()]
    theirs, their_strides = make_anchors(features, torch.tensor(list(STRIDES.values())), 0.5)
    assert torch.equal(points, theirs * their_strides)
    assert torch.equal(strides, their_strides)


def ultralytics_boxes(raw: Tensor, grid: Grid, bins: int) -> Tensor:
    """Decode with the criterion of Ultralytics, without building a model for it."""
    criterion: Any = v8DetectionLoss.__new__(v8DetectionLoss)
    criterion.use_dfl = bins > 1
    criterion.proj = torch.arange(bins, dtype=torch.float)
    features = [torch.empty(1, 1, *shape) for shape in grid.shapes.values()]
    anchors, strides = make_anchors(features, torch.tensor(list(grid.strides.values())), 0.5)
    boxes: Tensor = criterion.bbox_decode(anchors, raw) * strides
    return boxes


@pytest.mark.parametrize("bins", [1, 16])
def test_head__boxes_equal_those_of_ultralytics(bins: int) -> None:
    raw = torch.randn(2, 4 * bins, GRID.anchors, dtype=torch.float64).transpose(1, 2)  # as the head lays it out
    head = Head(torch.empty(2, GRID.anchors, 3), raw, GRID)
    assert head.bins == bins
    torch.testing.assert_close(head.boxes, ultralytics_boxes(raw, GRID, bins), rtol=1e-12, atol=1e-10)


def test_head__plain_distances_are_counted_in_cells() -> None:
    raw = torch.rand(1, GRID.anchors, 4)
    points, strides = GRID.centers(CPU)
    boxes = Head(torch.empty(1, GRID.anchors, 3), raw, GRID).boxes
    torch.testing.assert_close(boxes, dist2bbox(raw * strides, points, xywh=False))


def rotated_head(bins: int) -> Head:
    numbers = torch.Generator().manual_seed(bins)
    raw = torch.randn(2, GRID.anchors, 4 * bins, generator=numbers, dtype=torch.float64)
    angles = torch.randn(2, GRID.anchors, 1, generator=numbers, dtype=torch.float64)
    return Head(torch.zeros(2, GRID.anchors, 3), raw, GRID, {ANGLES: angles})


@pytest.mark.parametrize("bins", [1, 16])
def test_head__rotated_boxes_equal_those_of_ultralytics(bins: int) -> None:
    head = rotated_head(bins)
    points, strides = GRID.centers(CPU)
    distances = head.distribution[..., 0]
    if bins > 1:
        distances = (head.distribution.softmax(-1) * torch.arange(bins)).sum(-1)
    theirs = dist2rbox(distances * strides, head.extras[ANGLES], points.double())
    assert head.rotated is not None
    torch.testing.assert_close(head.rotated, torch.cat((theirs, head.extras[ANGLES]), -1))


@pytest.mark.parametrize("bins", [1, 16])
def test_head__boxes_of_rotated_ones_are_the_rectangles_around_them(bins: int) -> None:
    head = rotated_head(bins)
    assert head.rotated is not None
    corners = xywhr2xyxyxyxy(head.rotated)
    torch.testing.assert_close(head.boxes, torch.cat((corners.amin(-2), corners.amax(-2)), -1))
    image, anchor = torch.tensor([1, 0, 1]), torch.tensor([5, 100, GRID.anchors - 1])
    torch.testing.assert_close(head.boxes_at(image, anchor), head.boxes[image, anchor])


def test_head__without_angles_nothing_is_rotated() -> None:
    (branch,) = make_step().branches
    assert branch.student.rotated is None


def test_head_at__angles_go_with_their_anchors() -> None:
    head = rotated_head(16)
    part = head.at(("p4",)).rotated
    assert head.rotated is not None
    assert part is not None
    torch.testing.assert_close(part, head.rotated[:, GRID.places("p4")])


def test_head__distribution_holds_the_bins_of_each_side() -> None:
    raw = torch.arange(2.0 * GRID.anchors * 12).view(2, GRID.anchors, 12).half()
    distribution = Head(torch.empty(2, GRID.anchors, 1), raw, GRID).distribution
    assert distribution.dtype == torch.float32
    assert torch.equal(distribution[1, 7, 2], raw[1, 7, 6:9].float())


def test_head__autocast_does_not_change_the_boxes() -> None:
    raw = torch.randn(2, GRID.anchors, 64)
    outside = Head(torch.empty(2, GRID.anchors, 1), raw, GRID).boxes
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = Head(torch.empty(2, GRID.anchors, 1), raw, GRID).boxes
    assert torch.equal(inside, outside)


def test_adapters__a_convolution_only_where_channels_differ() -> None:
    parts = adapters(("p3", "p5"), {"p3": 4, "p4": 1, "p5": 8}, {"p3": 4, "p4": 2, "p5": 16})
    assert list(parts) == ["p3", "p5"]
    assert isinstance(parts["p3"], nn.Identity)
    assert parts["p5"](torch.zeros(1, 8, 2, 3)).shape == (1, 16, 2, 3)
    assert [tuple(p.shape) for p in parts.parameters()] == [(16, 8, 1, 1), (16,)]


@pytest.mark.parametrize("levels", [("p4",), ("p3", "p5"), ("p5", "p4")])
def test_head_at__is_what_the_head_says_there(levels: tuple[str, ...]) -> None:
    (branch,) = make_step().branches
    head, part = branch.student, branch.student.at(levels)
    kept = [a for level in GRID.shapes if level in levels for a in range(GRID.anchors)[GRID.places(level)]]
    assert torch.equal(part.logits, head.logits[:, kept])
    assert torch.equal(part.distribution, head.distribution[:, kept])
    torch.testing.assert_close(part.boxes, head.boxes[:, kept])
    assert part.grid.anchors == len(kept)
    assert head.at(("p5", "p4", "p3", "p2")) is head
