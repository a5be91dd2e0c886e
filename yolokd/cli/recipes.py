"""`yolokd recipes`: list, show and check recipes, and print their JSON schema."""

from __future__ import annotations

import json
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from yolokd.recipe import list_recipes, load_recipe, recipe_text, schema

app = typer.Typer(help="List, show and check recipes.", no_args_is_help=True)


@app.command("list")
def list_() -> None:
    """List the shipped recipes."""
    table = Table("recipe", "what it does", box=None, header_style="bold", pad_edge=False)
    for name in list_recipes():
        table.add_row(Text(name), Text(load_recipe(name).summary))
    Console().print(table)


@app.command("show")
def show(
    name: Annotated[str, typer.Argument(help="Name of a shipped recipe, or path of a YAML file.")],
    resolved: Annotated[bool, typer.Option("--resolved", help="Write out every default.")] = False,
) -> None:
    """Print a recipe as it is written."""
    text = load_recipe(name).to_yaml() if resolved else recipe_text(name)
    typer.echo(text.rstrip("\n"))


@app.command("check")
def check(file: Annotated[str, typer.Argument(help="Path of a YAML file, or name of a shipped recipe.")]) -> None:
    """Check a recipe: print it with every default written out, or all of its problems."""
    recipe = load_recipe(file)
    typer.echo(f"OK: {file}")
    typer.echo(recipe.to_yaml().rstrip("\n"))


@app.command("schema")
def schema_() -> None:
    """Print the JSON schema of recipes, for editors."""
    typer.echo(json.dumps(schema(), indent=2))
