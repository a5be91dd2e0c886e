"""Finding and loading checkpoints: local paths, Ultralytics names, restricted unpickling, errors that help."""

from __future__ import annotations

import sys
from collections.abc import Collection
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from ultralytics.nn.distill_model import DistillationModel
from ultralytics.nn.tasks import DetectionModel, load_checkpoint
from ultralytics.utils import ONLINE
from ultralytics.utils.downloads import GITHUB_ASSETS_NAMES, attempt_download_asset

from yolokd.backend.checkpoint_errors import explain
from yolokd.backend.paths import altered, link, unaltered
from yolokd.backend.quantization import STATE, remove_quantizers, silenced
from yolokd.backend.tasks import DETECT, TASKS
from yolokd.errors import WeightsError, nearest_all

Spec = str | Path
# Names of the pair in checkpoints: that of version 0.1.0, which exists no more, and today's.
PAIRS = ("yolokd.engine.model.TeacherStudent", "yolokd.distillation.model.TeacherStudent")


class SavedPair(DistillationModel):
    """A student with the trainable parts of its losses, as checkpoints of unfinished runs hold them: without teacher.

    The class that trains is below it; what is read from a file needs no more than this one.
    """

    def __getstate__(self) -> dict[str, Any]:
        """Leave the teacher out of copies and checkpoints."""
        state = self.__dict__.copy()
        state["_modules"] = {**self._modules, "teacher_model": None}
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restore without the parent's hooks, which are not used here."""
        self.__dict__.update(state)

    def _remove_feature_hooks(self) -> None:
        """Nothing to remove: neck features come with the head's raw output, assignments from short-lived hooks."""


def is_yaml(spec: Spec) -> bool:
    """Whether `spec` names a model description (from scratch) rather than a checkpoint."""
    return Path(spec).suffix.lower() in {".yaml", ".yml"}


def from_scratch(spec: Spec, pretrained: object) -> bool:
    """Whether Ultralytics gives the student random weights, as the argument `pretrained` has a say in it."""
    return not isinstance(pretrained, (str, Path)) and (is_yaml(spec) or pretrained is False)


def find(spec: Spec) -> Path:
    """Return the local path of a checkpoint, fetching an official Ultralytics one if there is a network.

    Args:
        spec: A path to a `.pt` file, or an Ultralytics name with or without suffix.

    Raises:
        WeightsError: There is no such file and no official checkpoint of that name, or it cannot be fetched.
    """
    path = Path(spec).expanduser()
    if path.is_dir():
        inside = [p for p in (path / "weights" / "best.pt", path / "best.pt") if p.is_file()]
        hint = f" Did you mean '{inside[0]}'?" if inside else ""
        raise WeightsError(f"'{spec}' is a folder, not a checkpoint.{hint}")
    if path.is_file():
        if path.suffix.lower() != ".pt":
            raise WeightsError(f"'{spec}' is not a PyTorch checkpoint: its name must end in .pt.")
        return path
    name = path.name if path.suffix else f"{path.name}.pt"
    if path.parent != Path() or name not in GITHUB_ASSETS_NAMES:
        near = nearest_all(name, GITHUB_ASSETS_NAMES)
        hint = f" Similar official names: {', '.join(near)}." if near and path.parent == Path() else ""
        raise WeightsError(f"There is no file '{spec}', and no official Ultralytics checkpoint of that name.{hint}")
    if Path(name).is_file():
        return Path(name)
    if not ONLINE:
        raise WeightsError(
            f"'{name}' is not here and cannot be downloaded, as there is no network. Put the file beside your data and "
            f"give its path, or start from scratch with '{Path(name).stem}.yaml'."
        )
    try:
        found = Path(attempt_download_asset(name))
    except Exception as error:
        raise WeightsError(f"'{name}' could not be downloaded: {error}") from error
    if not found.is_file():
        raise WeightsError(f"'{name}' could not be downloaded. Fetch it by hand and give its path.")
    return found


def load(path: Path) -> tuple[torch.nn.Module, dict[str, Any]]:
    """Load a checkpoint through the restricted unpickler; return the model (float32, eval mode) and the whole dict.

    A model that was trained under `train.quantize: 8` has its quantizers.

    Raises:
        WeightsError: The file is missing, unreadable, no Ultralytics checkpoint, or names objects that are not known
            model classes (nothing of it has run then).
    """
    if not path.is_file():
        raise WeightsError(f"There is no file '{path}'.")
    register_own_classes()
    with unaltered(path) as place:
        try:
            with silenced():
                model, checkpoint = load_checkpoint(place)
        except Exception as error:  # damaged files surface as a dozen unrelated exceptions of zipfile, pickle and torch
            raise explain(path, error) from error
        if model.pt_path != str(place):
            raise WeightsError(
                f"'{path}' was not loaded: Ultralytics opened '{model.pt_path}' instead. Give the file another name."
            )
    model.pt_path = str(path)
    return model, checkpoint


def load_detector(path: Path, tasks: Collection[str] = DETECT) -> DetectionModel:
    """Load a YOLO detector in full precision; from a run that is still going on (a wrapper), its student.

    Quantizers that it was trained under are left out: teachers and first weights of students are without.

    Args:
        path: A `.pt` file.
        tasks: Names of `yolokd.backend.tasks.TASKS`, whose models are taken.

    Raises:
        WeightsError: As `load`, or the model is not a YOLO model of these tasks (another task, RT-DETR, YOLO-World).
    """
    model, _ = load(path)
    remove_quantizers(model)
    if isinstance(model, DistillationModel):
        args = model.args
        model = model.student_model
        model.args = args
    return as_detector(model, str(path), tasks)


def is_quantized(path: Path) -> bool:
    """Whether a checkpoint holds a network that was trained under `train.quantize: 8`; errors as `load`."""
    return bool(load(path)[1].get(STATE))


def as_detector(model: torch.nn.Module, what: str, tasks: Collection[str] = DETECT) -> DetectionModel:
    """Return `model` if it is a plain YOLO model of one of these tasks.

    Raises:
        WeightsError: It is something else; the message names its kind and head.
    """
    taken = [TASKS[name] for name in tasks]
    if any(type(model) is task.model for task in taken):
        head: Any = model.model[-1]  # type: ignore[index]
        if any(type(model) is task.model and type(head) in task.heads for task in taken):
            return model
        names = ", ".join(kind.__name__ for task in taken for kind in task.heads)
        raise WeightsError(
            f"'{what}' ends in the head {type(head).__name__}; yolokd distills YOLO detectors (heads {names})."
        )
    task = getattr(model, "task", None)
    kind = type(model).__name__ + (f", task {task}" if isinstance(task, str) else "")
    wanted = "a detection model such as yolov8n.pt"
    if len(taken) > 1:
        wanted = f"a model of one of the tasks {', '.join(tasks)}, such as yolov8n.pt"
    raise WeightsError(f"'{what}' is not a YOLO detector ({kind}). Give {wanted}.")


def plain_copy(path: Path, folder: Path, tasks: Collection[str] = DETECT) -> Path:
    """Return a checkpoint that a plain `YOLO(path)` can take: `path` itself, or the student written into `folder`.

    Where Ultralytics would alter the path, it is a link in `folder`.
    """
    model, checkpoint = load(path)
    if not isinstance(model, DistillationModel):
        as_detector(model, str(path), tasks)
        return path if altered(path) is None else link(path, folder)
    state = remove_quantizers(model)
    student = as_detector(model.student_model, str(path), tasks).half()
    student.args = dict(model.args)
    student.criterion = None
    copy = folder / f"{path.stem}.pt"
    content = {"model": student, STATE: state, "train_args": checkpoint.get("train_args") or {}, "epoch": -1}
    torch.save(content, copy)
    return copy if altered(copy) is None else link(copy, folder)


def without_ranges(path: Path, folder: Path) -> Path:
    """Write a network that was trained in 8 bits in full precision and return the path of the copy; errors as `load`.

    Args:
        path: A checkpoint of a plain network, not of a run that is still going on.
        folder: Where the copy goes, under the same name; it exists.
    """
    model, checkpoint = load(path)
    remove_quantizers(model)
    args = {key: value for key, value in (checkpoint.get("train_args") or {}).items() if key != "quantize"}
    copy = folder / path.name
    torch.save({"model": model.half(), "train_args": args, "epoch": -1}, copy)
    return copy


def register_own_classes() -> None:
    """Let the loaders read the pair that checkpoints of unfinished runs hold, whatever version wrote them."""
    torch.serialization.add_safe_globals([(SavedPair, name) for name in PAIRS])
    module, _, name = PAIRS[0].rpartition(".")
    if module not in sys.modules:  # for the unrestricted loader, which imports what a file names
        sys.modules[module] = ModuleType(module)
        setattr(sys.modules[module], name, SavedPair)
