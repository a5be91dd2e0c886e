"""Whole runs of students of rotated boxes: under such a teacher, across tasks, interrupted; and what is refused."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from ultralytics.nn.tasks import DetectionModel, OBBModel

from tests.helpers import models
from tests.helpers.rotated import make_rotated
from tests.helpers.runs import rows
from tests.helpers.segments import make_polygons, model_of, save, write_description
from tests.helpers.task_runs import check_across_tasks, check_boxes_alone_are_refused, check_goes_on, check_plain, plan
from yolokd.errors import DataError, PairError
from yolokd.training.run import start

TERMS = ("bckd_cls", "bckd_box")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with data, teachers and students of two tasks."""
    folder = tmp_path_factory.mktemp("world")
    make_rotated(folder / "data", train=8, val=4)
    for family in ("v8-obb", "26-obb"):
        save(model_of(family, width=0.25, seed=1), folder / f"{family}.pt")
        write_description(family, folder / f"{family}.yaml")
    models.save(models.detector("v8", width=0.25, seed=1), folder / "v8.pt")
    return folder


@pytest.mark.slow
def test_start__an_obb_student_learns_rotated_boxes_and_is_plain_in_the_end(world: Path) -> None:
    made = plan(world, "v8-obb.pt", "v8-obb.yaml", "bckd", ["train.name=obb"], epochs=1)
    assert not [note for note in made.notes if "detect part" in note]
    run = start(made)
    last = rows(run)[-1]
    assert last["epoch"] == "1"
    assert all(float(last[f"train/kd_{term}"]) > 0 for term in TERMS)
    assert float(last["train/angle_loss"]) > 0
    check_plain(run, world, "box", "OBBModel obb")


@pytest.mark.slow
def test_resume__an_interrupted_obb_run_goes_on(world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = plan(world, "v8-obb.pt", "v8-obb.yaml", "bckd", ["train.name=interrupted"])
    assert check_goes_on(made, monkeypatch, TERMS, OBBModel)


@pytest.mark.slow
def test_start__all_methods_at_once_under_a_teacher_of_another_family(world: Path) -> None:
    run = start(plan(world, "26-obb.pt", "v8-obb.yaml", "everything", ["losses.fgd={}", "train.name=all"], epochs=1))
    last = rows(run)[-1]
    terms = ("bckd_cls", "bckd_box", "ssim", "samkd", "samkd_logits", "ikd", "fgd")
    assert all(float(last[f"train/kd_{term}"]) > 0 for term in terms)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("teacher", "student", "changes", "terms", "kind"),
    [
        ("v8-obb.pt", "detect.yaml", [], ("bckd_cls", "bckd_box", "pkd"), DetectionModel),
        ("v8.pt", "v8-obb.yaml", ["losses.bckd.box=0"], ("bckd_cls", "pkd"), OBBModel),
    ],
)
def test_start__across_tasks_what_is_comparable(
    world: Path, student_yaml: Path, teacher: str, student: str, changes: list[str], terms: Sequence[str], kind: type
) -> None:
    note = "the student's task is "
    assert check_across_tasks(world, student_yaml, teacher, student, kind, terms=terms, changes=changes, note=note)


def test_make_plan__refuses_boxes_of_other_frames(world: Path, student_yaml: Path) -> None:
    (world / "detect.yaml").write_text(student_yaml.read_text())
    with pytest.raises(PairError, match=r"those of the student are rotated.*Set losses\.bckd\.box to 0"):
        plan(world, "v8.pt", "v8-obb.yaml", "bckd")
    with pytest.raises(PairError, match=r"those of the student are rotated"):
        plan(world, "v8-obb.pt", "v8-obb.yaml", "bckd", ["teacher.scale=2"])
    with pytest.raises(PairError, match=r"Take weighting\.aid out"):
        plan(world, "v8-obb.pt", "detect.yaml", "bckd", ["weighting.aid={}"])


def test_make_plan__refuses_labels_without_four_corners(world: Path, tiny_data: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"task is obb, and 32 of the 32 train objects of .* not labeled by four corn"):
        plan(world, "v8-obb.pt", "v8-obb.yaml", "bckd", data=str(tiny_data))
    polygons = make_polygons(tmp_path / "polygons", train=8, val=4)
    with pytest.raises(DataError, match=r"Write each label as class x y x y x y x y\."):
        plan(world, "v8-obb.pt", "v8-obb.yaml", "bckd", data=str(polygons))


def test_make_plan__refuses_what_teaches_by_boxes_alone(world: Path) -> None:
    assert check_boxes_alone_are_refused(world, "v8-obb", "obb")
