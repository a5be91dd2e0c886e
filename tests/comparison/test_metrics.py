from __future__ import annotations

import pytest

from yolokd.backend.tasks import ALL_TASKS, TASKS
from yolokd.comparison.metrics import BOXES, common_task, metrics_of
from yolokd.errors import UserError


def test_metrics_of__boxes_alone_or_both_by_name() -> None:
    assert metrics_of("detect") == (BOXES,)
    boxes, masks = metrics_of("segment")
    assert (boxes.what, boxes.keys, boxes.matches) == ("box AP", BOXES.keys, BOXES.matches)
    assert (masks.what, masks.keys, masks.matches) == ("mask AP", ("mask_AP", "mask_AP50"), "matches-mask.npz")


def test_common_task__one_for_all_students() -> None:
    assert common_task({"a": "segment", "b": "segment"}) == "segment"
    with pytest.raises(UserError, match=r"of different tasks \('a' segment, 'b' detect\)"):
        common_task({"a": "segment", "b": "detect"})
    with pytest.raises(UserError, match="does not score all that students of the task obb learn"):
        common_task({"a": "obb"})


@pytest.mark.parametrize("task", ALL_TASKS)
def test_metrics_of__no_task_is_judged_by_less_than_it_learns(task: str) -> None:
    try:
        common_task({"a": task})
    except UserError:
        return
    assert TASKS[task].boxes_suffice == (len(metrics_of(task)) == 1)
