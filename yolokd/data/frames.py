"""Images out of videos and folders of images, without near-duplicates, as `yolokd data frames` makes them.

A frame is a near-duplicate if the perceptual hash of its pixels (64 bits: signs of the lowest frequencies of the gray
image, `imagehash.phash`) differs in few bits from that of one of the last frames kept from the same clip.

The output folder holds the images and `frames.json`: the settings, and of each clip its source, what was counted and
the names of its images. A clip is recorded before its first image, and marked complete after its last one. Decoding is
deterministic, so an interrupted clip is read again from its beginning, and what is there already is not written again.
"""

from __future__ import annotations

import importlib.util
import re
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from yolokd.data.frames_record import FramesRecord, real_path
from yolokd.data.frames_source import Clip, ClipError, Every, Folder, Frame, open_clip
from yolokd.data.publish import place
from yolokd.errors import DataError, UserError, printable
from yolokd.files import cache_folder, replacing, sha256_of, write_whole
from yolokd.locks import locked

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

BITS = 64  # of a hash
DISTANCE = 6  # default: frames that differ by compression, noise or a shift of one to two percent are near-duplicates
WINDOW = 16  # kept frames of a clip that the next one is compared with
QUALITY = 95  # of the JPEGs
SHOWN = 5  # sources that a message names

Progress = Callable[[str, float], None]  # words, share from 0 to 1


@dataclass
class ClipResult:
    """What became of a clip."""

    source: Path
    name: str
    read: int = 0  # frames of the video, images of the folder
    near_duplicates: int = 0  # dropped, of those that `every` asks for
    kept: list[str] = field(default_factory=list)  # names of the images
    new: int = 0  # images that this call has written
    notes: list[str] = field(default_factory=list)
    failure: str = ""  # why there are no frames


def parse_every(text: str) -> Every:
    """Return the step that a text gives: seconds as `2s` or `0.5s`, frames as `10`.

    Raises:
        UserError: It is neither, or 0.

    Example:
        >>> str(parse_every("0.50s")), str(parse_every("10"))
        ('0.5s', '10')
    """
    match = re.fullmatch(r"(\d{1,9}(?:\.\d{1,9})?)s|(\d{1,9})", text.strip(), re.ASCII)
    seconds, frames = (float(match[1] or 0), int(match[2] or 0)) if match else (0.0, 0)
    if not seconds and not frames:
        raise UserError(
            f"--every expects seconds, such as 2s or 0.5s, or a number of frames, such as 10; got '{text}'."
        )
    return Every(seconds, frames)


def make_frames(
    sources: Sequence[Path],
    out: Path,
    *,
    every: Every | None = None,
    distance: int = DISTANCE,
    progress: Progress | None = None,
) -> list[ClipResult]:
    """Write images of clips into a folder; add only what is missing where it holds images made with equal settings.

    Args:
        sources: Video files and folders of images; each is a clip.
        out: The folder to make or to add to.
        every: The step between frames; None is one second for videos and one image for folders.
        distance: Least number of differing bits, of 64, between a frame and the last `WINDOW` kept of its clip; 0 keeps
            every frame.
        progress: Called with words and the share done.

    Returns:
        One result per clip, in the order of `sources`, those without frames included.

    Raises:
        UserError: A source is missing or no clip, `distance` is not from 0 to 64, or ImageHash is not installed.
        DataError: `out` holds something else, other settings or frames of a video that has changed since, or cannot be
            written; or no source gives a frame.
    """
    _check_distance(distance)
    clips = [open_clip(source, every) for source in _distinct(sources)]
    out = out.expanduser().absolute()
    _keep_apart(clips, out)
    with _alone(out):
        record = FramesRecord(out, clips, {"distance": distance, "window": WINDOW})
        names = [record.choose_name(clip) for clip in clips]
        results = []
        for number, (clip, name) in enumerate(zip(clips, names, strict=True)):

            def show(share: float, number: int = number, name: str = name) -> None:
                if progress is not None:
                    progress(name, (number + share) / len(clips))

            results.append(_make_clip(clip, name, record, distance, show))
    failed = [f"'{printable(result.source)}': {result.failure}" for result in results if result.failure]
    if len(failed) == len(results):
        more = f"; and {len(failed) - SHOWN} more" if len(failed) > SHOWN else ""
        raise DataError(f"No frames: {'; '.join(failed[:SHOWN])}{more}.")
    return results


def perceptual_hash(pixels: NDArray[np.uint8]) -> int:
    """Return the 64 bits of `imagehash.phash` as a number.

    Args:
        pixels: (H, W, 3), BGR.
    """
    import cv2
    import imagehash
    from PIL import Image

    image = Image.fromarray(cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB))
    return int(str(imagehash.phash(image)), 16)


class NearDuplicates:
    """The last kept frames of a clip."""

    def __init__(self, distance: int) -> None:
        self.distance = distance
        self._kept = deque[int](maxlen=WINDOW)

    def keep(self, pixels: NDArray[np.uint8]) -> bool:
        """Return whether a frame, (H, W, 3), is to be kept; if so, later ones are compared with it."""
        if not self.distance:
            return True
        code = perceptual_hash(pixels)
        if any((code ^ other).bit_count() < self.distance for other in self._kept):
            return False
        self._kept.append(code)
        return True


def _make_clip(
    clip: Clip, name: str, record: FramesRecord, distance: int, progress: Callable[[float], None]
) -> ClipResult:
    """Write the frames of one clip that are not there yet."""
    row = record.row(clip)
    result = ClipResult(clip.source, name)
    if row and record.is_complete(row, clip):
        result.read, result.near_duplicates = row["read"], row["near_duplicates"]
        result.kept, result.notes = list(row["images"]), list(row["notes"])
        return result
    duplicates = NearDuplicates(distance)
    progress(0.0)
    try:
        for frame in clip.frames():
            progress(frame.share)
            if frame.pixels is None:
                continue
            if not duplicates.keep(frame.pixels):
                result.near_duplicates += 1
                continue
            with _writing(record):
                if not result.kept:
                    record.begin(clip, name)
                _add(frame, frame.pixels, record.out, result)
    except ClipError as error:
        result.failure = str(error)
        return result
    result.read, result.notes = clip.read, clip.notes
    if not result.kept:
        result.failure = f"none of its images can be read: {clip.notes[0]}"
        return result
    with _writing(record):
        record.save(
            clip, name, {"read": result.read, "near_duplicates": result.near_duplicates}, result.kept, result.notes
        )
    return result


def _add(frame: Frame, pixels: NDArray[np.uint8], out: Path, result: ClipResult) -> None:
    """Keep a frame: link its file, or write a JPEG, unless it is there."""
    import cv2

    target = out / f"{result.name}_{frame.name}{frame.file.suffix.lower() if frame.file else '.jpg'}"
    result.kept.append(target.name)
    if target.exists():
        return
    if frame.file:
        with replacing(target) as part:
            place(frame.file, part)
    else:
        _, data = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
        write_whole(target, data.tobytes())
    result.new += 1


@contextmanager
def _writing(record: FramesRecord) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        record.discard()
        where = f" ({printable(error.filename)})" if isinstance(error.filename, str) else ""
        raise DataError(f"'{printable(record.out)}' cannot be written: {error.strerror or error}{where}.") from error


def _check_distance(distance: int) -> None:
    if not 0 <= distance <= BITS:
        raise UserError(f"--distance expects a number of bits from 0 to {BITS}, got {distance}.")
    if distance and importlib.util.find_spec("imagehash") is None:
        raise UserError(
            "Near-duplicates are recognized by ImageHash, which is not installed: pip install 'yolokd[footage]', or "
            "keep every frame with --distance 0."
        )


def _distinct(sources: Sequence[Path]) -> list[Path]:
    """The sources, each once."""
    found: dict[str, Path] = {}
    try:
        for source in sources:
            found.setdefault(real_path(source), source.expanduser())
        return list(found.values())
    except (OSError, RuntimeError, ValueError) as error:
        raise UserError(f"The sources cannot be used: {error}") from error


def _keep_apart(clips: Sequence[Clip], out: Path) -> None:
    real = Path(real_path(out))
    for clip in clips:
        source = Path(real_path(clip.source))
        if isinstance(clip, Folder) and (real.is_relative_to(source) or source.is_relative_to(real)):
            raise UserError(
                f"Images are not written into a folder that they are read from: '{printable(out)}' and "
                f"'{printable(clip.source)}' are not apart. Give another folder as the last argument."
            )


@contextmanager
def _alone(out: Path) -> Iterator[None]:
    """Refuse a second process that writes into the same folder."""
    lock = cache_folder("frames") / f"{sha256_of(real_path(out))[:32]}.lock"
    with ExitStack() as stack:
        try:
            stack.enter_context(locked(lock, wait=False))
        except BlockingIOError as error:
            raise UserError(f"Another process is making frames in '{printable(out)}'.") from error
        yield
