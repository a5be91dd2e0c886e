"""What a run under a teacher does at the borders of epochs and batches: counts, checks for anomalies, logs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from yolokd.backend.api import LOGGER, RANK, unwrap_model
from yolokd.distillation.state import Distillation
from yolokd.distillation.weight_files import WeightLog
from yolokd.training.events import RATIO_LIMIT, Event, write_event

if TYPE_CHECKING:
    from yolokd.training.trainer import DistillTrainer


def distillation_of(trainer: DistillTrainer) -> Distillation:
    """Return the state of the distillation of a trainer whose model is a pair."""
    distillation: Distillation = unwrap_model(trainer.model).distillation
    return distillation


def _start_epoch(trainer: DistillTrainer) -> None:
    trainer.batch_of_epoch = 0
    distillation_of(trainer).weight_log = WeightLog()  # anew after an aborted pass, and where nobody writes them


def _start_batch(trainer: DistillTrainer) -> None:
    distillation_of(trainer).begin(trainer.epoch, trainer.batch_of_epoch, len(trainer.train_loader), trainer.epochs)
    trainer.batch_of_epoch += 1


def _end_batch(trainer: DistillTrainer) -> None:
    checks = distillation_of(trainer).anomaly_checks
    if checks.due:
        checks.read()


def _end_epoch(trainer: DistillTrainer) -> None:
    distillation = distillation_of(trainer)
    distillation.anomaly_checks.read()
    distillation.counts.save()
    if RANK in {-1, 0}:
        distillation.weight_log.write(trainer.save_dir, trainer.epoch + 1)
        for term, ratio in distillation.gradient_ratios().items():
            if ratio > RATIO_LIMIT and term not in trainer.warned:
                trainer.warned.add(term)
                event = Event("gradient_ratio", term, trainer.epoch + 1, ratio)
                write_event(trainer.save_dir, event)
                LOGGER.warning(f"{event}.")


CALLBACKS: Mapping[str, Callable[[DistillTrainer], None]] = {  # Ultralytics' event → what is done then
    "on_train_epoch_start": _start_epoch,
    "on_train_batch_start": _start_batch,
    "on_train_batch_end": _end_batch,
    "on_train_epoch_end": _end_epoch,
}
