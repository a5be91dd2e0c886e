from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tests.helpers.comparing import BUDGET
from yolokd.comparison.checks import load_recipes, plan_comparison
from yolokd.comparison.spec import Comparison


@pytest.fixture(scope="session")
def planned(teacher_pt: Path, student_yaml: Path, tiny_data: Path) -> Comparison:
    """bckd against the baseline over two seeds; the folder is replaced by each test."""
    recipes = load_recipes(["bckd"], data=str(tiny_data), **BUDGET)
    return plan_comparison(teacher_pt, [student_yaml], recipes, [0, 1], devices=["cpu"], name="never")


@pytest.fixture
def plan(planned: Comparison, tmp_path: Path) -> Comparison:
    return replace(planned, folder=tmp_path / "compare")
