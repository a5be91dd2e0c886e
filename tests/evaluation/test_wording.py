from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from yolokd.evaluation.wording import as_agreement, everywhere, is_labeled_by_teacher, words_for


@dataclass(frozen=True)
class Part:
    text: str
    rows: tuple[list[str], ...]
    number: float
    chart: bytes


def test_everywhere__texts_and_charts_and_nothing_else() -> None:
    part = Part("AP by class", (["mAP", "MAP", "AP50"],), 1.5, b"<svg><text>AP</text></svg>")
    found = everywhere([part, "AP"], as_agreement)
    changed = Part(
        "agreement by class", (["agreement", "MAP", "agreement50"],), 1.5, b"<svg><text>agreement</text></svg>"
    )
    assert found == [changed, "agreement"]
    assert everywhere(b"\xff\xd8 AP", as_agreement) == b"\xff\xd8 AP"


@pytest.mark.parametrize(("key", "expected"), [("labeled_by: teacher.json\n", True), ("", False)])
def test_words_for__what_the_yaml_says(tmp_path: Path, key: str, expected: bool) -> None:
    path = tmp_path / "data.yaml"
    path.write_text(f"train: images\nval: images\nnames: [a]\n{key}")
    assert is_labeled_by_teacher(path) is expected
    assert words_for(path)("AP") == ("agreement" if expected else "AP")


def test_words_for__no_data() -> None:
    assert words_for("nothing.yaml")("AP") == "AP"
