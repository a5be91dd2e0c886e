"""Regimes of a recipe: which one fits, what it is merged to, what --set makes of it, and every problem in one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from yolokd.errors import RecipeError
from yolokd.recipe import Recipe, load_recipe, schema
from yolokd.recipe._yaml import parse
from yolokd.recipe.regimes import When, merged

TWO = """
losses: {bckd: {cls: 8.0, box: 32.0}}
train: {epochs: 7}
regimes:
  - {when: {student: scratch, images: unlabeled}, note: first, losses: {bckd: {cls: 2}, pkd: {}}}
  - {when: {student: pretrained}, note: second, losses: {bckd: null}, train: {lr0: 0.1}, schedule: {until: 0.5}}
"""
CASES = [(True, True), (True, False), (False, True), (False, False)]  # from scratch, images without labels


def in_case(recipe: Recipe, scratch: bool, unlabeled: bool) -> Recipe:
    return recipe.in_regime(recipe.regime_of(scratch=scratch, unlabeled=unlabeled))


def recipe_of(text: str) -> Recipe:
    return Recipe.from_dict(parse(text, "text"), name="mine")


def refusal(text: str) -> list[str]:
    with pytest.raises(RecipeError) as info:
        recipe_of(text)
    return str(info.value).splitlines()


@pytest.mark.parametrize("student", [None, "scratch", "pretrained"])
@pytest.mark.parametrize("images", [None, "labeled", "unlabeled"])
def test_when__fits_where_both_keys_agree_or_are_left_out(student: Any, images: Any) -> None:
    fitting = [case for case in CASES if When(student=student, images=images).fits(scratch=case[0], unlabeled=case[1])]
    starts = {None: {True, False}, "scratch": {True}, "pretrained": {False}}[student]
    given_ = {None: {True, False}, "unlabeled": {True}, "labeled": {False}}[images]
    assert fitting == [(scratch, free) for scratch, free in CASES if scratch in starts and free in given_]


def test_when__as_text() -> None:
    assert str(When()) == "a student"
    assert str(When(student="scratch")) == "a student from scratch"
    assert str(When(student="pretrained", images="labeled")) == (
        "a student that starts from trained weights, with all images labeled"
    )
    assert str(When(images="unlabeled")) == "a student, with images without labels"


def test_regime_of__the_first_that_fits() -> None:
    recipe = recipe_of(TWO)
    found = [recipe.regime_of(scratch=scratch, unlabeled=free) for scratch, free in CASES]
    assert [None if regime is None else regime.note for regime in found] == ["first", None, "second", "second"]
    all_fit = recipe_of("losses: {}\nregimes: [{note: a}, {when: {student: scratch}, note: b}]")
    assert {regime.note for case in CASES if (regime := all_fit.regime_of(scratch=case[0], unlabeled=case[1]))} == {"a"}


def test_in_regime__is_the_recipe_that_one_would_write_by_hand() -> None:
    recipe = recipe_of(TWO)
    by_hand = {
        (True, True): "losses: {bckd: {cls: 2, box: 32.0}, pkd: {}}\ntrain: {epochs: 7}",
        (True, False): "losses: {bckd: {cls: 8.0, box: 32.0}}\ntrain: {epochs: 7}",
        (False, True): "losses: {}\ntrain: {epochs: 7, lr0: 0.1}\nschedule: {until: 0.5}",
    }
    for case, text in by_hand.items():
        chosen = in_case(recipe, *case)
        assert chosen == recipe_of(text)
        assert (chosen.name, chosen.regimes) == ("mine", ())
        assert "regimes" not in chosen.to_dict()


@given(st.dictionaries(st.sampled_from("abc"), st.integers() | st.dictionaries(st.sampled_from("ab"), st.integers())))
def test_merged__the_regimes_values_and_the_others_of_the_recipe(section: dict[str, Any]) -> None:
    base = {"losses": {"a": 1, "b": {"a": 2, "c": 3}}, "train": {"a": 1}, "regimes": [7]}
    result = merged(base, {"when": {}, "note": "x", "losses": section})
    assert set(result) == {"losses", "train"}
    assert result["train"] == {"a": 1}
    for key in base["losses"] | section:  # type: ignore[operator]
        if key == "b" and isinstance(section.get("b"), dict):
            assert result["losses"]["b"] == {"a": 2, "c": 3} | section["b"]
        else:
            assert result["losses"][key] == section.get(key, {"a": 1, "b": {"a": 2, "c": 3}}.get(key))
    assert base["losses"] == {"a": 1, "b": {"a": 2, "c": 3}}


@pytest.mark.parametrize("overrides", [[], ["losses.bckd.cls=4"], ["teacher.classes={person: pedestrian}"]])
def test_to_yaml__a_recipe_with_regimes_reads_back(tmp_path: Path, overrides: list[str]) -> None:
    recipe = load_recipe("best", overrides)
    file = tmp_path / "best.yaml"
    file.write_text(recipe.to_yaml(), encoding="utf-8")
    again = load_recipe(file)
    assert again == recipe
    assert [in_case(again, *case) for case in CASES] == [in_case(recipe, *case) for case in CASES]


def test_schema__an_editor_knows_the_sections_of_a_regime() -> None:
    validator = jsonschema.Draft202012Validator(schema())
    validator.validate(parse(TWO, "text"))
    for wrong in ("{losses: {bckt: {}}}", "{when: {student: new}}", "{train: {epochs: 0}}", "{summary: x}", "7"):
        assert not validator.is_valid(parse(f"losses: {{}}\nregimes: [{wrong}]", "text")), wrong


# The recipe best


def test_best__is_another_shipped_recipe_in_each_regime() -> None:
    best, init = load_recipe("best"), load_recipe("init").student
    scratch = load_recipe("bckd").with_sections(student=init.model_dump())
    expected = [scratch, scratch, load_recipe("pseudo"), load_recipe("baseline")]
    for case, other in zip(CASES, expected, strict=True):
        assert {line.split(":")[0] for line in in_case(best, *case).differences(other)} == {"summary"}


def test_best__the_rest_is_what_it_does_from_scratch() -> None:
    best = load_recipe("best")
    assert best.in_regime(None) == in_case(best, True, False)


# Assignments


def test_overrides__hold_in_every_regime() -> None:
    best = load_recipe("best", ["train.epochs=3", "teacher.imgsz=384", "train.unlabeled=free"])
    for case in CASES:
        chosen = in_case(best, *case)
        assert (chosen.train["epochs"], chosen.train["unlabeled"], chosen.teacher.imgsz) == (3, "free", 384)


@pytest.mark.parametrize(
    ("override", "changed"),
    [
        ("losses.bckd.cls=4", [{"bckd_cls": 4.0, "bckd_box": 32.0}] * 3),
        ("losses={pkd: {}}", [{"pkd": 10.0}] * 3),
        ("losses.bckd=null", [{}, {}, {}]),
    ],
)
def test_overrides__win_over_a_regime(override: str, changed: list[Any]) -> None:
    best = load_recipe("best", [override])
    assert [in_case(best, *case).terms() for case in CASES[1:]] == changed


def test_overrides__a_value_in_the_place_of_the_regimes() -> None:
    two = load_recipe("best", ["train.pseudo_labels={car: 0.4}", "student.init=classes", "teacher.answers=live"])
    chosen = in_case(two, False, True)
    assert (chosen.train["pseudo_labels"], chosen.student.init, chosen.teacher.answers) == (
        {"car": 0.4},
        "classes",
        "live",
    )


def test_overrides__the_note_says_that_it_is_no_longer_the_recipes_choice() -> None:
    plain, changed = load_recipe("best"), load_recipe("best", ["losses.ssim.gain = 3", "train.epochs=3"])
    for before, after in zip(plain.regimes, changed.regimes, strict=True):
        assert after.note == f"{before.note}; changed by --set losses.ssim.gain = 3"


def test_overrides__of_one_regime_alone_are_refused() -> None:
    for override in ("regimes=null", "regimes[1].losses.bckd.cls=3", "regimes.1.note=x"):
        with pytest.raises(RecipeError, match=r"regimes are written in a recipe's file; set the key itself"):
            load_recipe("best", [override])


def test_overrides__that_do_not_go_with_a_regime_matter_where_it_is_the_one() -> None:
    best = load_recipe("best", ["weighting.aid.alpha=0.2"])
    chosen = in_case(best, True, False)
    assert chosen.weighting.aid is not None
    assert chosen.weighting.aid.alpha == 0.2
    with pytest.raises(RecipeError, match=r"^recipe best: regimes\[2\]\.weighting\.aid: has nothing to weigh"):
        in_case(best, False, False)


# Problems


def test_problems__of_all_regimes_are_named_by_their_place() -> None:
    lines = refusal("""
losses: {}
regimes:
  - when: {student: scrach, foo: 1}
    losses: {bckd: {cls: -1, clss: 3}}
    train: {unlabeled: x, epochs: 0}
  - losses: 3
    loses: {}
    teacher: {models: [a]}
  - 7
  - {weighting: {aid: {}}}
""")
    assert lines[0] == "mine: 11 problems"
    problems = dict(line.strip().split(": ", 1) for line in lines[1:])
    assert set(problems) == {
        *("regimes[0].when.student", "regimes[0].when.foo", "regimes[0].losses.bckd.cls"),
        *("regimes[0].losses.bckd.clss", "regimes[0].train.unlabeled", "regimes[0].train.epochs"),
        *("regimes[1].losses", "regimes[1].loses", "regimes[1].teacher.models"),
        *("regimes[2]", "regimes[3].weighting.aid"),
    }
    assert problems["regimes[0].when.student"].endswith("got 'scrach'; did you mean scratch?")
    assert problems["regimes[0].losses.bckd.cls"] == "must be a number >= 0 or auto, got -1"
    assert "did you mean losses?" in problems["regimes[1].loses"]
    assert problems["regimes[0].train.unlabeled"].startswith("decides which regime fits")


def test_problems__of_the_recipe_are_not_repeated_for_each_regime() -> None:
    text = "losses: {bckd: {cls: -1}}\nregimes: [{}, {note: x}]"
    assert refusal(text) == ["mine: losses.bckd.cls: must be a number >= 0 or auto, got -1"]


@pytest.mark.parametrize("value", ["7", "{}", "x", "[x]", "null"])
def test_problems__regimes_must_be_a_list_of_mappings(value: str) -> None:
    (line,) = refusal(f"losses: {{}}\nregimes: {value}")
    assert "regimes" in line
    assert "must be a" in line


def test_problems__a_file_with_a_mistake_in_a_regime_is_refused_with_overrides_too(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("losses: {}\nregimes: [{losses: {bckd: {cls: -1}}}]")
    with pytest.raises(RecipeError, match=r"regimes\[0\]\.losses\.bckd\.cls: must be a number"):
        load_recipe(file, ["losses.bckd.cls=3"])
