from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from tests.helpers import tiny
from tests.helpers.making import NAMES, Oracle, checkpoint, make_run
from yolokd.errors import DataError, RunError, UserError
from yolokd.evaluation.bootstrap import weighted_ap
from yolokd.report import scoring
from yolokd.report.scoring import Scores, open_images, score_study
from yolokd.report.study import open_study


def scores_of(folders: list[Path], data: Path, cache: Path, **options: str) -> Scores:
    study = open_study(folders)
    return score_study(study, open_images(str(data)), cache, progress=lambda name, share: None, **options)


def test_score_study__every_model_once_and_then_never_again(
    runs: list[Path], odd_data: Path, tmp_path: Path, oracle: Oracle
) -> None:
    first = scores_of(runs, odd_data, tmp_path / "cache")
    assert oracle.asked == ["teacher", "plain-0", "plain-1", "bckd-0", "bckd-1"]
    assert first.notes == ()
    again = scores_of(runs, odd_data, tmp_path / "cache")
    assert len(oracle.asked) == 5
    assert again == first
    once = np.ones((1, len(open_images(str(odd_data)).files)), np.float32)
    for scores in (first, again):
        for finding in scores.runs.values():
            assert weighted_ap(finding.matches, once).mean() == pytest.approx(finding.score.AP, abs=1e-6)
    checkpoint(runs[1] / "weights" / "last.pt", "trained on")
    scores_of(runs, odd_data, tmp_path / "cache")
    assert oracle.asked[5:] == ["plain-1"]
    scores_of(runs, odd_data, tmp_path / "cache", device="cpu")
    assert len(oracle.asked) == 11


def test_score_study__other_labels_or_a_damaged_file_are_scored_anew(
    runs: list[Path], tmp_path: Path, odd_data: Path, oracle: Oracle
) -> None:
    data = shutil.copytree(odd_data.parent, tmp_path / "copy") / "data.yaml"
    data.write_text(data.read_text().replace(str(odd_data.parent), str(data.parent)))
    scores_of(runs[:1], data, tmp_path / "cache")
    kept, matches = sorted((tmp_path / "cache").iterdir())
    assert (kept.suffix, matches.suffix) == (".json", ".npz")
    kept.write_text(json.dumps({"score": {}}))
    scores_of(runs[:1], data, tmp_path / "cache")
    assert len(oracle.asked) == 2
    matches.write_bytes(b"damaged")
    scores_of(runs[:1], data, tmp_path / "cache")
    assert len(oracle.asked) == 3
    (data.parent / "labels" / "val" / "000000.txt").write_text("0 0.5 0.5 0.2 0.2")
    scores_of(runs[:1], data, tmp_path / "cache")
    assert len(oracle.asked) == 4


def test_score__only_what_counts_is_kept(runs: list[Path], odd_data: Path, tmp_path: Path, oracle: Oracle) -> None:
    found = scores_of(runs, odd_data, tmp_path / "cache").runs["plain-0"]
    images = open_images(str(odd_data))
    hits = round(0.3 * len(images.objects))
    assert len(found.boxes) == hits  # the false ones have lower scores
    assert all(box["right"] for box in found.boxes)
    assert found.threshold == pytest.approx(0.9 - 0.001 * (hits - 1))


def test_open_images__crowds_stand_apart(odd_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = open_images(str(odd_data))
    assert (plain.crowds, list(plain.names.values())) == ((), list(NAMES))
    truth = [{"image_id": 0, "category_id": 0, "bbox": [0, 0, 9, 9], "iscrowd": flag} for flag in (0, 1)]
    monkeypatch.setattr(scoring, "ground_truth", lambda *_, left_out: {"annotations": truth})
    apart = open_images(str(odd_data))
    assert (apart.objects, apart.crowds) == ((truth[0],), (truth[1],))
    assert apart.fingerprint != plain.fingerprint
    assert apart.whole == plain.whole


def test_open_images__data_that_are_gone(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no data YAML"):
        open_images(str(tmp_path / "gone.yaml"))


def test_score_study__a_model_that_fails_is_a_note(
    runs: list[Path], odd_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(path: Path, *_: object, **__: object) -> None:
        raise RunError(f"{path.parent.parent.name} is out of memory.")

    monkeypatch.setattr(scoring, "examine", fail)
    found = scores_of(runs[:1], odd_data, tmp_path / "cache")
    assert (found.runs, found.notes) == ({}, ("plain-0 could not be scored: plain-0 is out of memory.",))


def test_find_teachers__moved_gone_or_changed(runs: list[Path], odd_data: Path, teacher: Path, tmp_path: Path) -> None:
    moved = teacher.rename(tmp_path / "elsewhere.pt")
    found = scores_of(runs, odd_data, tmp_path / "cache")
    assert found.teachers == {}
    assert f"The teacher '{teacher}' is gone, so it was not scored" in found.notes[0]
    assert len(scores_of(runs, odd_data, tmp_path / "cache", teacher=str(moved)).teachers) == 1
    checkpoint(teacher, "another")
    assert "holds another model now" in scores_of(runs, odd_data, tmp_path / "cache").notes[0]
    with pytest.raises(UserError, match="is not the teacher of any of these runs"):
        scores_of(runs, odd_data, tmp_path / "cache", teacher=str(teacher))
    with pytest.raises(UserError, match="There is no checkpoint"):
        scores_of(runs, odd_data, tmp_path / "cache", teacher="gone.pt")


def test_score__with_a_real_network(tmp_path: Path) -> None:
    data = tiny.data_set(tmp_path / "data", names=("class0", "class1", "class2"), images=2)
    run = make_run(tmp_path / "run", data)
    study, images = open_study([run]), open_images(str(data))
    heard: list[tuple[str, float]] = []
    found = score_study(study, images, tmp_path / "c", device="cpu", progress=lambda *step: heard.append(step))
    assert heard == [("run", 1.0)]
    assert found.notes == ()
    score = found.runs["run"].score
    assert (score.imgsz, len(found.runs["run"].precision50["class0"])) == (64, 101)
