"""Whole runs of segment students: under a segment teacher, across tasks, interrupted; and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ultralytics.nn.tasks import DetectionModel, SegmentationModel

from tests.helpers import models
from tests.helpers.models import CONFIGS
from tests.helpers.runs import rows
from tests.helpers.segments import make_polygons, model_of, save, write_description
from tests.helpers.task_runs import check_across_tasks, check_goes_on, check_plain, plan
from yolokd.errors import DataError, PairError, UserError, WeightsError
from yolokd.training.run import start
from yolokd.training.trainers import trainer_of

TERMS = ("bckd_cls", "bckd_box", "mask_bce", "mask_dice")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with data, teachers and students of several tasks."""
    folder = tmp_path_factory.mktemp("world")
    make_polygons(folder / "data", train=8, val=4)
    for family in ("v8-seg", "v8-pose"):
        save(model_of(family, width=0.25, seed=1), folder / f"{family}.pt")
        write_description(family, folder / f"{family}.yaml")
    models.save(models.detector("v8", width=0.25, seed=1), folder / "v8.pt")
    return folder


@pytest.mark.slow
def test_start__a_segment_student_learns_masks_and_is_plain_in_the_end(world: Path) -> None:
    run = start(plan(world, "v8-seg.pt", "v8-seg.yaml", "mask", ["train.name=masks"]))
    last = rows(run)[-1]
    assert last["epoch"] == "2"
    assert all(float(last[f"train/kd_{term}"]) > 0 for term in TERMS)
    assert float(last["train/seg_loss"]) > 0
    assert "metrics/mAP50-95(M)" in last
    check_plain(run, world, "seg", "SegmentationModel segment")


@pytest.mark.slow
def test_resume__an_interrupted_segment_run_goes_on(world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = plan(world, "v8-seg.pt", "v8-seg.yaml", "mask", ["train.name=interrupted"])
    assert check_goes_on(made, monkeypatch, TERMS, SegmentationModel)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("teacher", "student", "kind"),
    [
        ("v8.pt", "v8-seg.yaml", SegmentationModel),
        ("v8-seg.pt", "detect.yaml", DetectionModel),
        ("v8-pose.pt", "detect.yaml", DetectionModel),
    ],
)
def test_start__across_tasks_the_detect_part_alone(
    world: Path, student_yaml: Path, teacher: str, student: str, kind: type
) -> None:
    assert check_across_tasks(world, student_yaml, teacher, student, kind)


def test_make_plan__says_what_the_labels_teach_alone(world: Path) -> None:
    notes = plan(world, "v8-seg.pt", "v8-seg.yaml", "bckd").notes
    assert [note for note in notes if note.startswith("no loss of this recipe compares masks: only the detect part")]
    assert not [note for note in plan(world, "v8-seg.pt", "v8-seg.yaml", "mask").notes if "detect part" in note]


def test_make_plan__refuses_masks_that_one_side_does_not_give(world: Path, student_yaml: Path) -> None:
    with pytest.raises(PairError, match=r"'mask' compares masks, which the teacher does not give \(it gives neck"):
        plan(world, "v8.pt", "v8-seg.yaml", "mask")
    (world / "detect.yaml").write_text(student_yaml.read_text())
    with pytest.raises(PairError, match=r"which the student does not give \(its task is detect\)"):
        plan(world, "v8-seg.pt", "detect.yaml", "mask")
    with pytest.raises(PairError, match="which the teacher does not give"):
        plan(world, "v8-seg.pt", "v8-seg.yaml", "mask", ["teacher.scale=2"])


def test_make_plan__refuses_students_of_tasks_that_are_not_trained(world: Path) -> None:
    classify = CONFIGS / "11" / "yolo11-cls.yaml"
    with pytest.raises(WeightsError, match="ends in the head Classify"):
        plan(world, "v8-seg.pt", str(classify), "bckd")
    with pytest.raises(UserError, match="the task classify are not trained here"):
        trainer_of("classify")


def test_make_plan__refuses_labels_without_polygons(world: Path, tiny_data: Path) -> None:
    with pytest.raises(DataError, match=r"and 32 of the 32 train objects of .* are labeled as boxes"):
        plan(world, "v8-seg.pt", "v8-seg.yaml", "mask", data=str(tiny_data))


@pytest.mark.parametrize(
    ("recipe", "changes", "words"),
    [
        ("soft", {}, "teacher.answers: stored keeps boxes"),
        ("bckd", {"batch": -1}, "train.batch -1 is sought with labels of detect models"),
    ],
)
def test_make_plan__refuses_what_teaches_by_boxes_alone(
    world: Path, recipe: str, changes: dict[str, Any], words: str
) -> None:
    with pytest.raises(UserError, match=f"The student's task is segment, but {words}"):
        plan(world, "v8-seg.pt", "v8-seg.yaml", recipe, **changes)


def test_make_plan__first_weights_of_a_segment_student_are_random(world: Path) -> None:
    notes = plan(world, "v8-seg.pt", "v8-seg.yaml", "best").notes
    assert [note for note in notes if note.startswith("the student starts from random weights: its prototypes")]
    with pytest.raises(PairError, match=r"student\.init: random"):
        plan(world, "v8-seg.pt", "v8-seg.yaml", "init", ["student.init=teacher"])
    with pytest.raises(PairError, match="is Segment in the student and Detect in the teacher"):
        plan(world, "v8.pt", "v8-seg.yaml", "init", ["student.init=teacher"])
