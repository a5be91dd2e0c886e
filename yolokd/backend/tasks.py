"""What each task brings to the backend: its model class, its heads, and what they give beside class scores and boxes.

Every head here derives from Ultralytics' `Detect`, so class scores, boxes and neck features of all tasks are compared
alike: the detect part. This table is the only place of the layer where tasks are told apart.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from ultralytics.nn.modules.head import OBB, OBB26, Detect, Pose, Pose26, Segment, Segment26, v10Detect
from ultralytics.nn.tasks import DetectionModel, OBBModel, PoseModel, SegmentationModel, guess_model_task

from yolokd.losses.base import ANGLES, COEFFICIENTS, MASKS, PROTOTYPES

Raw = Mapping[str, Any]  # what one branch of a head gives in training mode


def _no_extras(raw: Raw) -> dict[str, Tensor]:
    return {}


def _masks(raw: Raw) -> dict[str, Tensor]:
    """Coefficients (B, A, M) and prototypes (B, M, H, W); YOLO26 has class logits of pixels beside the latter."""
    prototypes = raw["proto"]
    return {
        COEFFICIENTS: raw["mask_coefficient"].transpose(1, 2),
        PROTOTYPES: prototypes[0] if isinstance(prototypes, (tuple, list)) else prototypes,
    }


def angles(raw: Raw) -> dict[str, Tensor]:
    """Return the angles of rotated boxes, (B, A, 1) in radians, as both `OBB` and `OBB26` give them; else nothing."""
    return {ANGLES: raw["angle"].transpose(1, 2)} if "angle" in raw else {}


@dataclass(frozen=True)
class Task:
    """A task of Ultralytics.

    Attributes:
        name: As Ultralytics calls it.
        model: Class of its models; what derives from it belongs to other tasks or families.
        heads: Classes of their last layers.
        learned: Whether students of it are trained; else its models only teach the detect part.
        extras: What a head gives beside class scores and boxes, as `yolokd.losses.base.Requirements` names it.
        boxes_suffice: Whether boxes are all that its students learn, so that boxes alone can teach them.
        polygons: Whether every object of its data is labeled as a polygon.
        corners: Whether every object of its data is labeled by four corners.
        rotated: Whether its boxes are rotated, so that angles belong to the detect part.
        read: From a branch's raw output to `yolokd.losses.base.Head.extras`.
    """

    name: str
    model: type[DetectionModel]
    heads: tuple[type[nn.Module], ...]
    learned: bool = True
    extras: tuple[str, ...] = ()
    boxes_suffice: bool = False
    polygons: bool = False
    corners: bool = False
    rotated: bool = False
    read: Callable[[Raw], dict[str, Tensor]] = _no_extras


TASKS = {
    task.name: task
    for task in (
        Task("detect", DetectionModel, (Detect, v10Detect), boxes_suffice=True),
        Task("segment", SegmentationModel, (Segment, Segment26), extras=(MASKS,), polygons=True, read=_masks),
        Task("obb", OBBModel, (OBB, OBB26), extras=(ANGLES,), corners=True, rotated=True, read=angles),
        Task("pose", PoseModel, (Pose, Pose26), learned=False),
    )
}
DETECT = ("detect",)
STUDENTS = tuple(name for name, task in TASKS.items() if task.learned)
TEACHERS = tuple(TASKS)


def task_of_head(head: nn.Module) -> str:
    """Return the task whose head this is; of a head that no task lists, "detect", as all give the detect part."""
    return next((task.name for task in TASKS.values() if type(head) in task.heads), "detect")


def class_of_description(description: Mapping[str, Any], tasks: Collection[str]) -> type[DetectionModel]:
    """Return the class that builds a model description; that of detectors where its task is none of these."""
    task = guess_model_task(dict(description))
    return TASKS[task].model if task in tasks and task in TASKS else DetectionModel


def keep_detect_part(head: nn.Module) -> None:
    """Let a head give class scores and boxes alone from here on, without computing what its task has beside them.

    The angles of rotated boxes stay: without them nothing says where the boxes are.
    """
    if any(type(head) in task.heads for name, task in TASKS.items() if name not in DETECT and not task.rotated):
        head.__class__ = Detect
