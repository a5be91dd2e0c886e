"""Everything that is checked before the first step, and the plan that `--dry-run` prints."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from yolokd.backend.api import DetectionModel, get_flops, get_num_params, make_divisible, select_device
from yolokd.backend.checkpoints import Spec, find, from_scratch, is_yaml, load_detector
from yolokd.backend.class_rows import in_other_order
from yolokd.backend.classes import ClassMatch, partial_note, require_classes
from yolokd.backend.dataset import Dataset, resolve
from yolokd.backend.descriptions import from_yaml
from yolokd.backend.devices import check_device
from yolokd.backend.heads import HeadInfo, read_head
from yolokd.backend.tasks import ALL_TASKS
from yolokd.data.check import DataReport, check_labels
from yolokd.data.labels import NO_KEYPOINTS, Keypoints
from yolokd.distillation.adversarial import Attack, extra_passes
from yolokd.distillation.instance_weights import InstanceWeighting
from yolokd.distillation.levels import Levels
from yolokd.distillation.pair import check_pair, check_weighting, describe_tasks
from yolokd.errors import PairError, UserError, WeightsError
from yolokd.loaders.unlabeled import Unlabeled, check_unlabeled, find_unlabeled, with_absolute_paths
from yolokd.losses.base import requirements
from yolokd.losses.table import active_losses
from yolokd.recipe import Recipe
from yolokd.recipe.arguments import argument
from yolokd.teachers.several import match_teachers, of_first, require_same_levels
from yolokd.teachers.table import check_teacher, offer_of
from yolokd.training.answers import check_answers
from yolokd.training.argument_checks import (
    check_quantization,
    check_strides,
    check_with_data,
    check_with_device,
    refuse_quantized,
)
from yolokd.training.first_weights import first_weights, with_class_rows
from yolokd.training.regime import in_its_regime
from yolokd.training.run_directory import check_writable, refuse_inside, run_folder
from yolokd.training.task import check_students_task, check_task, learned_names, trained_images

DEFAULT_DATA = "kitti.yaml"


@dataclass(frozen=True)
class ModelPlan:
    """A model of a run: where it comes from and what it costs."""

    spec: str
    path: Path
    pretrained: bool
    parameters: int
    gflops: float  # of one image at the training size
    head: HeadInfo


@dataclass(frozen=True)
class Plan:
    """What a run is going to do, checked."""

    recipe: Recipe
    student: ModelPlan
    teacher: ModelPlan | None  # its GFLOPs at the size at which it sees the images
    classes: ClassMatch | None
    data: Dataset
    report: DataReport
    imgsz: int
    folder: Path
    notes: tuple[str, ...]
    unlabeled: Unlabeled | None = None
    selected: float | None = None  # share of the student's first weights that is taken from the teacher
    class_rows: str | None = None  # with student.init: classes, where the rows of the class output come from
    further: tuple[ModelPlan, ...] = ()  # teachers beside the first
    detectors: tuple[DetectionModel, ...] = field(default=(), repr=False, compare=False)  # all teachers, as loaded

    @property
    def teacher_imgsz(self) -> int:
        """Side of the images that a live teacher sees."""
        return self.imgsz * (self.recipe.teacher.scale if self.recipe.distills else 1)

    @property
    def cost(self) -> float:
        """Estimated time of a step as a multiple of plain training, by floating-point operations.

        A training step costs about three forward passes of the student; the teacher adds one of its own.
        """
        if self.teacher is None or not (any(self.recipe.terms().values()) or self.recipe.pseudo_labels):
            return 1.0
        step = max(3 * self.student.gflops, 1e-9)
        passes = sum(model.gflops for model in (self.teacher, *self.further))
        cost = 1.0 if self.recipe.teacher.answers == "stored" else 1.0 + passes / step
        if self.unlabeled is not None:
            cost /= 1 - self.unlabeled.share
        ikd = self.recipe.augment.ikd
        if ikd is not None and ikd.adversarial is not None:
            extra = extra_passes(ikd.adversarial)
            cost += ikd.until * (extra.teacher * self.teacher.gflops + extra.student * self.student.gflops) / step
        return cost


@dataclass
class Known:
    """What several plans share, read once: label reports by data set, teachers by path and image size."""

    reports: dict[tuple[Path, bool], DataReport] = field(default_factory=dict)
    teachers: dict[tuple[str, int], Loaded] = field(default_factory=dict)


@dataclass(frozen=True)
class Loaded:
    """A detector in memory, and what is known of it."""

    model: DetectionModel
    plan: ModelPlan


def make_plan(
    teacher: Spec | None,
    student: Spec,
    recipe: Recipe,
    *,
    allow_partial: bool = False,
    runs: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
    known: Known | None = None,
) -> Plan:
    """Check a run in full: paths and device first, then the models and the data, then how they fit.

    Args:
        teacher: The teacher's checkpoint; None is allowed if the recipe takes neither losses nor weights of it.
            Further ones are the recipe's `teacher.models`.
        student: Checkpoint, name or model YAML of the student.
        recipe: The resolved recipe, command line options included. Of its regimes the one that fits is taken.
        allow_partial: Distill the common classes where the teacher lacks some of the data's.
        runs: Folder of all runs; `runs` in the current folder if None.
        progress: Called with the number of images opened and to be opened, where not all were opened before.
        known: What other plans have read; this one adds to it. None shares nothing.

    Raises:
        UserError: Anything that can be known before the first step.
    """
    recipe, notes = in_its_regime(recipe, student)
    known, train = known or Known(), recipe.train
    imgsz = _image_size(train, notes)
    folder = _folder(teacher, student, recipe, runs)
    teacher = _needed_teacher(teacher, recipe, notes)
    _check_files(student, train.get("pretrained"))
    refuse_quantized(recipe, student, teacher)
    notes += check_quantization(recipe, scratch=from_scratch(student, train.get("pretrained")))
    recipe = with_absolute_paths(recipe)
    teaching = [] if teacher is None else _load_teachers(teacher, recipe, imgsz, known)
    if len(teaching) > 1:  # an official name may have become a file
        recipe = with_models(recipe, [str(one.plan.path.absolute()) for one in teaching[1:]])
    unlabeled = find_unlabeled(recipe)
    data = resolve(str(train.get("data") or DEFAULT_DATA))
    if unlabeled is not None:
        notes += check_unlabeled(unlabeled, recipe, data.splits)
    elif "unlabeled_share" in train:
        notes.append("train.unlabeled_share has no effect without train.unlabeled")
    learning = _load_student(student, imgsz, train, data, notes)
    report = _report(data, bool(train.get("single_cls")), known, progress)
    if report.left_out:
        notes.append(report.left_out)
    check_strides(recipe, imgsz, learning.plan, [one.plan for one in teaching])
    _check_last_batch(report, train, imgsz, max(32, learning.plan.head.largest_stride))
    check_with_data(train, data, learning.model)
    notes += check_task(train, data, report)
    check_students_task(learning.plan.head.task, recipe, data, report)
    plan = Plan(recipe, learning.plan, None, None, data, report, imgsz, folder, tuple(notes), unlabeled)
    if teaching:
        plan = _with_teachers(plan, learning, teaching, allow_partial=allow_partial)
    return with_class_rows(plan, learning, teaching[0] if teaching else None)


def _image_size(train: Mapping[str, Any], notes: list[str]) -> int:
    """Check the device and what depends on it; return the side of the input, a multiple of the largest stride."""
    check_device(train.get("device"))
    asked = int(argument(train, "imgsz"))
    imgsz = int(make_divisible(asked, 32))
    if imgsz != asked:
        notes.append(f"imgsz {asked} is rounded to {imgsz}, a multiple of the largest stride 32")
    check_with_device(train)
    return imgsz


def _folder(teacher: Spec | None, student: Spec, recipe: Recipe, runs: Path | None) -> Path:
    """Return the run directory to be made, which can be written and holds none of the inputs."""
    folder = check_writable(run_folder(recipe, runs))
    inputs = (teacher, *recipe.teacher.models, student, recipe.train.get("pretrained"), recipe.train.get("unlabeled"))
    refuse_inside(folder, [str(spec) for spec in inputs if spec])
    return folder


def _needed_teacher(teacher: Spec | None, recipe: Recipe, notes: list[str]) -> Spec | None:
    """Return the teacher if the recipe uses one; `UserError` where it is missing."""
    if recipe.needs_teacher and teacher is None:
        why = "starts from a teacher's weights"
        if recipe.distills:
            why = f"compares with a teacher ({_terms(recipe)})" if recipe.terms() else "takes a teacher's pseudo-labels"
        raise UserError(f"The recipe '{recipe.name}' {why} and needs --teacher.")
    if not recipe.needs_teacher and teacher is not None and recipe.student.init != "classes":
        notes.append(f"the recipe '{recipe.name}' has no losses: the teacher is not used")
        return None
    return teacher


def _check_files(student: Spec, pretrained: object) -> None:
    """Find missing files before the data are read."""
    if not is_yaml(student):
        find(student)
    if isinstance(pretrained, str):
        load_detector(find(pretrained), ALL_TASKS)


def _load_student(spec: Spec, imgsz: int, train: Mapping[str, Any], data: Dataset, notes: list[str]) -> Loaded:
    names = learned_names(train, data.names)
    student = _load_model(spec, imgsz, "The student", classes=len(names), keypoints=data.keypoints)
    student = _with_keypoints(student, data, notes)
    if student.plan.pretrained and in_other_order(student.model.names, names):
        how = "by name" if argument(train, "cls_remap") else "in its own order, since train.cls_remap is off"
        notes.append(f"the student's checkpoint has the data's classes in another order: rows are taken over {how}")
    return student


def _with_keypoints(student: Loaded, data: Dataset, notes: list[str]) -> Loaded:
    """Return a student whose head gives the keypoints of the data, as Ultralytics builds it for the training."""
    own, wanted = student.plan.head.keypoints, data.keypoints
    if own is None or not wanted[0] or own.shape == wanted:
        return student
    notes.append(
        f"the student's checkpoint has kpt_shape {list(own.shape)}, the data {list(wanted)}: the output of keypoints "
        "starts from random weights"
    )
    layout = replace(own, count=wanted[0], columns=wanted[1])
    return replace(student, plan=replace(student.plan, head=replace(student.plan.head, keypoints=layout)))


def with_models(recipe: Recipe, models: Sequence[str]) -> Recipe:
    """Return a recipe with these further teachers."""
    data = recipe.to_dict()
    return Recipe.from_dict({**data, "teacher": {**data["teacher"], "models": list(models)}}, name=recipe.name)


def _load_teachers(first: Spec, recipe: Recipe, imgsz: int, known: Known) -> list[Loaded]:
    """Load the teacher, and those of `teacher.models` where teachers take part in the steps."""
    if not recipe.distills:
        return [_load_teacher(first, imgsz, known)]
    size = imgsz * recipe.teacher.scale
    loaded = [_load_teacher(spec, size, known) for spec in (first, *recipe.teacher.models)]
    paths = [one.plan.path.resolve() for one in loaded]
    if twice := [one.plan.spec for place, one in enumerate(loaded) if paths[place] in paths[:place]]:
        raise UserError(f"The teacher '{twice[0]}' is given twice; give each teacher once.")
    return loaded


def _load_teacher(spec: Spec, imgsz: int, known: Known) -> Loaded:
    if is_yaml(spec):
        raise WeightsError(f"The teacher '{spec}' is a model description without weights; give a trained checkpoint.")
    key = (str(spec), imgsz)
    if key not in known.teachers:
        known.teachers[key] = _load_model(spec, imgsz, "The teacher", tasks=ALL_TASKS)
    return known.teachers[key]


def _report(data: Dataset, joined: bool, known: Known, progress: Callable[[int, int], None] | None) -> DataReport:
    """Return what the labels and images hold, read once for all plans that share it; `DataError` where it is bad."""
    key = (data.yaml_path.absolute(), joined)
    if key not in known.reports:
        known.reports[key] = check_labels(
            data.splits, data.names, keypoints=data.keypoints, joined=joined, progress=progress
        )
    known.reports[key].raise_if_bad()
    return known.reports[key]


def _with_teachers(plan: Plan, student: Loaded, teachers: Sequence[Loaded], *, allow_partial: bool) -> Plan:
    """Check that teachers, student, data and recipe fit each other."""
    recipe, data, notes, (teacher, *further) = plan.recipe, plan.data, list(plan.notes), teachers
    joined = bool(recipe.train.get("single_cls"))
    names = [one.model.names for one in teachers]
    match = match_teachers(data.names, names, recipe.teacher.classes, joined=joined)
    for one in teachers:
        _check_channels(one, data)
    offer = offer_of(recipe, teacher.plan.head, student.plan.head)
    losses = active_losses(recipe, Levels.of(student.plan.head.levels, offer).features)
    needs = requirements(losses.values())
    notes += check_answers(plan, needs, "', '".join(one.plan.spec for one in teachers))
    if needs.classes or recipe.pseudo_labels:
        spec = teacher.plan.spec
        require_classes(match, allow_partial=allow_partial, teacher=spec, data=str(data.yaml_path))
        if note := partial_note(match):
            notes.append(note)
    if recipe.weighting.aid is not None:
        InstanceWeighting(recipe.weighting.aid, match)
        check_weighting(student.plan.head, offer)
    if recipe.augment.adversarial is not None:
        Attack(recipe.augment.adversarial, match)
    require_same_levels({one.plan.spec: one.plan.head for one in teachers})
    check_pair(losses, student.plan.head, offer, notes)
    if recipe.distills and (left_out := describe_tasks(losses, student.plan.head, [one.plan.head for one in teachers])):
        notes.append(left_out)
    check_teacher(recipe, select_device(recipe.train.get("device") or "", verbose=False))
    if plan.unlabeled is not None and not recipe.pseudo_labels and (needs.objects or not losses):
        notes.append("the losses of this recipe act on labeled objects only: unlabeled images teach nothing")
    selected = None
    if recipe.student.from_teacher:
        own = of_first(match, len(names[0]))
        selected, note = first_weights(student.model, student.plan.spec, teacher.model, own, recipe)
        notes.append(note)
    return replace(
        plan,
        teacher=teacher.plan,
        classes=match,
        selected=selected,
        notes=tuple(notes),
        further=tuple(one.plan for one in further),
        detectors=tuple(one.model for one in teachers),
    )


def _terms(recipe: Recipe) -> str:
    return ", ".join(f"kd_{term}" for term in recipe.terms())


def _load_model(
    spec: Spec,
    imgsz: int,
    what: str,
    classes: int | None = None,
    tasks: Collection[str] = ALL_TASKS,
    keypoints: Keypoints = NO_KEYPOINTS,
) -> Loaded:
    pretrained = not is_yaml(spec)
    if not pretrained:
        model, path = from_yaml(spec, classes, tasks, keypoints), Path(spec)
    else:
        path = find(spec)
        model = load_detector(path, tasks)
    plan = ModelPlan(
        spec=str(spec),
        path=path,
        pretrained=pretrained,
        parameters=get_num_params(model),
        gflops=get_flops(model, imgsz),
        head=read_head(model, what),
    )
    return Loaded(model, plan)


def _check_last_batch(report: DataReport, train: Mapping[str, Any], imgsz: int, stride: int) -> None:
    images, batch = trained_images(train, report), argument(train, "batch")
    if imgsz < 2 * stride and isinstance(batch, int) and batch > 0 and (images % min(batch, images) or batch) == 1:
        raise UserError(
            f"The last batch would hold one image, and at {imgsz} px that gives normalization a single value per "
            f"channel. Change --batch, or take --imgsz {2 * stride} or more."
        )


def _check_channels(teacher: Loaded, data: Dataset) -> None:
    takes = int(teacher.model.yaml.get("channels", 3))
    if takes != data.channels:
        raise PairError(
            f"The teacher '{teacher.plan.spec}' takes images of {takes} channels, the data have {data.channels}."
        )
