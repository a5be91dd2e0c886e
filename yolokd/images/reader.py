"""Reading images as Ultralytics reads them: their pixels, their size as shown, and whether it can train on them.

Every part of the package that opens an image does so here. Pixels come from Ultralytics' own reader, which turns an
image as its orientation says, wherever a format keeps it; the size is that of these pixels. An image is fit for
training under the conditions of `check_image` of Ultralytics, without that function's repairs: nothing is written.
"""

# Plain strings and `os` instead of pathlib: a hundred thousand files in seconds.
# ruff: noqa: PTH116, PTH120, PTH123
from __future__ import annotations

import os
import stat
import threading
import warnings
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from yolokd.errors import DataError, printable
from yolokd.inputs import refuse_special

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

SUFFIXES = frozenset(("avif", "bmp", "dng", "heic", "heif", "jp2", "jpeg", "jpg", "mpo", "png", "tif", "tiff", "webp"))
MIN_PIXELS = 10  # an image with a smaller side is left out by Ultralytics
LARGE = 50_000_000  # pixels of an image that is decoded only while no other of that size is
THREADS = 16  # at most; the decoders run beside each other
SHOWN = 5  # images that a note names
HEIF = {b"heic", b"heix", b"hevc", b"heim", b"heis", b"hevm", b"hevs", b"mif1", b"msf1"}  # brands of ISO 14496-12

_large = threading.Lock()


class ImageCheck(NamedTuple):
    """What is known of an image file: size as shown (pixels; 0 if it cannot be read), format, and what is wrong."""

    width: int
    height: int
    format: str  # Pillow's name
    problem: str = ""  # "" if Ultralytics trains on it
    fatal: bool = False  # Ultralytics does not leave it out, but fails when it comes to it
    unended: bool = False  # a JPEG whose last two bytes are not the end mark; Ultralytics writes such a file anew

    @property
    def usable(self) -> bool:
        """Whether Ultralytics trains and validates on it."""
        return not self.problem


def read_image(path: str | Path, channels: int = 3) -> NDArray[np.uint8]:
    """Return the pixels of an image as training sees them, turned as its orientation says.

    Args:
        path: The image file.
        channels: `channels` of the data YAML: 1 is gray, 3 is color; with others the file is taken as it is.

    Returns:
        Pixels, (H, W, channels); BGR if there are 3.

    Raises:
        DataError: The file cannot be read as an image, or has another number of channels.
    """
    import cv2

    try:
        refuse_special(path)
    except (OSError, ValueError) as error:
        raise DataError(f"The image '{printable(path)}' cannot be read: {_reason(str(path), error)}.") from error
    pixels = _decode(str(path), {1: cv2.IMREAD_GRAYSCALE, 3: cv2.IMREAD_COLOR}.get(channels, cv2.IMREAD_UNCHANGED))
    if pixels is None:
        raise DataError(f"The file '{printable(path)}' cannot be read as an image.")
    if pixels.shape[2] != channels:
        raise DataError(f"The image '{printable(path)}' has {pixels.shape[2]} channels, {channels} are expected.")
    return pixels


def shown_size(path: str | Path) -> tuple[int, int]:
    """Return width and height in pixels as the image is shown, whether or not Ultralytics would train on it.

    Raises:
        DataError: The file cannot be read as an image.
    """
    found = check_images([str(path)])[str(path)]
    if not found.width:
        raise DataError(f"The file '{printable(path)}' cannot be read as an image: {found.problem}.")
    return found.width, found.height


def check_images(
    paths: Iterable[str], *, again: bool = False, progress: Callable[[int, int], None] | None = None
) -> dict[str, ImageCheck]:
    """Open every image once, in parallel, and return what is known of each.

    What was found is kept in yolokd's cache and holds for as long as size and time of change of a file
    stay what they are; such files are not opened again. What cannot be used is kept for this process only.

    Args:
        paths: Image files; they need not exist.
        again: Open also those of which something is kept.
        progress: Called now and then, and at the end, with the number of images opened and to be opened.
    """
    from yolokd.images.store import ImageStore

    paths = list(dict.fromkeys(paths))
    stamps = {path: _stamp(path) for path in paths}
    store = ImageStore()
    found = {} if again else store.get(stamps)
    missing = [path for path in paths if path not in found]
    if missing:
        opened = dict(zip(missing, _open_all(missing, progress), strict=True))
        store.put({path: (stamps[path], check) for path, check in opened.items()})
        found |= opened
    return {path: found[path] for path in paths}


def check_image(path: str) -> ImageCheck:
    """Return what is known of one image; decodes it."""
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            return ImageCheck(0, 0, "", "not a file", fatal=True)  # a pipe would keep Ultralytics waiting
        return _examine(path)
    except FileNotFoundError:
        return ImageCheck(0, 0, "", "a link to nothing" if Path(path).is_symlink() else "no such file")
    except Exception as error:  # the decoders raise all sorts of things
        return ImageCheck(0, 0, "", _reason(path, error))


def left_out(checks: dict[str, ImageCheck], what: str = "image") -> str:
    """Return a sentence that names the images that cannot be used, the first few with the reason; "" if all can."""
    bad = [f"{printable(path)} ({check.problem})" for path, check in checks.items() if not check.usable]
    if not bad:
        return ""
    counted = f"1 {what} is" if len(bad) == 1 else f"{len(bad)} {what}s are"
    more = f" and {len(bad) - SHOWN} more" if len(bad) > SHOWN else ""
    return f"{counted} left out, as Ultralytics does: {', '.join(bad[:SHOWN])}{more}"


def _open_all(paths: Sequence[str], progress: Callable[[int, int], None] | None) -> list[ImageCheck]:
    from multiprocessing.pool import ThreadPool

    every = max(len(paths) // 100, 1)
    found = []
    with warnings.catch_warnings(), ThreadPool(min(os.cpu_count() or 1, THREADS, len(paths))) as pool:
        warnings.simplefilter("ignore")  # Pillow's on metadata and large images
        for check in pool.imap(check_image, paths, chunksize=4):
            found.append(check)
            if progress is not None and (len(found) % every == 0 or len(found) == len(paths)):
                progress(len(found), len(paths))
    return found


def _examine(path: str) -> ImageCheck:
    """Apply the conditions of Ultralytics' `check_image` in their order; raises what the decoders raise."""
    with _open(path) as image:
        kind, (width, height) = str(image.format), image.size
        image.verify()
        turned = _may_be_turned(image)
    if kind.lower() not in SUFFIXES | {"jpeg2000"}:
        return ImageCheck(width, height, kind, f"a {kind}, which Ultralytics does not read")
    if min(width, height) < MIN_PIXELS:
        return ImageCheck(width, height, kind, f"{width}×{height} pixels, fewer than {MIN_PIXELS} on a side")
    unended = kind == "JPEG" and not _ends(path)
    if unended and (problem := _cannot_be_restored(path)):
        return ImageCheck(width, height, kind, problem, unended=True)
    size = _decoded_size(path, kind, width, height, turned=turned)
    if size is None:
        what = f"a {kind} that OpenCV cannot decode, so that Ultralytics would fail on it"
        return ImageCheck(width, height, kind, what, fatal=True, unended=unended)
    return ImageCheck(*size, kind, unended=unended)


def _open(path: str) -> Any:
    """Open a file with Pillow, and with Ultralytics' plug-in for HEIF only what is HEIF: that may install a package."""
    from PIL import UnidentifiedImageError
    from ultralytics.utils import patches

    try:
        return patches._image_open(path)
    except UnidentifiedImageError:
        with open(path, "rb") as stream:
            head = stream.read(12)
        if head[4:8] == b"ftyp" and head[8:12] in HEIF:
            return patches.image_open(path)
        raise


def _may_be_turned(image: Any) -> bool:
    """Whether the metadata before the pixels ask for a turn; decoders differ in which of them they follow."""
    from PIL import ExifTags

    try:
        return bool(image.getexif().get(ExifTags.Base.Orientation, 1) != 1)
    except Exception:  # Pillow cannot read them, OpenCV perhaps can
        return True


def _ends(jpeg: str) -> bool:
    """Whether a file closes with JPEG's end mark."""
    with open(jpeg, "rb") as stream:
        stream.seek(-2, os.SEEK_END)
        return stream.read() == b"\xff\xd9"


def _cannot_be_restored(jpeg: str) -> str:
    """Why Ultralytics would not succeed in writing a JPEG without its end mark anew; "" if it would."""
    from PIL import ImageOps

    try:
        with _open(jpeg) as image:
            ImageOps.exif_transpose(image).load()
    except Exception as error:  # as above
        return f"a JPEG that was cut short: {_words(error)}"
    folder = os.path.dirname(jpeg)
    if not os.access(folder, os.W_OK):
        return "a JPEG without its end mark in a folder that cannot be written to, so that it cannot be restored"
    return ""


def _decoded_size(path: str, kind: str, width: int, height: int, *, turned: bool) -> tuple[int, int] | None:
    """Width and height of the pixels; None if there are none.

    A JPEG that is not turned is decoded at an eighth of its size, which takes half the time and fails where the whole
    would.
    """
    import cv2

    whole = turned or kind != "JPEG" or not path.lower().endswith((".jpg", ".jpeg"))
    if not whole:
        pixels = _decode(path, cv2.IMREAD_REDUCED_COLOR_8)
        if pixels is None:
            return None
        if pixels.shape[:2] == (-(-height // 8), -(-width // 8)):
            return width, height
    if width * height > LARGE:
        with _large:
            pixels = _decode(path, cv2.IMREAD_COLOR)
    else:
        pixels = _decode(path, cv2.IMREAD_COLOR)
    return None if pixels is None else (pixels.shape[1], pixels.shape[0])


def _decode(path: str, flags: int) -> NDArray[np.uint8] | None:
    from ultralytics.utils.patches import imread

    try:
        pixels: NDArray[np.uint8] | None = imread(path, flags)
        return pixels
    except Exception:  # decoders differ in how they give up
        return None


def _stamp(path: str) -> tuple[int, int]:
    """Size and time of change of a file; (-1, -1) if there is none."""
    try:
        found = os.stat(path)
    except (OSError, ValueError):  # the latter of a name with a null character
        return -1, -1
    return found.st_size, found.st_mtime_ns


def _reason(path: str, error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"cannot be read: {error.strerror}"
    try:
        if not os.stat(path).st_size:
            return "an empty file"
    except (OSError, ValueError):
        return f"cannot be read: {_words(error)}"
    if "cannot identify image file" in str(error) or isinstance(error, ModuleNotFoundError):
        return "not an image of a known format"
    return f"cannot be read: {_words(error)}"


def _words(error: Exception) -> str:
    return " ".join(printable(str(error)).split())[:200] or type(error).__name__
