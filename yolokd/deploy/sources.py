"""What `yolokd predict` is shown: the images and videos behind a file, a folder or a list, those that can be read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from yolokd.errors import DataError, UserError, printable
from yolokd.images.reader import SUFFIXES, ImageCheck, check_images, read_image
from yolokd.inputs import read_text

SHOWN = 5  # files that a note names
LISTS = {".txt", ".csv"}


def list_sources(source: str | Path) -> tuple[list[Path], list[str]]:
    """Return the files to detect objects in, and notes on those that are passed over.

    Args:
        source: An image, a video, a folder of them, or a list of files, one a line.

    Raises:
        UserError: No file is left, a list names a missing one, or it cannot be read.
    """
    path = Path(source).expanduser()
    files = list(_files(path))
    if not files:
        raise UserError(f"There are no images or videos in '{printable(path)}'.")
    problems = dict(zip(files, _problems(files), strict=True))
    notes = [f"'{printable(file)}' is passed over: {what}" for file, what in problems.items() if what]
    chosen = [file for file, what in problems.items() if not what]
    if not chosen:
        raise UserError(f"None of the files in '{printable(path)}' can be used: {notes[0]}.")
    if len(notes) > SHOWN:
        notes[SHOWN:] = [f"{len(notes) - SHOWN} more are passed over"]
    return chosen, notes


def is_video(path: Path) -> bool:
    """Whether a file is named as Ultralytics' videos are."""
    from yolokd.backend.api import VID_FORMATS

    return path.suffix[1:].lower() in VID_FORMATS


def _files(path: Path) -> Iterator[Path]:
    def known(file: Path) -> bool:
        return file.suffix[1:].lower() in SUFFIXES or is_video(file)

    try:
        if path.is_dir():
            yield from sorted(file for file in path.iterdir() if not file.name.startswith(".") and known(file))
        elif path.suffix.lower() in LISTS:
            lines = read_text(path).split("\n")
            yield from (_listed(line.strip(), path) for line in lines if line.strip())
        elif known(path):
            yield path
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"The files in '{printable(path)}' cannot be listed: {reason}.") from error


def _listed(line: str, file: Path) -> Path:
    for path in (Path(line), file.parent / line):
        try:
            if path.is_file():
                return path
        except (OSError, ValueError):  # a name that no file system takes
            continue
    raise UserError(f"'{printable(file)}' names '{line[:80]}', and there is no such image or video.")


def _problems(paths: Sequence[Path]) -> list[str]:
    """Why each file cannot be used; "" if it can."""
    checks = check_images([str(path.absolute()) for path in paths if not is_video(path)])
    return [_video_problem(path) if is_video(path) else _image_problem(path, checks) for path in paths]


def _image_problem(path: Path, checks: Mapping[str, ImageCheck]) -> str:
    check = checks.get(str(path.absolute()))
    if check is None or check.usable:
        return ""
    try:  # an image may serve here that is of no use in training, such as one of 8 pixels
        read_image(path)
    except DataError:
        return f"a file that cannot be read ({check.problem})"
    return "" if path.is_file() else "no file"


def _video_problem(path: Path) -> str:
    """Whatever decoders object to in a video: it needs a first frame."""
    import cv2

    try:
        capture = cv2.VideoCapture(str(path))
        try:
            return "" if capture.read()[0] else "a video that cannot be read"
        finally:
            capture.release()
    except Exception:  # decoders differ in how they give up
        return "a video that cannot be read"
