"""What may stand under `train`: Ultralytics' training arguments, read from its own `cfg/default.yaml`.

That file documents each key with its default and, in a comment, its type. It is found without importing Ultralytics,
which would import torch. Where a documented type is wider than what training takes, `NARROWER` and `FRACTIONS` say so;
they follow the checks of `ultralytics/cfg/__init__.py` (8.4.190) and never allow what those refuse.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, reduce
from importlib.util import find_spec
from operator import or_
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, create_model

from yolokd.errors import RecipeError
from yolokd.recipe._yaml import parse

LINE = re.compile(r"^(?P<key>\w+):(?P<default>[^#\n]*)(?:#\s*\((?P<type>[^)]*)\)\s*(?P<text>.*))?$", re.MULTILINE)

STRICT = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

LARGEST_SEED = 2**32 - 1  # what NumPy takes
LARGEST_SIDE = 16384  # pixels; a larger input fits no memory

_Count = Annotated[int, Field(ge=0)]
_Positive = Annotated[int, Field(ge=1)]
_Gain = Annotated[float, Field(ge=0)]
_Above = Annotated[float, Field(gt=0)]
_Fraction = Annotated[float, Field(ge=0, le=1)]
_Share = Annotated[float, Field(gt=0, lt=1)]
_Part = _Positive | Annotated[float, Field(gt=0, le=1)]
_Threshold = Annotated[float, Field(gt=0, lt=1)]
_Index = Annotated[int, Field(ge=0)]
_Plain = bool | int | float | str

TYPES: dict[str, Any] = {
    "bool": bool,
    "float": float,
    "int": int,
    "list": list[_Plain],
    "list[int]": list[int],
    "str": str,
    "tuple": list[float],
}

FRACTIONS = frozenset((
    "bgr", "cls_pw", "conf", "copy_paste", "cutmix", "dlam", "dropout", "erasing", "fliplr", "flipud", "hsv_h",
    "hsv_s", "hsv_v", "iou", "lr0", "lrf", "mixup", "momentum", "mosaic", "multi_scale", "perspective", "translate",
    "warmup_bias_lr", "warmup_momentum", "weight_decay",
))  # fmt: skip

NARROWER: dict[str, Any] = {
    "amp": bool | Literal["fp16", "bf16", "fp32"],
    "auto_augment": Literal["randaugment", "autoaugment", "augmix"] | None,
    "batch": Literal[-1] | _Positive | _Share,
    "box": _Gain,
    "cache": bool | Literal["ram", "disk"],
    "classes": _Index | Annotated[list[_Index], Field(min_length=1)],
    "close_mosaic": _Count,
    "cls": _Gain,
    "compile": bool | Literal["default", "reduce-overhead", "max-autotune-no-cudagraphs"],
    "copy_paste_mode": Literal["flip", "mixup"],
    "dfl": _Gain,
    "epochs": _Positive,
    "fraction": _Part | Annotated[list[_Part], Field(min_length=2, max_length=3)],
    "freeze": _Count | list[_Index | str],
    "imgsz": Annotated[int, Field(ge=32, le=LARGEST_SIDE)],
    "line_width": _Positive,
    "mask_ratio": _Positive,
    "max_det": _Positive,
    "nbs": _Positive,
    "optimizer": Literal["auto", "SGD", "MuSGD", "Adam", "Adamax", "AdamW", "NAdam", "RAdam", "RMSProp"],
    "patience": _Count,
    "quantize": Literal[8, "int8"],  # others are for exports, and change nothing while training
    "save_period": Annotated[int, Field(ge=-1)],
    "scale": _Fraction | Annotated[list[_Above], Field(min_length=2, max_length=2)],
    "seed": Annotated[int, Field(ge=0, le=LARGEST_SEED)],
    "split": Literal["val", "test", "train"],
    "time": Annotated[float, Field(gt=0)],
    "warmup_epochs": _Gain,
    "workers": _Count,
}

SHARE = 0.5  # of each step's images that have no labels, where a recipe does not say it

OWN: dict[str, Any] = {  # arguments that Ultralytics does not know
    "unlabeled": (
        Annotated[str, Field(min_length=1)] | None,
        Field(None, description="Folder of images without labels (or a .txt that lists them), for distillation."),
    ),
    "unlabeled_share": (
        _Share,
        Field(SHARE, description="Share of each step's images without labels; they come on top of the batch."),
    ),
    "pseudo_labels": (
        bool | _Threshold | dict[str, _Threshold],
        Field(
            False,
            description="Let the teacher's boxes on images without labels act as labels: true takes those above a "
            "score that is chosen per class on the labeled images, a number or {class: number} those above that.",
        ),
    ),
}

REFUSED = {
    "cfg": "would bring in arguments unseen; write them under train",
    "dis": "is the gain of the built-in distiller; set losses.ultralytics.gain",
    "distill_model": "is set by yolokd; give the teacher with --teacher",
    "mode": "is always train here",
    "model": "is set by yolokd; give the student with --student",
    "resume": "is set by yolokd; continue a run with --resume RUN",
    "save_dir": "is set by yolokd; choose the folder with project and name",
    "task": "is always detect here",
    "tracker": "is a setting of tracking, which training ignores",
}
REFUSED |= dict.fromkeys(
    ("embed", "retina_masks", "save_crop", "save_frames", "source", "stream_buffer", "vid_stride"),
    "is a setting of prediction, which training ignores",
)
REFUSED |= dict.fromkeys(
    ("dynamic", "format", "optimize", "opset", "simplify", "workspace"),
    "is a setting of export, which training ignores",
)
REFUSED_WITH_LOSSES = {
    "compile": "is refused by Ultralytics while distilling; leave it out, or write losses: {}",
}


@dataclass(frozen=True)
class Argument:
    """One line of Ultralytics' `default.yaml`."""

    default: Any
    type: Any  # a type that pydantic understands; Any where the documentation does not say
    text: str


def _type(key: str, documented: str | None) -> Any:
    if key in NARROWER:
        return NARROWER[key]
    if key in FRACTIONS:
        return _Fraction
    words = [word.strip() for word in re.split(r"[|,]", documented or "")]
    known = [TYPES[word] for word in words if word in TYPES]
    return reduce(or_, known) if known else Any


@cache
def arguments() -> dict[str, Argument]:
    """Return every argument that Ultralytics documents, by name.

    Raises:
        RecipeError: Ultralytics is not installed.
    """
    spec = find_spec("ultralytics")
    if spec is None or not spec.submodule_search_locations:
        raise RecipeError("train: cannot be checked, Ultralytics is not installed; run: pip install ultralytics")
    file = Path(spec.submodule_search_locations[0], "cfg", "default.yaml")
    text = file.read_text(encoding="utf-8")
    defaults = parse(text, str(file))
    return {
        line["key"]: Argument(defaults[line["key"]], _type(line["key"], line["type"]), line["text"] or "")
        for line in LINE.finditer(text)
    }


def argument(train: Mapping[str, Any], key: str) -> Any:
    """Return a training argument of a recipe, or Ultralytics' default where it is not given."""
    return train[key] if key in train else default(key)


def default(key: str) -> Any:
    """Return Ultralytics' default of an argument; None for one that it does not know."""
    known = arguments().get(key)
    return None if known is None else known.default


@cache
def train_model(distilling: bool) -> type[BaseModel]:
    """Return a model of the arguments that a recipe may set, the keys in `REFUSED` left out.

    Args:
        distilling: The recipe has losses, so those in `REFUSED_WITH_LOSSES` are left out too.
    """
    refused = REFUSED | REFUSED_WITH_LOSSES if distilling else REFUSED
    allowed: dict[str, Any] = {}
    for key, argument in arguments().items():
        if key in refused:
            continue
        type_ = argument.type if argument.default is not None else argument.type | None
        allowed[key] = (type_, Field(argument.default, description=argument.text))
    return create_model("TrainArguments", __config__=STRICT, **allowed, **OWN)
