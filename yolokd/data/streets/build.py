"""Writing Streets to a folder in YOLO's layout."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from yolokd.data import publish
from yolokd.data.streets.objects import NAMES
from yolokd.data.streets.scene import Rendered, render
from yolokd.errors import DataError
from yolokd.files import cache_folder

VERSION = 2  # raised whenever the same seed gives other images; a cached set of another version is not used
MARKER = "streets.json"  # the arguments of the set in a folder; written last
QUALITY = 92  # of the JPEG files
SPLITS = ("train", "val")

Size = tuple[int, int]  # width and height, pixels
Progress = Callable[[int, int], None]  # called with the number of images done and of all
SIZE: Size = (320, 192)


def draw_image(split: str, index: int, *, size: Size = SIZE, seed: int = 0) -> Rendered:
    """Return an image with its labels; it depends on these arguments only, not on the number of images in a set."""
    return render(np.random.default_rng([seed, VERSION, SPLITS.index(split), index]), size)


def build(
    out: Path, *, train: int = 600, val: int = 150, size: Size = SIZE, seed: int = 0, progress: Progress | None = None
) -> Path:
    """Draw the data set into a folder and return the path of its `data.yaml`.

    The folder appears when it is complete: it is written beside and renamed, so an interruption leaves nothing. If the
    very same set is there already, nothing is done. The same arguments give the same bytes with the same OpenCV.

    Args:
        out: The folder to make. It may exist if it is empty or holds this very set.
        train: Number of images to train on.
        val: Number of images to score on.
        size: Width and height of the images in pixels, at least 64.
        seed: Random seed, from 0.
        progress: Called after each image with the number done and the number in all.

    Raises:
        DataError: Impossible arguments, a folder that holds something else, or one that cannot be written.
    """
    _check(train, val, size, seed)
    marker = {"streets": VERSION, "train": train, "val": val, "size": list(size), "seed": seed}
    out = Path(out).expanduser().absolute()
    if not publish.is_there(out, MARKER, marker):
        with publish.beside(out, MARKER, marker) as folder:
            _write(folder, marker, progress)
    return out / "data.yaml"


def ensure(
    *, train: int = 600, val: int = 150, size: Size = SIZE, seed: int = 0, progress: Progress | None = None
) -> Path:
    """Draw the set into the cache unless it is there, and return the path of its `data.yaml`; see `build`."""
    folder = default_folder(train=train, val=val, size=size, seed=seed)
    return build(folder, train=train, val=val, size=size, seed=seed, progress=progress)


def default_folder(*, train: int = 600, val: int = 150, size: Size = SIZE, seed: int = 0) -> Path:
    """Return the folder of `--data streets`: in `$YOLOKD_CACHE`, else in the user's cache folder of the system."""
    name = f"streets-{VERSION}-{train}-{val}-{size[0]}x{size[1]}-seed{seed}"
    return cache_folder() / name


def _check(train: int, val: int, size: Size, seed: int) -> None:
    if train < 1 or val < 1:
        raise DataError(f"Streets needs at least one image per split, got {train} for train and {val} for val.")
    if min(size) < 64:
        raise DataError(f"Images of Streets are at least 64 pixels wide and high, got {size[0]}×{size[1]}.")
    if not 0 <= seed < 2**32:
        raise DataError(f"The seed of Streets is a whole number from 0 to {2**32 - 1}, got {seed}.")


def _write(folder: Path, marker: dict[str, Any], progress: Progress | None) -> None:
    size, total, done = (marker["size"][0], marker["size"][1]), marker["train"] + marker["val"], 0
    for split in SPLITS:
        images, labels = folder / "images" / split, folder / "labels" / split
        images.mkdir(parents=True)
        labels.mkdir(parents=True)
        for index in range(marker[split]):
            drawn = draw_image(split, index, size=size, seed=marker["seed"])
            _, data = cv2.imencode(".jpg", drawn.image, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
            (images / f"{index:06d}.jpg").write_bytes(data.tobytes())
            (labels / f"{index:06d}.txt").write_text(_rows(drawn, size), encoding="utf-8")
            done += 1
            if progress is not None:
                progress(done, total)
    names = "".join(f"  {i}: {name}\n" for i, name in enumerate(NAMES))
    (folder / "data.yaml").write_text(
        "# Streets: synthetic traffic scenes drawn by yolokd, for trying things out; no measure of the real world.\n"
        f"# Version {VERSION}, seed {marker['seed']}. Paths are relative to this file.\n"
        f"train: images/train\nval: images/val\nnames:\n{names}",
        encoding="utf-8",
    )


def _rows(drawn: Rendered, size: Size) -> str:
    """Return the label file: class, center x and y, width and height as shares of the image."""
    scale = np.array([size[0], size[1], size[0], size[1]], dtype=np.float64)
    shares = drawn.boxes_xyxy_px / scale
    centers, sides = (shares[:, :2] + shares[:, 2:]) / 2, shares[:, 2:] - shares[:, :2]
    rows = zip(drawn.classes.tolist(), np.concatenate((centers, sides), 1).tolist(), strict=True)
    return "".join(f"{label} " + " ".join(f"{value:.6f}" for value in row) + "\n" for label, row in rows)
