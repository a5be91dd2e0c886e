"""The teachers' answers in a run: asked before the first step, given to the loaders, and parted from the labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from yolokd.backend.api import LOGGER, TQDM, unwrap_model
from yolokd.distillation.pseudo_labels import DOUBT, PseudoLabels
from yolokd.errors import UserError, nearest
from yolokd.loaders.answers import AnswerTable, joined, parted
from yolokd.loaders.batch import Answers, PseudoBoxes
from yolokd.loaders.epoch_sampler import CurrentEpoch, EpochSet, send_epochs
from yolokd.loaders.unlabeled_loader import UnlabeledStream
from yolokd.losses.base import Requirements, requirements
from yolokd.losses.table import active_losses
from yolokd.recipe import Recipe
from yolokd.teachers.answers import AnswerStore, Question
from yolokd.teachers.thresholds import DEFAULT, best_thresholds
from yolokd.training.task import trained_images

if TYPE_CHECKING:
    from yolokd.training.plan import Plan

KEY = "pseudo_labels"  # of the saved state: the thresholds
NEVER = 2.0  # a threshold that no score reaches


@dataclass(frozen=True)
class RunAnswers:
    """What the steps of a run need of stored answers."""

    table: AnswerTable
    classes: int  # of the data
    labeled: bool  # whether labeled images carry answers as well
    pseudo: PseudoLabels | None = None  # chooses among the boxes of unlabeled images

    def give(self, loader: Any, unlabeled: UnlabeledStream | None, current_epoch: CurrentEpoch) -> None:
        """Let loaders carry the answers beside their images, in place and before their first use.

        Args:
            loader: Ultralytics' loader of the labeled images.
            unlabeled: The images without labels beside it.
            current_epoch: Gives the current epoch, from 0, and the number of epochs.
        """
        if self.labeled:
            send_epochs(loader, EpochSet, current_epoch).answers = self.table
        if unlabeled is not None:
            unlabeled.dataset.answers = self.table

    def part(self, batch: dict[str, Any]) -> tuple[dict[str, Any], Answers | None]:
        """Return a batch with its labels alone, and the answers for its images; None if these carry none.

        Args:
            batch: As the loader makes it, on the CPU, where picking rows waits for no device.
        """
        return parted(batch, self.table, self.classes) if self.labeled else (batch, None)

    def join(
        self, labeled: Answers | None, unlabeled: Mapping[str, Tensor] | None, images: Tensor
    ) -> tuple[Answers | None, PseudoBoxes | None]:
        """Return what a loss compares with, for a whole step, and its pseudo-labels, both where the images are.

        Whatever is picked is picked before, on the CPU, where that waits for no device.

        Args:
            labeled: From `part`.
            unlabeled: `batch_idx`, `cls` and `bboxes` of the step's unlabeled images, on the CPU; None without.
            images: The labeled images, (B, 3, H, W).
        """
        others = None if unlabeled is None else parted(unlabeled, self.table, self.classes)[1]
        found = joined(labeled, others, len(images))
        if found is None:
            return None, None
        chosen = None if self.pseudo is None else self.pseudo.choose(found, len(images)).to(images.device)
        if not self.labeled:  # no loss compares with the answers themselves
            return None, chosen
        most = int(found.images.bincount().max()) if len(found.images) else 0
        return replace(found, most=most).to(images.device), chosen


def asked_size(recipe: Recipe, imgsz: int) -> int:
    """Return the longer side of an image in pixels at which the teachers are asked before training."""
    if recipe.teacher.answers == "live":
        return imgsz * recipe.teacher.scale
    return recipe.teacher.imgsz or 2 * imgsz


def check_answers(plan: Plan, needs: Requirements, teacher: str) -> list[str]:
    """Check stored answers and pseudo-labels; return what is worth knowing.

    Raises:
        UserError: They do not fit the rest of the recipe, or the data.
    """
    recipe, notes = plan.recipe, list[str]()
    stored = recipe.teacher.answers == "stored"
    if recipe.pseudo_labels and plan.unlabeled is None:
        raise UserError("train.pseudo_labels acts on images without labels: give them with --unlabeled.")
    asked = recipe.train.get("pseudo_labels")
    if isinstance(asked, Mapping) and (strange := [name for name in asked if name not in plan.data.names.values()]):
        near = nearest(strange[0], plan.data.names.values())
        raise UserError(
            f"train.pseudo_labels: the data have no class '{strange[0]}'"
            + (f"; did you mean '{near}'?" if near else f"; they have {', '.join(plan.data.names.values())}.")
        )
    if not stored:
        return notes
    if not (needs.answers or recipe.pseudo_labels):
        what = "no loss of the recipe takes stored answers" if recipe.terms() else "the recipe has no losses"
        raise UserError(
            f"teacher.answers is 'stored', but {what}, and there are no pseudo-labels: take the loss soft, set "
            "train.pseudo_labels, or leave teacher.answers out."
        )
    if recipe.weighting.aid is not None:
        raise UserError("weighting.aid judges the teacher's own loss in every step; set teacher.answers to live.")
    if plan.data.channels != 3:
        raise UserError(f"Stored answers take color images; the data have {plan.data.channels} channels.")
    size = asked_size(recipe, plan.imgsz)
    images = len(plan.unlabeled.files) if plan.unlabeled is not None else 0
    if needs.answers or recipe.train.get("pseudo_labels") is True:
        images += trained_images(recipe.train, plan.report)
    passes = "two passes" if recipe.teacher.flip else "one pass"
    who = f"'{teacher}' {'are' if recipe.teacher.models else 'is'} asked once"
    each = f"{passes} each" + (" by each teacher" if recipe.teacher.models else "")
    notes.append(f"{who} about {images} images at {size} px, {each}; answers are kept")
    return notes


def ask_before(trainer: Any, loader: Any) -> RunAnswers | None:
    """Ask the teachers about the images that the recipe wants answers for; choose thresholds of pseudo-labels.

    Args:
        trainer: With its panel of teachers, and the pair built.
        loader: Ultralytics' loader of the labeled images.

    Returns:
        The answers for the steps, which are to be given to the loaders; None where the teacher answers live.
    """
    recipe: Recipe = trainer.recipe
    stored = recipe.teacher.answers == "stored"
    soft = requirements(active_losses(recipe).values()).answers
    chosen = trainer.state.get(KEY)  # of an interrupted run
    choose = recipe.pseudo_labels and recipe.train["pseudo_labels"] is True and chosen is None
    others = trainer.unlabeled.dataset if trainer.unlabeled is not None else None
    files = [*(loader.dataset.im_files if soft or choose else ())]
    files += others.im_files if stored and others is not None else ()
    question = Question(
        (trainer.settings.teacher_sha256, *trainer.settings.models_sha256),
        asked_size(recipe, trainer.args.imgsz),
        trainer.panel.flip,
    )
    with TQDM(desc=f"Asking the teacher at {question.imgsz} px", disable=not files) as bar:

        def show(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        found = AnswerStore(question).collect(list(dict.fromkeys(files)), trainer.panel, trainer.device, show)
    learned = learned_classes(trainer.args.classes, trainer.data["nc"])
    pairs = zip(trainer.match.student, trainer.match.teacher, strict=True)
    table = AnswerTable.of(found, [pair for pair in pairs if pair[0] in learned], trainer.data["nc"])
    pseudo: PseudoLabels | None = None
    if recipe.pseudo_labels:
        if chosen is None:
            labels = loader.dataset.labels if choose else ()
            chosen = thresholds(recipe.train["pseudo_labels"], table, labels, trainer.data["names"])
            chosen = [score if index in learned else NEVER for index, score in enumerate(chosen)]
            trainer.state[KEY] = chosen
        pseudo = unwrap_model(trainer.model).distillation.pseudo = PseudoLabels(torch.tensor(chosen))
        names = trainer.data["names"]
        shown = ", ".join(f"{names[index]} {chosen[index]:.2f}" for index in sorted(learned))
        LOGGER.info(f"Pseudo-labels from a score of {shown}; from {DOUBT} up to it a box takes no part.")
    return RunAnswers(table, trainer.data["nc"], soft, pseudo) if stored else None


def learned_classes(asked: int | Sequence[int] | None, classes: int) -> set[int]:
    """Return the classes that `train.classes` leaves, which may be a single one; None leaves all."""
    if asked is None:
        return set(range(classes))
    return {asked} if isinstance(asked, int) else set(asked)


def thresholds(asked: Any, table: AnswerTable, labels: Any, names: Mapping[int, str]) -> list[float]:
    """Return the score from which on a box of each class is an object, as `train.pseudo_labels` says."""
    if asked is True:
        return best_thresholds(table, labels, len(names))
    if isinstance(asked, Mapping):
        return [float(asked.get(name, DEFAULT)) for _, name in sorted(names.items())]
    return [float(asked)] * len(names)
