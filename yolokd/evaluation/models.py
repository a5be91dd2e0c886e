"""Scores of several checkpoints on one data set: COCO's metrics, size, cost and speed.

One path for all models. Ultralytics' own validation makes the detections (rectangular batches, several classes per box,
confidence from 0.001, NMS at 0.7, 300 per picture); they are renumbered from the model's classes to the data's by name
and scored against the labels by `yolokd.evaluation.coco`. Ultralytics' own mAP50-95 differs, mostly by less than 0.01:
it interpolates the precision curve where COCO samples it, and counts 300 detections of a picture, not 100.

Latency is the median time of a forward pass at batch 1 on a square picture, as Ultralytics' predictor times it on the
fused model: backbone, neck, head and decoding of boxes, without reading, scaling and NMS. Parameters and GFLOPs are
what Ultralytics' `info()` says before fusing; GFLOPs at the square picture. A head with two branches (YOLO26, YOLOv10)
is scored and timed by its one-to-many branch, as Ultralytics does unless told otherwise.
"""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from yolokd.data.check import check_labels
from yolokd.errors import DataError, RunError, UserError, YolokdError
from yolokd.evaluation.checkpoints import image_size, open_checkpoint, quiet, short_names
from yolokd.evaluation.classes import check_mapping, match_classes
from yolokd.evaluation.coco import score
from yolokd.evaluation.ground_truth import coco_ground_truth, list_pictures

WARM_UPS = 3
TIMED_PASSES = 20
GREY = 114  # Ultralytics' padding

Progress = Callable[[str, float], None]


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
    latency_ms: float
    imgsz: int
    per_class: dict[str, float]
    notes: tuple[str, ...] = ()


def evaluate(
    weights: str | Path | Sequence[str | Path],
    data: str | Path,
    *,
    protocol: str = "coco",
    split: str = "val",
    imgsz: int | None = None,
    batch: int = 16,
    device: str | None = None,
    classes: Mapping[str, str] | None = None,
    progress: Progress | None = None,
) -> list[ModelScore]:
    """Score checkpoints on one split of a data set, all in the same way.

    Args:
        weights: One or several paths or Ultralytics names of detectors.
        data: What Ultralytics takes as data, or `streets`.
        protocol: "coco".
        split: Split of the data set to score on.
        imgsz: Longer side in pixels; None is the size each checkpoint was trained at.
        batch: Pictures per batch; it touches the scores only through the padding that pictures of a batch share.
        device: As Ultralytics takes it: "cpu", "0"; None picks one.
        classes: A model's class name → the data's, where they differ by more than case. Classes of a model that the
            data does not have are dropped; classes of the data that a model lacks count as missed.
        progress: Called with a model's name and the share of its pictures that are done.

    Raises:
        UserError: Unknown protocol, or a name in `classes` that nobody has.
        DataError: A data set that is missing or malformed, or shares no class with a model.
        WeightsError: A checkpoint that is missing or not a detector.
        RunError: Ultralytics' validation failed.
    """
    if protocol != "coco":
        raise UserError(
            f"The protocol '{protocol}' is not there yet; known: coco. "
            f"(KITTI's will need a set prepared by 'yolokd data kitti'.)"
        )
    from yolokd.engine import dataset
    from yolokd.engine import weights as checkpoints
    from yolokd.engine.plan import check_device

    check_device(device)
    weights = [weights] if isinstance(weights, (str, Path)) else weights
    paths = [checkpoints.find(spec) for spec in weights]
    found = dataset.resolve(str(data))
    if split not in found.splits:
        raise DataError(f"'{data}' has no split '{split}'; it has: {', '.join(found.splits)}.")
    check_labels({split: found.splits[split]}, found.names).raise_if_bad()
    pictures = list_pictures(found.splits[split])
    truth = coco_ground_truth(pictures, found.names)
    own = {path: dict(checkpoints.load_detector(path).names) for path in paths}
    check_mapping(classes or {}, own.values(), found.names)
    names = short_names(paths)
    partners = [
        match_classes(own[path], found.names, classes or {}, name) for path, name in zip(paths, names, strict=True)
    ]
    with tempfile.TemporaryDirectory(prefix="yolokd-") as folder, quiet():
        yaml_path = _write_data(Path(folder), pictures, found.names, found.yaml_path)
        bench = _Bench(Path(folder), yaml_path, truth, found.names, imgsz, batch, device, progress or _unheard)
        return [_score(bench, *job) for job in zip(paths, names, partners, strict=True)]


@dataclass(frozen=True)
class _Bench:
    """What is the same for all models."""

    folder: Path
    data: Path
    truth: dict[str, list[dict[str, Any]]]
    names: Mapping[int, str]
    imgsz: int | None
    batch: int
    device: str | None
    progress: Progress


def _unheard(name: str, share: float) -> None:
    """Progress that nobody asked for."""


def _score(bench: _Bench, path: Path, name: str, partners: Mapping[int, int]) -> ModelScore:
    yolo = open_checkpoint(path, bench.folder)
    size, notes = image_size(yolo, bench.imgsz)
    _, parameters, _, gflops = yolo.info(imgsz=size)
    places = {image["file_name"]: image["id"] for image in bench.truth["images"]}
    try:
        detections = [
            {"image_id": places[file], "category_id": partners[index], "bbox": box, "score": confidence}
            for file, index, box, confidence in _detect(yolo, bench, size, name)
            if index in partners
        ]
        latency = _latency(yolo, size, bench.device)
    except YolokdError:
        raise
    except Exception as error:  # whatever a device, a driver or a picture may do to Ultralytics
        raise RunError(f"'{path}' could not be validated: {str(error).strip() or type(error).__name__}") from error
    scores = score(bench.truth, detections)
    per_class = {bench.names[index]: ap for index, ap in scores.per_class.items()}
    known = {bench.names[index] for index in partners.values()}
    return ModelScore(
        name=name,
        path=str(path),
        **{metric: scores.summary[metric] for metric in ("AP", "AP50", "AP75", "APs", "APm", "APl")},
        parameters=parameters,
        gflops=gflops,
        latency_ms=latency,
        imgsz=size,
        per_class=per_class,
        notes=(*notes, *_lacking(per_class, known)),
    )


def _detect(yolo: Any, bench: _Bench, imgsz: int, name: str) -> list[tuple[str, int, list[float], float]]:
    """Run Ultralytics' validation; return picture, class index, x y width height in pixels and score of each detection.

    The validator's list of detections is taken before it is written and scored a second time. Its `image_id` is the
    name of the picture, which two folders may share, so detections are told apart by their number per picture.
    """
    found: list[tuple[str, int, list[float], float]] = []

    def batch_done(validator: Any) -> None:
        bench.progress(name, (validator.batch_i + 1) / len(validator.dataloader))

    def done(validator: Any) -> None:
        files = validator.dataloader.dataset.im_files
        if skipped := sorted({image["file_name"] for image in bench.truth["images"]}.difference(files)):
            raise DataError(f"Ultralytics cannot read {len(skipped)} of the pictures, such as '{skipped[0]}'.")
        owners = np.repeat(validator.eval_ids, validator.pred_counts).tolist()
        for owner, entry in zip(owners, validator.jdict, strict=True):
            index = validator.class_map.index(entry["category_id"])
            found.append((files[owner], index, entry["bbox"], entry["score"]))
        validator.jdict = []

    yolo.add_callback("on_val_batch_end", batch_done)
    yolo.add_callback("on_val_end", done)
    yolo.val(
        data=str(bench.data),
        split="val",
        imgsz=imgsz,
        batch=bench.batch,
        device=bench.device,
        conf=0.001,
        iou=0.7,
        max_det=300,
        save_json=True,
        plots=False,
        verbose=False,
        project=str(bench.folder),
        name="val",
        exist_ok=True,
    )
    return found


def _latency(yolo: Any, imgsz: int, device: str | None) -> float:
    picture = np.full((imgsz, imgsz, 3), GREY, dtype=np.uint8)
    passes = [
        yolo.predict(picture, imgsz=imgsz, device=device, save=False, verbose=False)[0].speed["inference"]
        for _ in range(WARM_UPS + TIMED_PASSES)
    ]
    return float(statistics.median(passes[WARM_UPS:]))


def _write_data(folder: Path, pictures: Sequence[Path], names: Mapping[int, str], source: Path) -> Path:
    """Write a data YAML that names exactly these pictures, so that nothing but them is scored."""
    channels = (yaml.safe_load(source.read_text(encoding="utf-8")) or {}).get("channels", 3)
    (folder / "pictures.txt").write_text("\n".join(map(str, pictures)), encoding="utf-8")
    listed = ["pictures.txt"]
    content = {"path": str(folder), "train": listed, "val": listed, "names": dict(names), "channels": channels}
    path = folder / "data.yaml"
    path.write_text(yaml.safe_dump(content, allow_unicode=True), encoding="utf-8")
    return path


def _lacking(per_class: Mapping[str, float], known: set[str]) -> tuple[str, ...]:
    lacking = [word for word, ap in per_class.items() if word not in known and ap >= 0]
    if not lacking:
        return ()
    rest = [ap for word, ap in per_class.items() if word in known and ap >= 0]
    mean = f"; AP over the others is {100 * statistics.mean(rest):.1f}" if rest else ""
    return (f"does not know {', '.join(lacking)} (counted as missed{mean})",)
