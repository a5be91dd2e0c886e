from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from tests.helpers.panels import panel, seeing
from yolokd.errors import DataError
from yolokd.loaders.answers import LOWEST
from yolokd.teachers.asking import OVERLAP, Panel, ask, detections
from yolokd.teachers.detector import DetectorTeacher

CPU = torch.device("cpu")


@pytest.mark.parametrize("family", ["v8", "v10", "11", "26"])
def test_look__is_what_the_model_decodes(family: str) -> None:
    model = seeing(family)
    images = torch.rand(2, 3, 64, 96)
    model.eval()
    model.model[-1].end2end = False  # else its last layer picks boxes
    expected = model(images)[0]  # (B, 4 + K, A), xywh
    chances, boxes = panel(family).look(images)
    torch.testing.assert_close(chances, expected[:, 4:].mT, rtol=1e-3, atol=1e-4)
    middle, size = expected[:, :2].mT, expected[:, 2:4].mT
    torch.testing.assert_close(boxes, torch.cat((middle - size / 2, middle + size / 2), -1), rtol=1e-3, atol=1e-2)


def test_look__flipped_is_the_mean_of_both_sides() -> None:
    images = torch.rand(1, 3, 64, 96)
    chances, boxes = panel(flip=True).look(images)
    mirrored, other = panel(flip=True).look(images.flip(3))
    rows = torch.cat([torch.arange(h * w).view(h, w).flip(1).flatten() + start for h, w, start in LEVELS])
    torch.testing.assert_close(mirrored[:, rows], chances)
    left, top, right, bottom = other[:, rows].unbind(-1)
    torch.testing.assert_close(torch.stack((96 - right, top, 96 - left, bottom), -1), boxes, rtol=1e-4, atol=1e-3)


LEVELS = ((8, 12, 0), (4, 6, 96), (2, 3, 120))


def test_look__several_are_averaged_at_each_anchor() -> None:
    images = torch.rand(1, 3, 64, 64)
    both, _ = panel("v8", "11").look(images)
    alone = [
        Panel([DetectorTeacher(seeing(f, s))], [{0: "a", 1: "b", 2: "c"}]).look(images)[0]
        for s, f in enumerate(("v8", "11"))
    ]
    torch.testing.assert_close(both, (alone[0] + alone[1]) / 2)


def test_detections__one_box_per_object_with_all_its_probabilities() -> None:
    boxes = torch.tensor([[[0.0, 0, 10, 10], [0, 0, 10, 9.5], [20, 20, 30, 30], [40, 40, 50, 50]] + [[0.0] * 4] * 20])
    chances = torch.zeros(1, 24, 2)
    chances[0, :4] = torch.tensor([[0.6, 0.3], [0.2, 0.5], [0.1, 0.04], [LOWEST / 2, 0.0]])
    ((found, told),) = detections(chances, boxes)
    assert OVERLAP < 9.5 / 10
    torch.testing.assert_close(found, boxes[0, [0, 2]])
    torch.testing.assert_close(told, chances[0, [0, 2]])


def test_detections__six_candidates_are_not_taken_for_chosen_boxes() -> None:
    corners = torch.tensor([[0.0, 0, 10, 10]]) + 20 * torch.arange(6)[:, None]
    chances = torch.linspace(0.9, 0.4, 6)[:, None] * torch.tensor([0.5, 1.0])
    ((found, told),) = detections(chances[None], corners[None])
    torch.testing.assert_close(found, corners)
    torch.testing.assert_close(told, chances)


def test_answers__are_the_detections_at_the_anchors() -> None:
    asked, batch = panel(flip=True), torch.rand(2, 3, 64, 96)
    for found, expected in zip(asked.answers(batch), detections(*asked.look(batch)), strict=True):
        assert torch.equal(found[0], expected[0])
        assert torch.equal(found[1], expected[1])


def images(folder: Path, *sizes: tuple[int, int]) -> list[str]:
    rng = np.random.default_rng(0)
    files = []
    for index, (height, width) in enumerate(sizes):
        file = folder / f"{index}.png"
        cv2.imwrite(str(file), rng.integers(0, 255, (height, width, 3), np.uint8))
        files.append(str(file))
    return files


def test_ask__in_order_whatever_the_shapes_and_in_shares_of_the_image(tmp_path: Path) -> None:
    files = images(tmp_path, (48, 64), (48, 64), (64, 48), (48, 64))
    asked = panel()
    together = list(ask(asked, files, imgsz=64, device=CPU))
    assert [file for file, _ in together] == files
    for file, answer in together:
        ((_, alone),) = ask(asked, [file], imgsz=64, device=CPU)
        np.testing.assert_allclose(answer.boxes, alone.boxes, atol=1e-5)
        np.testing.assert_allclose(answer.probabilities, alone.probabilities, atol=1e-5)
        middle, half = answer.boxes[:, :2], answer.boxes[:, 2:] / 2
        corners = np.concatenate((middle - half, middle + half), 1)
        assert len(corners)
        assert (corners > -1e-5).all()
        assert (corners < 1 + 1e-5).all()
        assert answer.probabilities.max(1).min() > LOWEST


def test_ask__a_file_that_is_no_image(tmp_path: Path) -> None:
    bad = tmp_path / "bad.png"
    bad.write_text("no image")
    with pytest.raises(DataError, match=r"bad\.png' cannot be read as an image"):
        list(ask(panel(), [str(bad)], imgsz=64, device=CPU))


def test_ask__sides_are_multiples_of_the_largest_stride(tmp_path: Path) -> None:
    file = tmp_path / "image.png"
    cv2.imwrite(str(file), np.full((50, 90, 3), 128, np.uint8))
    asked, sizes = panel("v8-p6"), []
    answers = asked.answers
    asked.answers = lambda images: sizes.append(tuple(images.shape[-2:])) or answers(images)  # type: ignore[method-assign,func-returns-value]
    ((_, answer),) = ask(asked, [str(file)], imgsz=96, device=CPU)
    assert asked.stride == 64
    assert sizes == [(128, 128)]
    assert len(answer.boxes) > 0
    assert panel("v8").stride == panel("v8-p3p4").stride == 32
