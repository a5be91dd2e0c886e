from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from yolokd.backend.tasks import Output
from yolokd.deploy.outputs import Outputs, gaps, split
from yolokd.deploy.parity import Gap

INF = float("inf")
COLUMNS, IMAGE = Output("coefficients", 0.01), Output("prototypes", 0.1, of_image=True)


def raw(seed: int = 0, anchors: int = 40, classes: int = 3, further: int = 4) -> Outputs:
    torch.manual_seed(seed)
    return split((torch.rand(4 + classes + further, anchors), torch.rand(further, 8, 8)), classes, final=False)


def rows() -> Outputs:
    """Two equal boxes with the same score and other coefficients among ten, falling scores."""
    torch.manual_seed(0)
    corner = 100 * torch.rand(10, 2)
    scores, classes = torch.linspace(0.9, 0.1, 10)[:, None], torch.zeros(10, 1)
    found = torch.cat((corner, corner + 30, scores, classes, torch.rand(10, 4)), 1)
    found[4, :6] = found[3, :6]
    return split((found,), 3, final=True)


def test_split__by_columns_and_tensors() -> None:
    first, prototypes = torch.arange(90.0).view(9, 10), torch.rand(2, 4, 4)
    found = split((first, prototypes), 3, final=False)
    assert torch.equal(found.boxes, first[:7])
    assert torch.equal(found.columns, first[7:].mT)
    assert found.of_image == (prototypes,)
    final = split((first,), 80, final=True)
    assert torch.equal(final.boxes, first[:, :6])
    assert torch.equal(final.columns, first[:, 6:])
    assert final.of_image == ()


@pytest.mark.parametrize(("shape", "final"), [((9, 10), False), ((10, 5), True), ((20,), False)])
def test_split__too_few_columns(shape: tuple[int, ...], final: bool) -> None:
    with pytest.raises(ValueError, match="holds no boxes and scores of 20 classes"):
        split((torch.zeros(shape),), 20, final=final)


def test_gaps__the_largest_over_all_images_and_their_limits() -> None:
    one, other = raw(0), raw(1)
    moved = Outputs(other.boxes, other.columns.clone(), (other.of_image[0].clone(),))
    moved.columns[7, 2] += 0.25
    moved.of_image[0][1, 2, 3] -= 0.05
    found = gaps([(one, one), (other, moved)], (COLUMNS, IMAGE))
    assert found == (
        Gap("coefficients", pytest.approx(0.25, abs=1e-6), 0.01),  # type: ignore[arg-type]
        Gap("prototypes", pytest.approx(0.05, abs=1e-6), 0.1),  # type: ignore[arg-type]
    )
    assert [gap.agrees for gap in found] == [False, True]


@pytest.mark.parametrize("broken", [(), (torch.full((4, 8, 8), float("nan")),), (torch.rand(4, 8, 9),)])
def test_gaps__missing_odd_and_infinite_outputs_never_agree(broken: tuple[Tensor, ...]) -> None:
    one = raw()
    (columns, image) = gaps([(one, replace(one, of_image=broken))], (COLUMNS, IMAGE))
    assert columns.most == 0
    assert image.most == INF
    assert not image.agrees
    (columns, _) = gaps([(one, replace(one, columns=one.columns[:, :-1]))], (COLUMNS, IMAGE))
    assert columns.most == INF


def test_gaps__rows_that_change_places_are_the_same() -> None:
    found = rows()
    order = [0, 1, 2, 4, 3, *range(5, 10)]  # the two equal ones
    other = Outputs(found.boxes[order], found.columns[order], ())
    assert gaps([(found, other)], (COLUMNS,))[0].most == 0
    changed = other.columns.clone()
    changed[3] += 0.5
    most = gaps([(found, replace(other, columns=changed))], (COLUMNS,))[0].most
    assert 0 < most <= 0.5 + 1e-6  # of its own row, or of the equal one
    away = found.boxes.clone()
    away[0, :4] += 50
    assert gaps([(found, replace(found, boxes=away))], (COLUMNS,))[0].most == INF


def test_gaps__an_output_that_the_task_does_not_list_is_an_error() -> None:
    one = raw()
    for outputs in ((), (IMAGE,), (COLUMNS,)):
        with pytest.raises(ValueError, match="has outputs that its task does not list"):
            gaps([(one, one)], outputs)
    boxes = raw(further=0)
    assert gaps([(replace(boxes, of_image=()), boxes)], ()) == ()


def test_gaps__the_last_row_may_be_another_of_equal_scores() -> None:
    found = rows()
    other = Outputs(found.boxes.clone(), found.columns.clone(), ())
    other.boxes[-1, :4], other.columns[-1] = 0, 9
    assert gaps([(found, other)], (COLUMNS,))[0].most == 0
