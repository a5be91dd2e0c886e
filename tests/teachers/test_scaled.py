from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from tests.helpers.models import batch, detector
from yolokd.backend.heads import as_head, raw_of, split_branches
from yolokd.losses.base import Grid
from yolokd.teachers.base import Offer, Teacher, TeacherOutput
from yolokd.teachers.detector import DetectorTeacher
from yolokd.teachers.scaled import ScaledTeacher, candidates, choose, scaled_offer
from yolokd.teachers.several import SeveralTeacher

STRIDES = {"p3": 8, "p4": 16, "p5": 32}
FINE = Grid({"p3": (16, 24), "p4": (8, 12), "p5": (4, 6)}, STRIDES)  # 128 × 192 px
GRID = Grid({"p3": (8, 12), "p4": (4, 6), "p5": (2, 3)}, STRIDES)  # 64 × 96 px
IMAGES = torch.zeros(2, 3, 128, 192)
COARSER = {"p3": "p4", "p4": "p5"}
LEVELS = tuple(GRID.shapes)


class Saying(Teacher):
    """A teacher with a fixed answer."""

    def __init__(self, raw: dict[str, Any], features: dict[str, Tensor] | None = None) -> None:
        super().__init__()
        self.offer, self.dtype = Offer({"p3": 4, "p4": 8, "p5": 16}, ("one2many",), 1), torch.float32
        self.raw, self.features = raw, features or {}
        self.asked: list[tuple[str, ...]] = []

    def forward(self, images: Tensor, *, head: bool = True, levels: tuple[str, ...] = ()) -> TeacherOutput:
        self.asked.append(levels)
        return TeacherOutput({level: self.features[level] for level in levels}, self.raw if head else None)


def answer(classes: int = 3, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Random logits and boxes on the teacher's grid."""
    generator = torch.Generator().manual_seed(seed)
    corners = torch.rand(2, FINE.anchors, 2, 2, generator=generator, dtype=torch.float64) * 100
    boxes = torch.cat((corners.amin(2), corners.amax(2)), -1)
    return torch.randn(2, FINE.anchors, classes, generator=generator, dtype=torch.float64), boxes


def slow(logits: Tensor, boxes: Tensor, classes: list[int]) -> tuple[Tensor, Tensor]:
    """The choice of cells as the docstring says it, one cell after the other; boxes in the student's pixels."""
    chosen, found = [], []
    for image in range(len(logits)):
        for level, (height, width) in GRID.shapes.items():
            for row in range(height):
                for column in range(width):
                    places = []
                    if level in COARSER:
                        wide = FINE.shapes[COARSER[level]][1]
                        places.append(FINE.places(COARSER[level]).start + row * wide + column)
                    wide = FINE.shapes[level][1]
                    places += [
                        FINE.places(level).start + (2 * row + below) * wide + 2 * column + right
                        for below in (0, 1)
                        for right in (0, 1)
                    ]
                    best = max(places, key=lambda place: max(float(logits[image, place, k]) for k in classes))
                    chosen.append(logits[image, best])
                    found.append(boxes[image, best] / 2)
    return (torch.stack(part).view(len(logits), GRID.anchors, -1) for part in (chosen, found))  # type: ignore[return-value]


@pytest.mark.parametrize("classes", [None, [0, 2]])
def test_scaled__equals_a_slow_loop(classes: list[int] | None) -> None:
    logits, boxes = answer()
    raw = ScaledTeacher(Saying(raw_of(logits, boxes, FINE)), LEVELS, classes)(IMAGES).raw
    assert raw is not None
    head = as_head(raw, GRID, None)
    wanted, wanted_boxes = slow(logits, boxes, classes or [0, 1, 2])
    assert torch.equal(head.logits, wanted)
    torch.testing.assert_close(head.boxes, wanted_boxes, atol=1e-9, rtol=0)


def test_scaled__a_constant_map_stays_constant() -> None:
    logits = torch.full((2, FINE.anchors, 3), 0.25)
    boxes = torch.tensor([20.0, 40, 60, 100]).expand(2, FINE.anchors, 4)
    raw = ScaledTeacher(Saying(raw_of(logits, boxes, FINE)), LEVELS)(IMAGES).raw
    assert raw is not None
    assert raw["scores"].shape == (2, 3, GRID.anchors)
    assert raw["boxes"].shape == (2, 4, GRID.anchors)
    assert raw["scores"].eq(0.25).all()
    torch.testing.assert_close(as_head(raw, GRID, None).boxes, boxes[:, : GRID.anchors] / 2)


@pytest.mark.parametrize(
    ("level", "row", "column", "reached"),
    [
        ("p3", 5, 9, [("p3", 2, 4)]),
        ("p4", 5, 9, [("p3", 5, 9), ("p4", 2, 4)]),
        ("p5", 3, 4, [("p4", 3, 4), ("p5", 1, 2)]),
    ],
)
def test_scaled__one_hot_cell_reaches_the_cells_at_its_place(
    level: str, row: int, column: int, reached: list[tuple[str, int, int]]
) -> None:
    logits = torch.full((2, FINE.anchors, 3), -5.0)
    logits[1, FINE.places(level).start + row * FINE.shapes[level][1] + column, 2] = 4.0
    boxes = torch.tensor([20.0, 40, 60, 100]).expand(2, FINE.anchors, 4)
    raw = ScaledTeacher(Saying(raw_of(logits, boxes, FINE)), LEVELS)(IMAGES).raw
    assert raw is not None
    hot = {tuple(place) for place in (raw["scores"] > 0).nonzero().tolist()}
    assert hot == {(1, 2, GRID.places(one).start + y * GRID.shapes[one][1] + x) for one, y, x in reached}


def test_candidates__cover_the_teachers_cells_by_centers() -> None:
    points, strides = FINE.centers(torch.device("cpu"))
    own, own_strides = GRID.centers(torch.device("cpu"))
    cells = candidates(FINE, LEVELS)
    assert cells.shape == (GRID.anchors, 5)
    inside = ((points[cells] / 2 - own[:, None]).abs() < own_strides[:, None] / 2).all(-1)
    assert inside.all()
    same, levels = own_strides.squeeze(1) < 32, strides[cells, 0]
    assert (levels[same, 0] == 2 * own_strides[same, 0]).all()
    assert (levels[:, 1:] == own_strides).all()


def test_choose__equal_scores_give_the_first_candidate() -> None:
    logits, boxes = answer()
    cells = candidates(FINE, LEVELS)
    picked, _ = choose(torch.zeros(2, FINE.anchors), logits, boxes, cells)
    assert torch.equal(picked, logits[:, cells[:, 0]])


def test_scaled__features_move_down_by_one_level() -> None:
    features = {level: torch.rand(2, 4, *shape) for level, shape in FINE.shapes.items()}
    inner = Saying({}, features)
    output = ScaledTeacher(inner, LEVELS)(IMAGES, head=False, levels=("p3", "p4"))
    assert inner.asked == [("p4", "p5")]
    assert output.raw is None
    assert output.features["p3"] is features["p4"]
    assert output.features["p4"] is features["p5"]
    assert output.features["p3"].shape[-2:] == GRID.shapes["p3"]


def test_scaled_offer__has_no_p5_no_distributions_and_no_attack() -> None:
    offer = scaled_offer(Offer({"p3": 4, "p4": 8, "p5": 16}, ("one2many", "one2one"), 16), LEVELS)
    assert offer == Offer({"p3": 8, "p4": 16}, ("one2many", "one2one"), 1, LEVELS, attackable=False)


@pytest.mark.parametrize("family", ["v8", "26"])
def test_scaled__a_detector_answers_with_all_its_branches(family: str) -> None:
    inner = DetectorTeacher(detector(family))
    images = batch(imgsz=128)["img"]
    raw = ScaledTeacher(inner, LEVELS)(images).raw
    assert raw is not None
    assert len(split_branches(raw)) == len(inner.offer.branches)
    fine = Grid({"p3": (16, 16), "p4": (8, 8), "p5": (4, 4)}, STRIDES)
    grid = Grid({"p3": (8, 8), "p4": (4, 4), "p5": (2, 2)}, STRIDES)
    direct = inner(images).raw
    assert direct is not None
    for name, branch in split_branches(raw).items():
        head, own = as_head(branch, grid, None), as_head(split_branches(direct)[name], fine, None)
        scores = own.logits.amax(-1)[:, candidates(fine, LEVELS)]
        assert torch.equal(head.logits.amax(-1), scores.amax(-1))
        assert not head.logits.requires_grad


def test_scaled__takes_several_teachers() -> None:
    detectors = [DetectorTeacher(detector("v8", seed=seed)) for seed in (0, 1)]
    several = SeveralTeacher(detectors, [{0: "a", 1: "b", 2: "c"}, {0: "c", 1: "d", 2: "e"}])
    output = ScaledTeacher(several, LEVELS)(batch(imgsz=128)["img"], levels=("p4",))
    assert output.raw is not None
    assert output.raw["scores"].shape == (2, 5, 84)
    assert output.features["p4"].shape[-2:] == (4, 4)


@pytest.mark.parametrize(
    ("student", "teacher", "levels", "features"),
    [
        (("p2", "p3", "p4", "p5"), ("p3", "p4", "p5"), ("p2", "p3", "p4", "p5"), ("p2", "p3", "p4")),
        (("p3", "p4", "p5"), ("p2", "p3", "p4", "p5"), ("p3", "p4", "p5"), ("p3", "p4")),
        (("p3", "p4", "p5"), ("p4", "p5", "p6"), ("p3", "p4", "p5"), ("p3", "p4", "p5")),
        (("p2", "p3"), ("p3",), ("p2", "p3"), ("p2",)),
        (("p5", "p6"), ("p3", "p4"), (), ()),
    ],
)
def test_scaled_offer__of_other_levels(
    student: tuple[str, ...], teacher: tuple[str, ...], levels: tuple[str, ...], features: tuple[str, ...]
) -> None:
    offer = scaled_offer(Offer(dict.fromkeys(teacher, 4), ("one2many",), 16), student)
    assert (offer.levels, tuple(offer.widths)) == (levels, features)


@pytest.mark.parametrize("teacher", [("p2", "p3", "p4", "p5"), ("p3", "p4", "p5"), ("p4", "p5", "p6")])
def test_candidates__are_the_cells_of_the_same_place_whatever_the_levels(teacher: tuple[str, ...]) -> None:
    images, student = torch.zeros(1, 3, 128, 192), ("p2", "p3", "p4", "p5")
    fine, inner = Grid.of_images(images, teacher), Offer(dict.fromkeys(teacher, 4), ("one2many",), 16)
    levels = scaled_offer(inner, student).levels
    own = Grid.of_images(torch.zeros(1, 3, 64, 96), levels)
    cells = candidates(fine, levels)
    centers, strides = own.centers(torch.device("cpu"))
    points, pixels = fine.centers(torch.device("cpu"))
    for anchor in range(own.anchors):
        inside = ((points / 2 - centers[anchor]).abs() < strides[anchor] / 2).all(1)  # in the student's pixels
        near = {float(strides[anchor]), 2 * float(strides[anchor])}  # strides of the level itself and of the coarser
        wanted = {int(a) for a in inside.nonzero().flatten() if float(pixels[a]) in near}
        assert set(cells[anchor].tolist()) == wanted
