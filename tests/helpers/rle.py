"""Run lengths of masks, read by COCO's own tools."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask


def decode(rle: Any) -> NDArray[np.uint8]:
    """The pixels of a mask, (H, W) of 0 and 1."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of its arrays, by NumPy
        pixels: NDArray[np.uint8] = mask.decode(rle)
    return pixels
