"""Collects the numbers of a diagnosis: scores on training and validation images, labels, training curve."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from yolokd.backend import dataset
from yolokd.backend.checkpoints import from_scratch, is_yaml
from yolokd.backend.devices import check_device
from yolokd.comparison.spec import FILE as COMPARISON_FILE
from yolokd.data.layout import fingerprint, images_of
from yolokd.errors import DataError, UserError, WeightsError
from yolokd.evaluation.ground_truth import sample
from yolokd.evaluation.models import Examined, ModelScore, Progress, examine
from yolokd.recipe.classes import ClassMap
from yolokd.report.diagnosis import LEAST_EPOCHS, Curve, Diagnosis, Evidence, describe_curve, describe_labels, diagnose
from yolokd.report.formatting import percent
from yolokd.report.runs import RunFolder, is_run, read_run
from yolokd.training.task import count_taken

SPLITS = ("train", "val")
MOST_TRAINING_IMAGES = 500  # enough for an AP within a point or two, in seconds
AP = "metrics/mAP50-95(B)"
LOSSES = ("train/box_loss", "train/cls_loss", "train/dfl_loss", "train/l1_loss")  # one of the last two, by the head


@dataclass(frozen=True)
class Examination:
    """A diagnosis with what it rests on."""

    student: str  # the checkpoint that was scored
    teacher: str | None
    data: str
    scores: Mapping[str, Mapping[str, ModelScore]]  # "student", "teacher" → "train", "val" → score
    images: Mapping[str, int]  # split → images that were scored on
    evidence: Evidence
    diagnosis: Diagnosis
    notes: tuple[str, ...] = ()


def diagnose_student(
    student: str | Path,
    data: str,
    *,
    teacher: str | Path | None = None,
    imgsz: int | None = None,
    teacher_imgsz: int | None = None,
    classes: ClassMap | None = None,
    device: str | None = None,
    progress: Progress | None = None,
) -> Examination:
    """Score a student on its training and validation images and return what it lacks.

    Args:
        student: Folder of a finished run, whose `last.pt` is scored, or a checkpoint, whose curve is not known.
        data: What `yolokd train` takes; the splits train and val are scored on, of train at most
            `MOST_TRAINING_IMAGES` images, chosen by a hash of their names.
        teacher: A checkpoint or an Ultralytics name.
        imgsz: Longer side of the student's images in pixels; None is the size it was trained at.
        teacher_imgsz: Likewise of the teacher's.
        classes: As for `yolokd.evaluation.models.evaluate`.
        device: As Ultralytics takes it.
        progress: Called with a model's name and the share of its images that are done.

    Raises:
        UserError: The student is no finished run and no checkpoint, or the teacher is a model YAML.
        DataError: A split is missing or has no objects, or the classes do not fit.
        WeightsError: A checkpoint that is missing or not a detector.
    """
    check_device(device)
    _check_teacher(teacher, teacher_imgsz)
    weights, run = find_student(Path(student).expanduser())
    found = dataset.resolve(data)
    for split in SPLITS:
        if split not in found.splits:
            raise DataError(f"'{data}' has no split '{split}'; a diagnosis needs train and val.")
    taken = taken_images(found.splits["train"], {} if run is None else run.arguments)
    models = [weights] if teacher is None else [weights, teacher]

    def choose(paths: Sequence[Path]) -> list[Path]:
        return sample((path for path in paths if str(path) in taken), MOST_TRAINING_IMAGES)

    rows = {
        split: examine(
            models,
            data,
            split=split,
            imgsz=[imgsz, teacher_imgsz][: len(models)],
            device=device,
            classes=classes,
            progress=progress,
            choose=choose if split == "train" else None,
            timed=False,
        )
        for split in SPLITS
    }
    notes = () if run is None else other_images(run, found.splits["train"])
    return _summarize(rows, found.yaml_path, _evidence(rows, len(taken), run), notes)


def _check_teacher(teacher: str | Path | None, imgsz: int | None) -> None:
    if teacher is not None and is_yaml(teacher):
        raise UserError(f"The teacher '{teacher}' is a model YAML, which has no weights. Give a trained checkpoint.")
    if teacher is None and imgsz is not None:
        raise UserError("--teacher-imgsz is the size of the teacher's images: give --teacher too, or leave it out.")


def _summarize(
    rows: Mapping[str, Sequence[Examined]], data: Path, evidence: Evidence, notes: tuple[str, ...]
) -> Examination:
    scores = {
        role: {split: rows[split][place].score for split in SPLITS}
        for place, role in enumerate(("student", "teacher")[: len(rows["val"])])
    }
    return Examination(
        student=scores["student"]["val"].path,
        teacher=scores["teacher"]["val"].path if "teacher" in scores else None,
        data=str(data),
        scores=scores,
        images={split: len(rows[split][0].truth["images"]) for split in SPLITS},
        evidence=evidence,
        diagnosis=diagnose(evidence),
        notes=notes,
    )


def _evidence(rows: Mapping[str, Sequence[Examined]], labeled: int, run: RunFolder | None) -> Evidence:
    train, val = ([row.score.AP for row in rows[split]] for split in SPLITS)
    for split, aps in zip(SPLITS, (train, val), strict=True):
        if aps[0] < 0:
            raise DataError(f"None of the {split} images that are scored on has an object that counts.")
    return Evidence(
        train_ap=train[0],
        val_ap=val[0],
        labeled=labeled,
        unlabeled=0 if run is None else unlabeled_images(run),
        curve=None if run is None else curve_of(run),
        from_scratch=run is not None and starts_from_scratch(run),
        teacher_train_ap=train[1] if len(train) > 1 else None,
        teacher_val_ap=val[1] if len(val) > 1 else None,
    )


def find_student(path: Path) -> tuple[Path, RunFolder | None]:
    """Return the checkpoint to score and its run; no run for the path of a checkpoint.

    Raises:
        UserError: Neither a finished run nor a file.
    """
    if path.is_file():
        return path, None
    if not path.is_dir():
        raise UserError(f"There is no run and no checkpoint '{path}' (--student).")
    if not is_run(path) and (path / COMPARISON_FILE).is_file():
        raise UserError(f"'{path}' is a comparison; give one of its runs, or a checkpoint (--student).")
    run = read_run(path)
    if run.state == "unfinished":
        raise UserError(
            f"The run '{path}' is {run.progress}, and a diagnosis needs the end of its curve. Finish it with yolokd "
            f"train --resume '{path}', or give its checkpoint '{path / 'weights' / 'last.pt'}'."
        )
    if run.weights is None:
        reason = f": {run.problems[0]}" if run.problems else f", since '{path / 'weights' / 'last.pt'}' is missing."
        raise WeightsError(f"The run '{path}' has no weights that can be scored{reason}")
    return run.weights, run


def taken_images(sources: Sequence[Path], arguments: Mapping[str, Any]) -> frozenset[str]:
    """Return the paths of the training images that a run takes: under `train.fraction` the first ones."""
    files = sorted({path for source in sources for path in images_of(source)})
    share = arguments.get("fraction")
    share = share[0] if isinstance(share, list) and share else share
    usable = isinstance(share, (int, float)) and not isinstance(share, bool) and share > 0
    return frozenset(files[: count_taken({"fraction": share}, "train", len(files)) if usable else len(files)])


def unlabeled_images(run: RunFolder) -> int:
    """Return how many unlabeled images took part in a run."""
    recorded = run.provenance.get("unlabeled")
    count = recorded.get("pictures") if isinstance(recorded, Mapping) else None
    return count if isinstance(count, int) else 0


def starts_from_scratch(run: RunFolder) -> bool:
    """Whether the student of a run had no trained weights of its own."""
    return from_scratch(run.student, run.arguments.get("pretrained"))


def other_images(run: RunFolder, sources: Sequence[Path]) -> tuple[str, ...]:
    """Return a note if a run is known to have been trained on other images or labels than these."""
    splits = run.provenance.get("data_splits")
    train = splits.get("train") if isinstance(splits, Mapping) else None
    recorded = train.get("fingerprint") if isinstance(train, Mapping) else None
    if not isinstance(recorded, str) or fingerprint({"train": sources}, like=recorded) == recorded:
        return ()
    return (
        "The training images or labels of these data are not those that the student was trained on, so the gap between "
        "training and validation images may be too small.",
    )


def curve_of(run: RunFolder) -> Curve | None:
    """Return how the training of a run ended; None if it has no results.csv that can be read.

    AP counts as measured only if it was in every epoch of the last two fifths (`train.val`). Losses are compared among
    the epochs with mosaic, since they fall by themselves when it ends (`train.close_mosaic`).
    """
    if not run.epochs:
        return None
    aps = run.columns.get(AP, ())
    rise = None if run.arguments.get("val") is False or not _measured(run) else _change(aps)
    losses = [run.columns[name] for name in LOSSES if name in run.columns]
    sums = [sum(values) for values in zip(*losses, strict=True)][: _with_mosaic(run)]
    fall = _change(sums)
    before = _fifths(sums)
    share = None if fall is None or not before or before[0] <= 0 else -fall / before[0]
    return Curve(run.epochs, rise, share)


def known_lines(run: RunFolder, val_ap: float | None) -> list[str]:
    """Return what is known of a run's diagnosis without scoring it again: AP, labels, curve.

    Args:
        run: A finished run.
        val_ap: Its AP on validation images; None: not scored.
    """
    splits = run.provenance.get("data_splits")
    train = splits.get("train") if isinstance(splits, Mapping) else None
    images = train.get("images") if isinstance(train, Mapping) else None
    lines = [f"Curve: {describe_curve(curve_of(run))}."]
    if isinstance(images, int):
        lines.insert(0, f"Labels: {describe_labels(images, unlabeled_images(run))}.")
    if val_ap is not None:
        lines.insert(
            0, f"AP on validation images: {percent(val_ap)}; yolokd diagnose compares it with training images."
        )
    return lines


def _measured(run: RunFolder) -> bool:
    """Whether each of the last epochs was validated: the others have losses of 0."""
    losses = run.columns.get("val/box_loss", ())
    return all(loss > 0 for loss in losses[-2 * (len(losses) // 5) :])


def _with_mosaic(run: RunFolder) -> int:
    """Number of epochs before mosaic ended."""
    planned, closed = run.arguments.get("epochs"), run.arguments.get("close_mosaic")
    if not isinstance(planned, int) or not isinstance(closed, int) or not 0 < closed < planned:
        return run.epochs
    return min(run.epochs, planned - closed)


def _fifths(values: Sequence[float]) -> tuple[float, float] | None:
    """Mean of the last fifth but one and of the last; None for too few values, or where one is not a number."""
    fifth = len(values) // 5
    last = values[-2 * fifth :] if fifth else ()
    if len(values) < LEAST_EPOCHS or not all(map(math.isfinite, last)):
        return None
    return statistics.fmean(last[:fifth]), statistics.fmean(last[fifth:])


def _change(values: Sequence[float]) -> float | None:
    means = _fifths(values)
    return None if means is None else means[1] - means[0]
