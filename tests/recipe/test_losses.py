from __future__ import annotations

from typing import Any, get_args

import pytest

from yolokd.losses.levels import STRIDES
from yolokd.recipe import (
    BCKDConfig,
    FBKDConfig,
    FGDConfig,
    IKDAdversarialConfig,
    LossConfig,
    Losses,
    MGDConfig,
    SAMKDConfig,
    Schedule,
    SSIMConfig,
    UltralyticsConfig,
)
from yolokd.recipe._config import Level

LEVELS = None  # all that both models have
DEFAULTS: dict[str, dict[str, Any]] = {
    "bckd": {
        "cls": 1.0,
        "box": 4.0,
        "beta": 1.0,
        "detach_weight": False,
        "iou": "giou",
        "normalizer": "positives",
        "average": "run",
    },
    "ssim": {"gain": 2.0, "levels": LEVELS, "window": 11, "sigma": 1.5, "normalize": "image"},
    "samkd": {
        "gain": 8e-5,
        "levels": LEVELS,
        "ratio": 0.65,
        "spatial": "attention",
        "hide": "important",
        "channel": True,
        "scales": (1, 2, 4),
        "generator": "conv",
        "seed": 0,
        "logits": 10.0,
        "logits_weight": "hard",
        "logits_ratio": 0.1,
        "logits_tau": 0.1,
    },
    "mgd": {"gain": 8e-5, "levels": LEVELS, "ratio": 0.65, "generator": "conv", "seed": 0},
    "fgd": {
        "gain": 1.0,
        "levels": LEVELS,
        "foreground": 1.4e-3,
        "background": 7e-4,
        "attention": 1.3e-3,
        "relation": 2e-5,
        "tau": 0.5,
    },
    "pkd": {"gain": 10.0, "levels": LEVELS},
    "cwd": {"gain": 5.0, "levels": LEVELS, "tau": 1.0},
    "ld": {"gain": 1.5, "temperature": 10.0, "average": "run"},
    "fbkd": {"feature": 3.9e-4, "spatial": 0.02, "relation": 3.9e-4, "channel": 7.2e-3, "levels": LEVELS, "tau": 0.5},
    "mask": {"bce": 2.0, "dice": 2.0, "confidence": 0.25, "iou": 0.7, "instances": 32},
    "keypoint": {"oks": 4.0, "visibility": 0.5, "confidence": 0.25, "iou": 0.7, "instances": 32},
    "ultralytics": {"gain": 6.0, "levels": None},
}


EVERY = dict(Losses.model_validate({name: {} for name in Losses.model_fields}).items())


def test_losses__defaults_are_published_or_rescaled_ones() -> None:
    plain = Losses.model_validate({name: {} for name in DEFAULTS}).model_dump(include=set(DEFAULTS))
    assert plain == {name: {**config, "schedule": None} for name, config in DEFAULTS.items()}


def test_losses__gains_of_sums_over_all_values_are_rescaled_by_the_size_of_the_maps() -> None:
    theirs = 256 * sum(h * w for h, w in ((100, 168), (50, 84), (25, 42), (13, 21), (7, 11)))  # 800 × 1344 px, P3 to P7
    ours = sum(c * n * n for c, n in ((128, 80), (256, 40), (512, 20)))  # yolov8s at 640 px
    assert (theirs, ours) == (5_734_400, 1_433_600)
    assert MGDConfig().gain == SAMKDConfig().gain == pytest.approx(2e-5 * theirs / ours, rel=1e-9)
    assert FGDConfig().relation == pytest.approx(5e-6 * theirs / ours, rel=1e-9)
    assert IKDAdversarialConfig().gain == pytest.approx(1e-5 * theirs / ours, rel=1e-9)


@pytest.mark.parametrize(
    ("default", "published", "factor"),
    [
        (FGDConfig().foreground, 1e-3, 1.4),
        (FGDConfig().background, 5e-4, 1.4),
        (FGDConfig().attention, 5e-4, 2.67),
        (FBKDConfig().feature, 7e-5, 5.5),
        (FBKDConfig().relation, 7e-5, 5.5),
        (FBKDConfig().spatial, 4e-3, 4.9),
        (FBKDConfig().channel, 4e-3, 1.8),
    ],
)
def test_losses__rescaled_defaults_are_the_published_number_times_the_factor(
    default: Any, published: float, factor: float
) -> None:
    assert default == pytest.approx(published * factor, rel=0.03)


def test_gains__are_keyed_by_csv_column() -> None:
    assert BCKDConfig(cls=0.5, box=3).gains() == {"bckd_cls": 0.5, "bckd_box": 3.0}
    assert SSIMConfig(gain=0).gains() == {"ssim": 0.0}
    assert SAMKDConfig(gain="auto", logits=0).gains() == {"samkd": "auto", "samkd_logits": 0.0}
    assert FGDConfig(gain=2).gains() == {"fgd": 2.0, "fgd_channel": 2.0}
    assert FBKDConfig(spatial="auto", channel=0).gains() == {
        "fbkd_feature": 3.9e-4,
        "fbkd_spatial": "auto",
        "fbkd_relation": 3.9e-4,
        "fbkd_channel": 0.0,
    }


def test_gains__begin_with_the_name_of_the_method() -> None:
    for name, config in EVERY.items():
        assert all(term == name or term.startswith(f"{name}_") for term in config.gains())


def test_losses__items_and_terms_keep_the_order_of_declaration() -> None:
    losses = Losses.model_validate({"ultralytics": {}, "bckd": {"box": 2.0}, "ssim": None})
    assert list(losses.items()) == [("bckd", BCKDConfig(box=2.0)), ("ultralytics", UltralyticsConfig())]
    assert list(losses.terms().items()) == [("bckd_cls", 1.0), ("bckd_box", 2.0), ("ultralytics", 6.0)]
    assert Losses().terms() == {}


def test_losses__every_loss_may_have_a_schedule() -> None:
    configs: dict[str, LossConfig] = dict(
        Losses.model_validate({name: {"schedule": {"until": 0.5}} for name in Losses.model_fields}).items()
    )
    assert list(configs) == list(Losses.model_fields)
    assert all(config.schedule == Schedule(until=0.5) for config in configs.values())


@pytest.mark.parametrize("name", [name for name, config in EVERY.items() if "levels" in type(config).model_fields])
def test_levels__are_put_in_order(name: str) -> None:
    ((_, config),) = Losses.model_validate({name: {"levels": ["p5", "p3"]}}).items()
    assert config.model_dump()["levels"] == ("p3", "p5")


def test_levels__are_those_that_the_losses_know() -> None:
    assert get_args(Level) == tuple(STRIDES)
    config = Losses.model_validate({"cwd": {"levels": ["p7", "p2"]}}).cwd
    assert config is not None
    assert config.levels == ("p2", "p7")
