from __future__ import annotations

import json
import re
from functools import reduce
from pathlib import Path
from typing import Any

import pytest

from yolokd.recipe import Augment, Losses, Recipe, Weighting, list_recipes, load_recipe

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
METHODS = (ROOT / "docs" / "methods.md").read_text(encoding="utf-8")
KEYS = [*Losses.model_fields, *Weighting.model_fields, *Augment.model_fields]
PARTS = ("Gains", "Differs", "Evidence", "When", "Recipes")
QUOTED = re.findall(r"`((?:losses|weighting|augment)\.[a-z_.]+)`\s+(\d+(?:\.\d+)?(?:e-?\d+)?)", METHODS)
EVERYTHING = Recipe.from_dict(
    {"losses": {name: {} for name in Losses.model_fields}, "weighting": {"aid": {}}, "augment": {"ikd": {}}}
)

NO_GAIN = [
    [cell.strip() for cell in line.strip("| ").split("|")]
    for line in (ROOT / "docs" / "no-gain.md").read_text(encoding="utf-8").splitlines()
    if re.match(r"\| \d+ \|.*--plan", line)
]

every_page = pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)


def section(key: str) -> str:
    """Return the text below the heading of a method, or nothing."""
    return "".join(part for part in re.split(r"^## ", METHODS, flags=re.M) if part.startswith(f"{key}\n"))


def anchors(text: str) -> set[str]:
    """Return the names under which GitHub knows the headings of a page."""
    headings = re.findall(r"^#+ (.+)$", text, flags=re.M)
    return {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}


def default(key: str) -> object:
    """Return the default of a dotted key."""
    node: Any = EVERYTHING.to_dict()
    return reduce(lambda part, name: part[name], key.split("."), node)


@pytest.mark.parametrize("key", KEYS)
def test_methods__every_method_has_a_section_with_all_its_parts(key: str) -> None:
    text = section(key)
    assert [part for part in PARTS if f"- **{part}**: " not in text] == []
    assert re.search(r"^ {4}\S", text, flags=re.M), "no formula"


def test_methods__quotes_each_default_gain_as_it_is() -> None:
    for key, number in QUOTED:
        assert float(number) == default(key), key
    gains = {
        f"losses.{name}.{key}"
        for name, config in EVERYTHING.losses.items()
        for key, field in type(config).model_fields.items()
        if "auto" in str(field.annotation)
    }
    assert gains - {key for key, _ in QUOTED} == set()


@pytest.mark.parametrize("term", EVERYTHING.terms())
def test_methods__names_the_column_of_every_term(term: str) -> None:
    assert f"`kd_{term}`" in METHODS


@pytest.mark.parametrize("name", list_recipes())
def test_methods__names_and_links_every_shipped_recipe(name: str) -> None:
    assert f"[`{name}`](../recipes/{name}.yaml)" in METHODS


@pytest.mark.parametrize("name", [name for name in list_recipes() if name != "everything"])
def test_methods__sections_name_the_recipes_that_use_the_method(name: str) -> None:
    used = load_recipe(name).to_dict()
    for key in (key for part in ("losses", "weighting", "augment") for key in used[part]):
        assert f"[`{name}`]" in section(key)


@every_page
def test_pages__relative_links_lead_somewhere(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, fragment = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), f"{page.name} links to {target}"
        assert file.is_relative_to(ROOT), f"{page.name} links out of the project: {target}"
        if fragment:
            assert fragment in anchors(file.read_text(encoding="utf-8")), f"{page.name} links to {target}"


@every_page
def test_pages__hold_no_machine_paths(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert re.findall(r"(?<![\w.~])(?:/(?:work|tmp|root|home|Users|mnt|data)/\S*|[A-Z]:\\\S*)", text) == []


def measured_arm(row: list[str]) -> tuple[str, str]:
    """Return the stem of the result file and the arm that the command of a row of `no-gain.md` names."""
    command = re.search(r"--plan (\w+)(?: --seeds (\d))? --arms (?:init,)?(\w+)", row[-1])
    assert command is not None, row
    plan, seeds, arm = command.groups()
    return f"study-{plan}" + (f"-{seeds}-seeds" if seeds else ""), arm


def shown_and_measured(row: list[str]) -> tuple[list[float], list[float]]:
    """Return the AP values of a row of `no-gain.md` and those of its result file, both rounded to one decimal."""
    stem, name = measured_arm(row)
    path = ROOT / "benchmarks" / "results" / f"{stem}.json"
    arms = {arm["recipe"]: arm for arm in json.loads(path.read_text(encoding="utf-8"))["arms"]}
    arm, plain = arms[name], arms["baseline"]
    difference = arm["difference"]["AP"]
    interval = [] if difference["low"] is None else [difference["low"], difference["high"]]
    values = [arm["spread"]["AP"]["mean"], plain["spread"]["AP"]["mean"], difference["mean"], *interval]
    values += [score - plain["scores"]["AP"][seed] for seed, score in arm["scores"]["AP"].items()]
    shown = re.findall(r"[-+]?\d+\.\d", " ".join(row[4:8]).replace("−", "-"))
    return [float(number) for number in shown], [float(f"{100 * value:.1f}") for value in values]


@pytest.mark.parametrize("row", NO_GAIN, ids=lambda row: row[-1].strip("` "))
def test_no_gain__rows_show_the_numbers_of_the_result_files(row: list[str]) -> None:
    shown, measured = shown_and_measured(row)
    assert shown == measured


def test_no_gain__has_a_row_of_every_measured_setting() -> None:
    arms = sorted(
        (path.stem, arm["recipe"])
        for path in (ROOT / "benchmarks" / "results").glob("study-*.json")
        for arm in json.loads(path.read_text(encoding="utf-8"))["arms"]
        if re.search(r"ssim|ikd|aid", arm["recipe"])
    )
    assert sorted(measured_arm(row) for row in NO_GAIN) == arms
