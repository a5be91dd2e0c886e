"""What every part of a recipe is built on: strict frozen models, and the types that several methods share."""

from __future__ import annotations

from typing import Annotated, Literal, get_args

from pydantic import AfterValidator, BaseModel, Field
from pydantic_core import PydanticCustomError

from yolokd.recipe.arguments import STRICT

Level = Literal["p2", "p3", "p4", "p5", "p6", "p7"]
LEVELS: tuple[Level, ...] = get_args(Level)  # from fine to coarse

Gain = Annotated[float, Field(ge=0)] | Literal["auto"]
"""What a loss is multiplied by: 0 switches it off; auto keeps its gradient at a share of the detection loss's."""


class Config(BaseModel):
    """Base of every part of a recipe: frozen, strict, unknown keys refused."""

    model_config = STRICT


def _in_order(levels: tuple[Level, ...]) -> tuple[Level, ...]:
    if len(set(levels)) < len(levels):
        raise PydanticCustomError("rule", "must name each level once")
    return tuple(level for level in LEVELS if level in levels)


_Named = Annotated[
    tuple[Level, ...],
    Field(
        strict=False,  # YAML has lists, not tuples
        min_length=1,
        json_schema_extra={"uniqueItems": True},
    ),
    AfterValidator(_in_order),
]

Levels = Annotated[
    _Named | None,
    Field(
        description="Neck levels that are compared, by stride: p2 is 4, p3 is 8, … p7 is 128; null takes all that "
        "both models have.",
    ),
]
