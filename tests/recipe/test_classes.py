"""Class maps: the shipped ones, and the rule that training and evaluation share."""

from __future__ import annotations

from typing import get_args

import pytest

from yolokd.data.kitti_labels import TYPES
from yolokd.errors import UserError
from yolokd.recipe.classes import SHIPPED, ClassMapName, find_name, shipped_map, teacher_of, unmatched

COCO = {0: "person", 1: "bicycle", 2: "car", 5: "bus", 6: "train", 7: "truck"}


def named(found: dict[int, int], model: dict[int, str], data: dict[int, str]) -> dict[str, str]:
    return {model[index]: data[other] for index, other in found.items()}


def test_shipped__names_are_those_that_a_recipe_takes() -> None:
    assert get_args(ClassMapName) == tuple(SHIPPED)


def test_coco_to_kitti__says_something_about_each_of_kitti_s_types() -> None:
    found = SHIPPED["coco-to-kitti"]
    assert {*found.pairs.values(), *found.unmatched} == set(TYPES)
    assert not {*found.pairs.values()} & found.unmatched


@pytest.mark.parametrize("spell", [str, str.lower])  # KITTI's own names, and those of Ultralytics' kitti.yaml
def test_coco_to_kitti__serves_eight_classes_and_three(spell: type[str]) -> None:
    eight = {index: spell(name) for index, name in enumerate(TYPES)}
    pairs = {"person": "Pedestrian", "car": "Car", "train": "Tram", "truck": "Truck"}
    assert named(teacher_of(COCO, eight, "coco-to-kitti"), COCO, eight) == {k: spell(v) for k, v in pairs.items()}
    three = {0: spell("Car"), 1: spell("Pedestrian"), 2: spell("Cyclist")}
    assert teacher_of(COCO, three, "coco-to-kitti") == {0: 1, 2: 0}
    assert unmatched("coco-to-kitti") == {"van", "person_sitting", "cyclist", "misc"}


def test_partners__a_mapping_goes_before_names_and_may_join_classes() -> None:
    data = {0: "Truck", 1: "walker", 2: "car"}
    assert teacher_of(COCO, data, {}) == {2: 2, 7: 0}
    assert teacher_of(COCO, data, {" BUS": "truck", "person": "Walker "}) == {0: 1, 2: 2, 5: 0, 7: 0}
    assert teacher_of(COCO, data, {"car": "truck"}) == {2: 0, 7: 0}  # not the data's car any more
    assert teacher_of(COCO, data, {"cat": "car", "car": "cat"}) == {7: 0}
    assert unmatched({"car": "truck"}) == frozenset()


def test_partners__a_shipped_map_of_other_data_is_refused() -> None:
    with pytest.raises(
        UserError, match="coco-to-kitti is for data with Car, Truck, Pedestrian, Tram, but these have cat"
    ):
        teacher_of(COCO, {0: "cat"}, "coco-to-kitti")


def test_shipped_map__an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(UserError, match=r"'coco-to-kity'; did you mean coco-to-kitti\? Shipped: coco-to-kitti\."):
        shipped_map("coco-to-kity")
    with pytest.raises(UserError, match=r"'x'\. Shipped: "):
        teacher_of(COCO, COCO, "x")


@pytest.mark.parametrize(
    ("model", "data", "expected"),
    [
        (["A", "a"], ["A", "a"], {"A": "A", "a": "a"}),
        (["a", "b", "A"], ["A", "a"], {"a": "a", "A": "A"}),
        (["a"], ["A", "a"], {"a": "a"}),
        (["A", "a"], ["a"], {"a": "a"}),
        (["A", "a"], ["a", " A "], {"a": "a", "A": " A "}),  # the names left over are the same but for spaces
        (["STOP sign"], ["Stop Sign "], {"STOP sign": "Stop Sign "}),
        (["x"], ["A", "a"], {}),  # ambiguous names that nobody asks for
    ],
)
def test_partners__equal_names_first_then_those_alike(
    model: list[str], data: list[str], expected: dict[str, str]
) -> None:
    ours, theirs = dict(enumerate(model)), dict(enumerate(data))
    assert named(teacher_of(ours, theirs, {}), ours, theirs) == expected


@pytest.mark.parametrize(
    ("model", "data", "classes"),
    [
        (["a"], ["A", "A "], {}),
        (["A", "a"], [" a"], {}),
        (["A", "a"], ["x"], {"A ": "x"}),
        (["x"], ["A", "a"], {"x": "a "}),
    ],
)
def test_partners__names_that_differ_by_case_alone_are_refused(
    model: list[str], data: list[str], classes: dict[str, str]
) -> None:
    with pytest.raises(UserError, match="differ only by letter case"):
        teacher_of(dict(enumerate(model)), dict(enumerate(data)), classes)


def test_partners__a_map_is_taken_by_its_exact_names() -> None:
    letters = {0: "A", 1: "a"}
    assert teacher_of(letters, letters, {"A": "A", "a": "a"}) == {0: 0, 1: 1}
    assert teacher_of(letters, letters, {"A": "a", "a": "A"}) == {0: 1, 1: 0}
    assert teacher_of(letters, {0: " a"}, {"A": " a", "a": " a"}) == {0: 0, 1: 0}  # the way out of an ambiguity


def test_partners__one_name_twice_in_the_data_goes_by_place_or_is_refused() -> None:
    twice = {0: "car", 1: "car"}
    assert teacher_of(twice, twice, {}) == {0: 0, 1: 1}
    with pytest.raises(UserError, match="2 classes that are called 'car'"):
        teacher_of({0: "car"}, twice, {})


def test_find_name__prefers_the_equal_one() -> None:
    assert find_name("a", ["A", "a"]) == "a"
    assert find_name("a ", ["A", "b"]) == "A"
    assert find_name("c", ["A", "b"]) is None
    with pytest.raises(UserError, match=r"'a ' could mean 'A' or 'a'"):
        find_name("a ", ["A", "a"])
