"""A data set that teachers make: images of any source, labeled with what detectors see in them.

    OUT/data.yaml                   what `--data` takes; `labeled_by` says that a teacher made the labels
    OUT/images/{train,val}/         links to the images
    OUT/labels/{train,val}/         the confident boxes
    OUT/answers-{train,val}.npz     all boxes down to a score of 0.03 with the scores of all classes
    OUT/teacher.json                teachers, settings, thresholds, counts and scores by class
    OUT/request.json                what was asked for, so that the same request finds it done

Each teacher is asked once per image; its answers are kept in yolokd's cache (`yolokd.teachers.answers`), so that an
interrupted labeling goes on where it stopped and a second one with other thresholds asks nobody.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from yolokd.backend.api import make_divisible, select_device
from yolokd.backend.checkpoints import Spec
from yolokd.backend.dataset import Dataset, resolve
from yolokd.backend.devices import check_device
from yolokd.data import publish
from yolokd.data.check import DataReport, check_labels, fingerprint
from yolokd.errors import UserError
from yolokd.evaluation.ground_truth import label_path, list_images, read_labels
from yolokd.labeling.classes import AUTO, Columns, columns_of, parse_classes, parse_conf
from yolokd.labeling.frames import Frames, check_share, digest_of, find_frames
from yolokd.labeling.panel import Teachers, open_teachers
from yolokd.labeling.writing import FOUND, Progress, write_set
from yolokd.loaders.answers import LOWEST, AnswerTable
from yolokd.teachers.answers import digests_of
from yolokd.teachers.fusion import unite
from yolokd.teachers.thresholds import DEFAULT, best_thresholds

VERSION = 1  # goes up whenever the same request gives other files
MARKER = "request.json"
IMGSZ = 1280  # twice Ultralytics' usual training size
VAL = 0.1


@dataclass(frozen=True)
class Labeled:
    """A set that teachers made."""

    path: Path  # of the data YAML
    is_new: bool  # False: the very set was there already
    report: DataReport
    classes: dict[str, list[str]]  # class of the set → the teachers' that it is made of
    thresholds: dict[str, float]
    notes: tuple[str, ...]


def label(
    source: Path,
    out: Path,
    teachers: Sequence[Spec],
    *,
    classes: Sequence[str] = (),
    conf: str | None = None,
    like: str | None = None,
    imgsz: int = IMGSZ,
    flip: bool = True,
    val: float = VAL,
    device: str | None = None,
    progress: Progress | None = None,
) -> Labeled:
    """Label images with teachers; `out` appears when it is complete, see `yolokd.data.publish`.

    Args:
        source: A folder of images, or a text file with one path a line.
        out: The folder to make. It may exist if it is empty or holds this very set.
        teachers: Paths or Ultralytics names of any models that give boxes; boxes of several are fused, classes united.
        classes: Which classes, see `yolokd.labeling.classes.parse_classes`; prompts of open-vocabulary teachers.
        conf: Thresholds, see `yolokd.labeling.classes.parse_conf`; None is `auto` with `like`, else 0.3.
        like: A labeled data set whose classes the new one gets; `auto` chooses thresholds on its training images.
        imgsz: Longer side in pixels at which the teachers see the images; rounded up to a multiple of 32.
        flip: Ask about the mirrored image as well, and average.
        val: Share of the images that are for validation, in whole scenes.
        device: As Ultralytics takes it: "cpu", "0"; None picks one.
        progress: Called with what is done and how many images are done and in all.

    Raises:
        UserError: Impossible arguments, or classes that nobody knows.
        WeightsError: A teacher that is missing, or gives no boxes.
        DataError: A source that is missing or empty, or an `out` that holds something else or cannot be written.
    """
    source, out = Path(source).expanduser().absolute(), Path(out).expanduser().absolute()
    check_share(val)
    check_device(device)
    _check_apart(source, out)
    show = progress or (lambda what, done, total: None)
    pairs = parse_classes(classes)
    data = resolve(like) if like is not None else None
    frames = find_frames(source, val)
    place = select_device(device or "", verbose=False)
    prompts = list(pairs) or (list(data.names.values()) if data is not None else None)
    labelers = open_teachers(teachers, place, flip=flip, prompts=prompts)
    united = unite([labeler.names for labeler in labelers])
    columns = columns_of(pairs, united.names, None if data is None else data.names)
    asked = Teachers(labelers, united, columns, int(make_divisible(imgsz, 32)), flip, place)
    given = parse_conf(conf or (AUTO if data is not None else str(DEFAULT)), list(columns))
    if given is None and data is None:
        raise UserError("--conf auto takes thresholds from labeled images: name their data set with --like.")
    request = _request(source, frames, asked, given, data, val)
    is_new = not publish.is_there(out, MARKER, request)
    if is_new:
        with publish.beside(out, MARKER, request) as folder:
            chosen = _from_labels(asked, data, show) if given is None and data is not None else given or {}
            write_set(folder, frames, asked, chosen, source, show)
    return _result(out, is_new, frames, columns)


def _request(
    source: Path, frames: Frames, asked: Teachers, given: Mapping[str, float] | None, data: Dataset | None, val: float
) -> dict[str, Any]:
    labels = {}
    if given is None and data is not None:
        labels["labels of like"] = fingerprint({"train": data.splits["train"]})
    return {
        "prepared by": "yolokd data label",
        "version": VERSION,
        "source": str(source),
        "images": digest_of(frames.frames),
        "teachers": [labeler.digest for labeler in asked.labelers],
        "classes": asked.united_names(),
        "conf": AUTO if given is None else dict(given),
        "like": None if data is None else str(data.yaml_path.absolute()),
        **labels,
        "imgsz": asked.imgsz,
        "flip": asked.flip,
        "val": val,
    }


def _check_apart(source: Path, out: Path) -> None:
    real, target = source.resolve(), out.resolve()
    if target == real or real in target.parents:
        raise UserError(f"The set would be made inside its own source: '{out}' is in '{source}'. Give another folder.")


def _from_labels(asked: Teachers, data: Dataset, show: Progress) -> dict[str, float]:
    """Choose thresholds on the training images of a labeled data set."""
    images = list_images(data.splits["train"])
    check_labels({"train": data.splits["train"]}, data.names, keypoints=data.keypoints).raise_if_bad()
    files = digests_of(map(str, images))
    found = dict(asked.answers(files, lambda done, total: show("asking about labeled images", done, total)))
    pairs = [(index, (index,)) for index in range(len(asked.columns))]
    labels = []
    for image in images:
        rows = read_labels(label_path(image), data.keypoints)
        labels.append({"im_file": str(image), "cls": rows[:, :1], "bboxes": rows[:, 1:]})
    scores = best_thresholds(AnswerTable.of(found, pairs, len(pairs)), labels, len(pairs))
    return {name: max(score, LOWEST) for name, score in zip(asked.columns, scores, strict=True)}


def _result(out: Path, is_new: bool, frames: Frames, columns: Columns) -> Labeled:
    from yolokd.inputs import read_json

    found = read_json(out / FOUND)
    data = resolve(str(out / "data.yaml"))
    report = check_labels(data.splits, data.names)
    notes = [frames.left_out] if frames.left_out else []
    if frames.at_borders:
        notes.append(
            f"{frames.at_borders} images are in no split: they lie where a scene for validation meets one for training"
        )
    if unknown := [name for name, places in columns.items() if not places]:
        notes.append(f"no teacher knows {', '.join(unknown)}: objects of these classes stay without labels")
    if empty := [name for name, count in found["boxes"]["train"].items() if not count and columns[name]]:
        notes.append(f"no box of {_few(empty)} among the training images")
    return Labeled(
        out / "data.yaml", is_new, report, found["classes"], found["thresholds"], (*notes, *publish.leftover_notes(out))
    )


def _few(names: Sequence[str], most: int = 8) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
