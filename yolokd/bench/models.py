"""What `bench` times: a pair of detectors, a batch of random images and boxes, and the setting of a training step."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from yolokd.backend.api import DetectionModel, autocast, get_cfg, get_cpu_info, make_divisible, select_device
from yolokd.backend.checkpoints import Spec, find, is_yaml, load_detector
from yolokd.backend.classes import match_classes
from yolokd.backend.descriptions import from_yaml
from yolokd.backend.devices import check_device
from yolokd.backend.heads import read_head
from yolokd.backend.quantization import insert_quantizers
from yolokd.distillation.levels import Levels
from yolokd.distillation.model import TeacherStudent
from yolokd.distillation.pair import Parts, build_pair, check_pair
from yolokd.errors import PairError, UserError
from yolokd.loaders.batch import ANSWERS, COUNTS, Answers
from yolokd.losses.base import requirements
from yolokd.losses.table import active_losses
from yolokd.recipe import Recipe
from yolokd.recipe.arguments import argument
from yolokd.teachers.table import offer_of, require_plain

OBJECTS = 8  # per image; COCO has 7.3 on average


@dataclass(frozen=True)
class Setting:
    """How a step runs, the same for everything that is timed."""

    imgsz: int
    batch: int
    device: torch.device
    amp: bool | torch.dtype  # as Ultralytics' autocast takes it; always False on a CPU
    quantizes: bool = False  # whether the student computes with simulated rounding to 8 bits

    def autocast(self) -> AbstractContextManager[Any]:
        """The precision of a training step's forward pass."""
        context: AbstractContextManager[Any] = autocast(self.amp, device=self.device.type)
        return context

    @property
    def precision(self) -> str:
        """Its name."""
        names = {False: "float32", True: "float16, mixed", torch.bfloat16: "bfloat16, mixed"}
        return names[self.amp] + (", student in 8 bits" if self.quantizes else "")

    @property
    def machine(self) -> str:
        """Name of the processor or GPU."""
        return torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else str(get_cpu_info())

    def place(self, model: Any) -> Any:
        """Put a model where and as Ultralytics' trainer puts it."""
        model = model.to(self.device)
        return model.to(memory_format=torch.channels_last) if self.device.type == "cuda" else model

    def for_stride(self, stride: int) -> Setting:
        """Return the setting with images whose sides are multiples of a stride."""
        return replace(self, imgsz=int(make_divisible(self.imgsz, stride)))


@dataclass(frozen=True)
class Models:
    """The two detectors, as loaded, on the CPU."""

    teacher: DetectionModel
    student: DetectionModel
    specs: tuple[str, str]  # what the user called teacher and student
    scratch: tuple[str, ...]  # of "teacher" and "student", those with random weights


def read_setting(recipes: Sequence[Recipe]) -> Setting:
    """Return the setting that all recipes share.

    Raises:
        UserError: They differ in it, the batch is not a number of images, or the device cannot be used.
    """

    def shared(key: str) -> Any:
        values = {repr(value): value for value in (argument(recipe.train, key) for recipe in recipes)}
        if len(values) > 1:
            found = ", ".join(f"{recipe.name} {argument(recipe.train, key)}" for recipe in recipes)
            raise UserError(f"The recipes differ in train.{key} ({found}); give one for all with --set train.{key}=…")
        return next(iter(values.values()))

    if len({recipe.quantizes for recipe in recipes}) > 1:
        raise UserError("Some recipes train in 8 bits, some do not; give one for all with --set train.quantize=….")
    batch, device, amp, side = shared("batch"), shared("device"), shared("amp"), shared("imgsz")
    if not isinstance(batch, int) or batch < 1:
        raise UserError(f"bench needs a number of images per step, not {batch}: give --batch.")
    check_device(device)
    chosen = select_device(device or "", verbose=False)
    half = torch.bfloat16 if amp == "bf16" else amp not in {False, "fp32"}
    return Setting(
        imgsz=int(make_divisible(side, 32)),
        batch=batch,
        device=chosen,
        amp=half if chosen.type == "cuda" else False,
        quantizes=recipes[0].quantizes,
    )


def open_models(teacher: Spec, student: Spec, *, seed: int = 0) -> Models:
    """Load both detectors; a model description gets random weights and its partner's classes.

    Raises:
        WeightsError: A checkpoint or description that is missing or no detector.
        PairError: The two take images of different channels, or have other levels than each other.
    """
    specs = {"teacher": teacher, "student": student}
    models = {who: load_detector(find(spec)) for who, spec in specs.items() if not is_yaml(spec)}
    names = next((model.names for model in models.values()), None)
    scratch = tuple(who for who in specs if who not in models)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for who in scratch:
            models[who] = from_yaml(specs[who], None if names is None else len(names))
            models[who].names = names or models[who].names
            settle(models[who])
    heads = {who: read_head(model, f"The {who}") for who, model in models.items()}
    if heads["teacher"].levels != heads["student"].levels:
        raise PairError(
            "bench times Ultralytics' built-in distiller beside the recipe, which takes equal levels on both sides: "
            + ", ".join(f"the {who} has {', '.join(head.levels)}" for who, head in sorted(heads.items()))
            + "."
        )
    for model in models.values():
        vars(model).pop("criterion", None)  # checkpoints may carry that of their training
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(".dfl" not in name)  # as Ultralytics' trainer does
    channels = [model.yaml.get("channels", 3) for model in models.values()]
    if len(set(channels)) > 1:
        raise PairError(f"Teacher and student take images of different channels: {channels[0]} and {channels[1]}.")
    return Models(models["teacher"], models["student"], (str(teacher), str(student)), scratch)


@torch.no_grad()
def settle(model: DetectionModel) -> None:
    """Give a model with random weights activations of an ordinary size, by normalizing with statistics of noise.

    Without them they shrink from layer to layer to numbers that a processor computes with more slowly.
    """
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 1.0
    mode = model.training
    model.train()
    model(torch.rand(4, model.yaml.get("channels", 3), 256, 256))
    model.train(mode)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum


def make_batch(models: Models, setting: Setting, *, seed: int = 0) -> dict[str, Any]:
    """Return a batch of noise with random boxes, as the trainer hands it to a model."""
    generator = torch.Generator().manual_seed(seed)
    size, objects = setting.batch, setting.batch * OBJECTS

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator) * (high - low) + low

    classes = torch.randint(len(models.student.names), (objects, 1), generator=generator)
    channels = models.student.yaml.get("channels", 3)
    batch: dict[str, Any] = {
        "img": uniform(0, 1, size, channels, setting.imgsz, setting.imgsz),
        "batch_idx": torch.arange(size).repeat_interleave(OBJECTS).float(),
        "cls": classes.float(),
        "bboxes": torch.cat((uniform(0.2, 0.8, objects, 2), uniform(0.05, 0.4, objects, 2)), 1),
    }
    placed = {key: value.to(setting.device) for key, value in batch.items()}
    chances = torch.nn.functional.one_hot(classes.flatten(), len(models.student.names)).to(setting.device) * 0.8
    # as if the teacher saw every object
    answers = Answers(placed["batch_idx"].long(), placed["bboxes"], chances, most=OBJECTS)
    return {**placed, "im_file": [""] * size, ANSWERS: answers, COUNTS: (OBJECTS,) * size}


def make_student(models: Models, setting: Setting) -> DetectionModel:
    """Return a student of its own, ready to be trained."""
    student = deepcopy(models.student)
    student.args = get_cfg(overrides={"imgsz": setting.imgsz, "dis": 6.0})
    student.train()
    placed: DetectionModel = setting.place(student)
    if setting.quantizes:  # with ranges of noise, which cost what others cost
        shape = (setting.batch, student.yaml.get("channels", 3), setting.imgsz, setting.imgsz)
        insert_quantizers(placed, [torch.rand(shape, device=setting.device)], lambda images: images)
    return placed


def make_pair(models: Models, setting: Setting, recipe: Recipe) -> TeacherStudent:
    """Return teacher and student under a recipe, ready to be trained, as the trainer builds them.

    Raises:
        UserError: The recipe has no losses, or its losses cannot compare these two.
    """
    if not any(recipe.terms().values()):
        raise UserError(f"The recipe '{recipe.name}' has no losses: there is nothing to measure.")
    require_plain(recipe, "bench")
    student_head = read_head(models.student, "The student")
    offer = offer_of(recipe, read_head(models.teacher, "The teacher"), student_head)
    losses = active_losses(recipe, Levels.of(student_head.levels, offer).features)
    match = match_classes(models.student.names, models.teacher.names, recipe.teacher.classes)
    if not match.student and requirements(losses.values()).classes:
        raise PairError(
            f"The recipe '{recipe.name}' compares class scores, but the two models share no class by name; map them "
            f"in the recipe (teacher.classes)."
        )
    check_pair(losses, student_head, offer, [])
    student, teacher = make_student(models, setting), deepcopy(models.teacher)
    pair = build_pair(Parts(recipe, student, teacher, match, setting.device, half=bool(setting.amp)))
    placed: TeacherStudent = setting.place(pair).train()
    return placed
