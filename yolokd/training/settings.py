"""What a run carries with it: the resolved recipe, the teacher's identity, its class match, provenance.

It travels in the trainer's arguments as plain dicts and scalars, so that it survives resuming and the pickling for
multi-GPU workers, and is stored under the key `yolokd` of the final checkpoints.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from yolokd.recipe import Recipe

KEY = "yolokd"


@dataclass
class RunSettings:
    """The plain data behind a run."""

    recipe: dict[str, Any]
    recipe_name: str
    teacher: str | None = None  # path
    teacher_sha256: str | None = None
    models_sha256: list[str] = field(default_factory=list)  # of the recipe's teacher.models
    paired: bool = False  # order and augmentation depend on the seed only
    provenance: dict[str, Any] = field(default_factory=dict)
    state: dict[str, Any] = field(default_factory=dict)  # what changes while it runs: gradient ratios

    def to_dict(self) -> dict[str, Any]:
        """Plain dicts and scalars only."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> RunSettings:
        """The inverse of `to_dict`; `allow_partial`, which version 0.1.0 wrote, has no effect once a run is checked."""
        return cls(**{key: value for key, value in data.items() if key != "allow_partial"})

    def load_recipe(self) -> Recipe:
        """The typed recipe."""
        return Recipe.from_dict(self.recipe, name=self.recipe_name)
