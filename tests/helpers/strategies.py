"""Random valid recipes, as the plain data that a YAML file would give."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st
from pydantic import BaseModel

from yolokd.losses.levels import STRIDES
from yolokd.recipe import Losses

Plain = st.SearchStrategy[dict[str, Any]]

NUMBERS = st.floats(0, 1e6)
ABOVE_ZERO = st.floats(0, 1e6, exclude_min=True)
SHARES = st.floats(0, 1, exclude_min=True)
OPEN_SHARES = st.floats(0, 1, exclude_min=True, exclude_max=True)
COUNTS = st.integers(1, 10**6)
GAINS = NUMBERS | st.just("auto")
NAMES = st.text(min_size=1, max_size=12)
LEVELS = st.none() | st.lists(st.sampled_from(list(STRIDES)), min_size=1, unique=True)


def some(**keys: st.SearchStrategy[Any]) -> Plain:
    """Return mappings that hold any of the keys."""
    return st.fixed_dictionaries({}, optional=keys)


def maybe(**methods: Plain) -> Plain:
    """Return mappings that hold any of the methods, some of them as null."""
    return some(**{name: st.none() | config for name, config in methods.items()})


SCHEDULE = some(
    warmup=st.floats(0, 1000) | st.floats(0, 100).map(lambda share: f"{share:.2f}%".replace("100.00%", "100%")),
    shape=st.sampled_from(["constant", "linear", "cosine"]),
    until=SHARES,
)


def loss(**keys: st.SearchStrategy[Any]) -> Plain:
    """Return configurations of a loss with these keys and those that every loss has."""
    return some(**keys, schedule=st.none() | SCHEDULE)


MASKS: dict[str, st.SearchStrategy[Any]] = {
    "ratio": st.floats(0, 1, exclude_min=True, exclude_max=True),
    "seed": st.integers(0, 2**32 - 1),
}
_KNOWN: dict[str, Plain] = {
    "bckd": loss(
        cls=GAINS,
        box=GAINS,
        beta=ABOVE_ZERO,
        detach_weight=st.booleans(),
        iou=st.sampled_from(["giou", "iou"]),
        normalizer=st.sampled_from(["positives", "target_scores"]),
        average=st.sampled_from(["run", "batch"]),
    ),
    "ssim": loss(
        gain=GAINS,
        levels=LEVELS,
        window=st.integers(1, 50).map(lambda half: 2 * half + 1),
        sigma=ABOVE_ZERO,
        normalize=st.sampled_from(["image", "channel", "level", None]),
    ),
    "samkd": loss(
        gain=GAINS,
        levels=LEVELS,
        **MASKS,
        spatial=st.sampled_from(["attention", "random"]),
        hide=st.sampled_from(["important", "unimportant"]),
        channel=st.booleans(),
        scales=st.lists(COUNTS, min_size=1, max_size=4),
        logits=GAINS,
        logits_weight=st.sampled_from(["hard", "soft"]),
        logits_ratio=SHARES,
        logits_tau=ABOVE_ZERO,
    ),
    "mgd": loss(gain=GAINS, levels=LEVELS, **MASKS),
    "fgd": loss(
        gain=GAINS,
        levels=LEVELS,
        foreground=NUMBERS,
        background=NUMBERS,
        attention=NUMBERS,
        relation=NUMBERS,
        tau=ABOVE_ZERO,
    ),
    "pkd": loss(gain=GAINS, levels=LEVELS),
    "cwd": loss(gain=GAINS, levels=LEVELS, tau=ABOVE_ZERO),
    "ld": loss(gain=GAINS, temperature=ABOVE_ZERO),
    "fbkd": loss(feature=GAINS, spatial=GAINS, relation=GAINS, channel=GAINS, levels=LEVELS, tau=ABOVE_ZERO),
    "ultralytics": loss(gain=GAINS),
}


def _derived(config: type[BaseModel]) -> Plain:
    """Return configurations of a loss that has no line above: its gains and levels vary, the rest is as by default."""
    gains = [name for name, field in config.model_fields.items() if "auto" in str(field.annotation)]
    levels = {"levels": LEVELS} if "levels" in config.model_fields else {}
    return loss(**dict.fromkeys(gains, GAINS), **levels)


LOSSES = maybe(
    **{
        name: _KNOWN[name] if name in _KNOWN else _derived(type(config))
        for name, config in Losses.model_validate({name: {} for name in Losses.model_fields}).items()
    }
)
WEIGHTING = maybe(
    aid=some(
        alpha=NUMBERS,
        scope=st.sampled_from(["instance", "image", "level"]),
        normalize=st.sampled_from(["raw", "mean"]),
    )
)
AUGMENT = maybe(
    ikd=some(
        noise=st.floats(0, 1),
        crop=SHARES,
        adversarial=st.none() | some(gain=NUMBERS, eps=ABOVE_ZERO, step=ABOVE_ZERO, steps=COUNTS, every=COUNTS),
        until=SHARES,
    )
)
BALANCE = some(share=st.floats(0, 10, exclude_min=True), every=COUNTS, log=st.booleans())
TEACHER = some(
    classes=st.dictionaries(NAMES, NAMES, max_size=3) | st.just("coco-to-kitti"),
    precision=st.sampled_from(["auto", "fp32", "fp16", "bf16"]),
    answers=st.sampled_from(["live", "stored"]),
    imgsz=st.none() | st.integers(1, 100).map(lambda cells: 32 * cells),
    flip=st.booleans(),
)
STUDENT = some(init=st.sampled_from(["random", "teacher", "auto"])) | st.fixed_dictionaries(
    {"init": st.just("classes")},
    optional={"classes": st.dictionaries(NAMES, NAMES, max_size=3) | st.just("coco-to-kitti")},
)
TRAIN = some(
    epochs=st.integers(1, 10**9),
    imgsz=st.integers(32, 4096),
    batch=st.one_of(st.just(-1), st.integers(1, 512), st.floats(0.01, 0.99)),
    lr0=st.floats(0, 1),
    cos_lr=st.booleans(),
    cache=st.sampled_from([True, False, "ram", "disk"]),
    classes=st.none() | st.lists(st.integers(0, 100), min_size=1),
    name=st.none() | NAMES,
    data=NAMES,
    pseudo_labels=st.booleans() | OPEN_SHARES | st.dictionaries(NAMES, OPEN_SHARES, max_size=3),
)


def _something_to_weigh(data: dict[str, Any]) -> bool:
    return any(config is not None for config in data["losses"].values()) or data.get("weighting", {}).get("aid") is None


RECIPES = st.fixed_dictionaries(
    {"losses": LOSSES},
    optional={
        "summary": st.text(max_size=40),
        "weighting": WEIGHTING,
        "augment": AUGMENT,
        "schedule": SCHEDULE,
        "balance": BALANCE,
        "teacher": TEACHER,
        "student": STUDENT,
        "train": TRAIN,
    },
).filter(_something_to_weigh)

PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8) | st.integers(), inner, max_size=3),
    max_leaves=8,
)
