from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from yolokd.backend.api import get_cfg
from yolokd.errors import DataError
from yolokd.loaders.answers import (
    LARGEST,
    LOWEST,
    Answer,
    AnswerTable,
    joined,
    parted,
    rectangle,
    shifted,
    with_answers,
)
from yolokd.loaders.batch import Answers
from yolokd.loaders.epoch_sampler import Key
from yolokd.loaders.sampling import Pairing
from yolokd.loaders.unlabeled_loader import build_set

BOXES = np.array([[0.25, 0.5, 0.1, 0.2], [0.75, 0.5, 0.2, 0.4]], np.float32)
CHANCES = np.array([[0.9, 0.1, 0.0], [0.2, 0.6, 0.5]], np.float32)


def table(*files: str) -> AnswerTable:
    return AnswerTable.of({file: Answer(BOXES, CHANCES) for file in files}, [(0, [0]), (1, [1, 2])], 2)


def test_table__is_over_the_datas_classes_and_takes_the_largest_of_several() -> None:
    found = table("a.jpg", "b.jpg")
    assert found.first == {"a.jpg": 0, "b.jpg": 2}
    torch.testing.assert_close(found.probabilities, torch.tensor([[0.9, 0.1], [0.2, 0.6]] * 2))
    boxes, chances = found.of_file("b.jpg")
    np.testing.assert_array_equal(boxes, BOXES)
    torch.testing.assert_close(chances, torch.tensor([[0.9, 0.1], [0.2, 0.6]]))


def test_table__a_box_of_a_class_that_the_data_do_not_have_is_none() -> None:
    found = AnswerTable.of({"a.jpg": Answer(BOXES, CHANCES)}, [(1, [2])], 3)
    assert found.boxes["a.jpg"].tolist() == BOXES[1:].tolist()
    assert found.probabilities.tolist() == [[0.0, 0.5, 0.0]]
    assert LOWEST < 0.5
    assert AnswerTable.of({}, [(0, [0])], 3).probabilities.shape == (0, 3)


@pytest.mark.parametrize("polygons", [False, True])
def test_with_answers__come_after_the_labels(polygons: bool) -> None:
    segments = [np.zeros((5, 2), np.float32)] if polygons else []
    own = np.array([[0.5, 0.5, 0.1, 0.1]], np.float32)
    label: dict[str, Any] = {
        "im_file": "b.jpg",
        "cls": np.ones((1, 1), np.float32),
        "bboxes": own,
        "segments": segments,
    }
    with_answers(label, table("a.jpg", "b.jpg"), 2)
    assert label["cls"].ravel().tolist() == [1, 2 + 2, 2 + 3]
    np.testing.assert_array_equal(label["bboxes"], np.concatenate((own, BOXES)))
    assert len(label["segments"]) == (3 if polygons else 0)
    assert label["cls"].dtype == label["bboxes"].dtype == np.float32


def test_rectangle__corners_in_turn() -> None:
    corners = rectangle(np.array([0.5, 0.5, 0.2, 0.4], np.float32))
    np.testing.assert_allclose(corners, [[0.4, 0.3], [0.6, 0.3], [0.6, 0.7], [0.4, 0.7]], atol=1e-6)


def test_rows__stay_whole_numbers_up_to_the_limit() -> None:
    assert float(np.float32(LARGEST)) == LARGEST
    assert float(np.float32(LARGEST + 1)) != LARGEST + 1


def test_table__too_many_boxes_for_a_label(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("yolokd.loaders.answers.LARGEST", 5)
    table("a.jpg")
    with pytest.raises(DataError, match="4 boxes in stored answers"):
        table("a.jpg", "b.jpg")


def test_parted__labels_and_answers_are_apart_again() -> None:
    batch = {
        "img": torch.zeros(2, 3, 8, 8),
        "batch_idx": torch.tensor([0.0, 0, 1, 1]),
        "cls": torch.tensor([[1.0], [3.0], [0.0], [2.0]]),
        "bboxes": torch.arange(16).view(4, 4) / 16,
    }
    labels, answers = parted(batch, table("a.jpg"), 2)
    assert labels["cls"].ravel().tolist() == [1, 0]
    assert labels["batch_idx"].tolist() == [0, 1]
    assert torch.equal(labels["bboxes"], batch["bboxes"][[0, 2]])
    assert answers.images.tolist() == [0, 1]
    assert torch.equal(answers.boxes, batch["bboxes"][[1, 3]])
    torch.testing.assert_close(answers.probabilities, torch.tensor([[0.2, 0.6], [0.9, 0.1]]))
    assert batch["cls"].shape == (4, 1)


def some(*images: int) -> Answers:
    count = len(images)
    return Answers(torch.tensor(images), torch.rand(count, 4), torch.rand(count, 2))


def test_joined__the_second_parts_images_come_later() -> None:
    first, second = some(0, 1), some(0, 0)
    both = joined(first, second, 2)
    assert both is not None
    assert both.images.tolist() == [0, 1, 2, 2]
    assert torch.equal(both.boxes[2:], second.boxes)
    assert joined(first, None, 2) is first
    alone = joined(None, second, 2)
    assert alone is not None
    assert alone.images.tolist() == [2, 2] == shifted(second, 2).images.tolist()
    assert joined(None, None, 2) is None


def test_set__answers_move_with_the_image(tmp_path: Path) -> None:
    """A bright rectangle where the answer is: after mosaic, affine changes and flips the box still frames it."""
    file = tmp_path / "a.png"
    pixels = np.zeros((64, 64, 3), np.uint8)
    pixels[16:48, 8:32] = 255
    cv2.imwrite(str(file), pixels)
    box = np.array([[20 / 64, 32 / 64, 24 / 64, 32 / 64]], np.float32)
    changes = {"imgsz": 64, "mosaic": 1.0, "degrees": 0.0, "scale": 0.3, "translate": 0.2, "hsv_v": 0.0, "erasing": 0.0}
    args = get_cfg(overrides={**changes, "fliplr": 0.5, "hsv_s": 0.0, "hsv_h": 0.0})
    data = {"names": {0: "car", 1: "bus"}, "channels": 3, "nc": 2}
    dataset: Any = build_set([str(file)] * 4, args, data, Pairing(0), batch=1, stride=32)
    dataset.answers = AnswerTable.of(
        {str(file): Answer(box, np.array([[0.3, 0.7]], np.float32))}, [(0, [0]), (1, [1])], 2
    )
    seen = 0
    for turn in range(8):
        sample = dataset[Key(0, 0, 1, turn)]
        assert set(sample["cls"].ravel().tolist()) <= {2.0}
        bright = sample["img"].float().mean(0) > 200
        covered = torch.zeros_like(bright)
        for x, y, w, h in (sample["bboxes"] * 64).tolist():
            covered[round(y - h / 2) : round(y + h / 2), round(x - w / 2) : round(x + w / 2)] = True
            seen += 1
        if covered.any():
            assert float((bright & covered).sum() / covered.sum()) > 0.8
    assert seen > 8
