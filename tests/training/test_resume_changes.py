"""What a resumed run takes from the command, and what from the run itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from yolokd.recipe import load_recipe
from yolokd.training.resume import Interrupted
from yolokd.training.resume_changes import prepare
from yolokd.training.settings import RunSettings


def interrupted(data: Path, train: dict[str, Any], arguments: dict[str, Any]) -> Interrupted:
    """A run that was started with `train`, and whose trainer has gone on with `arguments`."""
    recipe = load_recipe("baseline", [f"train.{key}={value}" for key, value in train.items()])
    settings = RunSettings(recipe.to_dict(), recipe.name)
    run = data.parent / "run"
    return Interrupted(run, run / "weights" / "last.pt", settings, 1, 3, str(data), {"device": "cpu", **arguments})


@pytest.mark.parametrize(
    ("key", "started", "became"),
    [
        ("batch", -1, 6),  # found by a search
        ("batch", 16, 8),  # halved for memory, or changed when it was resumed before
        ("workers", 4, 0),  # Ultralytics' choice on a CPU
        ("patience", 100, 20),
        ("device", 0, "cpu"),  # given when it was resumed before
    ],
)
def test_prepare__nothing_changes_that_is_not_named(tiny_data: Path, key: str, started: int, became: Any) -> None:
    run = interrupted(tiny_data, {key: started}, {key: became})
    found = prepare(run, [])
    assert (found.arguments, found.notes) == ({}, ())
    assert found.run.settings.provenance["resumptions"][0]["changed"] == {}


def test_prepare__what_is_named_changes(tiny_data: Path) -> None:
    run = interrupted(tiny_data, {"batch": 16, "workers": 4}, {"batch": 8, "workers": 0})
    found = prepare(run, ["train.batch=16", " train.patience = 5"])
    assert found.arguments == {"batch": 16, "patience": 5}
    assert "batch 8 becomes 16 from epoch 2 on" in found.notes
    assert found.run.settings.provenance["resumptions"][0]["changed"].keys() == {"batch", "patience"}
    assert prepare(run, ["train.batch=8"]).arguments == {}
