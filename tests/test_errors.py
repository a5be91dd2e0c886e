from __future__ import annotations

from yolokd.errors import nearest, nearest_all


def test_nearest__swapped_letters_come_first() -> None:
    assert nearest("bkcd", ["bckd", "fbkd"]) == nearest("bkcd", ["fbkd", "bckd"]) == "bckd"


def test_nearest__ignores_case_and_leaves_strangers_alone() -> None:
    assert nearest("ADAMW", ["SGD", "AdamW"]) == "AdamW"
    assert nearest("zebra", ["SGD", "AdamW"]) is None


def test_nearest_all__at_most_three() -> None:
    known = [f"yolov8{size}.pt" for size in "nsmlx"]
    found = nearest_all("YOLOv8q.pt", known)
    assert len(found) == 3
    assert set(found) < set(known)
