from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from yolokd.loaders.answers import Answer, AnswerTable
from yolokd.teachers.thresholds import FEW, best_thresholds

BOX = np.array([[0.25, 0.5, 0.2, 0.2]], np.float32)
AWAY = np.array([[0.75, 0.5, 0.2, 0.2]], np.float32)


def table(*answers: tuple[np.ndarray, list[list[float]]]) -> AnswerTable:
    kept = {f"{n}.jpg": Answer(boxes, np.array(chances, np.float32)) for n, (boxes, chances) in enumerate(answers)}
    return AnswerTable.of(kept, [(0, [0]), (1, [1])], 2)


def labels(*kinds: list[int]) -> list[dict[str, Any]]:
    return [
        {"im_file": f"{n}.jpg", "cls": np.array(own, np.float32)[:, None], "bboxes": np.repeat(BOX, len(own), 0)}
        for n, own in enumerate(kinds)
    ]


def test_best_thresholds__where_f1_is_largest() -> None:
    scores = [0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.35, 0.33, 0.31, 0.3]  # each finds an object
    found = [(np.concatenate((BOX, AWAY)), [[score, 0.0], [0.25, 0.0]]) for score in scores]  # and errs at 0.25
    assert best_thresholds(table(*found), labels(*[[0]] * 10), 2) == pytest.approx([0.3, 0.3], abs=1e-6)
    wrong = [(AWAY, [[0.65, 0.0]])] * 30  # many errors between: only the first three are worth it
    chosen = best_thresholds(table(*found, *wrong), labels(*[[0]] * 10, *[[]] * 30), 2)
    assert chosen[0] == pytest.approx(0.7)


def test_best_thresholds__few_objects_take_the_default() -> None:
    found = [(BOX, [[0.9, 0.0]])] * (FEW - 1)
    assert best_thresholds(table(*found), labels(*[[0]] * (FEW - 1)), 2, default=0.4) == [0.4, 0.4]


def test_best_thresholds__an_object_is_found_once_and_by_its_class() -> None:
    twice = [(np.repeat(BOX, 2, 0), [[0.9, 0.0], [0.5, 0.0]])] * 12
    assert best_thresholds(table(*twice), labels(*[[0]] * 12), 2)[0] == pytest.approx(0.9)
    other = [(BOX, [[0.0, 0.9]])] * 12
    assert best_thresholds(table(*other), labels(*[[0]] * 12), 2, default=0.2) == [0.2, 0.2]


def test_best_thresholds__images_without_boxes_or_objects() -> None:
    nothing = (np.zeros((0, 4), np.float32), np.zeros((0, 2)).tolist() or np.zeros((0, 2)))
    assert best_thresholds(table(nothing, nothing), labels([], [0]), 2) == [0.3, 0.3]  # type: ignore[arg-type]
