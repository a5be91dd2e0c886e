from __future__ import annotations

from typing import Any

import pytest

from tests.helpers.steps import STUDENT_CHANNELS, TEACHER_CHANNELS, make_step
from yolokd.losses.table import LOSSES, active_losses, losses_of
from yolokd.recipe import Losses, Recipe, SAMKDConfig


def test_losses__every_method_of_a_recipe_has_a_class() -> None:
    assert list(LOSSES) == list(Losses.model_fields)


@pytest.mark.parametrize("name", list(LOSSES))
def test_losses__terms_are_those_that_the_recipe_gives_gains(name: str) -> None:
    ((_, config),) = Losses.model_validate({name: {}}).items()
    assert tuple(config.gains()) == LOSSES[name](config).terms


@pytest.mark.parametrize("name", list(LOSSES))
def test_losses__automatic_gains_are_no_numbers_to_the_classes(name: str) -> None:
    has_levels = "levels" in type(dict(Losses.model_validate({name: {}}).items())[name]).model_fields
    levels = {"levels": list(STUDENT_CHANNELS)} if has_levels else {}
    ((_, config),) = Losses.model_validate({name: levels}).items()
    gains = [key for key, value in type(config).model_fields.items() if "auto" in str(value.annotation)]
    automatic = type(config).model_validate({**dict.fromkeys(gains, "auto"), **levels})
    assert set(automatic.gains().values()) == {"auto"}
    one, other = LOSSES[name](config), LOSSES[name](automatic)
    assert one.requires == other.requires
    assert str(one.build(STUDENT_CHANNELS, TEACHER_CHANNELS)) == str(other.build(STUDENT_CHANNELS, TEACHER_CHANNELS))


@pytest.mark.parametrize("levels", [("p3",), ("p4", "p5")])
def test_losses__compare_the_levels_that_the_recipe_gives(levels: tuple[str, ...]) -> None:
    every = Losses.model_validate({name: {} for name in LOSSES})
    having = [name for name, config in every.items() if hasattr(config, "levels")]
    assert "ssim" in having
    assert "bckd" not in having
    for name, config in Losses.model_validate({name: {"levels": levels} for name in having}).items():
        assert LOSSES[name](config).levels == levels


@pytest.mark.parametrize(("logits", "needed"), [(0, False), (1, True), ("auto", True)])
def test_losses__samkd_needs_the_head_unless_its_logits_are_off(logits: Any, needed: bool) -> None:
    loss = LOSSES["samkd"](SAMKDConfig(logits=logits))
    assert (loss.requires.heads, loss.requires.classes) == (needed, needed)


def test_losses_of__levels_that_a_recipe_does_not_name_are_those_given() -> None:
    recipe = Recipe.from_dict({"losses": {"cwd": {}, "pkd": {"levels": ["p4"]}, "ssim": {"gain": 0}, "bckd": {}}})
    wired = losses_of(recipe, ("p2", "p4"))
    assert {name: loss.levels for name, loss in wired.items()} == {
        "cwd": ("p2", "p4"),
        "pkd": ("p4",),
        "ssim": ("p2", "p4"),
        "bckd": (),
    }
    assert set(active_losses(recipe, ("p2",))) == {"cwd", "pkd", "bckd"}


def test_losses_of__a_feature_loss_without_levels_does_not_pass_for_one_that_is_0() -> None:
    loss = losses_of(Recipe.from_dict({"losses": {"cwd": {}}}))["cwd"]
    with pytest.raises(ValueError, match="the loss of cwd was given no levels to compare"):
        loss.maps(make_step(), loss.build(STUDENT_CHANNELS, TEACHER_CHANNELS), ["cwd"])
