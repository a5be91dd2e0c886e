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

from yolokd.losses.base import ANGLES, COEFFICIENTS, KEYPOINTS, MASKS, OFFSETS, PROTOTYPES, VISIBILITY

Raw = Mapping[str, Any]  # what one branch of a head gives in training mode
Reader = Callable[[Raw], dict[str, Tensor]]  # to `yolokd.losses.base.Head.extras`


def no_extras(raw: Raw) -> dict[str, Tensor]:
    """Return nothing: what a head gives beside class scores and boxes where nobody compares it."""
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
class Output:
    """An output of a network beside boxes and class scores, as it is deployed.

    Attributes:
        name: For the user.
        limit: Largest difference between checkpoint and export in full precision, in the output's own unit.
        of_image: A tensor of its own, (·, H, W); else the columns behind boxes and scores, one vector per detection.
    """

    name: str
    limit: float
    of_image: bool = False


@dataclass(frozen=True)
class KeypointLayout:
    """How a head writes keypoints, which its raw output does not tell.

    Attributes:
        count: N, keypoints of an instance.
        columns: 2 for x and y, 3 for the logit of the visibility behind them.
        scale: Cells per unit of x and y.
        shift: Cells from the center of the anchor's cell to 0.
    """

    count: int
    columns: int
    scale: float = 1.0
    shift: float = 0.0

    @property
    def shape(self) -> tuple[int, int]:
        """`kpt_shape` of Ultralytics."""
        return self.count, self.columns

    def read(self, raw: Raw) -> dict[str, Tensor]:
        """Return offsets (B, A, 2·N) in cells from the anchor's center, and logits of visibility (B, A, N) if any."""
        values = raw["kpts"].unflatten(1, self.shape).permute(0, 3, 1, 2)  # (B, N·C, A) → (B, A, N, C)
        found = {OFFSETS: (values[..., :2] * self.scale + self.shift).flatten(2)}
        return found | ({VISIBILITY: values[..., 2]} if self.columns == 3 else {})


def _keypoints(head: nn.Module) -> KeypointLayout:
    """Read off a head of keypoints what `kpts_decode` of its class does with its output."""
    count, columns = head.kpt_shape  # type: ignore[misc]
    older = {} if isinstance(head, Pose26) else {"scale": 2.0, "shift": -0.5}
    return KeypointLayout(int(count), int(columns), **older)


@dataclass(frozen=True)
class Task:
    """A task of Ultralytics.

    Attributes:
        name: As Ultralytics calls it.
        model: Class of its models; what derives from it belongs to other tasks or families.
        heads: Classes of their last layers.
        extras: What a head gives beside class scores and boxes, as `yolokd.losses.base.Requirements` names it.
        labels: What every object of its data is labeled by beside or instead of a box: "polygons", "keypoints" or
            "corners", fields of `yolokd.data.check.Split`; "" where boxes do.
        rotated: Whether its boxes are rotated, so that angles belong to the detect part.
        read: Reads what is no part of boxes from a branch's raw output.
        outputs: What a deployed network gives beside class scores and boxes, the columns first.
        part: Name of the part of the head that computes it, for exports in 8 bits, and its children there.
        layout: From a head to its keypoints, by which the raw output is read instead; None where it has none.
    """

    name: str
    model: type[DetectionModel]
    heads: tuple[type[nn.Module], ...]
    extras: tuple[str, ...] = ()
    labels: str = ""
    rotated: bool = False
    read: Reader = no_extras
    outputs: tuple[Output, ...] = ()
    part: tuple[str, tuple[str, ...]] = ("", ())
    layout: Callable[[nn.Module], KeypointLayout] | None = None

    @property
    def boxes_suffice(self) -> bool:
        """Whether boxes are all that its students learn, so that boxes alone can teach them."""
        return not self.labels


TASKS = {
    task.name: task
    for task in (
        Task("detect", DetectionModel, (Detect, v10Detect)),
        Task(
            "segment",
            SegmentationModel,
            (Segment, Segment26),
            extras=(MASKS,),
            labels="polygons",
            read=_masks,
            outputs=(Output("mask coefficients", 0.01), Output("prototypes", 0.01, of_image=True)),
            part=("head.mask", ("cv4", "proto")),
        ),
        Task(
            "pose",
            PoseModel,
            (Pose, Pose26),
            extras=(KEYPOINTS,),
            labels="keypoints",
            layout=_keypoints,
            outputs=(Output("keypoints", 0.1),),
            part=("head.keypoints", ("cv4", "cv4_kpts")),
        ),
        Task(
            "obb",
            OBBModel,
            (OBB, OBB26),
            extras=(ANGLES,),
            labels="corners",
            rotated=True,
            outputs=(Output("angles", 0.01),),
            part=("head.angle", ("cv4",)),
        ),
    )
}
DETECT = ("detect",)
ALL_TASKS = tuple(TASKS)  # of students and of teachers


def task_of_head(head: nn.Module) -> str:
    """Return the task whose head this is; of a head that no task lists, "detect", as all give the detect part."""
    return next((task.name for task in TASKS.values() if type(head) in task.heads), "detect")


def keypoints_of_head(head: nn.Module) -> KeypointLayout | None:
    """Return how a head writes keypoints; None where it gives none."""
    layout = TASKS[task_of_head(head)].layout
    return None if layout is None else layout(head)


def reader_of_head(head: nn.Module) -> Reader:
    """Return what reads from the raw output of a head's branches what it gives beside class scores and boxes."""
    layout = keypoints_of_head(head)
    return TASKS[task_of_head(head)].read if layout is None else layout.read


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
