from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from yolokd.recipe import Recipe, list_recipes, load_recipe, schema
from yolokd.recipe.keys import END, START, key_table, refreshed

ROOT = Path(__file__).resolve().parents[2]
COMMAND = ["-m", "yolokd.recipe.keys", "docs/recipe-keys.md"]


def rows() -> dict[str, list[str]]:
    """Return the cells of each row after its key."""
    lines = [line.strip("| ").split(" | ") for line in key_table().splitlines()]
    return {key.strip("`"): cells for key, *cells in lines[2:]}


def test_docs__the_table_is_up_to_date() -> None:
    text = (ROOT / COMMAND[-1]).read_text(encoding="utf-8")
    assert refreshed(text) == text, f"run: python {' '.join(COMMAND)}"
    assert f"`python {' '.join(COMMAND)}`" in text


def test_docs__the_command_writes_the_table_and_nothing_else(tmp_path: Path) -> None:
    file = tmp_path / "docs" / "recipe-keys.md"
    file.parent.mkdir()
    file.write_text(f"before\n{START}old\n{END}after\n", encoding="utf-8")
    command = [sys.executable, "-W", "error", *COMMAND]
    subprocess.run(command, cwd=tmp_path, env={"PYTHONPATH": str(ROOT)}, check=True, timeout=120)
    assert file.read_text(encoding="utf-8") == f"before\n{START}\n{key_table()}\n{END}after\n"


@pytest.mark.parametrize("text", ["", START, END, END + START])
def test_refreshed__needs_both_marks_in_order(text: str) -> None:
    with pytest.raises(ValueError, match="must hold the lines <!-- table of recipe keys: start --> and"):
        refreshed(text)


def test_key_table__says_what_a_key_takes_its_default_and_its_meaning() -> None:
    table = rows()
    assert table["losses.bckd.cls"] == [
        "a number >= 0 or auto",
        "`1.0`",
        "Gain of the classification term; 0 switches it off.",
    ]
    assert table["losses.samkd.scales"][:2] == ["a list of 1 or more (each item a whole number >= 1)", "`[1, 2, 4]`"]
    assert table["losses.ssim"][:2] == ["a mapping or null", "`null`"]
    assert table["augment.ikd.adversarial"][:2] == ["a mapping or null", "`{}`"]
    assert table["train.unlabeled_share"][:2] == ["a number > 0 and < 1", "`0.5`"]
    assert table["weighting.aid.scope"][:2] == ["instance, image or level", "`instance`"]


def test_key_table__has_every_key_once() -> None:
    keys = [line.split("`")[1] for line in key_table().splitlines()[2:]]
    assert len(keys) == len(set(keys))
    document = schema()
    fields = {name: set(part["properties"]) for name, part in document["$defs"].items()}
    assert {key for key in keys if key.count(".") == 1 and key.startswith("losses.")} == {
        f"losses.{name}" for name in fields["Losses"]
    }
    assert {key.removeprefix("losses.samkd.") for key in keys if key.startswith("losses.samkd.")} == (
        fields["SAMKDConfig"] - {"schedule"}
    )
    assert {key.split(".")[0] for key in keys} == set(document["properties"])


def test_key_table__knows_every_key_of_the_shipped_recipes() -> None:
    known = set(rows())

    def paths(data: object, path: tuple[str, ...]) -> set[str]:
        if not isinstance(data, dict) or path == ("train",):
            return {".".join(path)}
        return {leaf for key, value in data.items() for leaf in paths(value, (*path, key))} or {".".join(path)}

    for name in list_recipes():
        # a loss's own schedule has the keys of the recipe's
        written = {
            re.sub(r"^losses\.\w+\.schedule\.", "schedule.", path) for path in paths(load_recipe(name).to_dict(), ())
        }
        assert {path for path in written if path not in known} <= {"losses", "weighting", "augment"}


def test_key_table__cells_hold_no_bare_bars() -> None:
    columns = {line.replace("\\|", "").count("|") for line in key_table().splitlines()}
    assert columns == {5}


def test_key_table__takes_its_words_from_the_models() -> None:
    table = rows()
    for key, field in Recipe.model_fields.items():
        if key in table:
            assert table[key][-1] == field.description
