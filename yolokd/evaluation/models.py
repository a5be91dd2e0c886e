"""Scores of several checkpoints on one data set: COCO's metrics, size, cost and speed.

One path for all models. Ultralytics' own validation makes the detections (rectangular batches, several classes per box,
confidence from 0.001, NMS at 0.7, 300 per image); they are renumbered from the model's classes to the data's by name
and scored against the labels by `yolokd.evaluation.coco`, with the protocol kitti also by `yolokd.evaluation.kitti`
against KITTI's own labels. COCO's get coordinates and scores rounded as Ultralytics writes them, KITTI's the exact
ones, since it ranks by score. Ultralytics' own mAP50-95 differs, mostly by less than 0.01:
it interpolates the precision curve where COCO samples it, and counts 300 detections of an image, not 100. An export
has one input shape, so where one of the networks is an export, all are scored on images padded to a square.

Masks of segment models are scored at the size of the image, against the polygons of the labels. Ultralytics' own mask
mAP, against masks at a quarter of the input's sides in which small objects cover large ones, can be far lower on small
images; with `mask_ratio=1, overlap_mask=False, save_json=True` it agrees like that of boxes.

Keypoints of pose models are scored by COCO's object keypoint similarity against the keypoints of the labels; what
stands for the area of an object there, `yolokd.evaluation.keypoint_scores` says.

Rotated boxes of OBB models are scored by Ultralytics' own metrics (`yolokd.evaluation.rotated_scores`), and only beside
other OBB models.

Latency is the median time of a forward pass at batch 1 on a square image, as Ultralytics' predictor times it on the
fused model: backbone, neck, head and decoding of boxes, without reading, scaling and NMS. Parameters and GFLOPs are
what Ultralytics' `info()` says before fusing; GFLOPs at the square image. A head with two branches (YOLO26, YOLOv10)
is scored and timed by its one-to-many branch, as Ultralytics does unless told otherwise.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from yolokd.backend import networks
from yolokd.backend.networks import Identity
from yolokd.backend.opening import quiet
from yolokd.data.check import check_labels
from yolokd.data.description import load_yaml
from yolokd.errors import DataError, RunError, YolokdError
from yolokd.evaluation import kitti_set
from yolokd.evaluation.classes import check_mapping, lacking, match_classes
from yolokd.evaluation.detections import KINDS, detect, latency
from yolokd.evaluation.further import Further, FurtherFound, FurtherScore
from yolokd.evaluation.ground_truth import CORNERS, Choose, list_images, only_images, unusable
from yolokd.evaluation.instances import ground_truth
from yolokd.evaluation.kitti import R40
from yolokd.evaluation.measured import measure_boxes, measure_rotated
from yolokd.evaluation.request import Model, check_protocol, check_task, identify
from yolokd.evaluation.rotated_scores import RotatedScore, require_corners
from yolokd.evaluation.task import Task, Truth, kept_places, task_of
from yolokd.recipe.arguments import default
from yolokd.recipe.classes import ClassMap

if TYPE_CHECKING:
    from yolokd.backend.dataset import Dataset

Progress = Callable[[str, float], None]
Detection = dict[str, Any]  # of COCO's results; image_id: place among the sorted images, category_id: class of the data


@dataclass(frozen=True)
class ModelScore:
    """One row of the table. AP values are in [0, 1], −1 where the data has no such object."""

    name: str
    path: str
    AP: float
    AP50: float
    AP75: float
    APs: float
    APm: float
    APl: float
    parameters: int
    gflops: float  # 0 where Ultralytics cannot tell
    latency_ms: float  # NaN where it was not measured
    imgsz: int
    per_class: dict[str, float]
    notes: tuple[str, ...] = ()
    kitti: kitti_set.KittiScore | None = None  # with the protocol kitti
    masks: FurtherScore | None = None  # of a network that gives masks, on data with such; AP etc. are those of boxes
    keypoints: FurtherScore | None = None  # likewise
    rotated: RotatedScore | None = None  # of an OBB model, instead of AP etc., which are −1 then


@dataclass(frozen=True)
class Examined:
    """A row of the table and what it was computed from."""

    score: ModelScore
    detections: list[Detection]
    precision50: dict[str, list[float]]  # class → precision at IoU 0.50, at the recalls 0, 0.01, …, 1
    truth: Truth  # COCO's ground truth of the task
    further: FurtherFound | None = None  # by the metric beside the AP of boxes, where the data can be scored by it


def evaluate(
    weights: str | Path | Sequence[str | Path],
    data: str | Path,
    *,
    protocol: str = "coco",
    metric: str | None = None,
    split: str = "val",
    imgsz: int | None = None,
    batch: int | None = None,
    device: str | None = None,
    classes: ClassMap | None = None,
    progress: Progress | None = None,
) -> list[ModelScore]:
    """Score checkpoints on one split of a data set, all in the same way.

    Args:
        weights: One or several paths or Ultralytics names of detect, segment or pose models, or paths of their exports.
            The boxes of all are scored, the masks of segment models where all labels are polygons, and the keypoints of
            pose models where all labels have them. Or OBB models alone, whose rotated boxes are scored.
        data: What Ultralytics takes as data, or `streets`.
        protocol: "coco", or "kitti" for a set prepared by `yolokd data kitti`: KITTI's numbers beside COCO's.
        metric: Of KITTI's protocol: "R40" (also if None) or "R11".
        split: Split of the data set to score on.
        imgsz: Longer side in pixels; None is the size each checkpoint was trained at.
        batch: Images per batch, None for Ultralytics' default; it affects the scores only through the padding that
            images of a batch share.
        device: As Ultralytics takes it: "cpu", "0"; None picks one.
        classes: A model's class name → the data's, where they differ by more than case, or the name of a shipped map
            (`yolokd.recipe.classes`). Classes of a model that the data does not have are dropped; classes of the data
            that a model lacks count as missed.
        progress: Called with a model's name and the share of its images that are done.

    Raises:
        UserError: Unknown protocol or metric, or a name in `classes` that nobody has.
        DataError: A data set that is missing or malformed, shares no class with a model, or lacks what KITTI needs.
        WeightsError: A checkpoint that is missing or not a detector.
        RunError: Ultralytics' validation failed.
    """
    found = examine(
        weights,
        data,
        protocol=protocol,
        metric=metric,
        split=split,
        imgsz=imgsz,
        batch=batch,
        device=device,
        classes=classes,
        progress=progress,
        tasks=tuple(KINDS),
    )
    return [examined.score for examined in found]


def examine(
    weights: str | Path | Sequence[str | Path],
    data: str | Path,
    *,
    protocol: str = "coco",
    metric: str | None = None,
    split: str = "val",
    imgsz: int | Sequence[int | None] | None = None,
    batch: int | None = None,
    device: str | None = None,
    classes: ClassMap | None = None,
    progress: Progress | None = None,
    square: bool = False,
    nms_free: bool = False,
    single_cls: bool | None = None,
    only: Collection[int] | None = None,
    choose: Choose | None = None,
    tasks: Collection[str] = ("detect",),
    timed: bool = True,
) -> list[Examined]:
    """Score checkpoints and keep their detections; arguments and errors as `evaluate`.

    `square` pads every image to a square, as it always is where one of the networks is an export; `nms_free` takes the
    output of a head without NMS (an export has the one it was made with). `single_cls` joins all classes to one, `only`
    names the data's classes whose objects count: training arguments, else taken from the networks (`evaluation.task`).
    `imgsz` may also be one size per network, `choose` returns the images to score, `tasks` are names of `KINDS` that
    are taken, no latency is measured unless `timed`.
    """
    from yolokd.backend.devices import check_device

    check_protocol(protocol, metric)
    check_device(device)
    paths = [networks.find(spec) for spec in ([weights] if isinstance(weights, (str, Path)) else weights)]
    found = _resolve(data, split)
    models = identify(paths, imgsz, tasks)
    task = task_of({model.name: model.identity for model in models}, found.names, single_cls=single_cls, classes=only)
    check_task(task, models, channels=found.channels, kitti=protocol == "kitti")
    truth, kitti, further, notes = _read_truth(found, split, task, models, kitti=protocol == "kitti", progress=progress)
    truth = truth if choose is None else only_images(truth, choose)
    matches = _match(models, found.names, classes or {}, joined=task.joined)
    common = {"batch": batch or default("batch"), "device": device}
    rect, nms = not (square or any(map(networks.is_export, paths))), False if nms_free else None
    with tempfile.TemporaryDirectory(prefix="yolokd-") as folder, quiet():
        bench = _Bench(
            folder=Path(folder),
            data=write_data(Path(folder), found.names, found.yaml_path),
            truth=task.apply(truth),
            task=task,
            progress=progress or _unheard,
            options={**common, "rect": rect, "nms": nms, "project": folder, "name": "val"},
            kitti=kitti,
            metric=metric or R40,
            notes=notes,
            timed=timed,
            further=further,
        )
        return _with_shapes([_score(bench, model, own) for model, own in zip(models, matches, strict=True)])


def _match(
    models: Sequence[Model], names: Mapping[int, str], classes: ClassMap, *, joined: bool
) -> list[dict[int, int]]:
    """Return each model's classes by those of the data, after the mapping was checked against all of them."""
    check_mapping(classes, [model.identity.names for model in models], names, joined=joined)
    return [match_classes(model.identity.names, names, classes, model.name, joined=joined) for model in models]


def _resolve(data: str | Path, split: str) -> Dataset:
    from yolokd.backend import dataset

    found = dataset.resolve(str(data))
    if split not in found.splits:
        raise DataError(f"'{data}' has no split '{split}'; it has: {', '.join(found.splits)}.")
    return found


def _read_truth(
    data: Dataset, split: str, task: Task, models: Sequence[Model], *, kitti: bool, progress: Progress | None
) -> tuple[Truth, kitti_set.KittiTruth | None, dict[str, Further], tuple[str, ...]]:
    """Check the labels of a split; return its ground truth, KITTI's own if asked for, task → further metric, notes."""
    sources = data.splits[split]
    report = check_labels(
        {split: sources}, data.names, keypoints=data.keypoints, joined=task.joined, progress=_opening(progress)
    )
    report.raise_if_bad()
    images = list_images(sources)
    kinds = {model.identity.task: KINDS[model.identity.task] for model in models}
    asked = {name: kind.further for name, kind in kinds.items() if kind.further is not None}
    hindrances = {name: metric.hindrance(data, split, report) for name, metric in asked.items()}
    further = {name: metric.of_data(metric, data) for name, metric in asked.items() if not hindrances[name]}
    beside = [metric.annotation for metric in further.values()]
    if any(kind.rotated for kind in kinds.values()):
        require_corners(data, split, report)
        beside.append(CORNERS)
    truth = ground_truth(data.yaml_path, split, images, data.names, left_out=unusable(sources), beside=beside)
    own = kitti_set.read_truth(images, data.names) if kitti else None
    return truth, own, further, tuple(filter(None, (report.left_out, *hindrances.values())))


def _with_shapes(rows: Sequence[tuple[Examined, networks.Opened]]) -> list[Examined]:
    """Tell of each export whose input has another shape than the checkpoints' beside it."""
    checkpoints = {network.imgsz for _, network in rows if network.export is None}
    found = []
    for examined, network in rows:
        note = network.export and networks.shape_note(network.export.shape, checkpoints)
        score = replace(examined.score, notes=(note, *examined.score.notes)) if note else examined.score
        found.append(replace(examined, score=score))
    return found


@dataclass(frozen=True)
class _Bench:
    """What is the same for all models."""

    folder: Path
    data: Path
    truth: Truth
    task: Task
    progress: Progress
    options: Mapping[str, Any]  # of Ultralytics' validation
    kitti: kitti_set.KittiTruth | None
    metric: str  # of KITTI's protocol
    notes: tuple[str, ...]  # on the data set
    timed: bool
    further: Mapping[str, Further]  # task → the metric beside the AP of boxes that the data can be scored by


def _opening(progress: Progress | None) -> Callable[[int, int], None] | None:
    """Progress in opening the images."""
    if progress is None:
        return None
    return lambda done, total: progress("opening images", done / total)


def _unheard(name: str, share: float) -> None:
    """Progress that nobody asked for."""


def _score(bench: _Bench, model: Model, class_of: Mapping[int, int]) -> tuple[Examined, networks.Opened]:
    path, name, identity = model.path, model.name, model.identity
    network = networks.open_network(path, bench.folder, model.imgsz, tuple(KINDS))
    yolo, size = network.yolo, network.imgsz
    places = {image["file_name"]: image["id"] for image in bench.truth["images"]}
    further = bench.further.get(identity.task)
    unfit = "" if further is None else further.unfit(identity)
    beside: list[Any] | None = None if further is None or unfit else []
    try:
        found = detect(
            yolo,
            bench.data,
            places,
            options={**bench.options, "imgsz": size},
            progress=lambda share: bench.progress(name, share),
            beside=beside,
        )
        milliseconds = latency(yolo, size, bench.options["device"], identity.channels) if bench.timed else math.nan
    except YolokdError:
        raise
    except Exception as error:  # whatever a device, a driver or an image may do to Ultralytics
        raise RunError(f"'{path}' could not be validated: {str(error).strip() or type(error).__name__}") from error
    names = bench.task.counted
    kept = [place for place, (_, index, _, _) in enumerate(found) if class_of.get(index) in names]
    exact = [(file, class_of[index], box, p) for file, index, box, p in (found[place] for place in kept)]
    if bench.task.joined and len(class_of) > 1:
        left = kept_places(exact)
        exact, kept = [exact[place] for place in left], [kept[place] for place in left]
    kitti = None if bench.kitti is None else kitti_set.score(bench.kitti, exact, metric=bench.metric)
    if KINDS[identity.task].rotated:
        measured = measure_rotated(bench.truth, names, exact, places)
    else:
        values = None if beside is None else [beside[place] for place in kept]
        measured = measure_boxes(bench.truth, names, exact, places, further, values)
    row = ModelScore(
        name=name,
        path=str(path),
        **measured.metrics,
        parameters=network.parameters,
        gflops=network.gflops,
        latency_ms=milliseconds,
        imgsz=size,
        notes=(
            *filter(None, (*_notes(bench, identity, network, found), unfit)),
            *lacking(measured.of_classes, names, identity, class_of, mean=kitti is None),
        ),
        kitti=kitti,
    )
    return Examined(row, measured.detections, measured.precision50, bench.truth, measured.further), network


def _notes(
    bench: _Bench, identity: Identity, network: networks.Opened, found: Sequence[tuple[str, int, list[float], float]]
) -> tuple[str, ...]:
    """What is worth knowing of a network's score, before the classes that it lacks."""
    note = bench.task.note(identity)
    lowest = min((p for *_, p in found), default=None)
    made = () if network.export is None else networks.export_notes(network.export, lowest)
    return (*((note,) if note else ()), *network.notes, *made, *bench.notes)


def write_data(folder: Path, names: Mapping[int, str], source: Path) -> Path:
    """Write a data YAML like `source`, of these classes, whose images are those in `folder`."""
    known = load_yaml(source)
    content = {"path": str(folder), "train": ".", "val": ".", "names": dict(names)}
    content |= {key: known[key] for key in ("channels", "kpt_shape") if key in known}
    path = folder / "data.yaml"
    path.write_text(yaml.safe_dump(content, allow_unicode=True), encoding="utf-8")
    return path
