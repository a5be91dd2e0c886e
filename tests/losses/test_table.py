from __future__ import annotations

from yolokd.losses.table import LOSSES
from yolokd.recipe.models import Losses


def test_losses__every_method_of_a_recipe_has_a_class() -> None:
    assert set(LOSSES) == set(Losses.model_fields)


def test_losses__terms_are_those_that_the_recipe_gives_gains() -> None:
    for name, config in Losses.model_validate({name: {} for name in LOSSES}).items():
        assert set(config.gains()) <= set(LOSSES[name](config).terms)
