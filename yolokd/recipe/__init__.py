"""Recipes: what to train, as a short YAML file turned into a typed, frozen `Recipe`. Imports no torch."""

from __future__ import annotations

from yolokd.recipe.load import list_recipes, load_recipe, recipe_path, recipe_text
from yolokd.recipe.models import (
    BCKDConfig,
    LossConfig,
    Losses,
    Recipe,
    Schedule,
    SSIMConfig,
    Teacher,
    UltralyticsConfig,
    schema,
)

__all__ = [
    "BCKDConfig",
    "LossConfig",
    "Losses",
    "Recipe",
    "SSIMConfig",
    "Schedule",
    "Teacher",
    "UltralyticsConfig",
    "list_recipes",
    "load_recipe",
    "recipe_path",
    "recipe_text",
    "schema",
]
