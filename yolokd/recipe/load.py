"""Finds a recipe by name or path, reads it, applies `path=value` assignments and checks the result."""

from __future__ import annotations

import os
from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

from yolokd.errors import RecipeError, nearest
from yolokd.inputs import refuse_special
from yolokd.recipe._yaml import parse
from yolokd.recipe.models import Recipe, checked
from yolokd.recipe.problems import listing, shown
from yolokd.recipe.regimes import give_way, written

PACKAGE = Path(__file__).resolve().parent
LARGEST = 256 * 1024  # bytes; no recipe comes near it
EXAMPLE = "such as losses.ssim.gain=4"


def list_recipes() -> dict[str, Path]:
    """Return the file of every shipped recipe, by name, in alphabetical order.

    A wheel carries them inside the package; in a source tree they lie in `recipes/` beside it.
    """
    shipped = PACKAGE / "shipped"
    folder = shipped if shipped.is_dir() else PACKAGE.parents[1] / "recipes"
    return {file.stem: file for file in sorted(folder.glob("*.yaml"))}


def recipe_path(recipe: str | Path) -> Path:
    """Return the file that a shipped recipe's name or a path stands for; a path need not exist.

    A path is anything with a separator in it or ending in `.yaml` or `.yml`.

    Raises:
        RecipeError: No shipped recipe has this name.
    """
    text = str(recipe)
    if text.lower().endswith((".yaml", ".yml")) or any(mark in text for mark in (os.sep, os.altsep, "/") if mark):
        return Path(text).expanduser()
    shipped = list_recipes()
    if text not in shipped:
        near = nearest(text, shipped)
        hint = f"; did you mean {near}?" if near else "."
        raise RecipeError(
            f"no shipped recipe is called {shown(text)}{hint} Shipped: {', '.join(shipped)}. "
            "A recipe of your own is a path that ends in .yaml."
        )
    return shipped[text]


def load_recipe(recipe: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Return a recipe, read and checked.

    Args:
        recipe: Name of a shipped recipe, or path of a YAML file.
        overrides: Assignments `path=value` made before the check, such as `losses.ssim.gain=4`. The value is YAML;
            mappings that are missing on the way are created; null takes a loss out. They hold in every regime.

    Raises:
        RecipeError: The recipe does not exist or cannot be read; or it holds mistakes, all of which are listed.
    """
    source = f"recipe {recipe}"
    written_data = _mapping(recipe_text(recipe), source)
    data, faults = _overridden(written_data, overrides)
    result, lines = checked(data, recipe_path(recipe).stem, before=written_data)
    if result is None or faults:
        raise RecipeError(listing(source, faults + lines))
    return result


def with_assignments(recipe: Recipe, assignments: Sequence[str]) -> Recipe:
    """Return a recipe with `path=value` assignments made, as `load_recipe` makes them.

    Raises:
        RecipeError: Assignments that cannot be made or that the recipe does not take, all of them.
    """
    data, faults = _overridden(recipe.to_dict(), assignments)
    result, lines = checked(data, recipe.name)
    if result is None or faults:
        raise RecipeError(listing(f"recipe {recipe.name}", faults + lines))
    return result


def recipe_text(recipe: str | Path) -> str:
    """Return the text of a recipe, given by name or path, as it is written.

    Raises:
        RecipeError: There is no such recipe, or it is no text file of a sensible size.
    """
    path = recipe_path(recipe)
    try:
        if path.is_dir():
            raise RecipeError(f"recipe {path}: is a folder; name the YAML file in it")
        refuse_special(path)
        with path.open("rb") as file:
            content = file.read(LARGEST + 1)
    except FileNotFoundError:
        raise RecipeError(f"recipe {path}: no such file; shipped recipes are {', '.join(list_recipes())}") from None
    except (OSError, ValueError) as error:  # no permission, an impossible name
        raise RecipeError(f"recipe {path}: cannot be read ({error})") from error
    if len(content) > LARGEST:
        raise RecipeError(f"recipe {path}: is larger than {LARGEST // 1024} kB, so hardly a recipe")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise RecipeError(f"recipe {path}: is not a text file in UTF-8 (byte {error.start})") from error


def _mapping(text: str, source: str) -> dict[Any, Any]:
    data = parse(text, source)
    if data is None:
        raise RecipeError(f"{source}: is empty; write at least losses: {{}}")
    if not isinstance(data, dict):
        raise RecipeError(f"{source}: must be a mapping with keys such as losses and train, got {shown(data)}")
    return data


def _overridden(data: dict[Any, Any], overrides: Sequence[str]) -> tuple[dict[Any, Any], list[str]]:
    """Return a copy of `data` with the assignments made, and a line for each that could not be."""
    data, faults = deepcopy(data), []
    for assignment in overrides:
        try:
            _assign(data, assignment)
        except RecipeError as error:
            faults.append(str(error))
    return data, faults


def _assign(data: dict[Any, Any], assignment: str) -> None:
    label = f"--set {shown(assignment)}"
    left, equals, right = assignment.partition("=")
    keys = left.strip().split(".")
    if not equals or not all(keys):
        raise RecipeError(f"{label}: must be path=value, {EXAMPLE}")
    if keys[0].partition("[")[0] == "regimes":
        raise RecipeError(f"{label}: regimes are written in a recipe's file; set the key itself, {EXAMPLE}")
    value = parse(right, label)
    if value is None and right.strip() not in ("null", "~"):
        raise RecipeError(f"{label}: has no value; write null to mean none")
    place: Any = data
    for depth, key in enumerate(keys[:-1], start=1):
        if place.get(key) is None:
            place[key] = {}
        place = place[key]
        if not isinstance(place, dict):
            whole = ".".join(keys[:depth])
            remedy = f"give the whole list, {whole}=[...]" if isinstance(place, list) else "it has no keys"
            raise RecipeError(f"{label}: {whole} is {shown(place)}; {remedy}")
    place[keys[-1]] = value
    for _, regime in written(data):
        give_way(regime, keys, f"--set {assignment.strip()}")
