from __future__ import annotations

import pytest

from yolokd.losses.levels import STRIDES, level_of


def test_level_of__names_follow_the_stride() -> None:
    assert [level_of(stride) for stride in (4, 8.0, 16, 32, 64, 128)] == ["p2", "p3", "p4", "p5", "p6", "p7"]
    assert STRIDES == {"p2": 4, "p3": 8, "p4": 16, "p5": 32, "p6": 64, "p7": 128}


@pytest.mark.parametrize("stride", [2, 12, 8.5, 256])
def test_level_of__refuses_other_strides(stride: float) -> None:
    with pytest.raises(ValueError, match=f"no level has stride {stride:g}; known: 4, 8, 16, 32, 64, 128"):
        level_of(stride)
