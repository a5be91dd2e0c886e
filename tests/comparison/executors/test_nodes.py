"""What nodes of a cluster say of themselves, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.helpers import tiny
from yolokd.backend.dataset import resolve
from yolokd.comparison.executors.nodes import check_nodes, examine_node
from yolokd.data.check import fingerprint
from yolokd.errors import UserError
from yolokd.version import __version__

STATE: dict[str, Any] = {"problem": None, "versions": {"yolokd": __version__, "torch": "2.6", "ultralytics": "8.4"}}


@pytest.mark.parametrize(
    ("state", "words"),
    [
        (
            {"problem": "'/a' is missing."},
            "Node b cannot read the data: '/a' is missing. They must be at the same path",
        ),
        (
            {"versions": {**STATE["versions"], "yolokd": "0.0.1"}},
            f"Node b has yolokd 0.0.1, this machine {__version__}",
        ),
        ({"versions": {**STATE["versions"], "torch": "2.7"}}, "not be paired: node a has torch 2.6, node b 2.7"),
    ],
)
def test_check_nodes__names_the_node(state: dict[str, Any], words: str) -> None:
    check_nodes({"a": STATE, "b": STATE})
    with pytest.raises(UserError) as caught:
        check_nodes({"a": STATE, "b": {**STATE, **state}})
    assert words in str(caught.value)


@pytest.mark.slow  # processes that import torch
def test_examine_node__says_what_is_wrong_with_the_data(tmp_path: Path) -> None:
    data = tiny.data_set(tmp_path / "data")
    digest = fingerprint(resolve(str(data)).splits)
    good = examine_node(str(data), digest, {str(tmp_path): "digest"})
    assert (good["problem"], good["versions"]["yolokd"]) == (None, __version__)
    other = examine_node(str(data), "2:0", {})["problem"]
    assert other == f"The data '{data}' are others than on the machine that started the comparison."
    nowhere = examine_node(str(data), digest, {"/nowhere": "digest"})["problem"]
    assert nowhere == "The unlabeled images '/nowhere' are missing."
    missing = examine_node(str(tmp_path / "none.yaml"), digest, {})["problem"]
    assert str(tmp_path / "none.yaml") in missing
