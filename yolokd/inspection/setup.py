"""Opening a pair for inspection: every check that needs no image."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from yolokd.backend.api import DetectionModel, get_cfg, make_divisible, select_device
from yolokd.backend.checkpoints import Spec, find, is_yaml, load, load_detector
from yolokd.backend.classes import match_task, require_classes
from yolokd.backend.dataset import resolve
from yolokd.backend.descriptions import from_yaml
from yolokd.backend.devices import check_device
from yolokd.backend.heads import read_head
from yolokd.backend.networks import identity_of
from yolokd.backend.opening import MIN_STRIDE
from yolokd.distillation.levels import Levels
from yolokd.distillation.model import TeacherStudent
from yolokd.distillation.pair import Parts, build_pair, check_pair
from yolokd.errors import PairError, UserError, WeightsError
from yolokd.inspection.maps import Inspector
from yolokd.losses.base import requirements
from yolokd.losses.table import active_losses
from yolokd.recipe import Recipe
from yolokd.recipe.arguments import argument
from yolokd.teachers.table import offer_of, require_plain


def open_pair(
    teacher: Spec,
    student: Spec,
    recipe: Recipe,
    *,
    data: str | None = None,
    imgsz: int | None = None,
    allow_partial: bool = False,
) -> Inspector:
    """Load and check a pair under a recipe.

    Args:
        teacher: The teacher's checkpoint.
        student: Checkpoint of the student, also of a run that is still going on; or a model YAML, from scratch.
        recipe: The resolved recipe.
        data: Data set that names the classes of a student from scratch; the recipe's if None.
        imgsz: Side of the square input in pixels; None is what the student was trained at, or else the recipe's.
        allow_partial: Compare the common classes where the teacher lacks some of the data's.

    Raises:
        UserError: Anything that is wrong with models, recipe, classes or device.
    """
    _check_recipe(recipe)
    if is_yaml(teacher):
        raise WeightsError(
            f"The teacher '{teacher}' is a model description without weights; give a trained checkpoint."
        )
    detector = load_detector(find(teacher))
    scratch = is_yaml(student)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(argument(recipe.train, "seed"))
        student_model = (
            from_scratch(student, data or recipe.train.get("data")) if scratch else trained_student(student, data)
        )
        joined = not scratch and is_joined(student_model)
        names = resolve(data).names if joined and data is not None else student_model.names
        match = match_task(names, detector.names, recipe.teacher.classes, joined=joined)
        heads = read_head(detector, "The teacher"), read_head(student_model, "The student")
        offer, notes = offer_of(recipe, *heads), list[str]()
        losses = active_losses(recipe, Levels.of(heads[1].levels, offer).features)
        if requirements(losses.values()).classes:
            require_classes(match, allow_partial=allow_partial, teacher=str(teacher), data=data or "DATA.yaml")
        _check_color(("teacher", detector), ("student", student_model))
        check_pair(losses, heads[1], offer, notes)
        stride = max(MIN_STRIDE, *(head.largest_stride for head in heads))
        asked = imgsz or (argument(recipe.train, "imgsz") if scratch else student_model.args["imgsz"])
        size = _side(asked, stride, notes)
        student_model.args = get_cfg()
        vars(student_model).pop("criterion", None)  # checkpoints may carry that of their training
        device = select_device(recipe.train.get("device") or "", verbose=False)
        seed = recipe.train.get("seed", 0)
        pair = build_pair(Parts(in_full_precision(recipe, notes), student_model, detector, match, device, seed=seed))
    trained: frozenset[str] = frozenset() if scratch else take_parts(pair, find(student))
    return Inspector(recipe, pair.to(device), detector, match, size, device, trained, tuple(notes), joined)


def _check_recipe(recipe: Recipe) -> None:
    if not any(recipe.terms().values()):
        raise UserError(f"The recipe '{recipe.name}' has no losses: there is nothing to inspect.")
    require_plain(recipe, "inspect")
    if recipe.teacher.answers == "stored":
        raise UserError(
            "inspect asks the teacher about the images that it is given, and the recipe takes stored answers: set "
            "teacher.answers to live, with losses on live answers."
        )
    check_device(recipe.train.get("device"))


def in_full_precision(recipe: Recipe, notes: list[str]) -> Recipe:
    """Return the recipe with a teacher in single precision and not compiled; a note if that or 8 bits is a change."""
    if recipe.quantizes:
        notes.append("the student is shown in full precision, without the 8 bits that the recipe trains in")
    plain = recipe.teacher.model_copy(update={"precision": "fp32", "compile": False})
    if recipe.teacher.compile or recipe.teacher.precision not in {"auto", "fp32"}:
        notes.append("the teacher runs in single precision and is not compiled, whatever the recipe says")
    return recipe.model_copy(update={"teacher": plain})


def from_scratch(spec: Spec, data: str | None) -> DetectionModel:
    """Build an untrained student for the classes of a data set.

    Raises:
        UserError: There is no data set to name the classes.
    """
    if data is None:
        raise UserError(f"The student '{spec}' is a model description and knows no class names: give --data.")
    names = resolve(data).names
    model = from_yaml(spec, len(names))
    model.names = names
    return model


def trained_student(spec: Spec, data: str | None) -> DetectionModel:
    """Load a student's checkpoint.

    Raises:
        UserError: Its classes are not those of the data set, if one is given.
    """
    model = load_detector(find(spec))
    if data is not None and not is_joined(model):
        known, wanted = (", ".join(names.values()) for names in (model.names, resolve(data).names))
        if known != wanted:
            raise UserError(f"The student '{spec}' knows the classes {known}; the data '{data}' have {wanted}.")
    return model


def is_joined(model: DetectionModel) -> bool:
    """Whether a trained model has one class for all objects (`train.single_cls`), whatever the data call them."""
    return identity_of(model).is_joined({})


def take_parts(pair: TeacherStudent, checkpoint: Path) -> frozenset[str]:
    """Take adapters and generators from a run that is still going on, and return the methods whose fit."""
    saved: Any = load(checkpoint)[0]
    taken = set()
    for name, part in getattr(saved, "projector", {}).items():
        own: Any = dict(pair.projector.items()).get(name)
        if own is not None and shapes(own) == shapes(part):
            own.load_state_dict(part.state_dict())
            taken.add(name)
    return frozenset(taken)


def shapes(module: torch.nn.Module) -> dict[str, torch.Size]:
    """Return the shape of every tensor that a module holds."""
    return {name: tensor.shape for name, tensor in module.state_dict().items()}


def _check_color(*models: tuple[str, DetectionModel]) -> None:
    for role, model in models:
        takes = model.yaml.get("channels", 3)
        if takes != 3:
            raise PairError(f"The {role} takes images of {takes} channels; inspect draws over color images, of 3.")


def _side(asked: int | list[int], stride: int, notes: list[str]) -> int:
    """Return the side of the square input, a multiple of a stride; a note if that is not what was asked for."""
    side = max(asked) if isinstance(asked, list) else asked
    size = int(make_divisible(side, stride))
    if size != side:
        notes.append(f"imgsz {side} is rounded to {size}, a multiple of the largest stride {stride}")
    return size
