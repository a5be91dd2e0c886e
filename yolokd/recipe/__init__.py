"""Recipes: what to train, as a short YAML file turned into a typed, frozen `Recipe`. Imports no torch."""

from __future__ import annotations

from yolokd.recipe._config import Gain
from yolokd.recipe.augment import Augment, IKDAdversarialConfig, IKDConfig
from yolokd.recipe.load import list_recipes, load_recipe, recipe_path, recipe_text
from yolokd.recipe.losses import (
    BCKDConfig,
    CWDConfig,
    FBKDConfig,
    FGDConfig,
    KeypointConfig,
    LDConfig,
    LossConfig,
    Losses,
    MaskConfig,
    MGDConfig,
    PKDConfig,
    SAMKDConfig,
    SoftConfig,
    SSIMConfig,
    UltralyticsConfig,
)
from yolokd.recipe.models import AIDConfig, Recipe, Teacher, Weighting, schema
from yolokd.recipe.schedule import Balance, Schedule

__all__ = [
    "AIDConfig",
    "Augment",
    "BCKDConfig",
    "Balance",
    "CWDConfig",
    "FBKDConfig",
    "FGDConfig",
    "Gain",
    "IKDAdversarialConfig",
    "IKDConfig",
    "KeypointConfig",
    "LDConfig",
    "LossConfig",
    "Losses",
    "MGDConfig",
    "MaskConfig",
    "PKDConfig",
    "Recipe",
    "SAMKDConfig",
    "SSIMConfig",
    "Schedule",
    "SoftConfig",
    "Teacher",
    "UltralyticsConfig",
    "Weighting",
    "list_recipes",
    "load_recipe",
    "recipe_path",
    "recipe_text",
    "schema",
]
