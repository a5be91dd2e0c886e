"""Which regime of a recipe a run is in: by how its student starts, and whether images without labels are given."""

from __future__ import annotations

from yolokd.backend.checkpoints import Spec, from_scratch
from yolokd.recipe import Recipe


def in_its_regime(recipe: Recipe, student: Spec) -> tuple[Recipe, list[str]]:
    """Return a recipe as it trains this student, without regimes, and a note on the regime, if it has any.

    Args:
        recipe: As loaded; one without regimes is returned as it is.
        student: Checkpoint, name or model YAML; `train.pretrained` has a say in whether it starts from scratch.

    Raises:
        RecipeError: An assignment of the user does not go with the regime.
    """
    if not recipe.regimes:
        return recipe, []
    scratch = from_scratch(student, recipe.train.get("pretrained"))
    regime = recipe.regime_of(scratch=scratch, unlabeled=recipe.train.get("unlabeled") is not None)
    if regime is None:
        return recipe.in_regime(None), [f"{recipe.name}: none of its regimes fits, so it is as written without them"]
    return recipe.in_regime(regime), [f"{recipe.name} for {regime.when}: {regime.note or 'no note in the recipe'}"]


def with_losses(recipe: Recipe, student: Spec) -> tuple[Recipe, list[str]]:
    """Return a recipe in the regime whose losses are to be measured or drawn, and a note on which one it is.

    That is the regime of the student; where it has no losses, the first one that has some, since a checkpoint may be
    one that a student from scratch has become.
    """
    own, notes = in_its_regime(recipe, student)
    if any(own.terms().values()):
        return own, notes
    for regime in recipe.regimes:
        other = recipe.in_regime(regime)
        if any(other.terms().values()):
            return other, [*notes, f"there it has no losses, so these are its losses for {regime.when}"]
    return own, notes


def as_started(recipe: Recipe, started: Recipe, student: Spec) -> Recipe:
    """Return a recipe in the regime of a run that is under way.

    Args:
        recipe: As loaded.
        started: What the run was started with, which says whether images without labels are given.
        student: As the run's provenance names it.
    """
    scratch = from_scratch(student, started.train.get("pretrained"))
    unlabeled = started.train.get("unlabeled") is not None
    return recipe.in_regime(recipe.regime_of(scratch=scratch, unlabeled=unlabeled)) if recipe.regimes else recipe
