"""Matching classes by name and by the recipe's map."""

from __future__ import annotations

import pytest

from yolokd.engine.classes import match_classes, require_classes
from yolokd.errors import PairError, RecipeError

COCO = {0: "person", 1: "bicycle", 2: "car", 3: "motorcycle"}
ROAD = {0: "car", 1: "Pedestrian", 2: "Cyclist"}


def test_match_classes__same_lists_need_no_selection() -> None:
    match = match_classes(COCO, COCO, {})
    assert match.identical
    assert match.complete


def test_match_classes__ignores_case_spaces_and_order() -> None:
    match = match_classes({0: " Car", 1: "PERSON"}, COCO, {})
    assert (match.student, match.teacher) == ((0, 1), (2, 0))
    assert match.complete
    assert not match.identical


def test_match_classes__a_teacher_with_more_classes_in_the_same_order_is_selected_from() -> None:
    assert not match_classes({0: "person", 1: "bicycle"}, COCO, {}).identical


def test_match_classes__the_map_takes_precedence() -> None:
    match = match_classes(ROAD, COCO, {"person": "Pedestrian", "bicycle": "cyclist"})
    assert (match.student, match.teacher) == ((0, 1, 2), (2, 0, 1))


def test_match_classes__all_wrong_names_of_the_map_are_reported_at_once() -> None:
    with pytest.raises(RecipeError) as error:
        match_classes(ROAD, COCO, {"perzon": "Pedestrian", "bicycle": "Rider"})
    assert "no class 'perzon'" in str(error.value)
    assert "no class 'Rider'" in str(error.value)


def test_match_classes__one_class_takes_one_partner() -> None:
    with pytest.raises(RecipeError, match="'car' has a partner already"):
        match_classes(ROAD, COCO, {"car": "car", "motorcycle": "car"})


def test_require_classes__a_partial_teacher_is_refused_with_the_table_and_the_way_out() -> None:
    match = match_classes(ROAD, COCO, {})
    with pytest.raises(PairError) as error:
        require_classes(match, allow_partial=False, teacher="coco.pt", data="road.yaml")
    text = str(error.value)
    assert "1 of the data's 3 classes" in text
    assert "Cyclist     - missing -" in text
    assert "yolokd train --recipe baseline --student coco.pt --data road.yaml" in text
    assert "--allow-partial" in text


def test_require_classes__nothing_in_common_is_refused_even_if_partial_is_allowed() -> None:
    match = match_classes({0: "tram"}, COCO, {})
    with pytest.raises(PairError) as error:
        require_classes(match, allow_partial=True, teacher="coco.pt", data="road.yaml")
    assert "--allow-partial" not in str(error.value)


def test_require_classes__partial_passes_where_it_is_allowed() -> None:
    require_classes(match_classes(ROAD, COCO, {}), allow_partial=True, teacher="a", data="b")
    assert match_classes(ROAD, COCO, {}).student == (0,)
