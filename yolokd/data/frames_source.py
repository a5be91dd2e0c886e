"""The clips that `yolokd data frames` reads: frames of a video one by one, images of a folder in the order of names.

Of a video, only the frames that are asked for are converted to pixels, and one is in memory at a time. The time of a
frame is the container's, so that it is right for a variable frame rate; where the container's times stand still or
leap back, the next frame is one frame's duration later.
"""

from __future__ import annotations

import math
import os
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from yolokd.data.frames_names import image_names, safe_name
from yolokd.data.layout import images_of
from yolokd.errors import DataError, UserError, printable
from yolokd.files import link_or_copy, sha256_of
from yolokd.images.reader import SUFFIXES, read_image
from yolokd.inputs import refuse_special

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

NOT_VIDEO = frozenset((*SUFFIXES, "ans", "asc", "csv", "json", "nfo", "txt", "yaml", "yml"))  # FFmpeg renders text
HALF_MS = 0.5
MIN_SHARE = 0.95  # of the frames that a container announces; many only estimate their number


class ClipError(DataError):
    """A clip that cannot be used, or not from some frame on; the other clips are not concerned."""


@dataclass(frozen=True)
class Every:
    """The step from one frame to the next that is taken: in seconds or in frames, the other is 0."""

    seconds: float = 0.0
    frames: int = 0

    def __str__(self) -> str:
        return f"{self.seconds:g}s" if self.seconds else str(self.frames)


class Frame(NamedTuple):
    """A frame that is taken."""

    name: str  # of its file, without the clip's
    pixels: NDArray[np.uint8] | None  # (H, W, 3), BGR; None if it cannot be decoded
    file: Path | None  # an image of a folder; None for a frame of a video
    share: float  # of the clip that has been read, 0 to 1


class Clip(ABC):
    """A video or a folder of images."""

    def __init__(self, source: Path, every: Every) -> None:
        self.source, self.every = source, every
        self.read = 0  # frames or images so far
        self.notes: list[str] = []

    @abstractmethod
    def identity(self) -> list[Any]:
        """Return what changes with the content: size in bytes and time of change, or a digest of them; plain data."""

    @abstractmethod
    def frames(self) -> Iterator[Frame]:
        """Yield the frames that are taken, in order.

        Raises:
            ClipError: There is none.
        """


class Video(Clip):
    """A video file, decoded by OpenCV."""

    def identity(self) -> list[Any]:
        """Return size in bytes and time of change in nanoseconds."""
        found = self.source.stat()
        return [found.st_size, found.st_mtime_ns]

    def frames(self) -> Iterator[Frame]:
        """Yield the frames that are taken; a video that is damaged ends where decoding ends, with a note."""
        import cv2

        with _opened(self.source) as capture:
            announced = capture.get(cv2.CAP_PROP_FRAME_COUNT)
            announced = announced if 0 < announced < 2**40 else 0.0
            times = _Times(capture.get(cv2.CAP_PROP_FPS))
            if self.every.seconds and not times.frame_ms:
                raise ClipError("it has no frame rate; give --every as a number of frames")
            due, taken = 0, 0
            while (ms := self._grab(capture, times)) is not None:
                step = self._step(ms)
                if step < due:
                    continue
                pixels = _retrieve(capture)
                if pixels is None:
                    break
                due, taken = step + 1, taken + 1
                name = f"{ms // 1000:06d}.{ms % 1000:03d}s" if times.frame_ms else f"{self.read - 1:09d}f"
                yield Frame(name, pixels, None, min(self.read / announced, 1.0) if announced else 0.0)
            if not taken:
                raise ClipError("no frame of it can be decoded")
            if self.read < MIN_SHARE * announced - 1:
                self.notes.append(f"ends after {self.read} of {announced:.0f} frames; the rest cannot be decoded")

    def _step(self, ms: int) -> int:
        """The number of whole steps of `every` up to the frame just read; each step's first frame is taken."""
        if self.every.seconds:
            return math.floor((ms + HALF_MS) / 1000 / self.every.seconds)
        return (self.read - 1) // self.every.frames

    def _grab(self, capture: Any, times: _Times) -> int | None:
        """Go to the next frame and return its time in milliseconds; None at the end."""
        import cv2

        try:
            if not capture.grab():
                return None
            self.read += 1
            return times.next(capture.get(cv2.CAP_PROP_POS_MSEC))
        except cv2.error:
            return None


class Folder(Clip):
    """A folder of images, those of the folders below included."""

    def __init__(self, source: Path, every: Every) -> None:
        """List the images.

        Raises:
            UserError: There is none, or the folder cannot be listed.
        """
        super().__init__(source, every)
        try:
            self.files = [Path(file) for file in images_of(source)]
            self._stamps = [
                [file.relative_to(source.absolute()).as_posix(), *_stamp(file)] for file in self.files
            ]  # before anything is read
        except OSError as error:
            raise UserError(f"'{printable(source)}' cannot be listed: {error.strerror or error}.") from error
        if not self.files:
            raise UserError(f"'{printable(source)}' holds no images. Videos are named one by one: FOLDER/*.mp4")

    def identity(self) -> list[Any]:
        """Return the number of images and a digest of their names, sizes and times of change."""
        return [len(self.files), sha256_of("\n".join("\0".join(map(str, row)) for row in self._stamps))]

    def frames(self) -> Iterator[Frame]:
        """Yield every n-th image; one that cannot be read has no pixels."""
        names = image_names([str(row[0]) for row in self._stamps])
        for index, (file, name) in enumerate(zip(self.files, names, strict=True)):
            self.read += 1
            if index % self.every.frames:
                continue
            try:
                pixels = read_image(file)
            except DataError as error:
                self.notes.append(str(error))
                pixels = None
            yield Frame(name, pixels, file, self.read / len(self.files))


def open_clip(source: Path, every: Every | None) -> Clip:
    """Return a clip; a video is opened when its frames are read.

    Args:
        source: A video file or a folder of images.
        every: None is one second for a video and one image for a folder.

    Raises:
        UserError: It is missing, no video by its name, a folder without images, or a folder with `every` in seconds.
    """
    shown = printable(source)
    try:
        if source.is_dir():
            if every and every.seconds:
                raise UserError(
                    f"'{shown}' is a folder, and images have no frame rate: give --every as a number of images, or "
                    "make the frames of folders by a command of their own."
                )
            return Folder(source, every or Every(frames=1))
        refuse_special(source)
    except FileNotFoundError:
        raise UserError(f"There is no video or folder '{shown}'.") from None
    except (OSError, ValueError) as error:
        raise UserError(f"'{shown}' cannot be read: {getattr(error, 'strerror', None) or error}.") from error
    suffix = source.suffix[1:].lower()
    if suffix in SUFFIXES:
        raise UserError(f"'{shown}' is an image. Give the folder that it is in.")
    if suffix in NOT_VIDEO:
        raise UserError(f"'{shown}' is no video. Give videos and folders of images.")
    return Video(source, every or Every(seconds=1.0))


class _Times:
    """Times of successive frames in milliseconds, strictly increasing."""

    def __init__(self, fps: float) -> None:
        self.frame_ms = 1000 / fps if 0 < fps <= 100_000 else 0.0  # duration of a frame; 0 if it is not known
        self._last = -1
        self._shift: float | None = None  # from the container's time to the one returned
        self._before = 0.0

    def next(self, position: float) -> int:
        """Return the time of the next frame, given the container's, which may be anything."""
        if not math.isfinite(position):
            position = self._before + self.frame_ms
        if self._shift is None:
            self._shift = -position
        elif position <= self._before:
            self._shift += self._before + self.frame_ms - position
        self._before = position
        self._last = max(round(position + self._shift), self._last + 1)
        return self._last


@contextmanager
def _opened(file: Path) -> Iterator[Any]:
    """Open a video; OpenCV and FFmpeg print nothing, and do not see names that they would take for a pattern."""
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # before OpenCV opens its first video
    import cv2

    if hasattr(cv2, "utils") and hasattr(cv2.utils, "logging"):
        cv2.utils.logging.setLogLevel(0)
    path = file.absolute()
    with tempfile.TemporaryDirectory(prefix="yolokd-") as folder:
        if "%" in str(path) or not str(path).isascii() or printable(path) != str(path):
            path = Path(folder) / f"video.{safe_name(file.suffix[1:]) or 'mp4'}"
            link_or_copy(file, path)
        capture = None
        try:
            try:
                capture = cv2.VideoCapture(str(path))
                is_open = capture.isOpened() and capture.get(cv2.CAP_PROP_FRAME_WIDTH) > 0
            except cv2.error:
                is_open = False
            if not is_open:
                raise ClipError("an empty file" if not path.stat().st_size else "OpenCV has no decoder for it")
            yield capture
        finally:
            if capture is not None:
                capture.release()


def _retrieve(capture: Any) -> NDArray[np.uint8] | None:
    import cv2

    try:
        found, pixels = capture.retrieve()
    except cv2.error:
        return None
    if not found or pixels is None or not pixels.size:
        return None
    if pixels.ndim == 2 or pixels.shape[2] == 1:
        pixels = cv2.cvtColor(pixels, cv2.COLOR_GRAY2BGR)
    result: NDArray[np.uint8] = pixels
    return result


def _stamp(file: Path) -> tuple[int, int]:
    """Size and time of change; (-1, -1) if there are none."""
    try:
        found = file.stat()
    except OSError:
        return -1, -1
    return found.st_size, found.st_mtime_ns
