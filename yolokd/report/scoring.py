"""Scores of every model of a report on the data's validation images, kept beside the report.

What is kept depends on the weights' sha256, the data's fingerprint and class names, the image size, the device and
the versions of the libraries; if one of them changes, the model is scored anew. Of the detections only those count, and
are kept, that reach the score at which the model's own F1 over all images is largest (`matching.best_threshold`), so
that models whose scores are differently calibrated are shown at their best.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from yolokd.backend import dataset
from yolokd.data.check import check_labels, fingerprint
from yolokd.errors import UserError, YolokdError
from yolokd.evaluation.ground_truth import list_images, unusable
from yolokd.evaluation.instances import ground_truth
from yolokd.evaluation.matches import Matches, read_matches, write_matches
from yolokd.evaluation.matches import match as match_all
from yolokd.evaluation.models import ModelScore, Progress, examine
from yolokd.evaluation.task import Task
from yolokd.files import sha256, sha256_of, write_json
from yolokd.inputs import read_json
from yolokd.recipe.classes import ClassMap
from yolokd.report.matching import Box, best_threshold, in_crowds, match
from yolokd.report.runs import RunFolder
from yolokd.report.study import Study
from yolokd.training import run_files as records

SPLIT = "val"
FORMAT = 3  # of the files that are kept


@dataclass(frozen=True)
class ScoredImages:
    """The images that are scored on, with their labels."""

    yaml: str
    names: Mapping[int, str]  # of the classes that are scored
    files: tuple[Path, ...]
    objects: tuple[Box, ...]  # COCO annotations; image_id is a place in `files`
    crowds: tuple[Box, ...]  # likewise: what is found in them counts neither as right nor as false
    whole: frozenset[str]  # fingerprints of all splits, of every version
    fingerprint: str  # of this split, the class names and the annotations
    single_cls: bool = False  # all classes of the data are one
    classes: tuple[int, ...] | None = None  # classes of the data whose objects count; None: all


@dataclass(frozen=True)
class Finding:
    """What one model found."""

    score: ModelScore
    precision50: Mapping[str, Sequence[float]]  # class → precision at IoU 0.50, at the recalls 0, 0.01, …, 1
    threshold: float  # score from which on its detections count
    boxes: Sequence[Box]  # those detections; `right` tells whether one was matched to an object
    matches: Matches = field(compare=False)  # all detections, matched as COCO does


@dataclass(frozen=True, eq=False)
class Model:
    """A checkpoint to score."""

    name: str
    path: Path
    digest: str
    imgsz: int | None = None
    classes: ClassMap = field(default_factory=dict)


@dataclass(frozen=True)
class Scores:
    """All findings, and what could not be found."""

    runs: Mapping[str, Finding]  # name of a run →
    teachers: Mapping[str, Finding]  # sha256 of a teacher's checkpoint →
    notes: tuple[str, ...] = ()


def open_images(
    data: str,
    progress: Progress | None = None,
    *,
    single_cls: bool = False,
    classes: tuple[int, ...] | None = None,
) -> ScoredImages:
    """Read the validation split of a data set.

    Args:
        data: As for `yolokd.backend.dataset.resolve`.
        progress: Told the share of the images that are opened, where not all were opened before.
        single_cls: Join all classes to one, as the training argument does.
        classes: Classes of the data whose objects count; None is all.

    Raises:
        DataError: It is gone or malformed, or its labels are wrong.
    """
    found = dataset.resolve(data)
    sources = found.splits[SPLIT]
    notified = progress or (lambda what, share: None)
    check_labels(
        {SPLIT: sources},
        found.names,
        keypoints=found.keypoints,
        joined=single_cls,
        progress=lambda done, total: notified("opening images", done / total),
    ).raise_if_bad()
    files, skipped = list_images(sources), unusable(sources)
    task = Task(found.names, single_cls, classes)
    boxes = task.apply(ground_truth(found.yaml_path, SPLIT, files, found.names, left_out=skipped))["annotations"]
    own = json.dumps([fingerprint({SPLIT: sources}), sorted(task.counted.items()), boxes])
    return ScoredImages(
        yaml=str(found.yaml_path.absolute()),
        names=task.counted,
        single_cls=single_cls,
        classes=classes,
        files=tuple(files),
        objects=tuple(box for box in boxes if not box.get("iscrowd")),
        crowds=tuple(box for box in boxes if box.get("iscrowd")),
        whole=frozenset((fingerprint(found.splits), fingerprint(found.splits, like="without a version"))),
        fingerprint=sha256_of(own),
    )


def score_study(
    study: Study,
    images: ScoredImages,
    cache: Path,
    *,
    teacher: str | Path | None = None,
    device: str | None = None,
    progress: Progress,
) -> Scores:
    """Score the teachers and every run that has weights; what fails becomes a note.

    Args:
        study: The runs.
        images: Where to score.
        cache: Folder of earlier findings.
        teacher: Where the teacher lies now, if it was moved.
        device: As Ultralytics takes it.
        progress: Told a model's name and the share of its images that are done.

    Raises:
        UserError: `teacher` is not the one of any run.
    """
    masters, notes = find_teachers(study, teacher)
    students = [
        Model(name, run.weights, run.digest, run.imgsz)
        for name, run in study.runs.items()
        if run.weights is not None and run.digest is not None
    ]
    found: dict[Model, Finding] = {}
    for model in (*masters, *students):
        try:
            found[model] = score(model, images, cache, device=device, progress=progress)
        except YolokdError as error:
            notes.append(f"{model.name} could not be scored: {error}")
    return Scores(
        runs={model.name: found[model] for model in students if model in found},
        teachers={model.digest: found[model] for model in masters if model in found},
        notes=tuple(notes),
    )


def find_teachers(study: Study, moved: str | Path | None) -> tuple[list[Model], list[str]]:
    """Return the teachers that are where they were, or among the runs, or where the user says; and notes on the others.

    Raises:
        UserError: The user's is no teacher of these runs.
    """
    taught: dict[str, list[RunFolder]] = {}
    for run in study.runs.values():
        if run.teacher_sha256 is not None:
            taught.setdefault(run.teacher_sha256, []).append(run)
    places = [Path(moved).expanduser()] if moved is not None else []
    if places and not places[0].is_file():
        raise UserError(f"There is no checkpoint '{moved}' (--teacher).")
    if places and sha256(places[0]) not in taught:
        raise UserError(f"'{moved}' is not the teacher of any of these runs (another sha256).")
    for run in study.runs.values():
        places += [run.folder / "weights" / name for name in ("last.pt", "best.pt")]
    models, notes = [], []
    for digest, runs in taught.items():
        recorded = Path(str(runs[0].provenance.get("teacher")))
        path = next((p for p in (*places, recorded) if p.is_file() and sha256(p) == digest), None)
        name = "teacher" if len(taught) == 1 else f"teacher {recorded}"
        if path is None:
            what = "holds another model now" if recorded.is_file() else "is gone"
            notes.append(f"The teacher '{recorded}' {what}, so it was not scored; say where it is with --teacher.")
            continue
        sizes = [run.imgsz for run in runs if run.imgsz is not None]
        classes = (runs[0].recipe.get("teacher") or {}).get("classes") or {}
        models.append(Model(name, path, digest, max(sizes, default=None), classes))
    return models, notes


def score(model: Model, images: ScoredImages, cache: Path, *, device: str | None, progress: Progress) -> Finding:
    """Return what a model finds, from the cache if it is there; errors as `yolokd.evaluation.models.evaluate`."""
    key = {
        "format": FORMAT,
        "weights": model.digest,
        "pictures": images.fingerprint,
        "imgsz": model.imgsz,
        "classes": model.classes if isinstance(model.classes, str) else dict(model.classes),
        "device": device,
        "versions": records.versions(),
    }
    file = cache / f"{sha256_of(json.dumps(key, sort_keys=True))[:16]}.json"
    if (kept := _read(file, model.digest)) is not None:
        progress(model.name, 1.0)
        return kept
    examined = examine(
        model.path,
        images.yaml,
        split=SPLIT,
        imgsz=model.imgsz,
        device=device,
        classes=model.classes,
        single_cls=images.single_cls,
        only=images.classes,
        progress=lambda _, share: progress(model.name, share),
    )[0]
    detections = examined.detections
    right, _ = match(images.objects, detections)
    counted = right | ~in_crowds(images.crowds, detections)
    scores = np.array([box["score"] for box in detections], dtype=np.float64)
    threshold = best_threshold(right[counted], scores[counted], len(images.objects))
    places = np.flatnonzero(counted & (scores >= threshold)).tolist()
    boxes = [{**detections[place], "right": bool(right[place])} for place in places]
    matches = match_all(examined.truth, detections)
    cache.mkdir(parents=True, exist_ok=True)
    write_matches(file.with_suffix(".npz"), matches, model.digest)
    plain = {"score": asdict(examined.score), "precision50": examined.precision50, "threshold": threshold}
    write_json(file, {**plain, "boxes": boxes})
    return Finding(examined.score, examined.precision50, threshold, boxes, matches)


def _read(file: Path, digest: str) -> Finding | None:
    matches = read_matches(file.with_suffix(".npz"), digest)
    if matches is None:
        return None
    try:
        plain: dict[str, Any] = read_json(file)
        score = plain.pop("score")
        return Finding(score=ModelScore(**{**score, "notes": tuple(score["notes"])}), **plain, matches=matches)
    except (OSError, ValueError, KeyError, TypeError):
        return None
