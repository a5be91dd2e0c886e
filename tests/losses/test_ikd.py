from __future__ import annotations

import pytest
import torch

from yolokd.errors import ShapeError
from yolokd.losses.ikd import feature_gap


def test_feature_gap__constant_gap() -> None:
    student = torch.zeros(3, 2, 2, 2, dtype=torch.float64)
    gap = feature_gap(student + 0.5, student)
    assert gap.shape == (3, 2, 2)
    assert float(1e-5 * gap.sum((1, 2)).mean()) == pytest.approx(2e-5, rel=1e-12)  # gain · C · H · W · c²
    assert float(feature_gap(student, student).abs().max()) == 0
    assert feature_gap(student.half(), student.half()).dtype == torch.float32
    with pytest.raises(ShapeError, match=r"\(3, 2, 2, 2\) and \(3, 2, 2, 1\)"):
        feature_gap(student, student[..., :1])
