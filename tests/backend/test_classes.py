"""Matching classes by name and by the recipe's map."""

from __future__ import annotations

import pytest

from yolokd.backend.classes import match_classes, partial_note, require_classes
from yolokd.errors import PairError, RecipeError, UserError

COCO = {0: "person", 1: "bicycle", 2: "car", 3: "motorcycle"}
ROAD = {0: "car", 1: "Pedestrian", 2: "Cyclist"}


def test_match_classes__same_lists_need_no_selection() -> None:
    match = match_classes(COCO, COCO, {})
    assert match.identical
    assert match.complete


def test_match_classes__ignores_case_spaces_and_order() -> None:
    match = match_classes({0: " Car", 1: "PERSON"}, COCO, {})
    assert match.student == (0, 1)
    assert match.teacher == ((2,), (0,))
    assert match.columns == [2, 0]
    assert match.complete
    assert not match.identical


def test_match_classes__a_teacher_with_more_classes_in_the_same_order_is_selected_from() -> None:
    assert not match_classes({0: "person", 1: "bicycle"}, COCO, {}).identical


def test_match_classes__the_map_takes_precedence() -> None:
    match = match_classes(ROAD, COCO, {"person": "Pedestrian", "bicycle": "cyclist"})
    assert match.student == (0, 1, 2)
    assert match.teacher == ((2,), (0,), (1,))


def test_match_classes__all_wrong_names_of_the_map_are_reported_at_once() -> None:
    with pytest.raises(RecipeError) as error:
        match_classes(ROAD, COCO, {"perzon": "Pedestrian", "bicycle": "Rider"})
    assert "no class 'perzon'" in str(error.value)
    assert "no class 'Rider'" in str(error.value)


def test_match_classes__one_class_takes_several_partners_its_namesake_first() -> None:
    match = match_classes(ROAD, COCO, {"bicycle": "car", "person": "car", "motorcycle": "Cyclist"})
    assert match.rows == (("car", "car + person + bicycle"), ("Pedestrian", None), ("Cyclist", "motorcycle"))
    assert match.student == (0, 2)
    assert match.teacher == ((2, 0, 1), (3,))
    assert match.columns == [[2, 0, 1], [3, 3, 3]]
    assert match.places == [0, -1, 1]
    assert not match.identical


def test_match_classes__a_class_that_is_mapped_no_longer_counts_by_its_name() -> None:
    match = match_classes({0: "car", 1: "van"}, COCO, {"car": "van"})
    assert match.rows == (("car", None), ("van", "car"))


def test_match_classes__equal_lists_are_not_identical_once_classes_are_joined() -> None:
    match = match_classes({0: "car"}, {0: "car", 1: "van"}, {"van": "car"})
    assert match.complete
    assert not match.identical
    assert match.columns == [[0, 1]]


def test_match_classes__a_shipped_map_excuses_what_it_has_no_partner_for() -> None:
    match = match_classes({0: "Car", 1: "Cyclist", 2: "Pedestrian"}, COCO, "coco-to-kitti")
    assert match.rows == (("Car", "car"), ("Cyclist", None), ("Pedestrian", "person"))
    assert (match.missing, match.excused) == (("Cyclist",), ("Cyclist",))
    require_classes(match, allow_partial=False, teacher="a", data="b")
    assert partial_note(match) == (
        "the teacher does not know Cyclist (the class map has no partner for them): "
        "their scores are learned from the labels alone"
    )


def test_require_classes__a_shipped_map_excuses_nothing_else() -> None:
    for names in ({0: "Car", 1: "Cyclist", 2: "horse"}, {0: "Car", 1: "Tram"}):  # not KITTI's; a teacher without train
        match = match_classes(names, COCO, "coco-to-kitti")
        with pytest.raises(PairError, match=f"{names[max(names)]} .* - missing -"):
            require_classes(match, allow_partial=False, teacher="a", data="b")
        require_classes(match, allow_partial=True, teacher="a", data="b")


def test_require_classes__offers_a_shipped_map_where_it_fits() -> None:
    offer = "take a shipped map (--set teacher.classes=coco-to-kitti)"
    for names, fits in (({0: "Car", 1: "Pedestrian"}, True), (ROAD, True), ({0: "car", 1: "horse"}, False)):
        with pytest.raises(PairError) as error:
            require_classes(match_classes(names, COCO, {}), allow_partial=False, teacher="a", data="b")
        assert (offer in str(error.value)) == fits


def test_partial_note__says_nothing_where_all_are_known() -> None:
    assert partial_note(match_classes(COCO, COCO, {})) is None
    note = partial_note(match_classes(ROAD, COCO, {}))
    assert note == "the teacher does not know Pedestrian, Cyclist: their scores are learned from the labels alone"


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


def test_match_classes__keeps_names_apart_that_differ_by_case() -> None:
    match = match_classes({0: "A", 1: "a"}, {0: "a", 1: "b", 2: "A"}, {})
    assert match.rows == (("A", "A"), ("a", "a"))
    assert match.teacher == ((2,), (0,))
    with pytest.raises(UserError, match="'a', 'A' of the model and 'A ' of the data differ only by letter case"):
        match_classes({0: "A "}, {0: "a", 2: "A"}, {})
