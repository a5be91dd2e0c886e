"""Writing Streets to a folder in YOLO's layout."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import cv2
import numpy as np

from yolokd.data.streets.scene import Picture, render
from yolokd.data.streets.traffic import NAMES
from yolokd.errors import DataError

VERSION = 1  # goes up whenever the same seed gives other pictures
MARKER = "streets.json"  # what the folder holds; written last
QUALITY = 92  # of the JPEG files
SPLITS = ("train", "val")

Progress = Callable[[int, int], None]  # called with pictures done and in all


def picture(split: str, index: int, *, size: tuple[int, int] = (320, 192), seed: int = 0) -> Picture:
    """Draw one picture; it depends on nothing but these arguments, above all not on how many there are."""
    return render(np.random.default_rng([seed, VERSION, SPLITS.index(split), index]), size)


def build(
    out: Path,
    *,
    train: int = 600,
    val: int = 150,
    size: tuple[int, int] = (320, 192),
    seed: int = 0,
    progress: Progress | None = None,
) -> Path:
    """Draw the data set into a folder and return the path of its `data.yaml`.

    The folder appears when it is complete: it is written beside and renamed, so an interruption leaves nothing. If the
    very same set is there already, nothing is done. The same arguments give the same bytes with the same OpenCV.

    Args:
        out: The folder to make. It may exist if it is empty or holds this very set.
        train: Number of pictures to learn from.
        val: Number of pictures to be tested on.
        size: Width and height of the pictures in pixels, at least 64.
        seed: Any whole number from 0; another seed gives other pictures.
        progress: Called after each picture with the number done and the number in all.

    Raises:
        DataError: Impossible arguments, a folder that holds something else, or one that cannot be written.
    """
    marker = _marker(train, val, size, seed)
    out = Path(out).expanduser().absolute()
    if _is_same(out, marker):
        return out / "data.yaml"
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise DataError(
            f"'{out}' exists and is not the Streets set asked for ({train} + {val} pictures of {size[0]}×{size[1]}, "
            f"seed {seed}); give a folder that is new or empty."
        )
    beside = out.parent / f".{out.name}-{uuid4().hex[:12]}"
    try:
        beside.mkdir(parents=True)
        _write(beside, marker, progress)
        _swap_in(beside, out, marker)
    except OSError as error:
        raise DataError(f"Streets cannot be written to '{out}': {error.strerror or error}.") from error
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return out / "data.yaml"


def ensure(
    *,
    train: int = 600,
    val: int = 150,
    size: tuple[int, int] = (320, 192),
    seed: int = 0,
    progress: Progress | None = None,
) -> Path:
    """Draw the set into the cache unless it is there, and return the path of its `data.yaml`; see `build`."""
    folder = default_folder(train=train, val=val, size=size, seed=seed)
    return build(folder, train=train, val=val, size=size, seed=seed, progress=progress)


def default_folder(*, train: int = 600, val: int = 150, size: tuple[int, int] = (320, 192), seed: int = 0) -> Path:
    """Where `--data streets` keeps the set: in `$YOLOKD_CACHE`, else in the user's cache folder of the system."""
    name = f"streets-{VERSION}-{train}-{val}-{size[0]}x{size[1]}-seed{seed}"
    own = os.environ.get("YOLOKD_CACHE")
    return (Path(own).expanduser() if own else _system_cache() / "yolokd") / name


def _system_cache() -> Path:
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")


def _marker(train: int, val: int, size: tuple[int, int], seed: int) -> dict[str, Any]:
    if train < 1 or val < 1:
        raise DataError(f"Streets needs at least one picture per split, got {train} for train and {val} for val.")
    if min(size) < 64:
        raise DataError(f"Pictures of Streets are at least 64 pixels wide and high, got {size[0]}×{size[1]}.")
    if not 0 <= seed < 2**32:
        raise DataError(f"The seed of Streets is a whole number from 0 to {2**32 - 1}, got {seed}.")
    return {"streets": VERSION, "train": train, "val": val, "size": list(size), "seed": seed}


def _is_same(folder: Path, marker: dict[str, Any]) -> bool:
    try:
        return bool(json.loads((folder / MARKER).read_text(encoding="utf-8")) == marker)
    except (OSError, ValueError):
        return False


def _write(folder: Path, marker: dict[str, Any], progress: Progress | None) -> None:
    size, total, done = (marker["size"][0], marker["size"][1]), marker["train"] + marker["val"], 0
    for split in SPLITS:
        images, labels = folder / "images" / split, folder / "labels" / split
        images.mkdir(parents=True)
        labels.mkdir(parents=True)
        for index in range(marker[split]):
            drawn = picture(split, index, size=size, seed=marker["seed"])
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
    (folder / MARKER).write_text(json.dumps(marker), encoding="utf-8")


def _rows(drawn: Picture, size: tuple[int, int]) -> str:
    """The picture's labels: class, middle, width and height as shares of the picture."""
    scale = np.array([size[0], size[1], size[0], size[1]], dtype=np.float64)
    shares = drawn.boxes_xyxy_px / scale
    middles, sides = (shares[:, :2] + shares[:, 2:]) / 2, shares[:, 2:] - shares[:, :2]
    rows = zip(drawn.classes.tolist(), np.concatenate((middles, sides), 1).tolist(), strict=True)
    return "".join(f"{label} " + " ".join(f"{value:.6f}" for value in row) + "\n" for label, row in rows)


def _swap_in(beside: Path, out: Path, marker: dict[str, Any]) -> None:
    """Rename the finished folder; somebody else may have finished the same set meanwhile."""
    if out.is_dir() and not any(out.iterdir()):
        out.rmdir()
    try:
        beside.rename(out)
    except OSError:
        if not _is_same(out, marker):
            raise
