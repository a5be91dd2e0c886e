"""Whole runs of pose students: under a pose teacher, across tasks, interrupted; and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ultralytics.nn.tasks import DetectionModel, PoseModel

from tests.helpers import models
from tests.helpers.runs import rows
from tests.helpers.segments import make_poses, model_of, save, write_description
from tests.helpers.task_runs import check_across_tasks, check_boxes_alone_are_refused, check_goes_on, check_plain, plan
from yolokd.backend.checkpoints import load
from yolokd.errors import DataError, PairError
from yolokd.training.run import start

KEYPOINTS = (4, 3)
TERMS = ("bckd_cls", "bckd_box", "keypoint_oks", "keypoint_visibility")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with data, teachers and students of several tasks."""
    folder = tmp_path_factory.mktemp("world")
    make_poses(folder / "data", train=8, val=4, keypoints=KEYPOINTS)
    for family in ("v8-pose", "26-pose", "v8-seg"):
        save(model_of(family, width=0.25, seed=1, keypoints=KEYPOINTS), folder / f"{family}.pt")
        write_description(family, folder / f"{family}.yaml")
    save(model_of("v8-pose", seed=1), folder / "17.pt")
    models.save(models.detector("v8", width=0.25, seed=1), folder / "v8.pt")
    return folder


@pytest.mark.slow
def test_start__a_pose_student_learns_keypoints_and_is_plain_in_the_end(world: Path) -> None:
    run = start(plan(world, "v8-pose.pt", "v8-pose.yaml", "keypoint", ["train.name=poses"]))
    last = rows(run)[-1]
    assert last["epoch"] == "2"
    assert all(float(last[f"train/kd_{term}"]) > 0 for term in TERMS)
    assert float(last["train/pose_loss"]) > 0
    assert "metrics/mAP50-95(P)" in last
    model = check_plain(run, world, "pose", "PoseModel pose")
    assert tuple(model.kpt_shape) == KEYPOINTS
    assert dict(model.kpt_names)[0] == ["0", "1", "2", "3"]


@pytest.mark.slow
def test_start__across_families_with_sigmas_of_the_data(world: Path) -> None:
    """The labels' loss takes the data's constants under a teacher too; a head of two branches, and another decoding."""
    data = world / "sigmas.yaml"
    data.write_text(
        (world / "data" / "data.yaml").read_text() + f"path: {world / 'data'}\nkpt_oks_sigmas: [1, 2, 3, 4]\n"
    )
    made = plan(world, "v8-pose.pt", "26-pose.yaml", "keypoint", ["train.name=families"], data=str(data), epochs=1)
    seen: list[Any] = []
    run = start(made, callbacks={"on_train_end": lambda trainer: seen.append(trainer.model.student_model.criterion)})
    assert all(float(rows(run)[-1][f"train/kd_{term}"]) > 0 for term in TERMS)
    assert float(rows(run)[-1]["train/rle_loss"]) != 0
    assert seen[0].one2many.keypoint_loss.sigmas.tolist() == [1, 2, 3, 4]
    assert type(load(run / "weights" / "best.pt")[0]) is PoseModel


@pytest.mark.slow
def test_resume__an_interrupted_pose_run_goes_on(world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = plan(world, "v8-pose.pt", "v8-pose.yaml", "keypoint", ["train.name=interrupted"])
    assert check_goes_on(made, monkeypatch, TERMS, PoseModel)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("teacher", "student", "kind"),
    [
        ("v8.pt", "v8-pose.yaml", PoseModel),
        ("v8-seg.pt", "v8-pose.yaml", PoseModel),
        ("17.pt", "detect.yaml", DetectionModel),
    ],
)
def test_start__across_tasks_the_detect_part_alone(
    world: Path, student_yaml: Path, teacher: str, student: str, kind: type
) -> None:
    assert check_across_tasks(world, student_yaml, teacher, student, kind)


def test_make_plan__the_student_has_the_keypoints_of_the_data(world: Path) -> None:
    made = plan(world, "v8-pose.pt", "v8-pose.yaml", "keypoint")
    assert made.student.head.keypoints.shape == KEYPOINTS
    assert not [note for note in made.notes if "kpt_shape" in note or "detect part" in note]
    trained = plan(world, "v8-pose.pt", "17.pt", "keypoint")
    assert trained.student.head.keypoints.shape == KEYPOINTS
    assert [note for note in trained.notes if "has kpt_shape [17, 3], the data [4, 3]" in note]


def test_make_plan__says_what_the_labels_teach_alone(world: Path) -> None:
    notes = plan(world, "v8-pose.pt", "v8-pose.yaml", "bckd").notes
    assert [note for note in notes if note.startswith("no loss of this recipe compares keypoints: only the detect")]


def test_make_plan__other_keypoints_are_refused_for_their_loss_and_noted_for_others(world: Path) -> None:
    with pytest.raises(PairError, match=r"the student has 4 \(kpt_shape of the data\) and the teacher 17"):
        plan(world, "17.pt", "v8-pose.yaml", "keypoint")
    notes = plan(world, "17.pt", "v8-pose.yaml", "bckd").notes
    assert [note for note in notes if "compares keypoints: only the detect part" in note]


@pytest.mark.parametrize("lacking", ["student", "teacher"])
def test_make_plan__visibility_takes_three_columns(world: Path, tmp_path: Path, lacking: str) -> None:
    data = make_poses(tmp_path / "data", train=4, val=2, keypoints=(4, 2 if lacking == "student" else 3))
    teacher = save(model_of("v8-pose", keypoints=(4, 3 if lacking == "student" else 2)), tmp_path / "teacher.pt")
    with pytest.raises(PairError, match=rf"which the {lacking} does not give .* Set losses\.keypoint\.visibility to 0"):
        plan(world, str(teacher), "v8-pose.yaml", "keypoint", data=str(data))
    plan(world, str(teacher), "v8-pose.yaml", "keypoint", ["losses.keypoint.visibility=0"], data=str(data))


def test_make_plan__refuses_keypoints_that_one_side_does_not_give(world: Path, student_yaml: Path) -> None:
    with pytest.raises(PairError, match=r"'keypoint' compares keypoints, which the teacher does not give \(it gives"):
        plan(world, "v8.pt", "v8-pose.yaml", "keypoint")
    (world / "detect.yaml").write_text(student_yaml.read_text())
    with pytest.raises(PairError, match=r"which the student does not give \(its task is detect\)"):
        plan(world, "v8-pose.pt", "detect.yaml", "keypoint")
    with pytest.raises(PairError, match="which the teacher does not give"):
        plan(world, "v8-pose.pt", "v8-pose.yaml", "keypoint", ["teacher.scale=2"])


def test_make_plan__refuses_data_without_keypoints(world: Path, tiny_data: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="has no kpt_shape, the number of keypoints"):
        plan(world, "v8-pose.pt", "v8-pose.yaml", "keypoint", data=str(tiny_data))
    data = make_poses(tmp_path / "data", train=4, val=2)
    file = tmp_path / "data" / "labels" / "train" / "001.txt"
    file.write_text("\n".join(" ".join(row.split()[:5]) for row in file.read_text().splitlines()))
    words = r"2 of the 8 train objects of .* have no keypoints that can be used; the first is .*001\.txt:1: a box and"
    with pytest.raises(DataError, match=words):
        plan(world, "v8-pose.pt", "v8-pose.yaml", "keypoint", data=str(data))


def test_make_plan__refuses_what_teaches_by_boxes_alone(world: Path) -> None:
    assert check_boxes_alone_are_refused(world, "v8-pose", "pose")


@pytest.mark.slow
def test_start__first_weights_of_a_pose_student_come_from_the_teacher(world: Path) -> None:
    made = plan(world, "v8-pose.pt", "v8-pose.yaml", "init", ["train.name=first"], epochs=1)
    assert made.selected > 0.9
    run = start(made)
    assert float(rows(run)[-1]["train/pose_loss"]) > 0


def test_make_plan__first_weights_take_equal_keypoints(world: Path) -> None:
    notes = plan(world, "17.pt", "v8-pose.yaml", "best").notes
    words = "the student starts from random weights: kpt_shape is [4, 3] in the student and [17, 3] in the teacher"
    assert words in notes
