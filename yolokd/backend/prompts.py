"""Class names of open-vocabulary models: those that a checkpoint was saved with, and others as prompts.

Prompts go through a text encoder, which Ultralytics loads beside the model: CLIP for YOLO-World, MobileCLIP for YOLOE.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import ultralytics
from ultralytics.nn.tasks import WorldModel, YOLOEModel
from ultralytics.utils import ONLINE, SETTINGS, YAML

from yolokd.backend.box_models import takes_prompts
from yolokd.backend.opening import quiet
from yolokd.errors import UserError, WeightsError

PACKAGE = "git+https://github.com/ultralytics/CLIP.git"  # Ultralytics' fork, which is in no package index
FILES = {"clip": "ViT-B-32.pt", "mobileclip": "mobileclip_blt.ts", "mobileclip2": "mobileclip2_b.ts"}
COCO = Path(ultralytics.__file__).parent / "cfg" / "datasets" / "coco8.yaml"


def names_of(model: Any, what: str) -> dict[int, str]:
    """Return the class names that a checkpoint was saved with.

    Raises:
        WeightsError: It is an open-vocabulary model without the embeddings of its names.
    """
    names = getattr(model, "names", None) or YAML.load(COCO)["names"]  # as Ultralytics does for old YOLO-World models
    names = dict(names) if isinstance(names, dict) else dict(enumerate(names))
    if takes_prompts(model):
        embeddings = model.txt_feats if isinstance(model, WorldModel) else getattr(model, "pe", None)
        if embeddings is None or embeddings.shape[1] != len(names):
            raise WeightsError(
                f"'{what}' was saved without class names of its own. Name the classes that it should find."
            )
        model.model[-1].nc = len(names)
    return names


def set_prompts(model: Any, classes: Sequence[str], what: str) -> None:
    """Make class names the classes of an open-vocabulary model.

    Args:
        model: A model for which `takes_prompts` holds, on any device.
        classes: The names, in the order of the class indices.
        what: The checkpoint, as the user named it.

    Raises:
        UserError: No names, or one twice.
        WeightsError: The text encoder is not here and cannot be fetched; the message says what belongs where.
    """
    names = list(classes)
    if not names or len({name.casefold() for name in names}) < len(names):
        raise UserError(f"'{what}' takes class names as prompts, each once: {', '.join(names) or 'none was given'}.")
    variant = "clip:ViT-B/32" if isinstance(model, WorldModel) else str(getattr(model, "text_model", "mobileclip:blt"))
    missing = missing_parts(variant)
    if missing and not ONLINE:
        raise _not_here(what, missing, "there is no network")
    try:
        with quiet():
            _set(model, names)
    except Exception as error:  # whatever an encoder, a download or a damaged file may lead to
        reason = next((line.strip(" .") for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise _not_here(what, missing_parts(variant), reason) from error
    model.names = dict(enumerate(names))


def missing_parts(variant: str) -> list[str]:
    """Return what a text encoder lacks here, in words: its package, and its file with the folder.

    Args:
        variant: As Ultralytics names it, such as `clip:ViT-B/32` or `mobileclip:blt`.
    """
    base = variant.partition(":")[0]
    parts = [] if importlib.util.find_spec("clip") else [f"the package clip (pip install '{PACKAGE}')"]
    folder = Path(SETTINGS["weights_dir"])
    places = [folder / "clip"] if base == "clip" else [folder, Path()]
    name = FILES.get(base)
    if name is not None and not any((place / name).is_file() for place in places):
        parts.append(f"the file {name} in '{places[0]}'")
    return parts


@torch.no_grad()
def _set(model: Any, names: list[str]) -> None:
    if isinstance(model, WorldModel):
        model.set_classes(names)
        model.txt_feats = model.txt_feats.clone()  # no longer an inference tensor
    elif isinstance(model, YOLOEModel):
        model.set_classes(names, model.get_text_pe(names).clone())


def _not_here(what: str, missing: Sequence[str], reason: str) -> WeightsError:
    needs = f" It needs {' and '.join(missing)}." if missing else ""
    return WeightsError(
        f"'{what}' takes class names as prompts, and its text encoder cannot be loaded: {reason}.{needs}"
    )
