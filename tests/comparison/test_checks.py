"""Planning a comparison: what is read, and how often."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from yolokd.backend.checkpoints import load_detector
from yolokd.comparison.checks import load_recipes, plan_comparison
from yolokd.data import check
from yolokd.data.labels import read_rows
from yolokd.training import plan


def test_plan_comparison__reads_each_label_file_and_the_teacher_once(
    teacher_pt: Path, student_yaml: Path, tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    labels: Counter[str] = Counter()
    loaded: Counter[str] = Counter()

    def counted_rows(path: Any, *rest: Any) -> Any:
        labels[str(path)] += 1
        return read_rows(path, *rest)

    def counted_model(path: Path) -> Any:
        loaded[str(path)] += 1
        return load_detector(path)

    monkeypatch.setattr(check, "read_rows", counted_rows)
    monkeypatch.setattr(plan, "load_detector", counted_model)
    recipes = load_recipes(["baseline", "bckd", "ssim"], data=str(tiny_data), epochs=1, imgsz=64, batch=8, device="cpu")
    found = plan_comparison(teacher_pt, [student_yaml], recipes, [0, 1, 2], runs=tmp_path)
    assert len(found.runs) == 9
    assert len(labels) == 24
    assert set(labels.values()) == {1}
    assert loaded == {str(teacher_pt): 1}


@pytest.mark.parametrize("overrides", [[], ["train.pseudo_labels=true"]])
def test_load_recipes__the_baseline_takes_no_part_of_the_teachers(overrides: list[str], tmp_path: Path) -> None:
    control, taught = load_recipes(["pseudo"], overrides, unlabeled=str(tmp_path), epochs=3)
    assert (control.name, control.needs_teacher) == ("baseline", False)
    assert not control.train.keys() & {"pseudo_labels", "unlabeled"}
    assert control.train["epochs"] == taught.train["epochs"] == 3
    assert taught.train["pseudo_labels"] is True
    assert taught.train["unlabeled"] == str(tmp_path)
