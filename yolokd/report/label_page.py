"""A page to look through what a teacher has labeled: counts, thresholds, and a sample of images with their boxes."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from yolokd.errors import printable
from yolokd.evaluation.ground_truth import sample
from yolokd.files import write_whole
from yolokd.inputs import read_json
from yolokd.labeling.answer_file import read_answers
from yolokd.labeling.writing import FOUND, SPLITS
from yolokd.loaders.answers import Answer
from yolokd.report.drawing import draw, read_labeled_image
from yolokd.report.matching import Box
from yolokd.report.render import MARK, TEMPLATES, data_uri

NAME = "page.html"
SHOWN = 24  # images
DOUBTFUL = 0.1  # lowest score of a box that is drawn


class Figure(NamedTuple):
    """An image of the page."""

    text: str
    jpeg: bytes


def write_label_page(folder: Path) -> Path:
    """Write the page of a set that `yolokd.labeling.label` has made into its folder; return its path.

    Raises:
        DataError: An image or the answers cannot be read.
        OSError: The page cannot be written.
    """
    found = read_json(folder / FOUND)
    names = list(found["thresholds"])
    images = {path: split for split in SPLITS for path in (folder / "images" / split).iterdir()}
    chosen = sample(images, SHOWN)
    answers = {split: read_answers(folder / f"answers-{split}.npz", len(names)) for split in SPLITS}
    least = np.array(list(found["thresholds"].values()), np.float32)
    figures = [_figure(path, images[path], answers[images[path]][path.name], names, least) for path in chosen]
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    environment.filters["data_uri"] = data_uri
    text = environment.get_template("labels.html").render(
        title=printable(folder.name),
        mark=MARK,
        facts=_facts(found),
        rows=_rows(found),
        text=f"{len(figures)} of {len(images)} images, chosen by a hash of their names. Blue: boxes that act as "
        f"labels. Orange, dashed: boxes from a score of {DOUBTFUL} up to the threshold of their class.",
        figures=figures,
    )
    path = folder / NAME
    write_whole(path, text.encode(errors="backslashreplace"))
    return path


def _facts(found: dict[str, Any]) -> list[tuple[str, str]]:
    images = found["images"]
    return [
        ("teachers", ", ".join(printable(Path(one["path"]).name) for one in found["teachers"])),
        ("asked at", f"{found['imgsz']} px{', mirrored as well' if found['flip'] else ''}"),
        ("images", f"{images['train']} train, {images['val']} val"),
    ]


def _rows(found: dict[str, Any]) -> list[tuple[str, str, int, int, int]]:
    boxes = found["boxes"]
    rows = []
    for name, threshold in found["thresholds"].items():
        train, val = boxes["train"][name], boxes["val"][name]
        total = sum(found["scores"]["boxes"][name])
        rows.append((name, f"{threshold:.2f}", train, val, total - train - val))
    return rows


def _figure(path: Path, split: str, answer: Answer, names: list[str], least: np.ndarray) -> Figure:
    image, factor = read_labeled_image(path)
    height, width = (side / factor for side in image.shape[:2])
    kinds, scores = answer.probabilities.argmax(1), answer.probabilities.max(1, initial=0.0)
    sure = scores >= least[kinds]
    marks: list[tuple[str, Box]] = []
    for place in np.flatnonzero(scores >= DOUBTFUL)[::-1].tolist():  # the strongest on top
        x, y, w, h = (answer.boxes[place] * [width, height, width, height]).tolist()
        text = f"{names[kinds[place]]} {scores[place]:.2f}"
        marks.append(("right" if sure[place] else "false", {"bbox": (x - w / 2, y - h / 2, w, h), "text": text}))
    marks.sort(key=lambda mark: mark[0] == "right")
    counts = Counter(names[kind] for kind in kinds[sure].tolist())
    listed = ", ".join(f"{count} {name}" for name, count in counts.items()) or "no object"
    return Figure(f"{printable(path.name)} ({split}): {listed}", draw(image, factor, marks))
