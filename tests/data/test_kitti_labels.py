from __future__ import annotations

from pathlib import Path

import pytest

from yolokd.data.kitti_labels import BadLineError, Line, class_names, parse_classes, parse_line, proper_type
from yolokd.errors import UserError

CAR = "Car 0.15 1 -1.57 1.25 2 30.5 40 1.5 1.6 3.9 1.0 1.5 13.2 1.6"


def test_parse_line__columns() -> None:
    assert parse_line(f"  {CAR}\n") == Line("Car", 0.15, 1, (1.25, 2.0, 30.5, 40.0), None)
    assert parse_line(f"{CAR} 0.75", scored=True).score == 0.75
    assert parse_line(f"{CAR} 0.75").score is None


@pytest.mark.parametrize(
    "line", ["Car", CAR.rsplit(" ", 1)[0], CAR.replace("30.5", "wide"), CAR.replace("40", "nan"), f"Car {CAR}"]
)
def test_parse_line__refuses(line: str) -> None:
    with pytest.raises(BadLineError) as caught:
        parse_line(line)
    assert caught.value.args == ("expected a type and finite numbers in 15 columns", f"'{line}'")


def test_parse_line__a_result_needs_its_score() -> None:
    with pytest.raises(BadLineError, match="16 columns, the last a score"):
        parse_line(CAR, scored=True)


def test_proper_type__whatever_the_case() -> None:
    words = [proper_type(word) for word in ("car", "PERSON_SITTING", "dontcare", " Bus ")]
    assert words == ["Car", "Person_sitting", "DontCare", "Bus"]


def test_parse_classes__presets() -> None:
    assert list(parse_classes("3").items()) == [("Car", "Car"), ("Pedestrian", "Pedestrian"), ("Cyclist", "Cyclist")]
    assert class_names(parse_classes("8")) == dict(
        enumerate(("Car", "Van", "Truck", "Pedestrian", "Person_sitting", "Cyclist", "Tram", "Misc"))
    )


def test_parse_classes__pairs_from_the_line_or_a_file(tmp_path: Path) -> None:
    expected = {"Car": "vehicle", "Pedestrian": "person", "Van": "vehicle"}
    assert parse_classes("car=vehicle, Pedestrian = person,Van=vehicle") == expected
    (tmp_path / "c.yaml").write_text("Car: vehicle\nPedestrian: person\nVan: vehicle\n")
    found = parse_classes(str(tmp_path / "c.yaml"))
    assert found == expected
    assert class_names(found) == {0: "vehicle", 1: "person"}


def test_parse_classes__more_pairs_than_a_file_name_has_letters() -> None:
    pairs = {f"Type{number}": f"class{number}" for number in range(40)}
    assert parse_classes(",".join(map("=".join, pairs.items()))) == pairs


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("5", "expects 3, 8, pairs such as .* got '5'"),
        ("gone.yaml", r"got 'gone\.yaml', which is no file here"),
        ("Car=car,Van", "'Van=' lacks a name"),
        ("Car=car,car=auto", "names the type Car twice"),
        ("Kart=car,kart=auto", "names the type kart twice"),
        ("DontCare=stuff", "cannot be a class"),
        ("Car=car,Van=CAR", "two classes differ by case only: car, CAR"),
    ],
)
def test_parse_classes__refuses(text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        parse_classes(text)


@pytest.mark.parametrize("content", ["- Car", "", "Car: 3", "Car: [", "3: car", "\x00"])
def test_parse_classes__refuses_a_file_without_pairs(tmp_path: Path, content: str) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(content)
    with pytest.raises(UserError, match=r"The class mapping '.*c\.yaml'"):
        parse_classes(str(path))
