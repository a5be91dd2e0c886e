"""Training arguments that are right by themselves and wrong on this device, for these data or this model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from yolokd.backend.api import DetectionModel, parse_device, select_device
from yolokd.backend.checkpoints import Spec, find, is_quantized, is_yaml
from yolokd.backend.dataset import Dataset
from yolokd.backend.quantization import FORMATS, require_modelopt
from yolokd.errors import UserError
from yolokd.recipe import Recipe
from yolokd.recipe.arguments import LARGEST_SEED, argument

if TYPE_CHECKING:
    from yolokd.training.plan import ModelPlan

MOST_GPUS = 1024  # of one run


def check_with_device(train: Mapping[str, Any]) -> None:
    """Check what a device may not be able to do.

    Args:
        train: The recipe's training arguments; the device itself exists.

    Raises:
        UserError: bf16 without a GPU; a batch size to be found, or the largest seeds, on several GPUs.
    """
    device = "" if train.get("device") is None else train["device"]
    chosen = select_device(device, verbose=False)
    if train.get("amp") == "bf16" and chosen.type in {"cpu", "mps"}:
        raise UserError(
            f"train.amp=bf16 needs a GPU, and the device is {chosen.type}. Leave train.amp out, or give a GPU with "
            f"--device 0."
        )
    if len([part for part in parse_device(device).split(",") if part]) < 2:
        return
    batch, seed = argument(train, "batch"), argument(train, "seed")
    if batch < 1:
        raise UserError(f"The batch size is found on one GPU only, got batch {batch}, device {device}: give a number.")
    if seed > LARGEST_SEED - MOST_GPUS:
        raise UserError(
            f"Every GPU adds to the seed: with several it is {LARGEST_SEED - MOST_GPUS} at most, not {seed}."
        )


def check_quantization(recipe: Recipe, *, scratch: bool) -> list[str]:
    """Check that a student can be trained in 8 bits, if the recipe asks for it.

    Args:
        recipe: The resolved recipe.
        scratch: The student begins with random weights.

    Returns:
        Notes for the plan.

    Raises:
        UserError: ModelOpt is not installed, or the network is to be compiled as well.
    """
    if not recipe.quantizes:
        return []
    require_modelopt()
    if recipe.train.get("compile"):
        raise UserError("train.quantize=8 and train.compile exclude each other: Ultralytics compiles no quantizers.")
    notes = [f"the student trains in 8 bits; its checkpoints export to {', '.join(FORMATS)} only"]
    if scratch:
        notes.append(
            "the ranges of the 8 bits are measured once, before the first step, and the student is not trained yet: "
            "train it first, then give its checkpoint with --student"
        )
    return notes


def refuse_quantized(recipe: Recipe, student: Spec, teacher: Spec | None) -> None:
    """Refuse checkpoints that were trained in 8 bits where they would be used in full precision without a word.

    Args:
        recipe: The resolved recipe.
        student: As the user named it.
        teacher: As the user named it; None if the recipe uses none.

    Raises:
        UserError: A teacher that was trained in 8 bits, or a student whose recipe does not go on in 8 bits.
        WeightsError: As `yolokd.backend.checkpoints.load`.
    """
    teachers = () if teacher is None else (teacher, *(recipe.teacher.models if recipe.distills else ()))
    for spec in teachers:
        if not is_yaml(spec) and is_quantized(find(spec)):
            raise UserError(
                f"The teacher '{spec}' was trained in 8 bits, and a teacher answers in full precision: give a "
                f"checkpoint in full precision, such as the one that its training began from."
            )
    if recipe.quantizes:
        return
    pretrained = recipe.train.get("pretrained")
    for spec in (student, *([pretrained] if isinstance(pretrained, str) else [])):
        if not is_yaml(spec) and is_quantized(find(spec)):
            raise UserError(
                f"The student '{spec}' was trained in 8 bits, and the recipe '{recipe.name}' would train it on without "
                f"them: add --set train.quantize=8, or begin from a checkpoint in full precision."
            )


def check_with_data(train: Mapping[str, Any], data: Dataset, student: DetectionModel) -> None:
    """Check what data and student may not have.

    Args:
        train: The recipe's training arguments.
        data: The data set.
        student: The model that is going to be trained.

    Raises:
        UserError: A split that the data do not have, or every layer frozen.
    """
    split = argument(train, "split")
    if split not in data.splits:
        raise UserError(f"train.split={split}: '{data.yaml_path}' has no such split; it has {', '.join(data.splits)}.")
    _check_freeze(train.get("freeze"), len(student.model))


def check_strides(recipe: Recipe, imgsz: int, student: ModelPlan, teachers: Sequence[ModelPlan]) -> None:
    """Check that all models of a run take images of the sizes that the loader makes.

    Args:
        recipe: The resolved recipe.
        imgsz: Side of the student's images in pixels.
        student: The student.
        teachers: Its teachers, which may be none.

    Raises:
        UserError: A side that is no multiple of a model's largest stride, or sides of many sizes that are none.
    """
    stored = recipe.distills and recipe.teacher.answers == "stored"  # asked at sizes of their own
    scale = recipe.teacher.scale if recipe.distills else 1
    sides = [("student", student, 1), *(("teacher", one, scale) for one in teachers if not stored)]
    for who, model, factor in sides:
        stride = model.head.largest_stride
        if imgsz * factor % stride:
            step = stride // factor
            sizes = [size for size in (imgsz // step * step, imgsz // step * step + step) if size]
            raise UserError(
                f"The {who} '{model.spec}' has levels up to stride {stride} and takes images whose sides are multiples "
                f"of it, not {imgsz * factor} px. Take --imgsz {' or '.join(map(str, sizes))}."
            )
        for key in ("rect", "multi_scale"):
            if recipe.train.get(key) and stride > max(student.head.largest_stride, 32):
                raise UserError(
                    f"train.{key} makes images whose sides are multiples of the student's largest stride, "
                    f"{student.head.largest_stride}, and the teacher '{model.spec}' has levels up to stride {stride}: "
                    f"leave train.{key} out."
                )


def _check_freeze(freeze: Any, layers: int) -> None:
    indices = set(range(freeze)) if isinstance(freeze, int) else {x for x in freeze or () if isinstance(x, int)}
    if set(range(layers)) <= indices:
        raise UserError(f"train.freeze={freeze} leaves nothing to train: the student has {layers} layers.")
    if beyond := [index for index in indices if index >= layers]:
        raise UserError(f"train.freeze={freeze}: the student has the layers 0 to {layers - 1}, and no {min(beyond)}.")
