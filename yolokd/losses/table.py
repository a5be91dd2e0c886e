"""Which class wires which method: the recipe's key, and the class."""

from __future__ import annotations

from yolokd.losses.base import Loss
from yolokd.losses.bckd import BCKD
from yolokd.losses.ssim import SSIM
from yolokd.losses.ultralytics import Ultralytics

LOSSES: dict[str, type[Loss]] = {
    "bckd": BCKD,
    "ssim": SSIM,
    "ultralytics": Ultralytics,
}
