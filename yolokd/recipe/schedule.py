"""How strong the distillation is at which time of the training, and how a gain that is left to yolokd is found."""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import Field

from yolokd.recipe._config import Config

Warmup = (
    Annotated[float, Field(ge=0)]
    | Annotated[str, Field(pattern=r"^(100|\d{1,2}(\.\d+)?)%$", json_schema_extra={"examples": ["65%"]})]
)


class Schedule(Config):
    """How the strength of distillation losses runs over the training."""

    warmup: Warmup = Field(
        default=0.0,
        description="Epochs over which the losses rise linearly to full strength; 65% is that share of all epochs.",
    )
    shape: Literal["constant", "linear", "cosine"] = Field(
        default="constant", description="Course of the strength: constant, or falling to 0 in a line or half a cosine."
    )
    until: float = Field(
        default=1.0, gt=0, le=1, description="Share of the epochs after which the losses are off; 1 keeps them on."
    )

    def factor(self, progress: float, epochs: int) -> float:
        """Return the factor on the gains, in [0, 1]; the warm-up multiplies the shape.

        Args:
            progress: Epochs behind us, as a real number: 0 at the start, 2.5 in the middle of the third epoch.
            epochs: Epochs of the whole training, at least 1.

        Returns:
            0 from `until` · `epochs` on. The warm-up rises from 1 / (`warmup` + 1) at the start, since a factor of
            exactly 0 would mean "off", to 1 at `warmup` epochs, or at that share of `epochs`.

        Raises:
            ValueError: `progress` is negative or `epochs` below 1.
        """
        if not progress >= 0 or epochs < 1:
            raise ValueError(f"progress must be >= 0 and epochs >= 1, got {progress} and {epochs}")
        end = self.until * epochs
        if progress >= end:
            return 0.0
        warmup = self.warmup if isinstance(self.warmup, float) else float(self.warmup[:-1]) / 100 * epochs
        rise = min(1.0, (progress + 1) / (warmup + 1))
        if self.shape == "linear":
            return rise * (1 - progress / end)
        if self.shape == "cosine":
            return rise * (1 + math.cos(math.pi * progress / end)) / 2
        return rise


class Balance(Config):
    """How gains that are given as auto are found, and what is written about the gradient ratio of each term."""

    share: float = Field(
        default=0.1,
        gt=0,
        le=10,
        description="Size of an automatic term's gradient at the neck, as a share of the detection loss's.",
    )
    every: int = Field(default=50, ge=1, description="Steps between two measurements of the gradients.")
    log: bool = Field(
        default=False, description="Write each term's share of the total loss and its gradient ratio to results.csv."
    )
