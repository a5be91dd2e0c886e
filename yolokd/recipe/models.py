"""The typed recipe: frozen, strict, unknown keys refused, every problem reported at once.

A method is one config class here and one field of `Losses`; the key of the field is the method's name everywhere.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from copy import deepcopy
from functools import cache
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, PrivateAttr, ValidationError, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

from yolokd.errors import RecipeError
from yolokd.recipe._yaml import dump
from yolokd.recipe.arguments import STRICT, train_model
from yolokd.recipe.problems import dotted, listing, problem_lines, shown

Gain = Annotated[float, Field(ge=0)]
Level = Literal["p3", "p4", "p5"]
LEVELS: tuple[Level, ...] = ("p3", "p4", "p5")


class _Config(BaseModel):
    model_config = STRICT


class LossConfig(_Config, ABC):
    """Base of the configuration of one distillation method."""

    @abstractmethod
    def gains(self) -> dict[str, float]:
        """Return the gain of each term, keyed by its csv column without the prefix `kd_`; 0 switches a term off."""


class BCKDConfig(LossConfig):
    """Binary classification and IoU distillation on the head (Yang et al., ICCV 2023)."""

    cls: Gain = Field(default=1.0, description="Gain of the classification term; 0 switches it off.")
    box: Gain = Field(default=4.0, description="Gain of the box term; 0 switches it off.")
    beta: float = Field(default=1.0, gt=0, description="Exponent of the score gap that weighs the classification term.")
    detach_weight: bool = Field(
        default=False, description="Stop the gradient through the classification weight; the authors' code does not."
    )
    iou: Literal["giou", "iou"] = Field(
        default="giou",
        description="Overlap in the box term: giou as in the authors' code, iou as in the paper.",
    )
    normalizer: Literal["positives", "target_scores"] = Field(
        default="positives",
        description="What both terms are divided by: the number of positive anchors, or the mass of their soft labels.",
    )

    def gains(self) -> dict[str, float]:
        """Return the gains of the classification and the box term."""
        return {"bckd_cls": self.cls, "bckd_box": self.box}


class SSIMConfig(LossConfig):
    """Structural similarity of neck features (de Rijk et al., NeurIPS 2022)."""

    gain: Gain = Field(default=2.0, description="Gain of the loss; 0 switches it off.")
    levels: tuple[Level, ...] = Field(
        default=LEVELS,
        strict=False,  # YAML has lists, not tuples
        min_length=1,
        json_schema_extra={"uniqueItems": True},
        description="Neck levels that are compared.",
    )
    window: int = Field(
        default=11,
        ge=3,
        json_schema_extra={"not": {"multipleOf": 2}},
        description="Side of the Gaussian window in cells, odd.",
    )
    sigma: float = Field(default=1.5, gt=0, description="Standard deviation of the Gaussian window in cells.")
    normalize: Literal["image", "channel", "level"] | None = Field(
        default="image",
        description="Range that is scaled to [0, 1]: of each image, of each channel of an image, of the whole level "
        "over the batch, or null for none.",
    )

    @field_validator("levels")
    @classmethod
    def _unique(cls, levels: tuple[Level, ...]) -> tuple[Level, ...]:
        if len(set(levels)) < len(levels):
            raise PydanticCustomError("rule", "must name each level once")
        return tuple(level for level in LEVELS if level in levels)

    @field_validator("window")
    @classmethod
    def _odd(cls, window: int) -> int:
        if window % 2 == 0:
            raise PydanticCustomError("rule", "must be odd")
        return window

    def gains(self) -> dict[str, float]:
        """Return the gain of the only term."""
        return {"ssim": self.gain}


class UltralyticsConfig(LossConfig):
    """Score-weighted L2 on neck features, the distillation loss that Ultralytics itself ships."""

    gain: Gain = Field(default=6.0, description="Gain of the loss, Ultralytics' own argument dis; 0 switches it off.")

    def gains(self) -> dict[str, float]:
        """Return the gain of the only term."""
        return {"ultralytics": self.gain}


class Losses(_Config):
    """Distillation losses by method; none at all is plain training."""

    bckd: BCKDConfig | None = Field(default=None, description="Binary classification and IoU distillation on the head.")
    ssim: SSIMConfig | None = Field(default=None, description="Structural similarity of neck features.")
    ultralytics: UltralyticsConfig | None = Field(default=None, description="The loss that Ultralytics itself ships.")

    def items(self) -> Iterator[tuple[str, LossConfig]]:
        """Yield name and configuration of each method that the recipe gives, in the order of declaration."""
        for name in type(self).model_fields:
            config = getattr(self, name)
            if config is not None:
                yield name, config

    def terms(self) -> dict[str, float]:
        """Return the gains of all terms of all methods, keyed by csv column without the prefix `kd_`."""
        return {term: gain for _, config in self.items() for term, gain in config.gains().items()}


class Schedule(_Config):
    """How the strength of all distillation losses runs over the training."""

    warmup: float = Field(default=0.0, ge=0, description="Epochs over which the losses rise linearly to full strength.")
    shape: Literal["constant", "linear", "cosine"] = Field(
        default="constant", description="Course of the strength: constant, or falling to 0 in a line or half a cosine."
    )
    until: float = Field(
        default=1.0, gt=0, le=1, description="Share of the epochs after which the losses are off; 1 keeps them on."
    )

    def factor(self, progress: float, epochs: int) -> float:
        """Return the factor on all gains, in [0, 1]; the warm-up multiplies the shape.

        Args:
            progress: Epochs behind us, as a real number: 0 at the start, 2.5 in the middle of the third epoch.
            epochs: Epochs of the whole training, at least 1.

        Returns:
            0 from `until` · `epochs` on. The warm-up rises from 1 / (`warmup` + 1) at the start, since a factor of
            exactly 0 would mean "off", to 1 at `warmup` epochs.

        Raises:
            ValueError: `progress` is negative or `epochs` below 1.
        """
        if not progress >= 0 or epochs < 1:
            raise ValueError(f"progress must be >= 0 and epochs >= 1, got {progress} and {epochs}")
        end = self.until * epochs
        if progress >= end:
            return 0.0
        rise = min(1.0, (progress + 1) / (self.warmup + 1))
        if self.shape == "linear":
            return rise * (1 - progress / end)
        if self.shape == "cosine":
            return rise * (1 + math.cos(math.pi * progress / end)) / 2
        return rise


class Teacher(_Config):
    """Settings of the teacher."""

    classes: Mapping[str, Annotated[str, Field(min_length=1)]] = Field(
        default_factory=dict,
        description="The teacher's class names that differ from the data's, each with the data's name for it.",
    )
    precision: Literal["auto", "fp32", "fp16", "bf16"] = Field(
        default="auto", description="Precision of the teacher's pass; auto takes half precision where the GPU has it."
    )


class Recipe(_Config):
    """What to train: distillation losses, their schedule, the teacher's settings, Ultralytics' training arguments."""

    summary: str = Field(default="", description="One sentence on what the recipe does.")
    losses: Losses = Field(description="Distillation losses by method; {} is plain training.")
    schedule: Schedule = Field(default_factory=Schedule, description="Strength of the losses over the epochs.")
    teacher: Teacher = Field(default_factory=Teacher, description="How the teacher is read.")
    train: Mapping[str, Any] = Field(
        default_factory=dict, description="Ultralytics training arguments; those left out keep Ultralytics' defaults."
    )
    _name: str = PrivateAttr(default="recipe")

    @field_validator("train", mode="before")
    @classmethod
    def _known_arguments(cls, train: object, info: ValidationInfo) -> object:
        if not isinstance(train, Mapping) or not train:
            return train
        losses: Losses | None = info.data.get("losses")  # None if they hold mistakes themselves
        model = train_model(distilling=losses is None or bool(losses.terms()))
        return model.model_validate(train).model_dump(exclude_unset=True)

    @property
    def name(self) -> str:
        """Name of the shipped recipe or stem of its file; not part of the content."""
        return self._name

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], *, name: str = "recipe") -> Recipe:
        """Return the recipe that plain data describes.

        Raises:
            RecipeError: Lists every unknown key, wrong type and impossible value.
        """
        recipe, lines = checked(data, name)
        if recipe is None:
            raise RecipeError(listing(name, lines))
        return recipe

    def to_dict(self) -> dict[str, Any]:
        """Return the resolved recipe, every default written out, as plain data fit for YAML and JSON."""
        data = self.model_dump(mode="json")
        data["losses"] = {name: config for name, config in data["losses"].items() if config is not None}
        return data

    def to_yaml(self) -> str:
        """Return the resolved recipe as YAML that `load_recipe` reads back."""
        return dump(self.to_dict())

    def differences(self, other: Recipe) -> list[str]:
        """Return the dotted paths that differ, each with the value here and the value in `other`."""
        return list(_differences(self.to_dict(), other.to_dict(), ()))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Recipe) and self.to_dict() == other.to_dict()


def checked(data: object, name: str) -> tuple[Recipe | None, list[str]]:
    """Return the recipe that plain data describes, or None and a line per problem."""
    try:
        recipe = Recipe.model_validate(data)
    except ValidationError as error:
        return None, problem_lines(error, data, _document())
    recipe._name = name
    return recipe, []


def schema() -> dict[str, Any]:
    """Return the JSON schema of a recipe, for editors; the known training arguments included."""
    return deepcopy(_document())


@cache
def _document() -> dict[str, Any]:
    document = Recipe.model_json_schema()
    train = train_model(distilling=False).model_json_schema()
    document["properties"]["train"] |= {"properties": train["properties"], "additionalProperties": False}
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **document}


def _differences(here: Mapping[str, Any], there: Mapping[str, Any], path: tuple[str, ...]) -> Iterator[str]:
    for key in dict.fromkeys([*here, *there]):
        ours, theirs = here.get(key), there.get(key)
        if isinstance(ours, dict) and isinstance(theirs, dict):
            yield from _differences(ours, theirs, (*path, key))
        elif ours != theirs or (key in here) != (key in there):
            values = [shown(side[key]) if key in side else "absent" for side in (here, there)]
            yield f"{dotted((*path, key))}: {values[0]} here, {values[1]} there"
