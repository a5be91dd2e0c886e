from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest
from typer.testing import CliRunner, Result

from yolokd.cli.recipes import app
from yolokd.errors import RecipeError
from yolokd.recipe import Losses, Recipe, list_recipes, load_recipe, recipe_text
from yolokd.recipe._yaml import parse


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


def output(*arguments: str) -> str:
    result = invoke(*arguments)
    assert result.exit_code == 0, result.output
    return result.output


def failure(*arguments: str) -> RecipeError:
    result = invoke(*arguments)
    assert isinstance(result.exception, RecipeError)
    assert result.output == ""
    return result.exception


def test_list__names_every_recipe_with_its_summary() -> None:
    lines = output("list").splitlines()
    assert lines[0].split() == ["recipe", "what", "it", "does"]
    assert [line.split()[0] for line in lines[1:]] == list(list_recipes())
    assert all(load_recipe(line.split()[0]).summary in line for line in lines[1:])


def test_list__text_is_no_markup(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "own.yaml"
    file.write_text("summary: '[bold]loud[/bold] [/x] :smile:'\nlosses: {}\n")
    monkeypatch.setattr("yolokd.cli.recipes.list_recipes", lambda: {str(file): file})
    assert "[bold]loud[/bold] [/x] :smile:" in output("list")


def test_show__prints_the_file_as_it_is_written() -> None:
    assert output("show", "bckd") == recipe_text("bckd")


def test_show__resolved_writes_out_every_default() -> None:
    assert parse(output("show", "bckd", "--resolved"), "test") == load_recipe("bckd").to_dict()


def test_show__an_unknown_name_is_a_recipe_error() -> None:
    assert "did you mean bckd?" in str(failure("show", "bkcd"))


def test_check__prints_ok_and_the_resolved_recipe(tmp_path: Path) -> None:
    file = tmp_path / "[red]my.yaml"
    file.write_text("losses: {ssim: {gain: 3}}\n")
    first, rest = output("check", str(file)).split("\n", 1)
    assert first == f"OK: {file}"
    assert parse(rest, "test") == load_recipe(file).to_dict()


@pytest.mark.parametrize("name", list(list_recipes()))
def test_check__accepts_every_shipped_recipe(name: str) -> None:
    first, rest = output("check", name).split("\n", 1)
    assert first == f"OK: {name}"
    assert Recipe.from_dict(parse(rest, "test")) == load_recipe(name)


def test_check__problems_are_a_recipe_error_with_exit_code_two(tmp_path: Path) -> None:
    file = tmp_path / "my.yaml"
    file.write_text("losses: {ssim: {gain: -3}, sism: {}}\nweighting: {aid: {alpha: auto}}\n")
    error = failure("check", str(file))
    assert error.exit_code == 2
    assert str(error).splitlines() == [
        f"recipe {file}: 3 problems",
        "  losses.ssim.gain: must be a number >= 0 or auto, got -3",
        f"  losses.sism: unknown key; did you mean ssim? (known: {', '.join(Losses.model_fields)})",
        "  weighting.aid.alpha: must be a number >= 0, got 'auto'",
    ]


def test_schema__is_json_that_accepts_the_shipped_recipes() -> None:
    validator = jsonschema.Draft202012Validator(json.loads(output("schema")))
    for name in list_recipes():
        assert [*validator.iter_errors(parse(recipe_text(name), name))] == []
