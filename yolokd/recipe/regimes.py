"""Regimes: what a recipe does differently by how the student starts and whether images without labels are given."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

from pydantic import Field, ValidationError, ValidationInfo, field_validator
from pydantic_core import InitErrorDetails, PydanticCustomError

from yolokd.recipe._config import Config

SECTIONS = ("losses", "weighting", "augment", "schedule", "balance", "teacher", "student", "train")
CHOICE = ("losses", "weighting", "augment", "student")  # sections that a note on a regime speaks of
STARTS = {"scratch": "from scratch", "pretrained": "that starts from trained weights"}
GIVEN = {"labeled": "all images labeled", "unlabeled": "images without labels"}
FIXED = {
    "train": {
        "pretrained": "decides which regime fits, so it holds for all of them; write it under train",
        "unlabeled": "decides which regime fits, so it holds for all of them; write it under train",
    },
    "teacher": {"models": "holds for all regimes; write it under teacher"},
}


class When(Config):
    """Condition of a regime; a key that is left out fits always."""

    student: Literal["scratch", "pretrained"] | None = Field(
        default=None, description="How the student starts: from scratch, or from trained weights (pretrained)."
    )
    images: Literal["labeled", "unlabeled"] | None = Field(
        default=None, description="unlabeled where images without labels are given (train.unlabeled), else labeled."
    )

    def fits(self, *, scratch: bool, unlabeled: bool) -> bool:
        """Whether a run meets the condition."""
        return self.student in {None, "scratch" if scratch else "pretrained"} and self.images in {
            None,
            "unlabeled" if unlabeled else "labeled",
        }

    def __str__(self) -> str:
        start = "" if self.student is None else f" {STARTS[self.student]}"
        return f"a student{start}" + ("" if self.images is None else f", with {GIVEN[self.images]}")


def _section(name: str) -> Any:
    return Field(default_factory=dict, description=f"Keys of {name} that differ from the recipe's; null takes one out.")


class Regime(Config):
    """What is merged over the rest of a recipe where a run meets a condition."""

    when: When = Field(default_factory=When, description="Condition; the first regime that fits is taken.")
    note: str = Field(default="", description="What the recipe does here and why, for the plan of a run.")
    losses: Mapping[str, Any] = _section("losses")
    weighting: Mapping[str, Any] = _section("weighting")
    augment: Mapping[str, Any] = _section("augment")
    schedule: Mapping[str, Any] = _section("schedule")
    balance: Mapping[str, Any] = _section("balance")
    teacher: Mapping[str, Any] = _section("teacher")
    student: Mapping[str, Any] = _section("student")
    train: Mapping[str, Any] = _section("train")

    @field_validator(*FIXED)
    @classmethod
    def _nothing_that_decides(cls, section: Mapping[str, Any], info: ValidationInfo) -> Mapping[str, Any]:
        lines = [
            InitErrorDetails(type=PydanticCustomError("combination", reason), loc=(key,), input=section[key])
            for key, reason in FIXED[str(info.field_name)].items()
            if key in section
        ]
        if lines:
            raise ValidationError.from_exception_data(cls.__name__, lines)
        return section

    def to_dict(self) -> dict[str, Any]:
        """Return the regime as plain data: the condition, the note, and the sections that it has keys of."""
        sections = {name: dict(section) for name in SECTIONS if (section := getattr(self, name))}
        return {"when": self.when.model_dump(exclude_none=True), "note": self.note, **sections}


def merged(base: Mapping[str, Any], regime: Mapping[str, Any]) -> dict[str, Any]:
    """Return a recipe's plain data without regimes, with the sections of one regime merged over them.

    Mappings are merged key by key; any other value takes the place of the recipe's.
    """
    plain = {key: value for key, value in base.items() if key != "regimes"}
    return _over(plain, {name: regime[name] for name in SECTIONS if name in regime})


def _over(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    result = dict(base)
    for key, value in changes.items():
        known = result.get(key)
        result[key] = _over(known, value) if isinstance(known, Mapping) and isinstance(value, Mapping) else value
    return result


def written(data: object) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield place and plain data of each regime that is a mapping; of unchecked data."""
    regimes = data.get("regimes") if isinstance(data, Mapping) else None
    if isinstance(regimes, Sequence) and not isinstance(regimes, str):
        yield from ((place, regime) for place, regime in enumerate(regimes) if isinstance(regime, dict))


def give_way(regime: dict[str, Any], keys: Sequence[str], assignment: str) -> None:
    """Remove from a regime's plain data what would hide an assignment to the recipe, and mention it in the note.

    Args:
        regime: Unchecked; changed in place.
        keys: The path of the assignment.
        assignment: As the user wrote it.
    """
    place = regime
    for key in keys[:-1]:
        if not isinstance(place.get(key), dict):
            break
        place = place[key]
    else:
        key = keys[-1]
    hidden = key in place
    place.pop(key, None)
    changes_choice = hidden or keys[0] in CHOICE or list(keys[:2]) == ["train", "pseudo_labels"]
    if changes_choice and isinstance(note := regime.get("note", ""), str):
        regime["note"] = f"{note}{'; ' if note else ''}changed by {assignment}"
