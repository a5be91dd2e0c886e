"""The JSON schema of recipes."""

from __future__ import annotations

from typing import Any

import jsonschema
import pytest

from yolokd.errors import RecipeError
from yolokd.recipe import Recipe, list_recipes, schema
from yolokd.recipe._yaml import parse

VALIDATOR = jsonschema.Draft202012Validator(schema())


def test_schema__shipped_recipes_pass() -> None:
    jsonschema.Draft202012Validator.check_schema(schema())
    files = list_recipes().values()
    assert files
    for file in files:
        VALIDATOR.validate(parse(file.read_text(encoding="utf-8"), file.name))


@pytest.mark.parametrize(
    "data",
    [
        {},
        {"losses": {"sism": {}}},
        {"losses": {"ssim": {"levels": []}}},
        {"losses": {"ssim": {"levels": ["p3", "p3"]}}},
        {"losses": {"ssim": {"window": 4}}},
        {"losses": {"bckd": {"cls": -1}}},
        {"losses": {"bckd": {"cls": "autos"}}},
        {"losses": {"mgd": {"ratio": 1}}},
        {"losses": {"samkd": {"scales": [0]}}},
        {"losses": {"ld": {"schedule": {"until": 0}}}},
        {"losses": {"ssim": {}}, "weighting": {"aid": {"alpha": -1}}},
        {"losses": {}, "augment": {"ikd": {"adversarial": {"steps": 0}}}},
        {"losses": {}, "balance": {"share": 0}},
        {"losses": {}, "schedule": {"shape": "cosin"}},
        {"losses": {}, "train": {"epoch": 3}},
        {"losses": {}, "train": {"epochs": "3"}},
        {"losses": {}, "train": {"model": "yolov8n"}},
        {"losses": {}, "teacher": {"classes": {"person": 1}}},
    ],
)
def test_schema__wrong_recipes_fail_as_they_do_here(data: dict[str, Any]) -> None:
    assert not VALIDATOR.is_valid(data)
    with pytest.raises(RecipeError):
        Recipe.from_dict(data)


def test_schema__every_key_has_a_description() -> None:
    document = schema()
    described = [document["properties"], document["properties"]["train"]["properties"]]
    described += [part["properties"] for part in document["$defs"].values()]
    bare = [key for properties in described for key, node in properties.items() if not node.get("description")]
    assert bare == []
    assert document["properties"]["train"]["properties"]["epochs"]["description"] == "number of epochs to train for"
    assert all(part["additionalProperties"] is False for part in document["$defs"].values())
