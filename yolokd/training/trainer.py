"""The trainer: Ultralytics' own, with the pair built in `setup_model` and the run's settings in its arguments.

The constructor keeps the stock signature, since multi-GPU workers call it with the pickled arguments. Nothing essential
lives in files that are written early: workers rebuild everything from `args.yolokd`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from copy import copy, deepcopy
from pathlib import Path
from typing import Any

from torch import Tensor
from ultralytics.models.yolo.detect import DetectionTrainer
from ultralytics.nn.distill_model import DistillationModel
from ultralytics.utils import DEFAULT_CFG, LOCAL_RANK, LOGGER, RANK
from ultralytics.utils.torch_utils import torch_distributed_zero_first, unwrap_model

from yolokd.backend.checkpoints import find, from_scratch, load, load_detector, register_own_classes
from yolokd.backend.class_rows import keep_apart
from yolokd.backend.classes import ClassMatch
from yolokd.backend.dataset import resolve
from yolokd.backend.label_scan import kept_apart
from yolokd.backend.opening import without_lines
from yolokd.backend.paths import unaltered
from yolokd.backend.plots import plot_results
from yolokd.backend.quantization import STATE, insert_quantizers, restore_quantizers
from yolokd.backend.tasks import ALL_TASKS
from yolokd.distillation.model import PREFIX, TeacherStudent
from yolokd.distillation.pair import Parts, build_pair
from yolokd.files import cache_folder
from yolokd.initialization.class_transfer import transfer_class_rows
from yolokd.initialization.reconstruction import calibration
from yolokd.loaders.augmentation import augment_loader
from yolokd.loaders.batch import ANSWERS, FILES, PSEUDO, UNLABELED, with_counts, with_larger
from yolokd.loaders.sampling import sample_deterministically
from yolokd.loaders.unlabeled_loader import UnlabeledStream, stream_beside
from yolokd.locks import locked
from yolokd.teachers.asking import Panel
from yolokd.teachers.several import match_teachers
from yolokd.teachers.table import panel_of
from yolokd.training import run_files as records
from yolokd.training.answers import RunAnswers, ask_before
from yolokd.training.auto_batch import whole_steps
from yolokd.training.checkpoint_files import finish_checkpoints, written_beside
from yolokd.training.epochs import CALLBACKS, distillation_of
from yolokd.training.events import read_events
from yolokd.training.first_weights import class_rows_of, select_first_weights
from yolokd.training.settings import KEY, RunSettings

LOCK = "scan.lock"  # in yolokd's cache


class DistillTrainer(DetectionTrainer):
    """Trains a student under a teacher as `args.yolokd` says; without losses, exactly as Ultralytics does."""

    args: Any
    model: Any
    epoch: int
    epochs: int
    start_epoch: int
    match: ClassMatch

    def __init__(
        self, cfg: Any = DEFAULT_CFG, overrides: dict[str, Any] | None = None, _callbacks: dict[str, Any] | None = None
    ) -> None:
        overrides = dict(overrides or {})
        settings = overrides.pop(KEY, None)
        register_own_classes()  # a multi-GPU worker that resumes reads last.pt before anything else
        super().__init__(cfg, overrides, _callbacks)
        if settings is not None:  # on a resume they came with the checkpoint's arguments
            setattr(self.args, KEY, settings)
        self.settings = RunSettings.from_dict(vars(self.args)[KEY])
        self.recipe = self.settings.load_recipe()
        self.state: dict[str, Any] = vars(self.args)[KEY]["state"]  # saved with every checkpoint
        self.scale = self.recipe.teacher.scale if self.recipe.distills else 1  # of the teacher's images
        self.batch_of_epoch = 0  # from 0, the next to come; see `yolokd.training.epochs`
        self.unlabeled: UnlabeledStream | None = None
        self.detectors: Sequence[Any] = ()  # teachers that are loaded already; workers of several GPUs load them
        self.panel: Panel | None = None  # teachers that are asked before the first step
        self.answers: RunAnswers | None = None
        self.warned: set[str] = set()  # terms whose gradient ratio has been warned of

    # Building the pair

    def setup_model(self) -> dict[str, Any] | None:
        """Build the student as Ultralytics does, then the teacher around it."""
        if self.resume and self.recipe.distills:
            return self._resumed_model()
        selects_weights = (
            not self.resume and self.recipe.student.from_teacher and from_scratch(self.model, self.args.pretrained)
        )
        checkpoint = self._student_model()
        if self.recipe.distills:
            self.model = self._pair(self.model, selects_weights=selects_weights)
        elif selects_weights:
            first = self._teachers()[0]
            student, match = self._named(self.model), self._match([first])
            select_first_weights(student, first, match, self.recipe, self.device, self._calibration)
        return checkpoint

    def get_model(self, cfg: Any = None, weights: Any = None, verbose: bool = True) -> Any:
        """Build the student as Ultralytics does; names that differ by letter case keep their trained rows."""
        model = super().get_model(cfg, weights, verbose)
        if weights is not None and self.args.cls_remap:
            keep_apart(model, weights, self.data["names"])
        if weights is not None and not self.resume and self.recipe.student.init == "classes":
            given = self.args.distill_model or self.settings.teacher
            teacher = self._teachers()[0].to(self.device) if given else None
            joined = bool(self.args.single_cls)
            names = resolve(str(self.args.data)).names if joined else self.data["names"]
            rows = class_rows_of(self.recipe, names, weights, teacher)
            LOGGER.info(f"Class rows: {rows.describe()}.")
            transfer_class_rows(model.to(self.device), weights, rows, images=self._calibration, teacher=teacher)
        return model

    def _student_model(self) -> dict[str, Any] | None:
        """Build the student as Ultralytics does, from paths that it leaves as they are."""
        pretrained = self.args.pretrained
        with ExitStack() as stack:
            if str(self.model).lower().endswith(".pt"):
                self.model = str(stack.enter_context(unaltered(Path(self.model))))
            if isinstance(pretrained, (str, Path)) and not self.resume:
                self.args.pretrained = str(stack.enter_context(unaltered(find(pretrained))))
            try:
                checkpoint: dict[str, Any] | None = super().setup_model()
            finally:
                self.args.pretrained = pretrained
        return checkpoint

    def _resumed_model(self) -> dict[str, Any]:
        """Build the pair that the checkpoint of an interrupted run describes."""
        saved, checkpoint = load(Path(self.model))
        if not isinstance(saved, DistillationModel):
            raise TypeError(f"{self.model} does not hold a student under distillation")
        student = self.get_model(cfg=saved.yaml, weights=saved.student_model, verbose=RANK in {-1, 0})
        self.model = self._pair(student, quantizers=checkpoint.get(STATE))
        self.model.projector.load_state_dict(saved.projector.state_dict())
        return checkpoint

    def _pair(
        self, student: Any, *, selects_weights: bool = False, quantizers: dict[str, Any] | None = None
    ) -> TeacherStudent:
        student = self._named(student)
        detector, *further = detectors = self._teachers()
        self.match = self._match(detectors)
        if selects_weights:  # before the teacher's layers are folded
            select_first_weights(student, detector, self.match, self.recipe, self.device, self._calibration)
        if self.recipe.quantizes:
            self._quantize(student, quantizers)
        stored = self.recipe.teacher.answers == "stored"
        if self.recipe.pseudo_labels or stored:
            self.panel = panel_of(self.recipe, detectors if stored else deepcopy(detectors), self.device)
        return build_pair(
            Parts(
                self.recipe,
                student,
                detector,
                self.match,
                self.device,
                half=self.args.amp not in {False, "fp32"},
                seed=self.args.seed,
                epochs=self.epochs,
                state=self.state,
                further=further,
            )
        )

    def _quantize(self, student: Any, saved: dict[str, Any] | None) -> None:
        """Give the student alone its quantizers: those of a checkpoint, or such as Ultralytics gives a plain one."""
        student.to(self.device)
        if saved is not None:
            restore_quantizers(student, saved)
            return
        self.model = student
        self.stride = max(int(student.stride.max()), 32)  # which preparing a batch asks for
        prepare = super().preprocess_batch
        insert_quantizers(student, self._plain_loader(), lambda batch: prepare(batch)["img"])

    def _named(self, student: Any) -> Any:
        student.args = self.args
        student.nc, student.names = self.data["nc"], self.data["names"]
        return student

    def _teachers(self) -> list[Any]:
        """Return the teacher and the further ones after it: those of the plan, or loaded where there is none."""
        if self.detectors:
            return [deepcopy(detector) for detector in self.detectors]
        first = str(self.args.distill_model or self.settings.teacher)
        return [load_detector(Path(path), ALL_TASKS) for path in (first, *self.recipe.teacher.models)]

    def _match(self, detectors: Sequence[Any]) -> ClassMatch:
        """Find the classes of detectors among the data's."""
        joined = bool(self.args.single_cls)
        names = resolve(str(self.args.data)).names if joined else self.data["names"]  # here they are joined already
        return match_teachers(names, [one.names for one in detectors], self.recipe.teacher.classes, joined=joined)

    def _calibration(self) -> list[Tensor]:
        """Return training images to fit first weights on, in batches."""
        return calibration(self.args, self.data, self.device)

    def set_model_attributes(self) -> None:
        """Give class count, names and arguments to the student as well as to the wrapper."""
        super().set_model_attributes()
        student = getattr(self.model, "student_model", None)
        if student is not None:
            student.nc, student.names, student.args = self.model.nc, self.model.names, self.args

    def get_dataloader(self, dataset_path: str, batch_size: int = 16, rank: int = 0, mode: str = "train") -> Any:
        """Return the loader; IKD changes the training images, and paired runs fix their order and augmentation.

        Runs that start at the same time look through their images one after the other: Ultralytics writes what it
        finds beside the labels, and fails where another process does so at once.
        """
        with _alone():
            loader = self._loader(dataset_path, batch_size, rank, mode)
        if mode == "train" and self.panel is not None:  # other runs need not wait for it
            self.answers = ask_before(self, loader)
            self.panel = None  # whose memory is free again
        if mode == "train" and self.answers is not None:  # also where memory ran out, and loaders are made anew
            self.answers.give(loader, self.unlabeled, self._current_epoch)
        return loader

    def _loader(self, dataset_path: str, batch_size: int, rank: int, mode: str) -> Any:
        with kept_apart():
            loader = super().get_dataloader(dataset_path, batch_size, rank, mode)
        ikd = self.recipe.augment.ikd
        if mode == "train" and ikd is not None:
            augment_loader(loader, ikd, seed=self.args.seed, current_epoch=self._current_epoch)
        if mode == "train" and self.settings.paired:
            sample_deterministically(loader, seed=self.args.seed, current_epoch=self._current_epoch)
        if mode == "train":
            self.unlabeled = stream_beside(loader, self, self._current_epoch)
        return loader

    def _plain_loader(self) -> Any:
        """Return the loader on which Ultralytics measures ranges: labeled images at the student's size, as augmented.

        It is the one that a run without losses has there, so that runs of one seed begin with the same ranges.
        """
        batch = max(self.batch_size // max(self.world_size, 1), 1) if self.batch_size >= 1 else 16
        full, scale = self.args, self.scale
        self.args, self.scale = copy(full), 1
        self.args.cache = False
        try:
            with torch_distributed_zero_first(LOCAL_RANK), _alone(), kept_apart():
                loader = super().get_dataloader(self.data["train"], batch, -1, "train")
        finally:
            self.args, self.scale = full, scale
        if self.settings.paired:
            sample_deterministically(loader, seed=self.args.seed, current_epoch=self._current_epoch)
        return loader

    def _current_epoch(self) -> tuple[int, int]:
        return getattr(self, "epoch", self.start_epoch), self.epochs

    def auto_batch(self) -> int:
        """Return the batch size that fits the memory, sought with whole steps where there is a teacher in them."""
        if not isinstance(self.model, TeacherStudent):
            return int(super().auto_batch())
        pair = self.model
        with whole_steps(pair, self.recipe) as self.model:
            try:
                return int(super().auto_batch())
            finally:
                self.model = pair

    def build_dataset(self, img_path: str, mode: str = "train", batch: int | None = None) -> Any:
        """Build a data set as Ultralytics does; that of the training images at the teacher's size."""
        if mode != "train" or self.scale == 1:
            return super().build_dataset(img_path, mode, batch)
        full = self.args
        self.args = copy(full)
        self.args.imgsz *= self.scale
        try:
            return super().build_dataset(img_path, mode, batch)
        finally:
            self.args = full

    def preprocess_batch(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Prepare a training batch as Ultralytics does; add the step's unlabeled images."""
        own, boxes = None, None
        if self.answers is not None:
            batch, own = self.answers.part(batch)
        if self.recipe.distills:
            batch = with_counts(batch)
        batch = super().preprocess_batch(batch)
        if self.unlabeled is not None:
            batch[UNLABELED], batch[FILES], boxes = self.unlabeled.images(batch["img"])
        if self.scale != 1:
            batch = with_larger(batch, self.scale)
        if self.answers is not None:
            batch[ANSWERS], batch[PSEUDO] = self.answers.join(own, boxes, batch["img"])
        return batch

    def _close_dataloader_mosaic(self) -> None:
        super()._close_dataloader_mosaic()
        if self.unlabeled is not None:
            self.unlabeled.close_mosaic(copy(self.args))

    def get_validator(self) -> Any:
        """Return the validator; its arguments know only Ultralytics' own keys."""
        full = self.args
        self.args = copy(full)
        delattr(self.args, KEY)
        try:
            return super().get_validator()
        finally:
            full.max_det = self.args.max_det
            self.args = full

    # Epochs and checkpoints

    def _setup_train(self) -> None:
        with without_lines("Freezing layer 'teacher_model."), self._quantized_here():  # hundreds of them
            super()._setup_train()
        if RANK in {-1, 0}:
            records.write_run_files(self.save_dir, self.settings)
            if self.resume:
                records.cut_results(self.csv, self.start_epoch)
                self.warned = {event.term for event in read_events(self.save_dir)}
            else:
                records.remove_earlier(self.save_dir)
        if isinstance(unwrap_model(self.model), TeacherStudent):
            # Here and not in the constructor: multi-GPU workers receive the parent's callbacks as well.
            for event, callback in CALLBACKS.items():
                self.add_callback(event, callback)

    @contextmanager
    def _quantized_here(self) -> Iterator[None]:
        """Keep Ultralytics from quantizing the pair, teacher included: `setup_model` quantizes the student."""
        asked = self.args.quantize
        if self.recipe.distills:
            self.args.quantize = None
        try:
            yield
        finally:
            self.args.quantize = asked

    def save_model(self) -> bool:
        """Write checkpoints beside and rename them, so that a full disk or a kill leaves the previous ones intact."""
        with written_beside(self):
            saved: bool = super().save_model()
        return saved

    def final_eval(self) -> None:
        """Reduce the checkpoints to plain students that carry the recipe, then validate `best.pt`.

        A comparison scores `last.pt` afterwards, so its runs validate `best.pt` for the plots only.
        """
        with torch_distributed_zero_first(LOCAL_RANK):
            if RANK in {-1, 0}:
                finish_checkpoints(self.wdir, self.settings)
        if self.best.exists() and (self.args.plots or not self.settings.paired):
            LOGGER.info(f"\nValidating {self.best}...")
            self.validator.args.plots = self.args.plots
            self.validator.args.compile = False
            self.metrics = self.validator(model=self.best)
            self.metrics.pop("fitness", None)
            self.epoch += 1
            self.run_callbacks("on_fit_epoch_end")
            self.epoch -= 1

    def save_metrics(self, metrics: dict[str, Any]) -> None:
        """Write a row of results.csv; with `balance.log` or automatic gains also those, shares and gradient ratios."""
        if self.recipe.terms() and (self.recipe.balance.log or "auto" in self.recipe.terms().values()):
            distillation = distillation_of(self)
            losses = {name: float(value) for name, value in self.tloss.items()}
            total = sum(losses.values()) or 1.0
            gradient_ratios = distillation.gradient_ratios()
            metrics = dict(metrics)
            for term in distillation.gains:  # that of adversarial images has no gradient at these features: not 0, none
                metrics[f"gain/{PREFIX}{term}"] = distillation.strength(term, 1.0)
                metrics[f"share/{PREFIX}{term}"] = losses[PREFIX + term] / total
                metrics[f"gradient/{PREFIX}{term}"] = gradient_ratios.get(term, 0.0)
        super().save_metrics(metrics)

    def progress_string(self) -> str:
        """Return the header of the progress line; columns are eleven characters wide."""
        labels = [name if len(name) < 11 else name.removeprefix(PREFIX)[:10] for name in self.loss_names]
        return ("\n" + "%11s" * (4 + len(labels))) % ("Epoch", "GPU_mem", *labels, "Instances", "Size")

    def plot_metrics(self) -> None:
        """Draw results.png with the distillation terms, which Ultralytics' own plot would leave out."""
        self.on_plot(plot_results(self.csv))


def _alone() -> AbstractContextManager[Any]:
    """Wait for other runs that look through their images; the other processes of a run wait for its first."""
    return locked(cache_folder() / LOCK, wait=True) if RANK in {-1, 0} else nullcontext()
