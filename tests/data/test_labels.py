from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from yolokd.data.labels import BadRowError, drop_keypoints, lacks_keypoints, parse_row, refuse_row

CLASSES = 3


def judge(row: list[str], polygons: bool) -> None:
    values, box = parse_row(row, polygons)
    refuse_row(values[0], box, CLASSES)


def verdict(text: str) -> bool:
    """Whether the rows of a file are all accepted."""
    rows = [line.split() for line in text.splitlines() if line.strip()]
    polygons = any(len(row) > 6 for row in rows)
    try:
        for row in rows:
            judge(row, polygons)
    except BadRowError:
        return False
    return True


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import cv2

    path = tmp_path_factory.mktemp("set") / "a.png"
    cv2.imwrite(str(path), np.zeros((20, 20, 3), np.uint8))
    return path


numbers = st.one_of(
    st.floats(0, 1).map(lambda v: f"{v:.3f}"),
    st.sampled_from(["0", "1", "1.01", "1.02", "-0.01", "-0.02", "-0.005", "1e3", "nan", "inf", "-inf", "x", "0,5"]),
)
classes = st.sampled_from(["0", "1", "2", "0", "1", "2", "2.0", "3", "-1", "0.5", "nan", "a", "-0.005"])
box_rows = st.tuples(classes, numbers, numbers, numbers, numbers).map(" ".join)
polygon_rows = st.tuples(classes, st.lists(numbers, min_size=3, max_size=9)).map(
    lambda row: " ".join([row[0], *row[1]])
)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.lists(st.one_of(box_rows, box_rows, polygon_rows), min_size=1, max_size=3))
@example(rows=["0 .5 .5 .2 .2", "1 .1 .1 .5 .1 .5 .5"])
@example(rows=["1 .1 .1 .5 .1 .5 .5", "1 .1 .1 .5 .1 .5"])
@example(rows=["0 -0.01 .5 .2 .2", "2 1.01 .5 .2 .2"])
@example(rows=["0 .5 .5 -0.005 .2"])
@example(rows=["0 .5 .5 .2 .2 .9"])
@example(rows=["0 nan .1 .5 .1 .5 .5"])
@example(rows=["0 .1 .1 1.5 .1 .5 .5"])
def test_parse_row_and_refuse_row__accept_what_ultralytics_accepts(image: Path, rows: list[str]) -> None:
    from ultralytics.data.utils import verify_image_label

    label = image.with_suffix(".txt")
    label.write_text("\n".join(rows))
    corrupt = verify_image_label((str(image), str(label), "", False, CLASSES, 0, 0, False))[-2]
    assert verdict("\n".join(rows)) is (corrupt == 0)


@pytest.mark.parametrize(
    "row, polygons, what, value",
    [
        ("0 .5 .5 .2", False, "a row has 5 columns (class x y width height)", "4: 0 .5 .5 .2"),
        ("0 .5 .5 .2 .2 .9", False, "a row has 5 columns", "6: 0 .5 .5 .2 .2 .9"),
        ("car .5 .5 .2 .2", False, "not a number", "'car'"),
        ("0 .5 .5 .2 .2", True, "a box in a file that also holds polygons", "0 .5 .5 .2 .2"),
        ("0 .1 .1 .2 .2 .3 .3 .4", True, "at least 3 pairs of coordinates", "8 columns"),
        ("3 .5 .5 .2 .2", False, "the class must be a whole number from 0 to 2", "3"),
        ("-1 .5 .5 .2 .2", False, "whole number from 0 to 2", "-1"),
        ("0.5 .5 .5 .2 .2", False, "whole number from 0 to 2", "0.5"),
        ("0 320 .5 .2 .2", False, "x must be a share of the image, 0 to 1", "320"),
        ("0 .5 -.3 .2 .2", False, "y must be a share", "-0.3"),
        ("0 .5 .5 1.2 .2", False, "width must be a share", "1.2"),
        ("0 .5 .5 .2 -.2", False, "height must be a share", "-0.2"),
        ("0 nan .5 .2 .2", False, "x must be a share", "nan"),
    ],
)
def test_parse_row_and_refuse_row__say_what_is_wrong(row: str, polygons: bool, what: str, value: str) -> None:
    with pytest.raises(BadRowError) as caught:
        judge(row.split(), polygons)
    assert what in caught.value.args[0]
    assert caught.value.args[1] == value


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=3, max_size=8))
def test_parse_row__the_box_of_a_polygon_is_its_extent(points: list[tuple[float, float]]) -> None:
    row = ["1", *(repr(value) for point in points for value in point)]
    _, box = parse_row(row, True)
    low, high = np.min(points, 0), np.max(points, 0)
    np.testing.assert_allclose(box, [*(low + high) / 2, *(high - low)], rtol=1e-12, atol=1e-12)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(columns=st.lists(numbers, min_size=3, max_size=7), width=st.sampled_from([2, 3]))
@example(columns=["0.5", "0.5", "2", "1.01", "0.5", "-0.02"], width=3)
@example(columns=["0.5", "0.5", "7", "1.02", "0.5", "0"], width=3)
@example(columns=["0.5", "0.5", "-0.005", "0.5", "0.5", "1e3"], width=3)
@example(columns=["0.5", "-0.01", "1.01", "0.5"], width=2)
def test_lacks_keypoints__what_ultralytics_refuses_of_a_pose_label(image: Path, columns: list[str], width: int) -> None:
    from ultralytics.data.utils import verify_image_label

    label, row = image.with_suffix(".txt"), ["1", ".5", ".5", ".2", ".2", *columns]
    label.write_text(" ".join(row))
    corrupt = verify_image_label((str(image), str(label), "", True, CLASSES, 2, width, False))[-2]
    assert (not lacks_keypoints(row, (2, width))) is (corrupt == 0)


@pytest.mark.parametrize(
    "row, reason",
    [
        ("0 .5 .5 .2 .2", "a box and its 1 keypoints have 8 columns, got 5"),
        ("0 .5 .5 .2 .2 .5 x 2", "a keypoint is not a number"),
        ("0 .5 .5 .2 .2 .5 320 2", "keypoints must be shares of the image, 0 to 1, got 320"),
        ("0 .5 .5 .2 .2 .5 .5 -1", "visibility must be 0, 1 or 2, got -1"),
        ("0 .5 .5 .2 .2 .5 .5 2", ""),
    ],
)
def test_lacks_keypoints__says_why(row: str, reason: str) -> None:
    assert lacks_keypoints(row.split(), (1, 3)) == reason


def test_drop_keypoints__only_exactly_these() -> None:
    row = ["0", ".5", ".5", ".2", ".2", ".1", ".1", ".9", ".9"]
    assert drop_keypoints(row, (2, 2)) == row[:5]
    assert drop_keypoints(row, (2, 3)) == drop_keypoints(row, (0, 0)) == row
