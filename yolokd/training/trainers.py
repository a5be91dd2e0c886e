"""The trainer of each task: yolokd's own before Ultralytics' of that task, which has its model, data and validation."""

from __future__ import annotations

from ultralytics.models.yolo.obb import OBBTrainer
from ultralytics.models.yolo.pose import PoseTrainer
from ultralytics.models.yolo.segment import SegmentationTrainer

from yolokd.errors import UserError
from yolokd.training.trainer import DistillTrainer


class SegmentDistillTrainer(DistillTrainer, SegmentationTrainer):
    """The same for students that learn masks: model, data and validation are those of Ultralytics' own trainer."""


class PoseDistillTrainer(DistillTrainer, PoseTrainer):
    """The same for students that learn keypoints."""

    def set_model_attributes(self) -> None:
        """Give what the data say of keypoints to the student as well as to the wrapper."""
        super().set_model_attributes()
        student = getattr(self.model, "student_model", self.model)
        for name in ("kpt_shape", "kpt_oks_sigmas", "kpt_names"):
            setattr(student, name, getattr(self.model, name))


class OBBDistillTrainer(DistillTrainer, OBBTrainer):
    """The same for students that learn rotated boxes."""


TRAINERS: dict[str, type[DistillTrainer]] = {
    "detect": DistillTrainer,
    "segment": SegmentDistillTrainer,
    "pose": PoseDistillTrainer,
    "obb": OBBDistillTrainer,
}


def trainer_of(task: str) -> type[DistillTrainer]:
    """Return the trainer of a task; `UserError` for a task whose students are not trained here."""
    if task not in TRAINERS:
        raise UserError(f"Students of the task {task} are not trained here; known are {', '.join(TRAINERS)}.")
    return TRAINERS[task]
