"""Where a run is written to: its number, and what is not written over."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from tests.helpers.fixtures import Pair
from yolokd.errors import UserError
from yolokd.training.run import resolve_recipe
from yolokd.training.run_directory import free_folder, run_folder


def names(root: Path, *taken: str) -> str:
    for name in taken:
        (root / name).mkdir(parents=True)
    return free_folder(root, "bckd").name


def test_free_folder__numbers_count_from_two(tmp_path: Path) -> None:
    assert names(tmp_path) == "bckd"
    assert names(tmp_path, "bckd") == "bckd-2"
    assert names(tmp_path, "bckd-2", "bckd-3", "bckd-4") == "bckd-5"


def test_free_folder__other_names_do_not_count_and_gaps_are_filled(tmp_path: Path) -> None:
    assert names(tmp_path, "bckd-2", "bckd_ssim", "Bckd2") == "bckd"
    assert names(tmp_path, "bckd", "bckd-4") == "bckd-3"


def test_free_folder__files_and_dangling_links_are_taken_too(tmp_path: Path) -> None:
    (tmp_path / "bckd").write_text("a file")
    (tmp_path / "bckd-2").symlink_to(tmp_path / "nowhere")
    assert names(tmp_path) == "bckd-3"


def test_free_folder__makes_nothing(tmp_path: Path) -> None:
    assert free_folder(tmp_path / "runs", "bckd") == tmp_path / "runs" / "bckd"
    assert list(tmp_path.iterdir()) == []


def test_free_folder__a_number_may_make_a_name_too_long(tmp_path: Path) -> None:
    name = "n" * 254
    assert free_folder(tmp_path, name).name == name
    (tmp_path / name).mkdir()
    with pytest.raises(UserError, match="is too long: it takes 256 bytes"):
        free_folder(tmp_path, name)


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "/a", "a/"])
def test_free_folder__a_name_is_one_folder(tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError, match="is not the name of a folder"):
        free_folder(tmp_path, name)


def test_run_folder__name_and_place_of_the_recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    recipe = resolve_recipe("bckd")
    assert run_folder(recipe, None) == tmp_path / "runs" / "bckd"
    assert run_folder(recipe, tmp_path / "other") == tmp_path / "other" / "bckd"
    named = resolve_recipe("bckd", ["train.project=elsewhere"], name="mine")
    assert run_folder(named, None) == tmp_path / "elsewhere" / "mine"


def test_run_folder__exist_ok_takes_runs_and_empty_folders_only(tmp_path: Path) -> None:
    recipe = resolve_recipe("bckd", ["train.exist_ok=true"])
    folder = tmp_path / "bckd"
    folder.mkdir()
    assert run_folder(recipe, tmp_path) == folder
    (folder / "provenance.json").write_text('{"recipe": "bckd", "versions": {}, "command": ""}')
    (folder / "results.csv").write_text("epoch\n")
    assert run_folder(recipe, tmp_path) == folder
    (folder / "provenance.json").write_text("{}")
    with pytest.raises(UserError, match=r"is no run of yolokd, so train\.exist_ok does not write over it"):
        run_folder(recipe, tmp_path)


def test_plan__each_gets_the_next_free_folder(tiny_pair: Pair) -> None:
    for expected in ("baseline", "baseline-2", "baseline-3"):
        folder = tiny_pair.plan("baseline").folder
        assert folder == tiny_pair.runs / expected
        folder.mkdir(parents=True)
    assert tiny_pair.plan("baseline", name="mine").folder == tiny_pair.runs / "mine"


@pytest.mark.parametrize("place", ["teacher", "further", "student", "pretrained", "unlabeled"])
def test_plan__a_run_is_not_written_over_what_it_reads(tiny_pair: Pair, place: str) -> None:
    inside = tiny_pair.runs / "same" / "weights" / "best.pt"
    inside.parent.mkdir(parents=True)
    shutil.copy(tiny_pair.teacher, inside)
    (tiny_pair.runs / "same" / "provenance.json").write_text('{"recipe": "bckd", "versions": {}, "command": ""}')
    settings = {
        "further": f'teacher.models=["{inside}"]',
        "pretrained": f"train.pretrained={inside}",
        "unlabeled": f"train.unlabeled={inside.parent}",
    }
    overrides = ["train.exist_ok=true", *([settings[place]] if place in settings else [])]
    pair = replace(tiny_pair, **{place: inside}) if place not in settings else tiny_pair
    with pytest.raises(UserError, match=r"is in '.*same', which the run would be written over"):
        pair.plan("bckd", overrides, name="same")
