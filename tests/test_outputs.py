"""Single files that an option names: what may be replaced, what is kept, what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from yolokd.errors import UserError
from yolokd.outputs import check_file, write_file

RESULT = json.dumps([{"name": "a", "path": "a.pt", "AP": 0.1, "AP50": 0.2, "latency_ms": 1.0}]).encode()


OF_OBB = json.dumps([{"name": "a", "path": "a.pt", "rotated": {}, "imgsz": 64, "latency_ms": 1.0}]).encode()
DIAGNOSIS = json.dumps({"student": "a.pt", "evidence": {}, "diagnosis": {}, "thresholds": {}, "notes": []}).encode()


@pytest.mark.parametrize("result", [RESULT, OF_OBB, DIAGNOSIS])
def test_write_file__a_result_of_yolokd_is_replaced(tmp_path: Path, result: bytes) -> None:
    file = tmp_path / "scores.json"
    for _ in range(2):
        assert write_file(str(file), result, "--json") is None
    assert file.read_bytes() == result
    assert [path.name for path in tmp_path.iterdir()] == ["scores.json"]


def test_write_file__json_of_somebody_else_is_kept_beside_each_time(tmp_path: Path) -> None:
    file = tmp_path / "annotations.json"
    for number, name in enumerate(("annotations.json.bak", "annotations.json.bak2", "annotations.json.bak3")):
        file.write_text(f'{{"images": [{number}]}}')
        assert write_file(str(file), RESULT, "--json") == tmp_path / name
        assert (tmp_path / name).read_text() == f'{{"images": [{number}]}}'
        assert file.read_bytes() == RESULT


def test_write_file__through_a_link_the_file_behind_it_is_kept(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    real, link = tmp_path / "real" / "a.json", tmp_path / "link.json"
    real.write_text("[1]")
    link.symlink_to(real)
    kept = write_file(str(link), RESULT, "--json")
    assert kept == tmp_path / "real" / "a.json.bak"
    assert kept.read_text() == "[1]"
    assert link.is_symlink()
    assert real.read_bytes() == RESULT


@pytest.mark.parametrize("option", ["--json", "--plot"])
@pytest.mark.parametrize("content", [b"names: [car]\n", b"\x89PNG\r\n\x1a\nbroken", b"{", b"\xff\xd8\xff\xd9"])
def test_check_file__anything_else_is_refused_and_stays(tmp_path: Path, option: str, content: bytes) -> None:
    file = tmp_path / "mine"
    file.write_bytes(content)
    with pytest.raises(UserError, match="no results of yolokd"):
        check_file(str(file), option)
    with pytest.raises(UserError, match="no results of yolokd"):
        write_file(str(file), RESULT, option)
    assert file.read_bytes() == content


def test_check_file__plot_does_not_take_the_place_of_json(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    file.write_text("{}")
    with pytest.raises(UserError, match="no results of yolokd"):
        check_file(str(file), "--plot")
