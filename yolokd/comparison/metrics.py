"""What a comparison judges by: the AP of boxes, and what the students' task is scored by beside it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from yolokd.backend.dataset import Dataset
from yolokd.backend.tasks import TASKS
from yolokd.data.check import DataReport
from yolokd.errors import DataError, UserError
from yolokd.evaluation.detections import KINDS

SPLIT = "val"  # on which runs are scored


@dataclass(frozen=True)
class Metric:
    """AP by one kind of overlap, as it is stored and shown."""

    what: str  # for readers: "AP"; "box AP" and "mask AP" where there are several
    AP: str  # keys in score.json and in results
    AP50: str
    matches: str  # file in a run's folder: its detections, matched to the objects of each image

    @property
    def keys(self) -> tuple[str, str]:
        """Keys of the AP at all thresholds and of that at 0.5."""
        return self.AP, self.AP50


BOXES = Metric("AP", "AP", "AP50", "matches.npz")


def metrics_of(task: str) -> tuple[Metric, ...]:
    """Return what students of a task are judged by, the AP of boxes first."""
    further = None if task not in KINDS else KINDS[task].further
    if further is None:
        return (BOXES,)
    word = further.word
    other = Metric(further.named("AP"), further.key("AP"), further.key("AP50"), f"matches-{word}.npz")
    return Metric("box AP", *BOXES.keys, BOXES.matches), other


def common_task(tasks: Mapping[str, str]) -> str:
    """Return the one task of all students.

    Args:
        tasks: Student → task.

    Raises:
        UserError: They are of different tasks, or of one that is not scored by all that it learns.
    """
    found = set(tasks.values())
    if len(found) > 1:
        each = ", ".join(f"'{student}' {task}" for student, task in tasks.items())
        raise UserError(
            f"The students are of different tasks ({each}), whose scores cannot be compared: one task each."
        )
    (task,) = found
    if task not in KINDS or not (TASKS[task].boxes_suffice or KINDS[task].further):
        raise UserError(f"compare does not score all that students of the task {task} learn. Train them one by one.")
    return task


def check_teachers(tasks: Mapping[str, str]) -> None:
    """Raise `UserError` for a teacher that cannot be scored beside the students.

    Args:
        tasks: Teacher → task.
    """
    scored = [task for task, kind in KINDS.items() if not kind.rotated]
    if unknown := {teacher: task for teacher, task in tasks.items() if task not in scored}:
        teacher, task = next(iter(unknown.items()))
        raise UserError(
            f"compare scores the upright boxes of the teacher too, and the task of '{teacher}' is {task}; scored are "
            f"{', '.join(scored)}. Train the runs one by one."
        )


def check_data(task: str, sets: Iterable[tuple[Dataset, DataReport]]) -> None:
    """Raise `DataError` where data cannot be scored by all that students of a task are judged by."""
    further = KINDS[task].further
    if further is None:
        return
    for data, report in sets:
        if hindrance := further.hindrance(data, SPLIT, report):
            raise DataError(f"Students of the task {task} are judged by their {further.named('AP')}, but {hindrance}.")
