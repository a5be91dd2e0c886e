from __future__ import annotations

from typing import Any

import pytest

from yolokd.comparison.results import sees_the_same


@pytest.mark.parametrize(
    ("teacher", "same"),
    [({}, True), ({"answers": "live", "scale": 1, "models": []}, True), ({"answers": "stored"}, False),
     ({"scale": 2}, False), ({"models": ["b.pt"]}, False)],
)  # fmt: skip
def test_sees_the_same__a_teacher_at_another_size_has_no_gap_to_close(teacher: dict[str, Any], same: bool) -> None:
    assert sees_the_same(teacher) is same
