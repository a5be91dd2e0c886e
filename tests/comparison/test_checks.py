"""Planning a comparison: what is read, and how often."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.helpers import segments
from tests.helpers.comparing import BUDGET
from tests.helpers.models import detector, save
from tests.helpers.unlabeled import make_images
from yolokd.backend.checkpoints import load_detector
from yolokd.comparison.checks import load_recipes, plan_comparison
from yolokd.comparison.spec import Comparison, opened, read
from yolokd.data import check
from yolokd.data.labels import read_rows
from yolokd.errors import DataError, UserError
from yolokd.evaluation import mask_scores
from yolokd.recipe import Recipe
from yolokd.training import plan


def test_plan_comparison__reads_each_label_file_and_the_teacher_once(
    teacher_pt: Path, student_yaml: Path, tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    labels: Counter[str] = Counter()
    loaded: Counter[str] = Counter()

    def counted_rows(path: Any, *rest: Any) -> Any:
        labels[str(path)] += 1
        return read_rows(path, *rest)

    def counted_model(path: Path, *rest: Any) -> Any:
        loaded[str(path)] += 1
        return load_detector(path, *rest)

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


# Tasks


@pytest.fixture(scope="module")
def polygons(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return segments.make_polygons(tmp_path_factory.mktemp("polygons") / "data", train=4, val=2)


@pytest.fixture(scope="module")
def segment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A segment student, models of other tasks, and data for the pose student."""
    folder = tmp_path_factory.mktemp("models")
    return {
        "yaml": segments.write_description("v8-seg", folder / "segment.yaml"),
        "pt": segments.save(segments.model_of("v8-seg", seed=1), folder / "segment.pt"),
        "pose": segments.save(segments.model_of("v8-pose", seed=1, keypoints=(4, 3)), folder / "pose.pt"),
        "obb": segments.save(segments.model_of("v8-obb", seed=1), folder / "obb.pt"),
        "poses": segments.make_poses(folder / "poses", train=4, val=2),
    }


def test_plan_comparison__the_task_is_that_of_the_students(
    student_yaml: Path, segment: dict[str, Path], polygons: Path, tmp_path: Path
) -> None:
    found = planned(segment["pt"], [segment["yaml"]], polygons, tmp_path, "mask")
    assert found.task == "segment"
    found.folder.mkdir()
    found.save()
    assert read(found.folder) == found
    other = replace(planned(segment["pt"], [student_yaml], polygons, tmp_path, "bckd"), folder=found.folder)
    assert other.task == "detect"  # of a segment teacher only boxes are used
    with (
        pytest.raises(UserError, match=r"started with .*students of the task segment, now detect"),
        opened(other),
    ):
        pass


def test_plan_comparison__students_of_several_tasks_and_teachers_without_a_score_are_refused(
    student_yaml: Path, segment: dict[str, Path], polygons: Path, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=r"of different tasks \('.*segment\.yaml' segment, '.*' detect\)"):
        planned(segment["pt"], [segment["yaml"], student_yaml], polygons, tmp_path, "bckd")
    assert planned(segment["pose"], [segment["pose"]], segment["poses"], tmp_path, "keypoint").task == "pose"
    with pytest.raises(UserError, match=r"the task of '.*obb\.pt' is obb; scored are detect, segment, pose\."):
        planned(segment["obb"], [student_yaml], polygons, tmp_path, "fgd")


def test_plan_comparison__labels_that_masks_cannot_be_scored_on_are_refused(
    segment: dict[str, Path], tiny_data: Path, polygons: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(DataError, match=r"are labeled as boxes\. Label them as polygons"):
        planned(segment["pt"], [segment["yaml"]], tiny_data, tmp_path, "mask")
    monkeypatch.setattr(mask_scores, "has_instances", lambda *_: True)
    with pytest.raises(DataError, match="judged by their mask AP, but masks are not scored: the data's COCO annot"):
        planned(segment["pt"], [segment["yaml"]], polygons, tmp_path, "mask")


# Regimes


@pytest.fixture
def students(student_yaml: Path, tmp_path: Path) -> list[Path]:
    """One from scratch and one with trained weights."""
    return [student_yaml, save(detector("v8"), tmp_path / "trained.pt")]


def recipe_of(found: Comparison, name: str) -> Recipe:
    (run,) = [run for run in found.runs if run.name == name]
    return found.recipe_of(run, "cpu")


def planned(teacher: Path, students: list[Path], data: Path, runs: Path, *names: Any, **options: Any) -> Comparison:
    recipes = load_recipes(names, data=str(data), **BUDGET, device="cpu", **options)
    return plan_comparison(teacher, students, recipes, [0], runs=runs)


def test_plan_comparison__each_student_trains_in_its_own_regime(
    teacher_pt: Path, students: list[Path], tiny_data: Path, tmp_path: Path
) -> None:
    found = planned(teacher_pt, students, tiny_data, tmp_path, "best")
    assert recipe_of(found, "student/best-0").terms() == {"bckd_cls": 8.0, "bckd_box": 32.0}
    plain = recipe_of(found, "trained/best-0")
    assert (plain.name, plain.terms(), plain.needs_teacher) == ("best", {}, False)
    assert found.teacher == str(teacher_pt)
    assert found.notes[0].startswith("student: best for a student from scratch: BCKD")
    assert found.notes[1].startswith("trained: best for a student that starts from trained weights, with all images")
    assert planned(teacher_pt, students[1:], tiny_data, tmp_path, "best").teacher is None
    found.folder.mkdir()
    found.save()
    assert read(found.folder) == found
    assert recipe_of(read(found.folder), "trained/best-0") == plain


def test_plan_comparison__images_without_labels_are_for_the_regimes_that_distill(
    teacher_pt: Path, students: list[Path], tiny_data: Path, tmp_path: Path
) -> None:
    free = str(make_images(tmp_path / "free"))
    mine = tmp_path / "mine.yaml"
    mine.write_text(
        "losses: {}\ntrain: {epochs: 3, imgsz: 64}\nregimes: [{when: {student: scratch}, losses: {pkd: {}}}]"
    )
    found = planned(teacher_pt, students, tiny_data, tmp_path, "best", mine, unlabeled=free)
    uses = {run.name: found.recipe_of(run, None).train.get("unlabeled") for run in found.runs}
    assert {name for name, source in uses.items() if source == free} == {
        "student/best-0",
        "trained/best-0",
        "student/mine-0",
    }
    pseudo = recipe_of(found, "trained/best-0")
    assert pseudo.pseudo_labels
    assert pseudo.teacher.answers == "stored"
    assert not recipe_of(found, "student/best-0").pseudo_labels


def test_plan_comparison__a_regime_with_a_budget_of_its_own_is_refused(
    teacher_pt: Path, students: list[Path], tiny_data: Path, tmp_path: Path
) -> None:
    mine = tmp_path / "mine.yaml"
    mine.write_text("losses: {pkd: {}}\nregimes: [{when: {student: pretrained}, train: {lr0: 0.1}}]")
    assert planned(teacher_pt, students[:1], tiny_data, tmp_path, mine).budget["epochs"] == 3
    with pytest.raises(UserError, match=r"different budgets.*lr0 \(baseline 0.01, mine 0.1\)"):
        planned(teacher_pt, students, tiny_data, tmp_path, mine)
    control = tmp_path / "baseline.yaml"
    control.write_text("losses: {}\nregimes: [{note: x}]")
    with pytest.raises(UserError, match="'baseline' of a comparison must have no losses"):
        planned(teacher_pt, students, tiny_data, tmp_path, control)


def test_opened__a_comparison_with_an_earlier_best_goes_on_where_it_means_the_same(
    teacher_pt: Path, students: list[Path], tiny_data: Path, tmp_path: Path
) -> None:
    for student, same in zip(students, (True, False), strict=True):
        asked = replace(planned(teacher_pt, [student], tiny_data, tmp_path, "best"), folder=tmp_path / student.stem)
        earlier = {name: {k: v for k, v in plain.items() if k != "regimes"} for name, plain in asked.recipes.items()}
        asked.folder.mkdir()
        replace(asked, recipes=earlier).save()
        if same:
            with opened(asked) as found:
                assert found.recipes["best"]["regimes"]
            continue
        with pytest.raises(UserError, match=r"another recipe 'best' \(losses.bckd: absent here"), opened(asked):
            pass
