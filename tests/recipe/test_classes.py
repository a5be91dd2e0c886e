"""Class maps: the shipped ones, and the rule that training and evaluation share."""

from __future__ import annotations

from typing import get_args

import pytest

from yolokd.data.kitti_labels import TYPES
from yolokd.errors import UserError
from yolokd.recipe.classes import SHIPPED, ClassMapName, partners, shipped_map, unmatched

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
    assert named(partners(COCO, eight, "coco-to-kitti"), COCO, eight) == {k: spell(v) for k, v in pairs.items()}
    three = {0: spell("Car"), 1: spell("Pedestrian"), 2: spell("Cyclist")}
    assert partners(COCO, three, "coco-to-kitti") == {0: 1, 2: 0}
    assert unmatched("coco-to-kitti") == {"van", "person_sitting", "cyclist", "misc"}


def test_partners__a_mapping_goes_before_names_and_may_join_classes() -> None:
    data = {0: "Truck", 1: "walker", 2: "car"}
    assert partners(COCO, data, {}) == {2: 2, 7: 0}
    assert partners(COCO, data, {" BUS": "truck", "person": "Walker "}) == {0: 1, 2: 2, 5: 0, 7: 0}
    assert partners(COCO, data, {"car": "truck"}) == {2: 0, 7: 0}  # not the data's car any more
    assert partners(COCO, data, {"cat": "car", "car": "cat"}) == {7: 0}
    assert unmatched({"car": "truck"}) == frozenset()


def test_partners__a_shipped_map_of_other_data_is_refused() -> None:
    with pytest.raises(
        UserError, match="coco-to-kitti is for data with Car, Truck, Pedestrian, Tram, but these have cat"
    ):
        partners(COCO, {0: "cat"}, "coco-to-kitti")


def test_shipped_map__an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(UserError, match=r"'coco-to-kity'; did you mean coco-to-kitti\? Shipped: coco-to-kitti\."):
        shipped_map("coco-to-kity")
    with pytest.raises(UserError, match=r"'x'\. Shipped: "):
        partners(COCO, COCO, "x")
