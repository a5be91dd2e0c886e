"""The typed recipe: frozen, strict, unknown keys refused, every problem reported at once.

The sections `losses`, `augment`, `schedule` and `balance` have modules of their own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from copy import deepcopy
from functools import cache
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, PrivateAttr, Tag, ValidationError, ValidationInfo, field_validator
from pydantic_core import InitErrorDetails, PydanticCustomError

from yolokd.errors import RecipeError
from yolokd.recipe._config import Config, Gain
from yolokd.recipe._yaml import dump
from yolokd.recipe.arguments import LARGEST_SIDE, train_model
from yolokd.recipe.augment import Augment
from yolokd.recipe.classes import ClassMapName
from yolokd.recipe.losses import Losses
from yolokd.recipe.problems import dotted, listing, problem_lines, shown
from yolokd.recipe.regimes import SECTIONS, Regime, merged, written
from yolokd.recipe.schedule import Balance, Schedule


class AIDConfig(Config):
    """Adaptive instance distillation: weights by the teacher's own loss (Lan and Tian, ICPR 2022)."""

    alpha: float = Field(default=0.1, ge=0, description="How fast the weight exp(-alpha * D) falls with the loss D.")
    scope: Literal["instance", "image", "level"] = Field(
        default="instance", description="What has a weight: each object, each image, or each level of an image."
    )
    normalize: Literal["raw", "mean"] = Field(
        default="raw", description="The teacher's loss as it is, or divided by its mean over the batch."
    )


class Weighting(Config):
    """Weights of objects, images or levels, which multiply every loss."""

    aid: AIDConfig | None = Field(default=None, description="Trust the teacher less where it is wrong itself.")


ClassMapping = Annotated[
    Annotated[Mapping[str, Annotated[str, Field(min_length=1)]], Tag("mapping")] | Annotated[ClassMapName, Tag("name")],
    Discriminator(lambda value: "name" if isinstance(value, str) else "mapping"),
]
"""A model's class names that differ from the data's, each with the data's; or the name of a shipped map."""


class Teacher(Config):
    """Settings of the teacher."""

    classes: ClassMapping = Field(
        default_factory=dict,
        description="The teacher's class names that differ from the data's, each with the data's name for it (several "
        "may share one); or the name of a shipped map.",
    )
    precision: Literal["auto", "fp32", "fp16", "bf16"] = Field(
        default="auto", description="Precision of the teacher's pass; auto takes half precision where the GPU has it."
    )
    compile: bool = Field(
        default=False,
        description="Compile the teacher's pass, which takes minutes at first; needs a C++ compiler, on a GPU Triton.",
    )
    models: tuple[Annotated[str, Field(min_length=1)], ...] = Field(
        default=(),
        strict=False,  # YAML has lists, not tuples
        description="Checkpoints of further teachers beside --teacher: their classes are united by name, their scores "
        "and boxes averaged; neck features are the first's.",
    )
    scale: Literal[1, 2] = Field(
        default=1,
        description="Side of the teacher's images per side of the student's: with 2 the teacher sees each image at "
        "twice the size, and the student the average of 2 × 2 pixels.",
    )
    answers: Literal["live", "stored"] = Field(
        default="live",
        description="Ask the teacher in every step, or once per image before training: stored answers need no "
        "teacher in a step, serve the loss soft and pseudo-labels, and are kept for other runs.",
    )
    imgsz: Annotated[int, Field(ge=32, le=LARGEST_SIDE, multiple_of=32)] | None = Field(
        default=None, description="Longer side in pixels at which stored answers are asked; null is twice train.imgsz."
    )
    flip: bool = Field(default=True, description="Ask for stored answers about the mirrored image as well.")


class Student(Config):
    """Settings of the student."""

    init: Literal["random", "teacher", "auto", "classes"] = Field(
        default="random",
        description="First weights. Of a student without trained ones: random, a part of the teacher's fitted on "
        "training images (same family only), or auto: the teacher's if they fit; a pretrained student keeps its own. "
        "classes, for a pretrained student: class rows by student.classes and from the teacher, if there is one.",
    )
    classes: ClassMapping = Field(
        default_factory=dict,
        description="With init: classes, the class names of the student's checkpoint that differ from the data's, each "
        "with the data's name for it (several may share one); or the name of a shipped map.",
    )

    @field_validator("classes")
    @classmethod
    def _rows_to_take(cls, classes: Mapping[str, str] | str, info: ValidationInfo) -> Mapping[str, str] | str:
        if not classes or info.data.get("init", "classes") == "classes":  # no init if it is a mistake itself
            return classes
        raise PydanticCustomError("combination", "has an effect with student.init: classes only")

    @property
    def from_teacher(self) -> bool:
        """Whether a student without trained weights is to start from the teacher's."""
        return self.init in {"teacher", "auto"}


class Recipe(Config):
    """What to train: losses, their weights and schedule, augmentation, the teacher, Ultralytics' training arguments."""

    summary: str = Field(default="", description="One sentence on what the recipe does.")
    losses: Losses = Field(description="Distillation losses by method; {} is plain training.")
    weighting: Weighting = Field(default_factory=Weighting, description="What multiplies every loss, place by place.")
    augment: Augment = Field(default_factory=Augment, description="Changes to the images that serve the distillation.")
    schedule: Schedule = Field(default_factory=Schedule, description="Strength of the losses over the epochs.")
    balance: Balance = Field(default_factory=Balance, description="How gains that are auto are found.")
    teacher: Teacher = Field(default_factory=Teacher, description="How the teacher is read.")
    student: Student = Field(default_factory=Student, description="How the student begins.")
    train: Mapping[str, Any] = Field(
        default_factory=dict, description="Ultralytics training arguments; those left out keep Ultralytics' defaults."
    )
    regimes: tuple[Regime, ...] = Field(
        default=(),
        strict=False,  # YAML has lists, not tuples
        description="What differs by how the student starts and whether images without labels are given: keys of any "
        "section, merged over the rest of the recipe; --set wins over both.",
    )
    _name: str = PrivateAttr(default="recipe")

    @field_validator("weighting")
    @classmethod
    def _something_to_weigh(cls, weighting: Weighting, info: ValidationInfo) -> Weighting:
        losses: Losses | None = info.data.get("losses")  # None if they hold mistakes themselves
        if weighting.aid is None or losses is None or losses.terms():
            return weighting
        problem = PydanticCustomError("combination", "has nothing to weigh; add a loss under losses, or leave it out")
        line = InitErrorDetails(type=problem, loc=("aid",), input=weighting.aid)
        raise ValidationError.from_exception_data(cls.__name__, [line])

    @field_validator("train", mode="before")
    @classmethod
    def _known_arguments(cls, train: object, info: ValidationInfo) -> object:
        if not isinstance(train, Mapping) or not train:
            return train
        parts: list[Losses | Augment | None] = [info.data.get(key) for key in ("losses", "augment")]
        distilling = any(part is None or part.terms() for part in parts)  # None if it holds mistakes itself
        return train_model(distilling=distilling).model_validate(train).model_dump(exclude_unset=True)

    @property
    def name(self) -> str:
        """Name of the shipped recipe or stem of its file; not part of the content."""
        return self._name

    def terms(self) -> dict[str, Gain]:
        """Return the gains of all terms, the adversarial example's included."""
        return self.losses.terms() | self.augment.terms()

    @property
    def pseudo_labels(self) -> bool:
        """Whether the teacher's boxes act as labels on images without."""
        return self.train.get("pseudo_labels", False) is not False

    @property
    def quantizes(self) -> bool:
        """Whether the student trains under fake quantization to 8 bits."""
        return self.train.get("quantize") in {8, "int8"}

    @property
    def distills(self) -> bool:
        """Whether a teacher takes part in the steps: in losses, or by pseudo-labels."""
        return bool(self.terms()) or self.pseudo_labels

    @property
    def needs_teacher(self) -> bool:
        """Whether a teacher takes part: in the steps, or in the first weights alone."""
        return self.distills or self.student.from_teacher

    def regime_of(self, *, scratch: bool, unlabeled: bool) -> Regime | None:
        """Return the first regime that fits a run; None if none does."""
        return next((one for one in self.regimes if one.when.fits(scratch=scratch, unlabeled=unlabeled)), None)

    def in_regime(self, regime: Regime | None) -> Recipe:
        """Return the recipe as it is in one of its regimes, or in none of them: it has no regimes itself.

        Raises:
            RecipeError: An assignment (`--set`) does not go with this regime.
        """
        data = merged(self.to_dict(), {} if regime is None else regime.to_dict())
        recipe, lines = checked(data, self.name)
        if recipe is None:
            where = "" if regime is None else f"regimes[{self.regimes.index(regime)}]."
            raise RecipeError(listing(f"recipe {self.name}", [f"{where}{line}" for line in lines]))
        return recipe

    def schedule_of(self, term: str) -> Schedule:
        """Return the schedule of a term: its loss's own or else the recipe's; `ikd` ends with its `until`, if first.

        Raises:
            ValueError: The recipe has no such term.
        """
        for _, config in self.losses.items():
            if term in config.gains():
                return config.schedule or self.schedule
        ikd = self.augment.ikd
        if ikd is not None and term in self.augment.terms():
            return self.schedule.model_copy(update={"until": min(self.schedule.until, ikd.until)})
        raise ValueError(f"term must be one of {', '.join(self.terms()) or 'none'}, got {term!r}")

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

    def with_sections(self, **sections: Any) -> Recipe:
        """Return the recipe with other sections, such as `train`, under the same name; errors as `from_dict`."""
        return Recipe.from_dict({**self.to_dict(), **sections}, name=self.name)

    def to_dict(self) -> dict[str, Any]:
        """Return the resolved recipe as plain data fit for YAML and JSON: every default, but no absent method."""
        follow = {name: {"schedule"} for name, config in self.losses.items() if config.schedule is None}
        data = self.model_dump(mode="json", exclude={"losses": follow, "regimes": True})
        for section in ("losses", "weighting", "augment"):
            data[section] = {name: config for name, config in data[section].items() if config is not None}
        if self.regimes:
            data["regimes"] = [regime.to_dict() for regime in self.regimes]
        return data

    def to_yaml(self) -> str:
        """Return the resolved recipe as YAML that `load_recipe` reads back."""
        return dump(self.to_dict())

    def differences(self, other: Recipe) -> list[str]:
        """Return the dotted paths that differ, each with the value here and the value in `other`."""
        return list(_differences(self.to_dict(), other.to_dict(), ()))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Recipe) and self.to_dict() == other.to_dict()


def checked(data: object, name: str, *, before: object = None) -> tuple[Recipe | None, list[str]]:
    """Return the recipe that plain data describes, or None and a line per problem.

    Args:
        data: Plain data.
        name: Name of the recipe.
        before: The data before assignments were made. Their regimes are checked in the place of those of `data`, since
            an assignment need not go with a regime that is not taken.
    """
    recipe, lines = _validated(data)
    lines += _regime_lines(data if before is None else before)
    if recipe is None or lines:
        return None, list(dict.fromkeys(lines))
    recipe._name = name
    return recipe, []


def _validated(data: object) -> tuple[Recipe | None, list[str]]:
    try:
        return Recipe.model_validate(data), []
    except ValidationError as error:
        return None, problem_lines(error, data, _document())


def _regime_lines(data: object) -> list[str]:
    """Return a line per problem that a recipe has in one of its regimes and not without it."""
    lines = []
    for place, regime in written(data):
        base: Any = data
        without = _validated(merged(base, {}))[1]
        lines += [f"regimes[{place}].{line}" for line in _validated(merged(base, regime))[1] if line not in without]
    return lines


def schema() -> dict[str, Any]:
    """Return the JSON schema of a recipe, for editors; the known training arguments included."""
    return deepcopy(_document())


@cache
def _document() -> dict[str, Any]:
    document = Recipe.model_json_schema()
    train = train_model(distilling=False).model_json_schema()
    document["properties"]["train"] |= {"properties": train["properties"], "additionalProperties": False}
    regime = document["$defs"]["Regime"]["properties"]
    for section in SECTIONS:  # for editors; a regime's sections are checked where they are merged
        known = {key: value for key, value in document["properties"][section].items() if key != "description"}
        regime[section] = {**known, "description": regime[section]["description"]}
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **document}


def _differences(here: Mapping[str, Any], there: Mapping[str, Any], path: tuple[str, ...]) -> Iterator[str]:
    for key in dict.fromkeys([*here, *there]):
        ours, theirs = here.get(key), there.get(key)
        if isinstance(ours, dict) and isinstance(theirs, dict):
            yield from _differences(ours, theirs, (*path, key))
        elif ours != theirs or (key in here) != (key in there):
            values = [shown(side[key]) if key in side else "absent" for side in (here, there)]
            yield f"{dotted((*path, key))}: {values[0]} here, {values[1]} there"
