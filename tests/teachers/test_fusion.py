from __future__ import annotations

import pytest
import torch

from yolokd.teachers.fusion import fuse, unite


def test_unite__by_name_without_regard_to_case() -> None:
    united = unite([{0: "car", 1: "Bus"}, {0: "bus", 1: "rider"}, {0: "CAR"}])
    assert united.names == {0: "car", 1: "Bus", 2: "rider"}
    assert united.places == ((0, 1), (1, 2), (0,))
    assert united.know.tolist() == [[True, True, False], [False, True, True], [True, False, False]]


def test_fuse__closed_form() -> None:
    know = torch.tensor([[True, True], [True, False]])
    first, second = torch.tensor([[[0.6, 0.2]]]), torch.tensor([[[0.2, 0.9]]])  # the 0.9 is of an unknown class
    boxes = [torch.tensor([[[0.0, 0.0, 4.0, 4.0]]]), torch.tensor([[[4.0, 0.0, 8.0, 4.0]]])]
    chances, box = fuse([first, second], boxes, know)
    torch.testing.assert_close(chances, torch.tensor([[[0.4, 0.2]]]))
    torch.testing.assert_close(box, torch.tensor([[[1.0, 0.0, 5.0, 4.0]]]))  # weights 0.6 and 0.2


def test_fuse__as_a_slow_loop_does() -> None:
    generator = torch.Generator().manual_seed(0)
    chances = [torch.rand(2, 5, 3, generator=generator) for _ in range(3)]
    boxes = [torch.rand(2, 5, 4, generator=generator) for _ in range(3)]
    know = torch.tensor([[True, True, False], [False, True, True], [True, True, True]])
    found, box = fuse(chances, boxes, know)
    for b in range(2):
        for a in range(5):
            for k in range(3):
                told = [float(chances[t][b, a, k]) for t in range(3) if know[t, k]]
                assert float(found[b, a, k]) == pytest.approx(sum(told) / len(told))
            weights = [max(float(chances[t][b, a, k]) for k in range(3) if know[t, k]) for t in range(3)]
            for side in range(4):
                mean = sum(w * float(boxes[t][b, a, side]) for t, w in enumerate(weights)) / sum(weights)
                assert float(box[b, a, side]) == pytest.approx(mean)


def test_fuse__one_detector_is_itself() -> None:
    chances, boxes = torch.rand(1, 4, 2), torch.rand(1, 4, 4)
    same, box = fuse([chances], [boxes], torch.ones(1, 2, dtype=torch.bool))
    torch.testing.assert_close(same, chances)
    torch.testing.assert_close(box, boxes)
