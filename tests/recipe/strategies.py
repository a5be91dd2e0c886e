"""Random valid recipes, as the plain data that a YAML file would give."""

from __future__ import annotations

from hypothesis import strategies as st

GAINS = st.floats(0, 1e6)
ABOVE_ZERO = st.floats(0, 1e6, exclude_min=True)
NAMES = st.text(min_size=1, max_size=12)

BCKD = st.fixed_dictionaries(
    {},
    optional={
        "cls": GAINS,
        "box": GAINS,
        "beta": ABOVE_ZERO,
        "detach_weight": st.booleans(),
        "iou": st.sampled_from(["giou", "iou"]),
        "normalizer": st.sampled_from(["positives", "target_scores"]),
    },
)
SSIM = st.fixed_dictionaries(
    {},
    optional={
        "gain": GAINS,
        "levels": st.lists(st.sampled_from(["p3", "p4", "p5"]), min_size=1, unique=True),
        "window": st.integers(1, 50).map(lambda half: 2 * half + 1),
        "sigma": ABOVE_ZERO,
        "normalize": st.sampled_from(["image", "channel", "level", None]),
    },
)
ULTRALYTICS = st.fixed_dictionaries({}, optional={"gain": GAINS})
SCHEDULE = st.fixed_dictionaries(
    {},
    optional={
        "warmup": st.floats(0, 1000),
        "shape": st.sampled_from(["constant", "linear", "cosine"]),
        "until": st.floats(0, 1, exclude_min=True),
    },
)
TEACHER = st.fixed_dictionaries(
    {},
    optional={
        "classes": st.dictionaries(NAMES, NAMES, max_size=3),
        "precision": st.sampled_from(["auto", "fp32", "fp16", "bf16"]),
    },
)
TRAIN = st.fixed_dictionaries(
    {},
    optional={
        "epochs": st.integers(1, 10**9),
        "imgsz": st.integers(32, 4096),
        "batch": st.one_of(st.just(-1), st.integers(1, 512), st.floats(0.01, 0.99)),
        "lr0": st.floats(0, 1),
        "cos_lr": st.booleans(),
        "cache": st.sampled_from([True, False, "ram", "disk"]),
        "classes": st.none() | st.lists(st.integers(0, 100)),
        "name": st.none() | NAMES,
        "data": NAMES,
    },
)
LOSSES = st.fixed_dictionaries(
    {}, optional={"bckd": st.none() | BCKD, "ssim": st.none() | SSIM, "ultralytics": st.none() | ULTRALYTICS}
)
RECIPES = st.fixed_dictionaries(
    {"losses": LOSSES},
    optional={"summary": st.text(max_size=40), "schedule": SCHEDULE, "teacher": TEACHER, "train": TRAIN},
)

PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8) | st.integers(), inner, max_size=3),
    max_leaves=8,
)
