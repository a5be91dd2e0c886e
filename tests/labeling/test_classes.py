from __future__ import annotations

import pytest

from yolokd.errors import UserError
from yolokd.labeling.classes import columns_of, parse_classes, parse_conf

COCO = {0: "person", 1: "car", 2: "motorcycle", 3: "bus", 4: "truck"}


@pytest.mark.parametrize("words", ["car,,bus", "car=", "=car", ""])
def test_parse_classes__empty_names(words: str) -> None:
    with pytest.raises(UserError, match="--classes takes names"):
        parse_classes([words])


def test_parse_classes__twice() -> None:
    with pytest.raises(UserError, match="'Car' twice"):
        parse_classes(["car", "Car"])


def test_columns_of__all_without_words() -> None:
    assert columns_of({}, COCO) == {name: (index,) for index, name in COCO.items()}


def test_columns_of__order_and_joined_classes() -> None:
    asked = parse_classes(["truck=vehicle,Person", "bus=vehicle"])
    assert columns_of(asked, COCO) == {"vehicle": (4, 3), "Person": (0,)}


def test_columns_of__unknown_shows_the_nearest() -> None:
    with pytest.raises(UserError, match=r"'trukc'.*did you mean 'truck'"):
        columns_of(parse_classes(["trukc"]), COCO)


def test_columns_of__like_keeps_its_order_and_its_unknown_classes() -> None:
    like = {0: "motorbike", 1: "car", 2: "tram"}
    found = columns_of(parse_classes(["motorcycle=motorbike"]), COCO, like)
    assert found == {"motorbike": (2,), "car": (1,), "tram": ()}
    assert columns_of({}, COCO, like) == {"motorbike": (), "car": (1,), "tram": ()}


def test_columns_of__like_a_class_that_was_given_away_is_not_taken_twice() -> None:
    found = columns_of(parse_classes(["bus=truck"]), COCO, {0: "truck", 1: "bus"})
    assert found == {"truck": (3,), "bus": ()}


def test_columns_of__like_without_a_class_in_common() -> None:
    with pytest.raises(UserError, match="No class of --like"):
        columns_of({}, COCO, {0: "tram"})


def test_columns_of__like_does_not_have_the_class() -> None:
    with pytest.raises(UserError, match="'lorry'"):
        columns_of(parse_classes(["truck=lorry"]), COCO, {0: "car"})


def test_parse_conf__values() -> None:
    assert parse_conf("auto", ["a"]) is None
    assert parse_conf("0.4", ["a", "b"]) == {"a": 0.4, "b": 0.4}
    assert parse_conf(" B = 0.5 ", ["a", "b"]) == {"a": 0.3, "b": 0.5}


@pytest.mark.parametrize("words", ["0", "1", "1.5", "-0.1", "nan", "many", "a=2", "a=", "0.02"])
def test_parse_conf__refuses(words: str) -> None:
    with pytest.raises(UserError, match="--conf takes scores"):
        parse_conf(words, ["a"])


def test_parse_conf__unknown_class() -> None:
    with pytest.raises(UserError, match=r"'cra'.*did you mean 'car'"):
        parse_conf("cra=0.3", ["car", "bus"])


def test_parse_conf__a_class_twice() -> None:
    with pytest.raises(UserError, match="--conf names 'car' twice"):
        parse_conf("car=0.3,Car=0.4", ["car", "bus"])
