"""Small videos and folders of images whose scenes are far apart for a perceptual hash."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

FPS = 10


def scene(seed: int) -> NDArray[np.uint8]:
    """Return an image, (48, 64, 3): a pattern of large patches, another one for each seed."""
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 8, 3)).astype(np.uint8)
    image: NDArray[np.uint8] = cv2.resize(coarse, (64, 48), interpolation=cv2.INTER_CUBIC).astype(np.uint8)
    return image


def write_video(path: Path, scenes: Iterable[int], *, frames: int = 10, fps: float = FPS) -> Path:
    """Write a video that shows every scene for so many frames, with a little noise; MJPG in .avi, else MPEG-4."""
    path.parent.mkdir(parents=True, exist_ok=True)
    code = cv2.VideoWriter.fourcc(*("MJPG" if path.suffix == ".avi" else "mp4v"))
    writer = cv2.VideoWriter(str(path), code, fps, (64, 48))
    assert writer.isOpened()
    noise = np.random.default_rng(0)
    for seed in scenes:
        for _ in range(frames):
            writer.write(np.clip(scene(seed) + noise.normal(0, 1, (48, 64, 3)), 0, 255).astype(np.uint8))
    writer.release()
    return path


def write_images(folder: Path, scenes: dict[str, int]) -> Path:
    """Write an image of a scene under each name."""
    for name, seed in scenes.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        assert cv2.imwrite(str(path), scene(seed))
    return folder


def cut(source: Path, target: Path, share: float) -> Path:
    """Write the first part of a file."""
    data = source.read_bytes()
    target.write_bytes(data[: int(len(data) * share)])
    return target


def content(folder: Path) -> dict[str, tuple[bytes, int]]:
    """Return bytes and time of change of every file of a folder."""
    return {path.name: (path.read_bytes(), path.lstat().st_mtime_ns) for path in sorted(folder.iterdir())}
