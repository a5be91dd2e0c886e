"""The Python API behind the commands. Thin: each function imports what it needs when it is called."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from yolokd.deploy.report import ExportReport
    from yolokd.evaluation.models import ModelScore


def train(
    teacher: str | Path | Sequence[str | Path] | None,
    student: str | Path,
    recipe: str | Path,
    *,
    overrides: Sequence[str] = (),
    **options: Any,
) -> Path:
    """Train `student` under `teacher` with `recipe` and return the run's folder.

    Args:
        teacher: A `.pt` path or an Ultralytics name, or several of them; None only for a recipe that needs none.
        student: A `.pt` path, an Ultralytics name (`yolov8n`: pretrained; `yolov8n.yaml`: from scratch), a model YAML.
        recipe: Name of a shipped recipe or path of a YAML file.
        overrides: `path=value` assignments on the recipe, such as `losses.ssim.gain=4`.
        **options: `data`, `epochs`, `imgsz`, `batch`, `device`, `seed`, `name`, `unlabeled`, `allow_partial`; the
            meaning of the options of `yolokd train`. With `unlabeled` and without `data` the teacher labels the images.

    Raises:
        yolokd.errors.UserError: Anything that can be known before the first step.
        yolokd.errors.RunError: The run started and failed.
    """
    from yolokd.training.run import train as run

    return run(teacher, student, recipe, overrides=overrides, **options)


def label(source: str | Path, out: str | Path, teachers: Sequence[str | Path], **options: Any) -> Path:
    """Make a data set of images without labels and return its data YAML; see `yolokd.labeling.label.label`.

    Args:
        source: A folder of images, or a text file with one path a line.
        out: The folder to make.
        teachers: Paths or Ultralytics names of models that give boxes; several are fused.
        **options: `classes`, `conf`, `like`, `imgsz`, `flip`, `val`, `device`; the meaning of the options of `yolokd
            data label`.

    Raises:
        yolokd.errors.UserError: Anything that prevents it; nothing is left at `out` then.
    """
    from yolokd.labeling.label import label as run

    return run(Path(source), Path(out), teachers, **options).path


def evaluate(weights: Sequence[str | Path], data: str | Path, **options: Any) -> list[ModelScore]:
    """Score several checkpoints on one data set with COCO's metrics; see `yolokd.evaluation.models.evaluate`."""
    from yolokd.evaluation.models import evaluate as run

    return run(weights, data, **options)


def export(weights: str | Path, **options: Any) -> ExportReport:
    """Export a checkpoint and compare the result with it; see `yolokd.deploy.export.export`."""
    from yolokd.deploy.export import export as run

    return run(weights, **options)
