"""The table of all recipe keys, made from the typed models, and the file that carries it.

`python -m yolokd.recipe.keys docs/recipe-keys.md` writes the table anew between the two marks in that file.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from yolokd.recipe.arguments import OWN, train_model
from yolokd.recipe.losses import LossConfig
from yolokd.recipe.models import Recipe
from yolokd.recipe.problems import allowed, members
from yolokd.recipe.regimes import SECTIONS

START, END = (f"<!-- table of recipe keys: {place} -->\n" for place in ("start", "end"))

Row = tuple[str, str, str, str]
HEADER: tuple[Row, Row] = (("key", "takes", "default", "meaning"), ("---", "---", "---", "---"))


def key_table() -> str:
    """Return a Markdown table of all recipe keys: what each takes, its default, what it means.

    Keys that every loss has stand there once, under `losses.*`.
    """
    document = Recipe.model_json_schema()
    cells = ([cell.replace("|", r"\|") for cell in row] for row in (*HEADER, *_rows(document, (), document)))
    return "".join(f"| {' | '.join(row)} |\n" for row in cells)


def refreshed(text: str) -> str:
    """Return `text` with the table between its two marks written anew.

    Raises:
        ValueError: The marks are missing, or not in their order.
    """
    before, start, rest = text.partition(START)
    _, end, after = rest.partition(END)
    if not (start and end):
        raise ValueError(f"the text must hold the lines {START.strip()} and {END.strip()}")
    return f"{before}{START}\n{key_table()}\n{END}{after}"


def _rows(node: Mapping[str, Any], path: tuple[str, ...], document: Mapping[str, Any]) -> Iterator[Row]:
    if path == ("losses",):
        for key, child in LossConfig.model_json_schema()["properties"].items():
            yield _row((*path, "*", key), child, document)
    for key, child in _properties(node, document).items():
        if path[:1] == ("losses",) and key in LossConfig.model_fields:
            continue
        here, section = (*path, key), bool(_properties(child, document))
        if not section or "anyOf" in child:  # a section that may be left out is a choice of its own
            yield _row(here, child, document)
        if key == "regimes":
            yield from _regime_rows(child["items"], document)
            continue
        yield from _rows(child, here, document)
    if path == ("train",):  # the other arguments are Ultralytics' own
        arguments = train_model(distilling=False).model_json_schema()["properties"]
        yield from (_row((*path, key), arguments[key], document) for key in OWN)


def _regime_rows(node: Mapping[str, Any], document: Mapping[str, Any]) -> Iterator[Row]:
    """Yield the rows of a regime's own keys; its sections have those of the recipe."""
    for key, child in _properties(node, document).items():
        if key not in SECTIONS:
            rows = [*_rows(child, ("regimes", "*", key), document)]
            yield from rows or [_row(("regimes", "*", key), child, document)]


def _row(path: tuple[str, ...], node: Mapping[str, Any], document: Mapping[str, Any]) -> Row:
    default = json.dumps(node["default"]).replace('"', "") if "default" in node else "{}"
    return f"`{'.'.join(path)}`", allowed(node, document), f"`{default}`" if default else "", node["description"]


def _properties(node: Mapping[str, Any], document: Mapping[str, Any]) -> dict[str, Any]:
    return {key: child for member in members(node, document) for key, child in member.get("properties", {}).items()}


if __name__ == "__main__":
    file = Path(sys.argv[1])
    file.write_text(refreshed(file.read_text(encoding="utf-8")), encoding="utf-8")
