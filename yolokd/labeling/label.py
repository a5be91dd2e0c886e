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

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from numpy.typing import NDArray

from yolokd.backend.api import make_divisible, select_device
from yolokd.backend.checkpoints import Spec
from yolokd.backend.dataset import Dataset, resolve
from yolokd.backend.devices import check_device
from yolokd.data import publish
from yolokd.data.check import DataReport, check_labels
from yolokd.errors import DataError, UserError
from yolokd.evaluation.ground_truth import label_path, list_images, read_labels
from yolokd.files import sha256, write_json
from yolokd.labeling.answer_file import AnswerWriter
from yolokd.labeling.classes import AUTO, Columns, columns_of, parse_classes, parse_conf
from yolokd.labeling.frames import Frames, check_share, digest_of, find_frames
from yolokd.loaders.answers import LOWEST, Answer, AnswerTable, over_classes
from yolokd.teachers.answers import AnswerStore, Question
from yolokd.teachers.asking import Labeler
from yolokd.teachers.box_fusion import fuse_boxes
from yolokd.teachers.fusion import United, unite
from yolokd.teachers.opening import open_labeler
from yolokd.teachers.thresholds import DEFAULT, best_thresholds

VERSION = 1  # goes up whenever the same request gives other files
MARKER = "request.json"
FOUND = "teacher.json"
IMGSZ = 1280  # twice Ultralytics' usual training size
VAL = 0.1
SPLITS = ("train", "val")
HEADER = "# Made by `yolokd data label`: the labels are a teacher's, so a score on them is agreement with it, not AP.\n"
BINS = 20  # of the histogram of scores, over [0, 1]

Progress = Callable[[str, int, int], None]  # called with what is done, how many images of how many
Counts = dict[str, dict[str, int]]  # split → class → boxes


@dataclass(frozen=True)
class Labeled:
    """A set that teachers made."""

    path: Path  # of the data YAML
    is_new: bool  # False: the very set was there already
    report: DataReport
    classes: dict[str, list[str]]  # class of the set → the teachers' that it is made of
    thresholds: dict[str, float]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class _Teachers:
    """Who is asked, how, and what their classes become."""

    labelers: Sequence[Labeler]
    united: United
    columns: Columns
    imgsz: int
    flip: bool
    device: torch.device

    def answers(self, files: Sequence[str], progress: Callable[[int, int], None]) -> Iterator[tuple[str, Answer]]:
        """Yield the answers of all teachers as one, over the classes of the set, for image files in their order."""
        kept = []
        for number, labeler in enumerate(self.labelers):
            store = AnswerStore(Question((labeler.digest,), self.imgsz, self.flip))
            kept.append(store.each(files, labeler, self.device, progress if number == 0 else None))
        pairs = list(enumerate(self.columns.values()))
        for of_file in zip(*kept, strict=True):
            file = of_file[0][0]
            yield file, over_classes(self._one(file, [answer for _, answer in of_file]), pairs, len(self.columns))

    def _one(self, file: str, answers: Sequence[Answer]) -> Answer:
        if len(answers) == 1:
            return answers[0]
        spread = []
        for answer, places in zip(answers, self.united.places, strict=True):
            wide = np.zeros((len(answer.boxes), len(self.united.names)), np.float32)
            wide[:, list(places)] = answer.probabilities
            spread.append(Answer(answer.boxes, wide))
        return fuse_boxes(spread, self.united.know)


@dataclass
class _Tally:
    """What is counted on the way."""

    names: Sequence[str]
    boxes: Counts = field(default_factory=dict)
    images: dict[str, int] = field(default_factory=lambda: dict.fromkeys(SPLITS, 0))
    scores: NDArray[np.int64] = field(init=False)

    def __post_init__(self) -> None:
        self.boxes = {split: dict.fromkeys(self.names, 0) for split in SPLITS}
        self.scores = np.zeros((len(self.names), BINS), np.int64)

    def add(self, split: str, answer: Answer, kinds: NDArray[np.int64], sure: NDArray[np.bool_]) -> None:
        self.images[split] += 1
        for kind in kinds[sure].tolist():
            self.boxes[split][self.names[kind]] += 1
        bins = np.minimum((answer.probabilities.max(1, initial=0.0) * BINS).astype(int), BINS - 1)
        np.add.at(self.scores, (kinds, bins), 1)


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
        val: Share of the scenes that are for validation.
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
    labelers = _open(teachers, place, flip=flip, prompts=list(pairs) or (list(data.names.values()) if data else None))
    united = unite([labeler.names for labeler in labelers])
    columns = columns_of(pairs, united.names, None if data is None else data.names)
    side = int(make_divisible(imgsz, 32))
    asked = _Teachers(labelers, united, columns, side, flip, place)
    given = parse_conf(conf or (AUTO if data is not None else str(DEFAULT)), list(columns))
    if given is None and data is None:
        raise UserError("--conf auto takes thresholds from labeled images: name their data set with --like.")
    request = {
        "prepared by": "yolokd data label",
        "version": VERSION,
        "source": str(source),
        "images": digest_of(frames.frames),
        "teachers": [labeler.digest for labeler in labelers],
        "classes": {name: [united.names[index] for index in places] for name, places in columns.items()},
        "conf": AUTO if given is None else given,
        "like": None if data is None else str(data.yaml_path.absolute()),
        "imgsz": side,
        "flip": flip,
        "val": val,
    }
    is_new = not publish.is_there(out, MARKER, request)
    if is_new:
        chosen = given or _from_labels(asked, _require(data), show)
        with publish.beside(out, MARKER, request) as folder:
            _write(folder, frames, asked, chosen, request, show)
    return _result(out, is_new, frames, columns)


def _check_apart(source: Path, out: Path) -> None:
    real, target = source.resolve(), out.resolve()
    if target == real or real in target.parents:
        raise UserError(f"The set would be made inside its own source: '{out}' is in '{source}'. Give another folder.")


def _open(specs: Sequence[Spec], device: torch.device, *, flip: bool, prompts: Sequence[str] | None) -> list[Labeler]:
    if not specs:
        raise UserError("Give the teacher: --teacher yolov8x; several are fused.")
    labelers = [open_labeler(spec, device, flip=flip, classes=prompts) for spec in specs]
    digests = [labeler.digest for labeler in labelers]
    if twice := [str(spec) for spec, digest in zip(specs, digests, strict=True) if digests.count(digest) > 1]:
        raise UserError(f"The teacher '{twice[0]}' is given twice; give each teacher once.")
    return labelers


def _require(data: Dataset | None) -> Dataset:
    assert data is not None  # `auto` was refused without it
    return data


def _from_labels(asked: _Teachers, data: Dataset, show: Progress) -> dict[str, float]:
    """Choose thresholds on the training images of a labeled data set."""
    images = list_images(data.splits["train"])
    check_labels({"train": data.splits["train"]}, data.names, keypoints=data.keypoints).raise_if_bad()
    files = [str(image) for image in images]
    found = dict(asked.answers(files, lambda done, total: show("asking about labeled images", done, total)))
    pairs = [(index, (index,)) for index in range(len(asked.columns))]
    labels = []
    for image in images:
        rows = read_labels(label_path(image), data.keypoints)
        labels.append({"im_file": str(image), "cls": rows[:, :1], "bboxes": rows[:, 1:]})
    scores = best_thresholds(AnswerTable.of(found, pairs, len(pairs)), labels, len(pairs))
    return {name: max(score, LOWEST) for name, score in zip(asked.columns, scores, strict=True)}


def _write(
    folder: Path,
    frames: Frames,
    asked: _Teachers,
    thresholds: Mapping[str, float],
    request: Mapping[str, Any],
    show: Progress,
) -> None:
    names = list(thresholds)
    least = np.array([thresholds[name] for name in names], np.float32)
    tally = _Tally(names)
    by_file = {frame.file: frame for frame in frames.frames}
    with ExitStack() as stack:
        writers = {}
        for split in SPLITS:
            for kind in ("images", "labels", "spool"):
                (folder / kind / split).mkdir(parents=True)
            writers[split] = AnswerWriter(folder / "spool" / split, len(names))
            stack.callback(writers[split].close)
        total = len(by_file)
        for done, (file, answer) in enumerate(asked.answers(list(by_file), lambda *_: None), 1):
            frame = by_file[file]
            kinds = answer.probabilities.argmax(1)
            sure = answer.probabilities.max(1, initial=0.0) >= least[kinds]
            publish.place(Path(file), folder / "images" / frame.split / frame.name)
            rows = zip(kinds[sure].tolist(), answer.boxes[sure].tolist(), strict=True)
            text = "".join(f"{kind} {' '.join(f'{value:.6f}' for value in box)}\n" for kind, box in rows)
            (folder / "labels" / frame.split / f"{Path(frame.name).stem}.txt").write_text(text, encoding="utf-8")
            writers[frame.split].add(frame.name, Path(file), answer)
            tally.add(frame.split, answer, kinds, sure)
            show("labeling", done, total)
        for split, writer in writers.items():
            writer.finish(folder / f"answers-{split}.npz")
            (folder / "spool" / split).rmdir()
    (folder / "spool").rmdir()
    if not sum(tally.boxes["train"].values()):
        raise DataError(
            f"The teachers see no object in the training images of '{request['source']}' with these thresholds; lower "
            f"--conf, ask at another --imgsz, or check --classes."
        )
    write_json(folder / FOUND, _found(frames, asked, thresholds, tally))
    content = {
        "train": "images/train",
        "val": "images/val",
        "names": dict(enumerate(names)),
        "labeled_by": FOUND,
    }
    text = HEADER + yaml.safe_dump(content, allow_unicode=True, sort_keys=False)
    (folder / "data.yaml").write_text(text, encoding="utf-8")


def _found(frames: Frames, asked: _Teachers, thresholds: Mapping[str, float], tally: _Tally) -> dict[str, Any]:
    return {
        "teachers": [
            {
                "path": str(labeler.path.absolute()),
                "sha256": sha256(labeler.path),
                "classes": len(labeler.names),
            }
            for labeler in asked.labelers
        ],
        "imgsz": asked.imgsz,
        "flip": asked.flip,
        "classes": {name: [asked.united.names[i] for i in places] for name, places in asked.columns.items()},
        "thresholds": dict(thresholds),
        "images": {**tally.images, "between the splits": frames.at_borders},
        "boxes": tally.boxes,
        "scores": {
            "edges": [round(i / BINS, 3) for i in range(BINS + 1)],
            "boxes": {name: row.tolist() for name, row in zip(tally.names, tally.scores, strict=True)},
        },
    }


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
