"""Runs that were never trained: folders with the files of real ones, and an oracle in the place of the networks."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch
import yaml

from tests.helpers import models
from tests.helpers.matching import leave_matches
from yolokd.backend.dataset import resolve
from yolokd.comparison.spec import Comparison, Student
from yolokd.data.check import fingerprint
from yolokd.evaluation.coco import AP_METRICS, score
from yolokd.evaluation.ground_truth import coco_ground_truth, list_images
from yolokd.evaluation.models import Examined, ModelScore
from yolokd.files import sha256
from yolokd.recipe import load_recipe

NAMES = ("<script>alert(1)</script>", "car|van `x` *y*", "_Bücher_ $a$ 車")
VERSIONS = {"yolokd": "0.1.0", "torch": "2.6"}


def checkpoint(path: Path, mark: str, *, epoch: int = -1) -> Path:
    """Save a tiny detector whose file differs by `mark`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"model": network(), "epoch": epoch, "mark": mark}, path)
    return path


@cache
def network() -> torch.nn.Module:
    model: torch.nn.Module = models.detector("v8").half()
    return model


def make_run(
    folder: Path,
    data: Path,
    recipe: str = "baseline",
    seed: int = 0,
    *,
    teacher: Path | None = None,
    epoch: int = -1,
    digest: str | None = None,
    columns: Mapping[str, Sequence[float]] | None = None,
    **arguments: Any,
) -> Path:
    """Write the folder of a run of three epochs."""
    checkpoint(folder / "weights" / "last.pt", str(folder), epoch=epoch)
    known = {"epochs": 3, "imgsz": 64, "batch": 8, "seed": seed, "data": str(data), "name": folder.name, **arguments}
    (folder / "args.yaml").write_text(yaml.safe_dump({**known, "model": "student.yaml"}))
    (folder / "recipe.yaml").write_text(load_recipe(recipe).to_yaml())
    provenance = {
        "recipe": recipe,
        "teacher": None if teacher is None else str(teacher),
        "teacher_sha256": None if teacher is None else sha256(teacher),
        "student": "student.yaml",
        "student_initialisation": "from scratch",
        "data": str(data),
        "data_fingerprint": print_of(data) if digest is None else digest,
        "seed": seed,
        "versions": VERSIONS,
        "command": f"yolokd train --name '{folder.name}'",
    }
    (folder / "provenance.json").write_text(json.dumps(provenance))
    table = {
        "epoch": [1, 2, 3],
        "time": [3, 5, 7],
        "train/box_loss": [3, 2, 1 + seed],
        "metrics/mAP50-95(B)": [0, 0, 0.1],
    }
    if teacher is not None:
        table |= {
            "train/kd_bckd_cls": [1, 0.5, 0.4],
            "gradient/kd_bckd_cls": [2, 1, 0.5],
            "share/kd_bckd_cls": [0.1] * 3,
        }
    table |= columns or {}
    rows = zip(*table.values(), strict=True)
    (folder / "results.csv").write_text("\n".join([",".join(table), *(",".join(map(str, row)) for row in rows)]) + "\n")
    return folder


@cache
def print_of(data: Path) -> str:
    """The fingerprint of a data set that is there; "f" for others."""
    return fingerprint(resolve(str(data)).splits) if data.is_file() else "f"


def two_arms(folder: Path, data: Path, teacher: Path, oracle: Oracle) -> list[Path]:
    """Make two seeds of plain training and of a recipe that finds a little more."""
    oracle.shares |= {"plain-0": 0.3, "plain-1": 0.4, "bckd-0": 0.5, "bckd-1": 0.55}
    found = [make_run(folder / f"plain-{seed}", data, seed=seed) for seed in (0, 1)]
    return [*found, *(make_run(folder / f"bckd-{seed}", data, "bckd", seed, teacher=teacher) for seed in (0, 1))]


class Oracle:
    """Finds a share of the objects, in the order of the images, and one thing that is not there in each image.

    Attributes:
        shares: Name of a run's folder (or of a checkpoint outside) → share of the objects; 0.5 for others.
        asked: Names of the models that were scored.
    """

    def __init__(self, data: Path) -> None:
        self.images = list_images([data.parent / "images" / "val"])
        self.names = dict(enumerate(yaml.safe_load(data.read_text())["names"].values()))
        self.truth = coco_ground_truth(self.images, self.names)
        self.shares: dict[str, float] = {}
        self.asked: list[str] = []

    def __call__(self, path: Path, data: str, **options: Any) -> list[Examined]:
        inside = path.parent.name == "weights"
        name = path.parent.parent.name if inside else path.stem
        self.asked.append(name)
        options["progress"](name, 1.0)
        objects = self.truth["annotations"]
        count = round(self.shares.get(name, 0.5) * len(objects))
        found = [
            {key: box[key] for key in ("image_id", "category_id", "bbox")} | {"score": 0.9 - 0.001 * n}
            for n, box in enumerate(objects[:count])
        ]
        found += [
            {"image_id": n, "category_id": 0, "bbox": [0.0, 0.0, 3.0, 3.0], "score": 0.05 + 0.001 * n}
            for n in range(len(self.images))
        ]
        scores = score(self.truth, found)
        metrics: dict[str, Any] = {metric: scores.summary[metric] for metric in AP_METRICS}
        per_class = {self.names[index]: ap for index, ap in scores.per_class.items()}
        size: dict[str, Any] = {"parameters": 1000, "gflops": 0.5} if inside else {"parameters": 5000, "gflops": 2.0}
        row = ModelScore(
            name=path.name, path=str(path), **metrics, **size, latency_ms=1.0 + 0.1 * len(self.asked), imgsz=64,
            per_class=per_class,
        )  # fmt: skip
        curves = {self.names[index]: curve for index, curve in scores.precision50.items()}
        return [Examined(row, found, curves, self.truth)]


def make_comparison(
    folder: Path, data: Path, teacher: Path, aps: Mapping[str, tuple[float, ...]], **changes: Any
) -> Path:
    """Write the folder of a comparison of recipes, each with an AP per seed; NaN is a run that has not begun."""
    seeds = tuple(range(max(map(len, aps.values()))))
    comparison = Comparison(
        folder=folder,
        data=str(data),
        data_fingerprint="f",
        teacher=str(teacher),
        teacher_sha256=sha256(teacher),
        budget={"epochs": 3, "imgsz": 64, "batch": 8},
        recipes={recipe: load_recipe(recipe).to_dict() for recipe in aps},
        students={"student": Student("student.yaml", "d")},
        seeds=seeds,
        classes={},
        allow_partial=False,
        versions=VERSIONS,
        **changes,
    )
    folder.mkdir()
    comparison.save()
    kept = {"sha256": sha256(teacher), "AP": 0.8, "AP50": 0.9}
    (folder / "teacher.json").write_text(json.dumps(kept))
    for recipe, values in aps.items():
        for seed, value in enumerate(values):
            if math.isnan(value):
                continue
            own = None if recipe == "baseline" else teacher
            run = make_run(folder / "student" / f"{recipe}-{seed}", data, recipe, seed, teacher=own)
            digest = sha256(run / "weights" / "last.pt")
            leave_matches(run, digest, value)
            (run / "score.json").write_text(json.dumps({"sha256": digest, "AP": value, "AP50": value + 0.1}))
    return folder
