"""One tiny data set, one trained pair, shared by the engine's tests."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import yaml

from tests.helpers.models import config, detector, save
from tests.helpers.panels import seeing
from tests.helpers.unlabeled import make_images

CLASSES = 3


def make_data(folder: Path, *, train: int = 16, val: int = 8) -> Path:
    """Images of colored rectangles on gray, one color per class, with exact labels."""
    rng = np.random.default_rng(0)
    for split, count in (("train", train), ("val", val)):
        (folder / "images" / split).mkdir(parents=True)
        (folder / "labels" / split).mkdir(parents=True)
        for index in range(count):
            image = np.full((64, 64, 3), 100, np.uint8)
            lines = []
            for _ in range(2):
                kind = int(rng.integers(CLASSES))
                w, h = (int(v) for v in rng.integers(14, 30, 2))
                x, y = int(rng.integers(0, 64 - w)), int(rng.integers(0, 64 - h))
                image[y : y + h, x : x + w] = np.eye(3, dtype=np.uint8)[kind] * 255
                lines.append(f"{kind} {(x + w / 2) / 64} {(y + h / 2) / 64} {w / 64} {h / 64}")
            cv2.imwrite(str(folder / "images" / split / f"{index:03d}.png"), image)
            (folder / "labels" / split / f"{index:03d}.txt").write_text("\n".join(lines))
    description = folder / "data.yaml"
    names = {i: f"class{i}" for i in range(CLASSES)}
    description.write_text(yaml.safe_dump({"train": "images/train", "val": "images/val", "names": names}))
    return description


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="session")
def teacher_pt(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(detector("v8", width=0.25, seed=1), tmp_path_factory.mktemp("teacher") / "teacher.pt")


@pytest.fixture(scope="session")
def student_yaml(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_description(tmp_path_factory.mktemp("student") / "student.yaml")


def write_description(path: Path, family: str = "v8") -> Path:
    """Write the description of a tiny student of a family of YOLOv8's, whatever its levels."""
    description = config(family)
    description.update(depth_multiple=0.33, width_multiple=0.125)
    del description["scales"], description["scale"]
    path.write_text(yaml.safe_dump(description))
    return path


@pytest.fixture
def frames(tmp_path: Path) -> Path:
    """Ten images without labels."""
    return make_images(tmp_path / "frames", 10)


@pytest.fixture
def seeing_pt(tmp_path: Path) -> Path:
    """A detector with random weights that sees something in every image."""
    return save(seeing("v8", 1), tmp_path / "seeing.pt")


@dataclass(frozen=True)
class Pair:
    """What every run of these tests starts from."""

    teacher: Path
    student: Path
    data: Path
    runs: Path

    def plan(self, recipe: str = "bckd_ssim", overrides: Sequence[str] = (), **options: Any) -> Any:
        """A checked plan with a small budget, its folder below `runs`."""
        from yolokd.training.plan import make_plan
        from yolokd.training.run import resolve_recipe

        budget = {"data": str(self.data), "epochs": 3, "imgsz": 64, "batch": 8, "device": "cpu", **options}
        resolved = resolve_recipe(recipe, ["train.plots=false", *overrides], **budget)
        teacher = self.teacher if resolved.needs_teacher else None
        return make_plan(teacher, self.student, resolved, runs=self.runs)


@pytest.fixture
def tiny_pair(teacher_pt: Path, student_yaml: Path, tiny_data: Path, tmp_path: Path) -> Pair:
    return Pair(teacher_pt, student_yaml, tiny_data, tmp_path / "runs")
