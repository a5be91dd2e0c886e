"""Training arguments that change what is learned, checked against the labels: `single_cls`, `classes`, `fraction`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from yolokd.backend.dataset import Dataset
from yolokd.backend.tasks import TASKS
from yolokd.data.check import DataReport
from yolokd.data.layout import images_of, label_path
from yolokd.errors import DataError, UserError
from yolokd.evaluation.ground_truth import read_labels
from yolokd.recipe import Recipe
from yolokd.recipe.arguments import argument
from yolokd.recipe.classes import ITEM

LACKING = {  # what every object is labeled by → what is said of those that are not, and what to do
    "polygons": "are labeled as boxes. Label them as polygons, or take a detect student.",
    "corners": "are not labeled by four corners. Write each label as class x y x y x y x y.",
    "keypoints": "have no keypoints that can be used; the first is {first}. Label their keypoints, or take a detect "
    "student.",
}


def learned_names(train: Mapping[str, Any], names: Mapping[int, str]) -> dict[int, str]:
    """Return class index → name as Ultralytics gives them to the student."""
    return {0: ITEM} if train.get("single_cls") else dict(names)


def chosen_classes(train: Mapping[str, Any]) -> tuple[int, ...] | None:
    """Return `train.classes`, sorted, each once; None if all classes are learned."""
    classes = train.get("classes")
    if classes is None:
        return None
    return tuple(sorted({classes} if isinstance(classes, int) else set(classes)))


def check_task(train: Mapping[str, Any], data: Dataset, report: DataReport) -> list[str]:
    """Check that there is something to learn, and return what the plan says of it.

    Args:
        train: Training arguments of the recipe.
        data: The data set.
        report: What is known of its labels.

    Raises:
        UserError: `train.classes` names a class that the data do not have, or whose objects are not among those that
            the training or the validation would see.
    """
    classes = chosen_classes(train)
    if classes == ():
        raise UserError("train.classes is an empty list, so nothing would be learned. Name classes, or leave it out.")
    if classes is not None:
        _check_known(classes, data, report, joined=bool(train.get("single_cls")))
    notes = [f"all classes are learned as one, '{ITEM}' (train.single_cls)"] if train.get("single_cls") else []
    for split in ("train", train.get("split", "val")):
        share = _fraction(train.get("fraction"), split)
        if share is None and classes is None:
            continue
        objects = report.splits[split].objects if share is None else _objects_of_part(data, split, share)
        wanted = sorted(objects) if classes is None else classes
        which = "" if classes is None else f" of {_listed(classes, data.names)} (train.classes)"
        part = "" if share is None else f" among the first {share} (train.fraction {train['fraction']})"
        if not sum(objects[index] for index in wanted):
            raise UserError(f"The {split} images of '{data.yaml_path}' hold no object{which}{part}: nothing to learn.")
        known = sorted(index for index in report.splits[split].objects if classes is None or index in classes)
        if absent := [index for index in known if not objects[index]]:
            notes.append(f"there are no {split} objects of {_listed(absent, data.names)}{part}")
    if classes is not None:
        notes.append(f"only objects of {_listed(classes, data.names)} are learned and validated on (train.classes)")
    return notes


def check_students_task(task: str, recipe: Recipe, data: Dataset, report: DataReport) -> None:
    """Check that labels and recipe go with the student's task.

    Args:
        task: A name of `yolokd.backend.tasks.TASKS`.
        recipe: The resolved recipe.
        data: The data set.
        report: What is known of its labels.

    Raises:
        DataError: The task learns polygons or keypoints, and objects are labeled as boxes; or it learns rotated boxes,
            and objects are not labeled by four corners.
        UserError: The recipe teaches by boxes alone, or asks for what is built for detect models only.
    """
    if TASKS[task].boxes_suffice:
        return
    _check_labels(task, recipe, data, report)
    batch = argument(recipe.train, "batch")
    unfit = {
        "train.pseudo_labels labels images with boxes": recipe.pseudo_labels,
        "teacher.answers: stored keeps boxes": recipe.distills and recipe.teacher.answers == "stored",
        "train.quantize trains detect models in 8 bits": recipe.quantizes,
        "student.init: classes takes over class rows of detect models": recipe.student.init == "classes",
        f"train.batch {batch} is sought with labels of detect models": not isinstance(batch, int) or batch < 1,
    }
    if reasons := [reason for reason, asked in unfit.items() if asked]:
        raise UserError(f"The student's task is {task}, but {'; '.join(reasons)}. Leave that out.")


def _check_labels(task: str, recipe: Recipe, data: Dataset, report: DataReport) -> None:
    """Raise `DataError` unless every object is labeled by what the task learns."""
    wanted = TASKS[task].labels
    if wanted == "keypoints" and not data.keypoints[0]:
        raise DataError(
            f"The student's task is {task}, and '{data.yaml_path}' has no kpt_shape, the number of keypoints and 2 "
            "(x, y) or 3 (x, y, visible). Add it and label keypoints, or take a detect student."
        )
    for split in ("train", recipe.train.get("split", "val")):
        found = report.splits[split]
        if lacking := found.objects.total() - getattr(found, wanted):
            raise DataError(
                f"The student's task is {task}, and {lacking} of the {found.objects.total()} {split} objects of "
                f"'{data.yaml_path}' {LACKING[wanted].format(first=found.without_keypoints)}"
            )


def trained_images(train: Mapping[str, Any], report: DataReport) -> int:
    """Return how many images an epoch shows."""
    return count_taken(train, "train", report.splits["train"].images)


def _check_known(classes: tuple[int, ...], data: Dataset, report: DataReport, *, joined: bool) -> None:
    known = set(data.names)
    if joined:  # labels may have classes beyond the names
        known |= {index for split in report.splits.values() for index in split.objects}
    if unknown := [index for index in classes if index not in known]:
        raise UserError(
            f"train.classes={list(classes)}: the data have the classes {min(known)} to {max(known)}, and no class "
            f"{unknown[0]}."
        )


def count_taken(train: Mapping[str, Any], split: str, images: int) -> int:
    """Return how many of a split's images Ultralytics takes under `train.fraction`, the first by path.

    Args:
        train: Training arguments.
        split: "train", "val" or "test".
        images: How many the split has.
    """
    return min(images, _count(_fraction(train.get("fraction"), split) or 1, images))


def _fraction(fraction: Any, split: str) -> float | int | None:
    """The share (or number) of a split's images that Ultralytics takes, the first by path; None if it takes all."""
    if isinstance(fraction, list):
        place = ("train", "val", "test").index(split)
        fraction = fraction[place] if place < len(fraction) else None
    elif split != "train":
        fraction = None
    return None if fraction is None or fraction == 1 else fraction


def _count(share: float, images: int) -> int:
    if share == 1:
        return images
    return share if isinstance(share, int) else max(1, round(images * share))


def _objects_of_part(data: Dataset, split: str, share: float) -> Counter[int]:
    """Objects by class in the part of a split that is taken."""
    files = sorted(path for source in data.splits.get(split, []) for path in images_of(source))
    taken = files[: _count(share, len(files))]
    labels = (read_labels(Path(label_path(path)), data.keypoints) for path in taken)
    return Counter(int(label) for rows in labels for label in rows[:, 0].tolist())


def _listed(classes: tuple[int, ...] | list[int], names: Mapping[int, str]) -> str:
    return ", ".join(names.get(index, str(index)) for index in classes)
