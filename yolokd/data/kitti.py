"""The KITTI object benchmark in YOLO's layout, from its own.

    OUT/data.yaml                        what `--data` takes
    OUT/images/{train,val}/000000.png    links to the images
    OUT/labels/{train,val}/000000.txt    YOLO labels of the classes asked for
    OUT/label_2/000000.txt               links to the original labels, which KITTI's evaluation needs: YOLO labels know
                                         neither truncation nor occlusion, DontCare or neighboring classes
    OUT/kitti.json                       what was asked for: source, classes, split

Boxes are taken as they are (0-based pixels, no +1) and cut at the border of the image.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from yolokd.data import publish
from yolokd.data.check import DataReport
from yolokd.data.kitti_convert import Conversion, convert
from yolokd.data.kitti_labels import class_names, parse_classes
from yolokd.data.kitti_source import SPLITS, Source, choose, scan
from yolokd.files import sha256_of

VERSION = 1  # goes up whenever the same source gives other labels
MARKER = "kitti.json"
LABELS = "label_2"  # folder of the original labels
HEADER = """\
# The KITTI object benchmark (Geiger, Lenz and Urtasun, CVPR 2012; www.cvlibs.net/datasets/kitti), prepared by yolokd.
# KITTI's images and labels are licensed CC BY-NC-SA 3.0 (non-commercial). Paths are relative to this file.
"""

Progress = Callable[[int, int], None]  # called with files done and in all


@dataclass(frozen=True)
class Prepared:
    """A KITTI set in YOLO's layout."""

    path: Path  # of the data YAML
    is_new: bool  # False: the very set was there already
    report: DataReport  # images and objects per split
    left_out: Counter[str]  # objects of types that became no class
    notes: tuple[str, ...]


def prepare(
    src: Path,
    out: Path,
    *,
    classes: str = "3",
    split: str = "published",
    seed: int | None = None,
    follow_links: bool = False,
    progress: Progress | None = None,
) -> Prepared:
    """Convert a folder in KITTI's layout; `out` appears when it is complete, see `yolokd.data.publish`.

    Args:
        src: The folder that holds `training/image_2` and `training/label_2`, or `training` itself.
        out: The folder to make. It may exist if it is empty or holds this very set.
        classes: `3`, `8`, pairs or a file of pairs, see `yolokd.data.kitti_labels.parse_classes`.
        split: `published`, `random` or two files of ids, see `yolokd.data.kitti_source.choose`.
        seed: Of the random split, 0 if None.
        follow_links: Follow links that lead out of `src`.
        progress: Called after each frame read and each frame written.

    Raises:
        UserError: Impossible arguments.
        DataError: A source that is missing or malformed (all problems at once, with file and line), or an `out` that
            holds something else or cannot be written.
    """
    mapping = parse_classes(classes)
    source = scan(src, follow_links=follow_links)
    frames = choose(source, split, seed)
    DataReport({}, {}, source.problems, []).raise_if_bad()
    total = 2 * sum(map(len, frames.ids.values()))
    step = _Steps(progress, total)
    found = convert(source, frames.ids, mapping, step)
    marker = {
        "prepared by": "yolokd data kitti",
        "version": VERSION,
        "source": str(source.training),
        "classes": mapping,
        "split": split if split in {"published", "random"} else "lists of ids",
        "seed": (seed or 0) if split == "random" else None,
        "pictures": {name: len(ids) for name, ids in frames.ids.items()},
        "contents": _digest(source, found),
    }
    out = Path(out).expanduser().absolute()
    is_new = not publish.is_there(out, MARKER, marker)
    if is_new:
        with publish.beside(out, MARKER, marker) as folder:
            _write(folder, source, found, step)
    report = DataReport(class_names(mapping), found.splits, (), ())
    notes = (*frames.notes, *found.notes(), *publish.leftover_notes(out))
    return Prepared(out / "data.yaml", is_new, report, found.left_out, notes)


class _Steps:
    """Counts what is done."""

    def __init__(self, progress: Progress | None, total: int) -> None:
        self.progress, self.total, self.done = progress, total, 0

    def __call__(self) -> None:
        self.done += 1
        if self.progress is not None:
            self.progress(self.done, self.total)


def _digest(source: Source, found: Conversion) -> str:
    """SHA-256 of which frame is where with which labels, so that a source that has changed is noticed."""
    parts = (
        f"{split}/{source.images[frame].name}\n{rows}\n"
        for split in SPLITS
        for frame, rows in found.rows[split].items()
    )
    return sha256_of("".join(parts))


def _write(folder: Path, source: Source, found: Conversion, step: Callable[[], None]) -> None:
    (folder / LABELS).mkdir()
    for split, frames in found.rows.items():
        images, labels = folder / "images" / split, folder / "labels" / split
        images.mkdir(parents=True)
        labels.mkdir(parents=True)
        for frame, rows in frames.items():
            image = source.images[frame]
            publish.place(image, images / image.name)
            publish.place(source.labels[frame], folder / LABELS / f"{frame}.txt")
            (labels / f"{frame}.txt").write_text(rows, encoding="utf-8")
            step()
    content: dict[str, Any] = {f"{split}": f"images/{split}" for split in SPLITS} | {"names": found.names}
    text = HEADER + yaml.safe_dump(content, allow_unicode=True, sort_keys=False)
    (folder / "data.yaml").write_text(text, encoding="utf-8")
