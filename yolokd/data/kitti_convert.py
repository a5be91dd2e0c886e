"""KITTI's labels as YOLO's rows, in memory, with everything that is wrong collected by file and line."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from PIL import ExifTags, Image, UnidentifiedImageError

from yolokd.data.check import DataReport, Problem, Split
from yolokd.data.kitti_labels import DONT_CARE, TYPES, BadLineError, Line, class_names, parse_line, proper_type
from yolokd.data.kitti_source import Source
from yolokd.errors import UserError
from yolokd.inputs import read_text

Size = tuple[int, int]  # width and height in pixels


@dataclass
class Conversion:
    """YOLO labels of all frames, and what was met on the way."""

    names: dict[int, str]  # class index → name
    rows: dict[str, dict[str, str]]  # split → frame → contents of its YOLO label file
    splits: dict[str, Split]
    left_out: Counter[str] = field(default_factory=Counter)  # objects of types that became no class
    cut: int = 0  # objects that reached beyond the border

    def notes(self) -> tuple[str, ...]:
        """What the user should know."""
        return (f"Boxes that reached beyond their image and were cut at its border: {self.cut}.",) if self.cut else ()


def convert(
    source: Source, frames: Mapping[str, Sequence[str]], classes: Mapping[str, str], step: Callable[[], None]
) -> Conversion:
    """Read labels and the headers of images.

    Args:
        source: Where the files are.
        frames: Split → ids.
        classes: KITTI's type → class.
        step: Called after each frame.

    Raises:
        DataError: Lists what is wrong: an image without labels or the reverse, an unreadable image, a malformed
            line, a box without width or height or outside of its image.
        UserError: A type in `classes` that neither KITTI nor the labels know.
    """
    reader = _Reader(source, classes)
    found = reader.found
    for split, ids in frames.items():
        rows, counts = found.rows.setdefault(split, {}), found.splits.setdefault(split, Split(images=len(ids)))
        for frame in ids:
            rows[frame] = reader.read(frame, counts)
            step()
    DataReport({}, {}, reader.problems, []).raise_if_bad()
    if unknown := [word for word in classes if word not in TYPES and word.lower() not in reader.types]:
        raise UserError(
            f"--classes names the type '{unknown[0]}', which is none of KITTI's ({', '.join(TYPES)}) and in no label."
        )
    return found


class _Reader:
    """Reads one frame after the other."""

    def __init__(self, source: Source, classes: Mapping[str, str]) -> None:
        self.source = source
        names = class_names(classes)
        index = {name: number for number, name in names.items()}
        self.index = {word.lower(): index[name] for word, name in classes.items()}
        self.found = Conversion(names, {}, {})
        self.problems: list[Problem] = []
        self.types: set[str] = set()

    def read(self, frame: str, counts: Split) -> str:
        """Return the YOLO labels of one frame and count its objects."""
        image_file, labels = self.source.images.get(frame), self.source.labels.get(frame)
        if image_file is None or labels is None:
            what = "an image without a label file" if labels is None else "a label file without an image"
            self.problems.append(Problem(str(image_file or labels), 0, what, ""))
            return ""
        size = self._size(image_file)
        rows = []
        for number, text in self._lines(labels):
            try:
                rows += self._rows(parse_line(text), size, counts)
            except BadLineError as bad:
                self.problems.append(Problem(str(labels), number, *bad.args))
        counts.labeled += bool(rows)
        counts.background += not rows
        return "".join(rows)

    def _rows(self, line: Line, size: Size | None, counts: Split) -> list[str]:
        """Return no row, or one."""
        left, top, right, bottom = line.xyxy_px
        if right <= left or bottom <= top:
            raise BadLineError("a box without width or height (left, top, right, bottom)", _corners(line))
        word = proper_type(line.type)
        self.types.add(word.lower())
        label = self.index.get(word.lower())
        if label is None:
            if word != DONT_CARE:
                self.found.left_out[word] += 1
            return []
        if size is None:  # the image cannot be read, which is said already
            return []
        shares = _shares(line, size)
        self.found.cut += min(left, top) < 0 or right > size[0] or bottom > size[1]
        counts.objects[label] += 1
        return [f"{label} " + " ".join(f"{share:.6f}" for share in shares) + "\n"]

    def _lines(self, file: Path) -> list[tuple[int, str]]:
        try:
            lines = read_text(file).splitlines()
        except (OSError, ValueError) as error:
            self.problems.append(Problem(str(file), 0, "the labels cannot be read as text", str(error)))
            return []
        return [(number, line) for number, line in enumerate(lines, start=1) if line.strip()]

    def _size(self, file: Path) -> Size | None:
        """Width and height from the header of an image."""
        try:
            with Image.open(file) as image:
                # A PNG would be decoded to its end for this; cameras that turn images write JPEG.
                turned = image.format == "JPEG" and image.getexif().get(ExifTags.Base.Orientation, 1) != 1
                size, kind = image.size, image.format
        except (UnidentifiedImageError, ModuleNotFoundError):  # the latter where Ultralytics looks for a HEIF plug-in
            self.problems.append(Problem(str(file), 0, "the image cannot be read: no known format", ""))
            return None
        except Exception as error:  # the decoders raise all sorts of things
            self.problems.append(Problem(str(file), 0, f"the image cannot be read: {error}", ""))
            return None
        if kind not in {"JPEG", "PNG"}:
            self.problems.append(Problem(str(file), 0, "neither PNG nor JPEG", str(kind)))
        if turned:
            what = "turned by its EXIF orientation, so that boxes and image would not match"
            self.problems.append(Problem(str(file), 0, what, ""))
        return size


def _shares(line: Line, size: Size) -> tuple[float, float, float, float]:
    """Middle, width and height of the part of a box that lies in the image, as shares of the image."""
    width, height = size
    left, right = (min(max(x, 0.0), width) / width for x in line.xyxy_px[::2])
    top, bottom = (min(max(y, 0.0), height) / height for y in line.xyxy_px[1::2])
    if right <= left or bottom <= top:
        raise BadLineError(f"a box outside of its image of {width}×{height} pixels", _corners(line))
    return (left + right) / 2, (top + bottom) / 2, right - left, bottom - top


def _corners(line: Line) -> str:
    return " ".join(f"{value:g}" for value in line.xyxy_px)
