"""Which class wires which method: the recipe's key, and the class."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from yolokd.losses.base import Loss
from yolokd.losses.bckd import BCKD
from yolokd.losses.cwd import CWD
from yolokd.losses.fbkd import FBKD
from yolokd.losses.fgd import FGD
from yolokd.losses.ikd import IKD
from yolokd.losses.keypoint import Keypoint
from yolokd.losses.ld import LD
from yolokd.losses.mask import Mask
from yolokd.losses.mgd import MGD
from yolokd.losses.pkd import PKD
from yolokd.losses.samkd import SAMKD
from yolokd.losses.soft import Soft
from yolokd.losses.ssim import SSIM
from yolokd.losses.ultralytics import Ultralytics

if TYPE_CHECKING:
    from yolokd.recipe import Recipe
    from yolokd.recipe.losses import LossConfig

# Recipe key under `losses` → class.
LOSSES: dict[str, type[Loss]] = {
    "bckd": BCKD,
    "ssim": SSIM,
    "samkd": SAMKD,
    "mgd": MGD,
    "fgd": FGD,
    "pkd": PKD,
    "cwd": CWD,
    "ld": LD,
    "fbkd": FBKD,
    "mask": Mask,
    "keypoint": Keypoint,
    "soft": Soft,
    "ultralytics": Ultralytics,
}


def losses_of(recipe: Recipe, levels: Sequence[str] = ()) -> dict[str, Loss]:
    """Return the losses of a recipe by method; that of `augment.ikd.adversarial` is called `ikd`.

    Args:
        recipe: What to distill.
        levels: Those whose neck features both models have, for losses whose recipe names none. Without them such a
            loss knows its other requirements only.
    """
    losses = {name: LOSSES[name](_on(config, levels)) for name, config in recipe.losses.items()}
    if recipe.augment.adversarial is not None:
        losses["ikd"] = IKD(recipe.augment.adversarial)
    return losses


def active_losses(recipe: Recipe, levels: Sequence[str] = ()) -> dict[str, Loss]:
    """Return the wired losses of which at least one term has a gain above 0; arguments as those of `losses_of`."""
    gains = recipe.terms()
    return {name: loss for name, loss in losses_of(recipe, levels).items() if any(gains[term] for term in loss.terms)}


def _on(config: LossConfig, levels: Sequence[str]) -> LossConfig:
    unset = getattr(config, "levels", ()) is None
    return config.model_copy(update={"levels": tuple(levels)}) if unset else config
