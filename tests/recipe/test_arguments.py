from __future__ import annotations

import itertools
import sys
from pathlib import Path
from typing import Any

import pytest

from yolokd.errors import RecipeError
from yolokd.recipe import Recipe, load_recipe
from yolokd.recipe.arguments import FRACTIONS, NARROWER, REFUSED, arguments, train_model
from yolokd.recipe.models import schema


def refusal(train: dict[str, Any], losses: dict[str, Any] | None = None) -> str:
    with pytest.raises(RecipeError) as info:
        Recipe.from_dict({"losses": losses or {}, "train": train})
    return str(info.value).removeprefix("recipe: train.")


def test_arguments__read_key_default_type_and_comment() -> None:
    known = arguments()
    assert known["lr0"].default == 0.01
    assert known["epochs"].text == "number of epochs to train for"
    assert known["cos_lr"].type is bool
    assert known["device"].default is None
    assert len(known) > 100


def test_arguments__tables_name_only_keys_that_exist() -> None:
    assert set(NARROWER) | FRACTIONS | set(REFUSED) - {"save_dir"} <= set(arguments())
    assert not set(NARROWER) & FRACTIONS


def test_arguments__ultralytics_missing_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    arguments.cache_clear()
    monkeypatch.setattr("yolokd.recipe.arguments.find_spec", lambda name: None)
    with pytest.raises(RecipeError, match="Ultralytics is not installed"):
        arguments()
    arguments.cache_clear()


def test_arguments__a_type_that_is_not_documented_takes_anything(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "ultralytics" / "cfg").mkdir(parents=True)
    (tmp_path / "ultralytics" / "__init__.py").touch()
    (tmp_path / "ultralytics" / "cfg" / "default.yaml").write_text("epochs: 3 # (int) n\nnew: 1\nnewer: 2 # (odd) x\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "ultralytics", raising=False)
    arguments.cache_clear()
    train_model.cache_clear()
    try:
        assert list(arguments()) == ["epochs", "new", "newer"]
        assert Recipe.from_dict({"losses": {}, "train": {"new": "a", "newer": [1]}}).train == {"new": "a", "newer": [1]}
    finally:
        arguments.cache_clear()
        train_model.cache_clear()


@pytest.mark.parametrize("key", sorted(set(arguments()) - set(REFUSED)))
def test_train__every_default_of_ultralytics_is_accepted(key: str) -> None:
    default = arguments()[key].default
    assert Recipe.from_dict({"losses": {}, "train": {key: default}}).train == {key: default}


@pytest.mark.parametrize(
    ("key", "reason"),
    [
        ("model", "is set by yolokd; give the student with --student"),
        ("task", "is always detect here"),
        ("mode", "is always train here"),
        ("resume", "is set by yolokd; continue a run with --resume RUN"),
        ("distill_model", "is set by yolokd; give the teacher with --teacher"),
        ("dis", "is the gain of the built-in distiller; set losses.ultralytics.gain"),
        ("save_dir", "is set by yolokd; choose the folder with project and name"),
        ("cfg", "would bring in arguments unseen; write them under train"),
        ("format", "is a setting of export, which training ignores"),
        ("source", "is a setting of prediction, which training ignores"),
        ("tracker", "is a setting of tracking, which training ignores"),
    ],
)
def test_train__keys_that_yolokd_owns_are_refused_with_the_reason(key: str, reason: str) -> None:
    assert refusal({key: "x"}) == f"{key}: {reason}"


def test_train__compile_is_refused_with_losses_only() -> None:
    assert Recipe.from_dict({"losses": {}, "train": {"compile": True}}).train == {"compile": True}
    reason = "is refused by Ultralytics while distilling; leave it out, or write losses: {}"
    assert refusal({"compile": True}, {"ssim": {}}) == f"compile: {reason}"


@pytest.mark.parametrize(("value", "expected"), [(8, True), ("int8", True), (None, False)])
def test_train__quantize_is_taken_with_losses_and_without(value: Any, expected: bool) -> None:
    without: dict[str, Any] = {}
    for losses in (without, {"ssim": without}):
        assert Recipe.from_dict({"losses": losses, "train": {"quantize": value}}).quantizes is expected


@pytest.mark.parametrize(
    ("value", "shown"), [(4, "4"), (16, "16"), (32, "32"), ("fp16", "'fp16'"), ("eight", "'eight'"), (True, "true")]
)
def test_train__quantize_is_8_or_nothing(value: Any, shown: str) -> None:
    assert refusal({"quantize": value}) == f"quantize: must be 8, int8 or null, got {shown}"


def test_train__compile_is_refused_beside_wrong_losses() -> None:
    text = refusal({"compile": True}, {"ssim": {"gain": -1}})
    assert "losses.ssim.gain" in text
    assert "train.compile" in text


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("epochs", 0, "must be a whole number >= 1, got 0"),
        ("epochs", 1.5, "must be a whole number >= 1, got 1.5"),
        ("epochs", True, "must be a whole number >= 1, got true"),
        ("epochs", None, "must be a whole number >= 1, got null"),
        ("imgsz", 31, "must be a whole number >= 32 and <= 16384, got 31"),
        ("imgsz", [640, 640], "must be a whole number >= 32 and <= 16384, got [640, 640]"),
        ("batch", 0, "must be -1, a whole number >= 1 or a number > 0 and < 1, got 0"),
        ("batch", 1.0, "must be -1, a whole number >= 1 or a number > 0 and < 1, got 1.0"),
        ("lr0", 1.5, "must be a number >= 0 and <= 1, got 1.5"),
        ("lr0", "0.1", "must be a number >= 0 and <= 1, got '0.1'; take the quotes off"),
        ("degrees", float("nan"), "must be a number, got nan"),
        ("cos_lr", 1, "must be true or false, got 1"),
        ("cache", "rom", "must be true or false, ram or disk, got 'rom'; did you mean ram?"),
        ("optimizer", "adamw", "did you mean AdamW?"),
        ("name", 3, "must be text or null, got 3; put it in quotes"),
        (
            "classes",
            ["car"],
            "must be a whole number >= 0, a list of 1 or more (each item a whole number >= 0) or null, got ['car']",
        ),
        ("scale", [0.5], "must be a number >= 0 and <= 1 or a list of 2 (each item a number > 0), got [0.5]"),
        ("seed", -1, "must be a whole number >= 0 and <= 4294967295, got -1"),
    ],
)
def test_train__a_wrong_value_is_named_with_what_is_allowed(key: str, value: Any, words: str) -> None:
    text = refusal({key: value})
    assert text.startswith(f"{key}: must be ")
    assert text.endswith(words)
    assert "\n" not in text


@pytest.mark.parametrize("batch", [-1, 1, 16, 0.7])
def test_train__batch_takes_a_count_a_share_or_auto(batch: float) -> None:
    assert Recipe.from_dict({"losses": {}, "train": {"batch": batch}}).train == {"batch": batch}


VALUES: list[Any] = [
    *(None, True, False, -1, 0, 1, 2, 8, 33, 640, -0.5, 0.0, 0.3, 1.0, 2.5, 1e9),
    *("", "x", "3", "ram", "bf16", "auto", "SGD", "int8"),
    *([], [1], [0.5, 1.5], [1, 0], [0.5, 0.5, 0.5], ["a"], [None], {"a": 1}),
]


def test_train__accepts_nothing_that_ultralytics_refuses() -> None:
    from ultralytics.cfg import check_cfg

    accepted = 0
    for key, value in itertools.product(sorted(set(arguments()) - set(REFUSED)), VALUES):
        try:
            train = Recipe.from_dict({"losses": {}, "train": {key: value}}).to_dict()["train"]
        except RecipeError:
            continue
        check_cfg(train)  # raises TypeError or ValueError where Ultralytics would
        accepted += 1
    assert accepted > 200


def test_train__keys_are_those_of_ultralytics() -> None:
    from ultralytics.utils import DEFAULT_CFG_DICT

    assert {key: argument.default for key, argument in arguments().items()} == DEFAULT_CFG_DICT


def test_train__yolokds_own_keys_stand_beside_them() -> None:
    recipe = load_recipe("bckd", ["train.unlabeled=frames", "train.unlabeled_share=0.25"])
    assert recipe.train == {**load_recipe("bckd").train, "unlabeled": "frames", "unlabeled_share": 0.25}
    assert {"unlabeled", "unlabeled_share"} <= schema()["properties"]["train"]["properties"].keys()
    for wrong in ("unlabeled=''", "unlabeled=3", "unlabeled_share=0", "unlabeled_share=1", "unlabeled_share=half"):
        with pytest.raises(RecipeError, match=rf"train\.{wrong.partition('=')[0]}: must be"):
            load_recipe("bckd", [f"train.{wrong}"])
    with pytest.raises(RecipeError, match="did you mean unlabeled_share"):
        load_recipe("bckd", ["train.unlabelled_share=0.5"])
