"""The figures: that they are there, whole, and say what they should."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from yolokd.inspection import plot as inspection_plot
from yolokd.inspection.fourier import HeatMap
from yolokd.inspection.images import LabeledImage
from yolokd.inspection.maps import AdversarialView, Boxes, Inspection, InstanceWeights, Levels, Term
from yolokd.inspection.panels import COLORS, amount, colors_of, foot_lines, padding, panels_of
from yolokd.inspection.plot import COLUMN, DPI, MARGIN, draw, shortened, wrapped

SIDE = 64


def levels(value: float = 1.0) -> Levels:
    rng = np.random.default_rng(0)
    return {name: value * rng.random((SIDE // s, SIDE // s)) for name, s in (("p3", 8), ("p4", 16), ("p5", 32))}


def image(area: tuple[int, int, int, int] = (0, 8, 64, 56)) -> LabeledImage:
    x1, y1, x2, y2 = area
    shown = np.random.default_rng(1).integers(0, 255, (4 * (y2 - y1), 4 * (x2 - x1), 3), dtype=np.uint8)
    return LabeledImage(Path("street $x$_1.jpg"), shown, torch.rand(1, 3, SIDE, SIDE), area, None)


def found(*names: str, scores: bool = True) -> Boxes:
    corners = np.array([[4.0 * i, 10, 4.0 * i + 20, 40] for i in range(len(names))]).reshape(-1, 4)
    return Boxes(corners, names, tuple(0.9 for _ in names) if scores else ())


def term(name: str = "ssim", **changes: Any) -> Term:
    return replace(Term(name, "Structural similarity.", 2.0, 0.5, levels(), trained=True), **changes)


@pytest.fixture
def view() -> Inspection:
    example = AdversarialView(
        np.full((SIDE, SIDE, 3), 3.0), 8, (1.0, 2.5), found("car"), np.zeros((SIDE, SIDE, 3), np.uint8)
    )
    return Inspection(
        image=image(),
        truth=found("car", "person", scores=False),
        teacher=found("car"),
        student=found("_odd $name$"),
        terms=(term(), term("bckd_cls"), term("fgd_channel", levels=None)),
        weights=InstanceWeights(levels(0.9), (0.5, 0.9), "instance", 0.1),
        example=example,
        frequencies=HeatMap(np.arange(225.0).reshape(15, 15), 1 / 16, 8 / 255),
    )


def test_draw__a_png_of_the_expected_size_that_is_not_blank(view: Inspection, tmp_path: Path) -> None:
    draw(view, tmp_path / "a.png", heading=["recipe x", "teacher y"], notes=["a note"])
    image = cv2.imread(str(tmp_path / "a.png"))
    assert image is not None
    assert image.shape[1] == round((4 * COLUMN + MARGIN) * DPI)
    assert len(np.unique(image.reshape(-1, 3).astype(int) @ [1 << 16, 1 << 8, 1])) > 1000
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


@pytest.mark.parametrize("area", [(0, 31, 64, 33), (31, 0, 33, 64), (0, 0, 64, 64)])
def test_draw__any_shape_of_photo(view: Inspection, tmp_path: Path, area: tuple[int, int, int, int]) -> None:
    draw(replace(view, image=image(area)), tmp_path / "a.png", heading=["recipe"])
    assert (tmp_path / "a.png").stat().st_size > 10_000


def test_draw__an_empty_map_and_no_boxes_at_all(view: Inspection, tmp_path: Path) -> None:
    nothing = {name: np.zeros_like(values) for name, values in levels().items()}
    bare = replace(view, truth=None, teacher=found(), student=found(), terms=(term(levels=nothing),), example=None)
    draw(bare, tmp_path / "a.png", heading=["recipe"])
    assert (tmp_path / "a.png").is_file()


def test_draw__an_image_that_fails_leaves_nothing(
    view: Inspection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(self: Path, target: Path) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(OSError, match="no space left"):
        draw(view, tmp_path / "a.png", heading=["recipe"])
    assert not list(tmp_path.iterdir())


def test_draw__text_stays_within_the_sheet_and_panels_apart(
    view: Inspection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    figures: list[Any] = []
    monkeypatch.setattr(inspection_plot, "save", lambda figure, path: figures.append(figure))
    many = replace(view, terms=tuple(term(f"term{i}", about="A long description of it. " * 5) for i in range(9)))
    for some in (view, many):
        draw(some, tmp_path / "a.png", heading=["recipe " + "long " * 90, "teacher"], notes=["a long note " * 40])
        figure = figures[-1]
        figure.canvas.draw()
        boxes = [text.get_window_extent() for text in figure.texts] + [axes.get_tightbbox() for axes in figure.axes]
        for index, box in enumerate(boxes):
            assert box.x0 >= 0
            assert box.y0 >= 0
            assert box.x1 <= figure.bbox.x1
            assert box.y1 <= figure.bbox.y1
            overlaps = [
                other for other in boxes[index + 1 :] if box.shrunk(0.98, 0.98).overlaps(other.shrunk(0.98, 0.98))
            ]
            assert not overlaps


def test_panels_of__one_for_each_thing_that_has_a_place(view: Inspection) -> None:
    titles = [panel.title for panel in panels_of(view)]
    assert titles == [
        "Image and ground truth",
        "Teacher detects",
        "Student detects",
        "kd_ssim",
        "kd_bckd_cls",
        "AID: trust in the teacher",
        "IKD: adversarial difference",
        "IKD: the teacher on the adversarial example",
        "Teacher's sensitivity to frequencies",
    ]
    assert len(list(panels_of(replace(view, weights=None, example=None, frequencies=None)))) == 5


def test_panels_of__state_eps_weights_and_effect(view: Inspection) -> None:
    text = {panel.title: " ".join(panel.lines) for panel in panels_of(view)}
    assert "eps = 8 of 255" in text["IKD: adversarial difference"]
    assert "16 × magnified" in text["IKD: adversarial difference"]
    assert "1 → 2.5" in text["IKD: the teacher on the adversarial example"]
    assert "least first: 0.50, 0.90" in text["AID: trust in the teacher"]
    assert "2 labeled objects" in text["Image and ground truth"]


def test_foot_lines__numbers_and_warnings(view: Inspection) -> None:
    lines = " ".join(foot_lines(view))
    assert "kd_fgd_channel has no place in the image: total 2 × gain 0.5 = 1" in lines
    assert "no label file" not in lines
    assert "Untrained" not in lines
    raw = " ".join(foot_lines(replace(view, truth=None, terms=(term(trained=False), term("bckd_cls")))))
    assert "no label file" in raw
    assert "Untrained adapter (kd_ssim):" in raw


def test_amount__of_automatic_gains_comes_before_them() -> None:
    assert amount(term()) == "total 2 × gain 0.5 = 1"
    assert amount(term(gain="auto")) == "total 2, before its gain, which is auto"


def test_padding__is_the_share_of_the_term_not_of_the_color() -> None:
    fine, coarse = np.zeros((8, 8)), np.zeros((2, 2))
    fine[0, 0], coarse[1, 1] = 1.0, 3.0  # the first in the padding, the second half in it
    area = (0, 8, 64, 48)
    assert padding({"p3": fine, "p5": coarse}, image(area)) == "; 62% of it in the padding"
    assert padding({"p3": fine}, image((0, 0, 64, 64))) == ""
    assert padding({"p3": np.zeros((8, 8))}, image(area)) == ""


def test_colors_of__one_per_class_on_all_panels(view: Inspection) -> None:
    assert colors_of(view) == dict(zip(("_odd $name$", "car", "person"), COLORS, strict=False))


def test_wrapped_and_shortened() -> None:
    assert wrapped(["a b", "c" * 5 + " " + "d" * 5], width=6) == ["a b", "ccccc", "ddddd"]
    assert shortened("short", 10) == "short"
    assert shortened("a" * 20 + "z" * 20, 10) == "aaaaa … zzzzz"
