from __future__ import annotations

import copy
import json
import math
import pickle
import re
from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from tests.helpers.default_recipe import DEFAULTS
from tests.helpers.strategies import PLAIN, RECIPES
from yolokd.errors import RecipeError
from yolokd.recipe import AIDConfig, Losses, Recipe, Schedule, SSIMConfig, Weighting, schema
from yolokd.recipe._yaml import parse

PLACES = [
    *("", "losses", "losses.ssim", "losses.samkd.gain", "losses.samkd.scales", "losses.mgd.schedule", "weighting.aid"),
    *("augment.ikd", "augment.ikd.adversarial", "schedule", "balance", "teacher.classes", "train", "train.batch"),
    "regimes",
]

VALIDATOR = jsonschema.Draft202012Validator(schema())
LEVELS = "p2, p3, p4, p5, p6 or p7"


def refusal(data: Any) -> str:
    with pytest.raises(RecipeError) as info:
        Recipe.from_dict(data)
    return str(info.value)


def test_from_dict__writes_out_every_default() -> None:
    recipe = Recipe.from_dict({"losses": {"ultralytics": {}}, "weighting": {"aid": {}}, "augment": {"ikd": {}}})
    assert recipe.to_dict() == DEFAULTS


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        ("losses.bckd.cls", -1, "must be a number >= 0 or auto, got -1"),
        ("losses.bckd.cls", math.nan, "must be a number >= 0 or auto, got nan"),
        ("losses.bckd.box", math.inf, "must be a number >= 0 or auto, got inf"),
        ("losses.bckd.box", True, "must be a number >= 0 or auto, got true"),
        ("losses.bckd.box", "4", "must be a number >= 0 or auto, got '4'; take the quotes off"),
        ("losses.bckd.beta", 0, "must be a number > 0, got 0"),
        ("losses.bckd.detach_weight", 1, "must be true or false, got 1"),
        ("losses.bckd.iou", "gious", "must be giou or iou, got 'gious'; did you mean giou?"),
        ("losses.bckd.normalizer", None, "must be positives or target_scores, got null"),
        ("losses.ssim.gain", -0.5, "must be a number >= 0 or auto, got -0.5"),
        ("losses.ssim.levels", [], f"must be a list of 1 or more (each item {LEVELS}) or null, got []"),
        ("losses.ssim.levels", "p3", f"must be a list of 1 or more (each item {LEVELS}) or null, got 'p3'"),
        ("losses.ssim.levels", ["p3", "p3"], "must name each level once, got ['p3', 'p3']"),
        ("losses.ssim.levels[1]", ["p3", "p8"], f"must be {LEVELS}, got 'p8'"),
        ("losses.ssim.window", 4, "must be odd, got 4"),
        ("losses.ssim.window", 1, "must be a whole number >= 3, got 1"),
        ("losses.ssim.window", 11.0, "must be a whole number >= 3, got 11.0"),
        ("losses.ssim.sigma", 0.0, "must be a number > 0, got 0.0"),
        ("losses.ssim.normalize", "batch", "must be image, channel, level or null, got 'batch'"),
        ("losses.ultralytics.gain", [6], "must be a number >= 0 or auto, got [6]"),
        ("losses.samkd.logits", "off", "must be a number >= 0 or auto, got 'off'"),
        ("losses.fbkd.relation", "Auto", "must be a number >= 0 or auto, got 'Auto'; did you mean auto?"),
        ("losses.fbkd.channel", False, "must be a number >= 0 or auto, got false; 0 switches it off"),
        ("losses.fbkd.feature", {"float": 1}, "must be a number >= 0 or auto, got {'float': 1}"),
        ("losses.samkd.ratio", 0, "must be a number > 0 and < 1, got 0"),
        ("losses.samkd.ratio", 1.0, "must be a number > 0 and < 1, got 1.0"),
        ("losses.samkd.scales", [], "must be a list of 1 or more (each item a whole number >= 1), got []"),
        ("losses.samkd.scales[1]", [1, 0], "must be a whole number >= 1, got 0"),
        ("losses.samkd.logits_weight", "harder", "must be hard or soft, got 'harder'; did you mean hard?"),
        ("losses.mgd.ratio", 1.5, "must be a number > 0 and < 1, got 1.5"),
        ("losses.mgd.ratio", -0.65, "must be a number > 0 and < 1, got -0.65"),
        ("losses.mgd.seed", 2**32, "must be a whole number >= 0 and < 4294967296, got 4294967296"),
        ("losses.fgd.foreground", "auto", "must be a number >= 0, got 'auto'"),
        ("losses.fgd.tau", 0, "must be a number > 0, got 0"),
        ("losses.cwd.levels[0]", ["p1"], f"must be {LEVELS}, got 'p1'"),
        ("losses.pkd.levels[0]", [3], f"must be {LEVELS}, got 3"),
        ("losses.ld.temperature", 0, "must be a number > 0, got 0"),
        ("losses.mgd.schedule", "cosine", "must be a mapping or null, got 'cosine'"),
        ("losses.mgd.schedule.until", 2, "must be a number > 0 and <= 1, got 2"),
        ("losses.ultralytics", 6.0, "must be a mapping or null, got 6.0"),
        ("losses", None, "must be a mapping, got null"),
        ("schedule.warmup", -1, "must be a number >= 0 or text such as 65%, got -1"),
        ("schedule.warmup", "101%", "must be a number >= 0 or text such as 65%, got '101%'"),
        ("schedule.warmup", "3 epochs", "must be a number >= 0 or text such as 65%, got '3 epochs'"),
        ("schedule.warmup", "65", "must be a number >= 0 or text such as 65%, got '65'; take the quotes off"),
        ("schedule.shape", "cosin", "must be constant, linear or cosine, got 'cosin'; did you mean cosine?"),
        ("schedule.until", 0, "must be a number > 0 and <= 1, got 0"),
        ("schedule.until", 1.5, "must be a number > 0 and <= 1, got 1.5"),
        ("schedule.shape", 3, "must be constant, linear or cosine, got 3"),
        ("weighting", None, "must be a mapping, got null"),
        ("weighting.aid", 0.1, "must be a mapping or null, got 0.1"),
        ("weighting.aid.alpha", -0.1, "must be a number >= 0, got -0.1"),
        ("weighting.aid.scope", "object", "must be instance, image or level, got 'object'"),
        ("weighting.aid.normalize", True, "must be raw or mean, got true"),
        ("augment.ikd.noise", 1.1, "must be a number >= 0 and <= 1, got 1.1"),
        ("augment.ikd.crop", 0, "must be a number > 0 and <= 1, got 0"),
        ("augment.ikd.until", 16, "must be a number > 0 and <= 1, got 16"),
        ("augment.ikd.adversarial", False, "must be a mapping or null, got false"),
        ("augment.ikd.adversarial.gain", -1, "must be a number >= 0, got -1"),
        ("augment.ikd.adversarial.gain", "auto", "must be a number >= 0, got 'auto'"),
        ("augment.ikd.adversarial.gain", False, "must be a number >= 0, got false; 0 switches it off"),
        ("augment.ikd.adversarial.eps", 0, "must be a number > 0, got 0"),
        ("augment.ikd.adversarial.step", -2, "must be a number > 0, got -2"),
        ("augment.ikd.adversarial.steps", 0, "must be a whole number >= 1, got 0"),
        ("augment.ikd.adversarial.every", 2.5, "must be a whole number >= 1, got 2.5"),
        ("balance.share", 0, "must be a number > 0 and <= 10, got 0"),
        ("balance.share", 11, "must be a number > 0 and <= 10, got 11"),
        ("balance.every", 0, "must be a whole number >= 1, got 0"),
        ("balance.log", "yes", "must be true or false, got 'yes'"),
        ("teacher.imgsz", 100, "must be a whole number >= 32 and <= 16384 and a multiple of 32 or null, got 100"),
        ("train.pseudo_labels", 1.5, "must be true or false, a number > 0 and < 1 or a mapping, got 1.5"),
        ("teacher.precision", "half", "must be auto, fp32, fp16 or bf16, got 'half'"),
        ("teacher.classes", ["person"], "must be a mapping or coco-to-kitti, got ['person']"),
        (
            "teacher.classes",
            "coco-to-kity",
            "must be a mapping or coco-to-kitti, got 'coco-to-kity'; did you mean coco-to-kitti?",
        ),
        ("teacher.classes", None, "must be a mapping or coco-to-kitti, got null"),
        ("teacher.classes.coco-to-kitti", 1, "must be text of at least one letter, got 1; put it in quotes"),
        ("teacher.classes.person", 3, "must be text of at least one letter, got 3; put it in quotes"),
        ("teacher.classes.person", "", "must be text of at least one letter, got ''"),
        ("teacher.classes", {3: "person"}, "keys must be text, got 3"),
        ("summary", 3, "must be text, got 3; put it in quotes"),
        ("train", [1], "must be a mapping, got [1]"),
        ("train", {True: 1}, "keys must be text, got true"),
    ],
)
def test_from_dict__a_wrong_value_is_named_with_path_and_allowed_values(path: str, value: Any, words: str) -> None:
    *parents, last = re.sub(r"\[\d\]$", "", path).split(".")
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
        "  losses.bckd.cls: must be a number >= 0 or auto, got -1",
        "  losses.bckd.boxx: unknown key; did you mean box? "
        "(known: schedule, cls, box, beta, detach_weight, iou, normalizer, average)",
        f"  losses.sism: unknown key; did you mean ssim? (known: {', '.join(Losses.model_fields)})",
        "  schedule.until: must be a number > 0 and <= 1, got 2",
        "  train.epochs: must be a whole number >= 1, got 0",
        "  train.epoch: unknown key; did you mean epochs?",
        "  train: keys must be text, got 7",
        "  epochs: unknown key; did you mean train.epochs? "
        "(known: summary, losses, weighting, augment, schedule, balance, teacher, student, train, regimes)",
        "  top level: keys must be text, got 7",
    ]


def test_from_dict__a_recipe_without_losses_says_what_to_write() -> None:
    assert refusal({}) == "recipe: losses: is missing; write losses: {} for plain training"


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        ("aid", "weighting.aid"),
        ("losses.aid", "weighting.aid"),
        ("losses.ikd", "augment.ikd"),
        ("weighting.bckd", "losses.bckd"),
        ("schedule.share", "balance.share"),
        ("losses.epochs", "train.epochs"),
    ],
)
def test_from_dict__a_key_in_the_wrong_section_is_told_its_place(wrong: str, right: str) -> None:
    data: dict[str, Any] = {"losses": {}}
    *parents, last = wrong.split(".")
    place = data
    for key in parents:
        place = place.setdefault(key, {})
    place[last] = {}
    assert refusal(data).startswith(f"recipe: {wrong}: unknown key; did you mean {right}? (known: ")


def test_from_dict__a_list_of_wrong_items_is_not_called_too_short() -> None:
    assert refusal({"losses": {"ssim": {"levels": ["p8"]}}}) == (
        f"recipe: losses.ssim.levels[0]: must be {LEVELS}, got 'p8'"
    )


def test_from_dict__a_key_that_is_named_like_a_type_does_no_harm() -> None:
    assert refusal({"losses": {}, "train": {"amp": {"bool": 1}}}) == (
        "recipe: train.amp: must be true or false, fp16, bf16 or fp32, got {'bool': 1}"
    )


NOTHING = "weighting.aid: has nothing to weigh; add a loss under losses, or leave it out"


@pytest.mark.parametrize(
    "rest", [{"losses": {}}, {"losses": {"ssim": None}}, {"losses": {}, "augment": {"ikd": {"adversarial": {}}}}]
)
def test_weighting__aid_without_losses_is_refused(rest: dict[str, Any]) -> None:
    assert refusal({**rest, "weighting": {"aid": {}}}) == f"recipe: {NOTHING}"
    assert refusal({**rest, "weighting": {"aid": {}}, "epoch": 3}).splitlines()[1] == f"  {NOTHING}"
    assert Recipe.from_dict({**rest, "weighting": {"aid": None}}) == Recipe.from_dict(rest)


@pytest.mark.parametrize("classes", [{"motorcycle": "motorbike"}, "coco-to-kitti"])
@pytest.mark.parametrize("init", [{}, {"init": "auto"}])
def test_student__a_class_map_that_nothing_reads_is_refused(init: dict[str, str], classes: object) -> None:
    line = "recipe: student.classes: has an effect with student.init: classes only"
    assert refusal({"losses": {}, "student": {**init, "classes": classes}}) == line
    assert Recipe.from_dict({"losses": {}, "student": {**init, "classes": {}}}).student.classes == {}


def test_student__class_rows_need_no_teacher_and_a_wrong_init_is_one_problem() -> None:
    student = {"init": "classes", "classes": {"motorcycle": "motorbike"}}
    assert not Recipe.from_dict({"losses": {}, "student": student}).needs_teacher
    assert Recipe.from_dict({"losses": {}, "student": {"init": "auto"}}).needs_teacher
    assert refusal({"losses": {}, "student": {**student, "init": "class"}}) == (
        "recipe: student.init: must be random, teacher, auto or classes, got 'class'; did you mean classes?"
    )


def test_weighting__losses_that_are_switched_off_or_wrong_are_losses() -> None:
    assert Recipe.from_dict({"losses": {"ssim": {"gain": 0}}, "weighting": {"aid": {}}}).weighting.aid is not None
    assert "weighting" not in refusal({"losses": {"ssim": {"gain": -1}}, "weighting": {"aid": {}}})


def test_augment__with_adversarial_examples_but_no_losses_still_distils() -> None:
    recipe = Recipe.from_dict({"losses": {}, "augment": {"ikd": {"adversarial": {"gain": 1}}}})
    assert recipe.losses.terms() == {}
    assert recipe.terms() == {"ikd": 1.0}
    assert "train.compile: " in refusal({"losses": {}, "augment": {"ikd": {}}, "train": {"compile": True}})
    assert "train.compile: " in refusal({"losses": {}, "augment": {"ikd": {"noise": 2}}, "train": {"compile": True}})


def test_augment__without_adversarial_examples_is_plain_training() -> None:
    data = {"losses": {}, "augment": {"ikd": {"adversarial": None}}, "train": {"compile": True}}
    assert Recipe.from_dict(data).terms() == {}


def test_terms__join_losses_and_adversarial_examples() -> None:
    recipe = Recipe.from_dict({"augment": {"ikd": {}}, "losses": {"samkd": {"gain": "auto"}, "ssim": {"gain": 0}}})
    assert list(recipe.terms().items()) == [("ssim", 0.0), ("samkd", "auto"), ("samkd_logits", 10.0), ("ikd", 4e-5)]


def test_schedule_of__a_loss_may_have_its_own() -> None:
    recipe = Recipe.from_dict(
        {
            "losses": {"bckd": {"schedule": {"shape": "cosine"}}, "ssim": {}},
            "augment": {"ikd": {}},
            "schedule": {"warmup": 3, "until": 0.8},
        }
    )
    common, own = Schedule(warmup=3, until=0.8), Schedule(shape="cosine")
    assert {term: recipe.schedule_of(term) for term in recipe.terms()} == {
        "bckd_cls": own,
        "bckd_box": own,
        "ssim": common,
        "ikd": Schedule(warmup=3, until=0.67),
    }


@pytest.mark.parametrize(("common", "example", "end"), [(1.0, 0.67, 0.67), (0.5, 0.67, 0.5), (0.5, 1.0, 0.5)])
def test_schedule_of__adversarial_examples_end_with_whichever_comes_first(
    common: float, example: float, end: float
) -> None:
    data = {"losses": {}, "augment": {"ikd": {"until": example}}, "schedule": {"until": common, "shape": "linear"}}
    assert Recipe.from_dict(data).schedule_of("ikd") == Schedule(until=end, shape="linear")


def test_schedule_of__refuses_a_term_that_is_not_there() -> None:
    with pytest.raises(ValueError, match="term must be one of ssim, got 'ikd'"):
        Recipe.from_dict({"losses": {"ssim": {}}}).schedule_of("ikd")
    with pytest.raises(ValueError, match="term must be one of none, got 'ssim'"):
        Recipe.from_dict({"losses": {}}).schedule_of("ssim")


@settings(deadline=None)
@given(PLAIN, st.sampled_from(PLACES))
def test_from_dict__any_plain_data_gives_a_recipe_or_a_recipe_error(value: Any, path: str) -> None:
    data: Any = value
    for key in reversed(path.split(".") if path else []):
        data = {key: data}
    if isinstance(data, dict):
        data = {"losses": {}} | data
    try:
        recipe = Recipe.from_dict(data)
    except RecipeError:
        pass  # refused
    else:
        assert VALIDATOR.is_valid(recipe.to_dict())


def test_recipe__direct_construction_is_strict_too() -> None:
    with pytest.raises(ValidationError, match="window"):
        SSIMConfig(window=4)
    with pytest.raises(ValidationError, match="nothing to weigh"):
        Recipe(losses=Losses(), weighting=Weighting(aid=AIDConfig()))
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


@settings(deadline=None)
@given(RECIPES)
def test_to_dict__round_trips_through_dict_json_and_yaml(data: dict[str, Any]) -> None:
    recipe = Recipe.from_dict(data)
    plain = recipe.to_dict()
    assert Recipe.from_dict(plain).to_dict() == plain
    assert json.loads(json.dumps(plain, allow_nan=False)) == plain
    assert parse(recipe.to_yaml(), "test") == plain
    assert recipe.differences(Recipe.from_dict(plain)) == []
    assert VALIDATOR.is_valid(plain)
    assert VALIDATOR.is_valid(data)
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
    there = Recipe.from_dict(
        {
            "losses": {"ssim": {"gain": "auto", "schedule": {"until": 0.5}}, "ultralytics": {}},
            "weighting": {"aid": {"alpha": 1}},
            "train": {"cos_lr": True},
        }
    )
    assert here.differences(there) == [
        "losses.ssim.gain: 2.0 here, 'auto' there",
        "losses.ssim.schedule: absent here, {'shape': 'constant', 'until': 0.5, 'warmup': 0.0} there",
        "losses.ultralytics: absent here, {'gain': 6.0, 'levels': None} there",
        "weighting.aid: absent here, {'alpha': 1.0, 'normalize': 'raw', 'scope': 'instance'} there",
        "train.lr0: 0.1 here, absent there",
        "train.cos_lr: absent here, true there",
    ]


def test_differences__null_is_not_absent() -> None:
    here = Recipe.from_dict({"losses": {}, "train": {"classes": None}})
    assert here.differences(Recipe.from_dict({"losses": {}})) == ["train.classes: null here, absent there"]
