from __future__ import annotations

import pytest

from yolokd.errors import DataError, UserError
from yolokd.evaluation.classes import check_mapping, match_classes


def test_match_classes__given_names_take_precedence() -> None:
    own = {0: "car", 1: "van", 2: "Person "}
    assert match_classes(own, {0: "person", 1: "car"}, {}, "a.pt") == {0: 1, 2: 0}
    assert match_classes(own, {0: "person", 1: "car"}, {"VAN": "Car", "bike": "car"}, "a.pt") == {0: 1, 1: 1, 2: 0}
    assert match_classes(own, {0: "person", 1: "bus"}, {"car": "bus"}, "a.pt") == {0: 1, 2: 0}


def test_match_classes__nothing_in_common_names_both_sides() -> None:
    with pytest.raises(
        DataError, match=r"'a\.pt' and the data have no class in common.*knows cat, dog; the data has car"
    ):
        match_classes({0: "cat", 1: "dog"}, {0: "car"}, {}, "a.pt")
    with pytest.raises(DataError, match=r"class9, … \(80 in all\)"):
        match_classes({i: f"class{i}" for i in range(80)}, {0: "car"}, {}, "a.pt")


def test_match_classes__takes_a_shipped_map() -> None:
    kitti = {0: "Car", 1: "Pedestrian", 2: "Cyclist"}
    assert match_classes({0: "person", 2: "car", 1: "bicycle"}, kitti, "coco-to-kitti", "a.pt") == {0: 1, 2: 0}
    assert match_classes(kitti, kitti, "coco-to-kitti", "student.pt") == {0: 0, 1: 1, 2: 2}
    check_mapping("coco-to-kitti", [kitti], kitti)
    with pytest.raises(UserError, match="No shipped class map is called 'kitti'"):
        check_mapping("kitti", [kitti], kitti)


def test_check_mapping__names_must_exist_somewhere() -> None:
    models, data = [{0: "Car"}, {0: "van"}], {0: "car", 1: "truck"}
    check_mapping({"VAN": "Truck"}, models, data)
    with pytest.raises(UserError, match=r"--classes van=lorry: the data has no class 'lorry', but car, truck"):
        check_mapping({"van": "lorry"}, models, data)
    with pytest.raises(UserError, match="--classes lorry=truck: no model here has a class 'lorry'"):
        check_mapping({"lorry": "truck"}, models, data)


def test_match_classes__keeps_names_apart_that_differ_by_case() -> None:
    letters = {0: "A", 1: "a"}
    assert match_classes({0: "a", 5: "A"}, letters, {}, "a.pt") == {0: 1, 5: 0}
    check_mapping({"A": "A", "a": "a"}, [letters], letters)
    assert match_classes(letters, letters, {"A": "A", "a": "a"}, "a.pt") == {0: 0, 1: 1}
    with pytest.raises(UserError, match="differ only by letter case"):
        check_mapping({"A ": "A"}, [letters], letters)
