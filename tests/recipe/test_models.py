from __future__ import annotations

import copy
import json
import math
import pickle
from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from tests.recipe.strategies import PLAIN, RECIPES
from yolokd.errors import RecipeError
from yolokd.recipe import BCKDConfig, Losses, Recipe, Schedule, SSIMConfig, UltralyticsConfig, list_recipes, schema
from yolokd.recipe._yaml import parse

VALIDATOR = jsonschema.Draft202012Validator(schema())


def refusal(data: Any) -> str:
    with pytest.raises(RecipeError) as info:
        Recipe.from_dict(data)
    return str(info.value)


def test_from_dict__defaults_are_the_published_ones() -> None:
    recipe = Recipe.from_dict({"losses": {"bckd": {}, "ssim": {}, "ultralytics": {}}})
    assert recipe.to_dict() == {
        "summary": "",
        "losses": {
            "bckd": {
                "cls": 1.0,
                "box": 4.0,
                "beta": 1.0,
                "detach_weight": False,
                "iou": "giou",
                "normalizer": "positives",
            },
            "ssim": {"gain": 2.0, "levels": ["p3", "p4", "p5"], "window": 11, "sigma": 1.5, "normalize": "image"},
            "ultralytics": {"gain": 6.0},
        },
        "schedule": {"warmup": 0.0, "shape": "constant", "until": 1.0},
        "teacher": {"classes": {}, "precision": "auto"},
        "train": {},
    }


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        ("losses.bckd.cls", -1, "must be a number >= 0, got -1"),
        ("losses.bckd.cls", math.nan, "must be a number >= 0, got nan"),
        ("losses.bckd.box", math.inf, "must be a number >= 0, got inf"),
        ("losses.bckd.box", True, "must be a number >= 0, got true"),
        ("losses.bckd.box", "4", "must be a number >= 0, got '4'; take the quotes off"),
        ("losses.bckd.beta", 0, "must be a number > 0, got 0"),
        ("losses.bckd.detach_weight", 1, "must be true or false, got 1"),
        ("losses.bckd.iou", "gious", "must be giou or iou, got 'gious'; did you mean giou?"),
        ("losses.bckd.normalizer", None, "must be positives or target_scores, got null"),
        ("losses.ssim.gain", -0.5, "must be a number >= 0, got -0.5"),
        ("losses.ssim.levels", [], "must be a list of 1 or more (each item p3, p4 or p5), got []"),
        ("losses.ssim.levels", "p3", "must be a list of 1 or more (each item p3, p4 or p5), got 'p3'"),
        ("losses.ssim.levels", ["p3", "p3"], "must name each level once, got ['p3', 'p3']"),
        ("losses.ssim.levels[1]", ["p3", "p6"], "must be p3, p4 or p5, got 'p6'"),
        ("losses.ssim.window", 4, "must be odd, got 4"),
        ("losses.ssim.window", 1, "must be a whole number >= 3, got 1"),
        ("losses.ssim.window", 11.0, "must be a whole number >= 3, got 11.0"),
        ("losses.ssim.sigma", 0.0, "must be a number > 0, got 0.0"),
        ("losses.ssim.normalize", "batch", "must be image, channel, level or null, got 'batch'"),
        ("losses.ultralytics.gain", [6], "must be a number >= 0, got [6]"),
        ("losses.ultralytics", 6.0, "must be a mapping or null, got 6.0"),
        ("losses", None, "must be a mapping, got null"),
        ("schedule.warmup", -1, "must be a number >= 0, got -1"),
        ("schedule.shape", "cosin", "must be constant, linear or cosine, got 'cosin'; did you mean cosine?"),
        ("schedule.until", 0, "must be a number > 0 and <= 1, got 0"),
        ("schedule.until", 1.5, "must be a number > 0 and <= 1, got 1.5"),
        ("teacher.precision", "half", "must be auto, fp32, fp16 or bf16, got 'half'"),
        ("teacher.classes", ["person"], "must be a mapping, got ['person']"),
        ("teacher.classes.person", 3, "must be text of at least one letter, got 3; put it in quotes"),
        ("teacher.classes.person", "", "must be text of at least one letter, got ''"),
        ("teacher.classes", {3: "person"}, "keys must be text, got 3"),
        ("summary", 3, "must be text, got 3; put it in quotes"),
        ("train", [1], "must be a mapping, got [1]"),
        ("train", {True: 1}, "keys must be text, got true"),
    ],
)
def test_from_dict__a_wrong_value_is_named_with_path_and_allowed_values(path: str, value: Any, words: str) -> None:
    *parents, last = path.removesuffix("[1]").split(".")
    data: dict[str, Any] = {"losses": {}}
    place = data
    for key in parents:
        place = place.setdefault(key, {})
    place[last] = value
    assert refusal(data) == f"recipe: {path}: {words}"


def test_from_dict__integers_are_numbers() -> None:
    recipe = Recipe.from_dict({"losses": {"ssim": {"gain": 4}}, "schedule": {"until": 1}})
    assert recipe == Recipe.from_dict({"losses": {"ssim": {"gain": 4.0}}, "schedule": {"until": 1.0}})
    assert isinstance(recipe.to_dict()["losses"]["ssim"]["gain"], float)


def test_from_dict__reports_every_problem_at_once() -> None:
    data = {
        "losses": {"sism": {}, "bckd": {"cls": -1, "boxx": 2}},
        "schedule": {"until": 2},
        "train": {"epochs": 0, "epoch": 3, 7: 7},
        "epochs": 3,
        7: 7,
    }
    assert refusal(data).splitlines() == [
        "recipe: 9 problems",
        "  losses.bckd.cls: must be a number >= 0, got -1",
        "  losses.bckd.boxx: unknown key; did you mean box? (known: cls, box, beta, detach_weight, iou, normalizer)",
        "  losses.sism: unknown key; did you mean ssim? (known: bckd, ssim, ultralytics)",
        "  schedule.until: must be a number > 0 and <= 1, got 2",
        "  train.epochs: must be a whole number >= 1, got 0",
        "  train.epoch: unknown key; did you mean epochs?",
        "  train: keys must be text, got 7",
        "  epochs: unknown key; did you mean train.epochs? (known: summary, losses, schedule, teacher, train)",
        "  top level: keys must be text, got 7",
    ]


def test_from_dict__a_recipe_without_losses_says_what_to_write() -> None:
    assert refusal({}) == "recipe: losses: is missing; write losses: {} for plain training"


@settings(deadline=None)
@given(PLAIN, st.sampled_from(["", "losses", "losses.ssim", "schedule", "teacher.classes", "train", "train.batch"]))
def test_from_dict__any_plain_data_gives_a_recipe_or_a_recipe_error(value: Any, path: str) -> None:
    data: Any = value
    for key in reversed(path.split(".") if path else []):
        data = {key: data}
    if isinstance(data, dict):
        data = {"losses": {}} | data
    try:
        recipe = Recipe.from_dict(data)
    except RecipeError:
        return
    assert VALIDATOR.is_valid(recipe.to_dict())


def test_recipe__direct_construction_is_strict_too() -> None:
    with pytest.raises(ValidationError, match="window"):
        SSIMConfig(window=4)
    with pytest.raises(ValidationError, match="epoch"):
        Recipe(losses=Losses(), train={"epoch": 3})


def test_recipe__is_frozen() -> None:
    recipe = Recipe.from_dict({"losses": {"ssim": {}}})
    with pytest.raises(ValidationError, match="frozen"):
        recipe.summary = "other"
    assert recipe.losses.ssim is not None
    with pytest.raises(ValidationError, match="frozen"):
        recipe.losses.ssim.gain = 1.0


def test_recipe__name_is_no_part_of_the_content() -> None:
    one, two = (Recipe.from_dict({"losses": {}}, name=name) for name in ("one", "two"))
    assert (one.name, two.name) == ("one", "two")
    assert one == two
    assert "name" not in one.to_dict()
    assert pickle.loads(pickle.dumps(one)).name == copy.deepcopy(one).name == "one"
    assert one != {"losses": {}}


def test_gains__are_keyed_by_csv_column() -> None:
    assert BCKDConfig(cls=0.5, box=3).gains() == {"bckd_cls": 0.5, "bckd_box": 3.0}
    assert SSIMConfig(gain=0).gains() == {"ssim": 0.0}
    assert UltralyticsConfig().gains() == {"ultralytics": 6.0}


def test_losses__items_and_terms_keep_the_order_of_declaration() -> None:
    losses = Losses.model_validate({"ultralytics": {}, "bckd": {"box": 2.0}, "ssim": None})
    assert list(losses.items()) == [("bckd", BCKDConfig(box=2.0)), ("ultralytics", UltralyticsConfig())]
    assert list(losses.terms().items()) == [("bckd_cls", 1.0), ("bckd_box", 2.0), ("ultralytics", 6.0)]
    assert Losses().terms() == {}


def test_ssim_levels__are_put_in_order() -> None:
    assert SSIMConfig.model_validate({"levels": ["p5", "p3"]}).levels == ("p3", "p5")


@settings(deadline=None)
@given(RECIPES)
def test_to_dict__round_trips_through_dict_json_and_yaml(data: dict[str, Any]) -> None:
    recipe = Recipe.from_dict(data)
    plain = recipe.to_dict()
    assert Recipe.from_dict(plain).to_dict() == plain
    assert json.loads(json.dumps(plain, allow_nan=False)) == plain
    assert parse(recipe.to_yaml(), "test") == plain
    assert recipe.differences(Recipe.from_dict(plain)) == []
    for section, given_values in data.items():
        if section == "train":
            assert plain["train"] == given_values


def test_to_dict__gives_away_no_part_of_the_recipe() -> None:
    recipe = Recipe.from_dict({"losses": {"ssim": {}}, "train": {"classes": [1]}})
    plain = recipe.to_dict()
    plain["losses"].clear()
    plain["train"]["classes"].append(2)
    assert recipe.to_dict()["train"] == {"classes": [1]}
    assert recipe.losses.ssim is not None


def test_differences__name_path_and_both_values() -> None:
    here = Recipe.from_dict({"losses": {"ssim": {"gain": 2}}, "train": {"lr0": 0.1}})
    there = Recipe.from_dict({"losses": {"ssim": {"gain": 4}, "ultralytics": {}}, "train": {"cos_lr": True}})
    assert here.differences(there) == [
        "losses.ssim.gain: 2.0 here, 4.0 there",
        "losses.ultralytics: absent here, {'gain': 6.0} there",
        "train.lr0: 0.1 here, absent there",
        "train.cos_lr: absent here, true there",
    ]


def test_differences__null_is_not_absent() -> None:
    here = Recipe.from_dict({"losses": {}, "train": {"classes": None}})
    assert here.differences(Recipe.from_dict({"losses": {}})) == ["train.classes: null here, absent there"]


def test_factor__constant_without_warmup_is_one_until_the_end() -> None:
    schedule = Schedule(until=0.5)
    assert [schedule.factor(p, 10) for p in (0, 2.5, 4.999, 5, 10)] == [1, 1, 1, 0, 0]


def test_factor__shapes_at_a_quarter_and_the_middle() -> None:
    linear, cosine = Schedule(shape="linear", until=0.8), Schedule(shape="cosine", until=0.8)
    assert [linear.factor(p, 10) for p in (0, 2, 4)] == pytest.approx([1, 0.75, 0.5], abs=1e-15)
    assert [cosine.factor(p, 10) for p in (0, 2, 4)] == pytest.approx([1, (2 + 2**0.5) / 4, 0.5], abs=1e-15)


def test_factor__warmup_rises_in_a_line_from_above_zero_to_one() -> None:
    rise = [Schedule(warmup=3).factor(p, 100) for p in (0, 1, 2, 3, 4)]
    assert rise == pytest.approx([0.25, 0.5, 0.75, 1, 1], abs=1e-15)


def test_factor__warmup_multiplies_the_shape() -> None:
    schedule = Schedule(warmup=3, shape="linear")
    assert schedule.factor(1, 10) == pytest.approx(0.5 * 0.9, abs=1e-15)


@given(
    st.sampled_from(["constant", "linear", "cosine"]),
    st.floats(0, 50),
    st.floats(0.01, 1),
    st.integers(1, 1000),
    st.floats(0, 1),
    st.floats(0, 1),
)
def test_factor__stays_in_bounds_and_falls_after_the_warmup(
    shape: Any, warmup: float, until: float, epochs: int, first: float, second: float
) -> None:
    schedule = Schedule(warmup=warmup, shape=shape, until=until)
    early, late = sorted((first * epochs, second * epochs))
    assert 0 <= schedule.factor(late, epochs) <= 1
    assert schedule.factor(0, epochs) > 0
    assert schedule.factor(until * epochs, epochs) == 0
    if early >= warmup:
        assert schedule.factor(early, epochs) >= schedule.factor(late, epochs)


@pytest.mark.parametrize(("progress", "epochs"), [(-0.1, 10), (math.nan, 10), (0, 0)])
def test_factor__refuses_times_outside_the_training(progress: float, epochs: int) -> None:
    with pytest.raises(ValueError, match="progress must be >= 0 and epochs >= 1"):
        Schedule().factor(progress, epochs)


def test_schema__shipped_recipes_pass() -> None:
    document = schema()
    jsonschema.Draft202012Validator.check_schema(document)
    files = list_recipes().values()
    assert files
    for file in files:
        jsonschema.validate(parse(file.read_text(encoding="utf-8"), file.name), document)


@pytest.mark.parametrize(
    "data",
    [
        {},
        {"losses": {"sism": {}}},
        {"losses": {"ssim": {"levels": []}}},
        {"losses": {"ssim": {"levels": ["p3", "p3"]}}},
        {"losses": {"ssim": {"window": 4}}},
        {"losses": {"bckd": {"cls": -1}}},
        {"losses": {}, "schedule": {"shape": "cosin"}},
        {"losses": {}, "train": {"epoch": 3}},
        {"losses": {}, "train": {"epochs": "3"}},
        {"losses": {}, "train": {"model": "yolov8n"}},
        {"losses": {}, "teacher": {"classes": {"person": 1}}},
    ],
)
def test_schema__wrong_recipes_fail_as_they_do_here(data: dict[str, Any]) -> None:
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(data, schema())
    refusal(data)


def test_schema__every_key_has_a_description() -> None:
    document = schema()
    described = [document["properties"], document["properties"]["train"]["properties"]]
    described += [part["properties"] for part in document["$defs"].values()]
    bare = [key for properties in described for key, node in properties.items() if not node.get("description")]
    assert bare == []
    assert document["properties"]["train"]["properties"]["epochs"]["description"] == "number of epochs to train for"
    assert all(part["additionalProperties"] is False for part in document["$defs"].values())
