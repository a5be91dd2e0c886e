"""A small COCO 2017 in its own layout: random boxes, crowds, masks, a few categories and images without traffic."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

CATEGORIES = {  # COCO's ids, which have gaps
    1: "person",
    2: "bicycle",
    3: "car",
    4: "motorcycle",
    5: "airplane",
    6: "bus",
    7: "train",
    8: "truck",
    10: "traffic light",
    11: "fire hydrant",
    13: "stop sign",
    14: "parking meter",
    17: "cat",
    18: "dog",
    44: "bottle",
}
TRIGGERS = {2, 3, 4, 6, 7, 8, 10, 11, 13}  # as published
KEPT = [1, 2, 3, 4, 6, 7, 8, 10, 11, 13, 14, 17, 18]


def instances(count: int, *, seed: int) -> dict[str, Any]:
    """Return the contents of an instances file, in COCO's order of keys."""
    rng = np.random.default_rng(seed)
    ids = rng.choice(999_999, count, replace=False).tolist()
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number in ids:
        width, height = rng.integers(40, 80, 2).tolist()
        images.append({"license": 3, "file_name": f"{number:012}.jpg", "height": height, "width": width, "id": number})
        for _ in range(int(rng.integers(0, 5))):
            w, h = rng.uniform(4, 30, 2)
            x, y = rng.uniform(0, width - w), rng.uniform(0, height - h)
            crowd = bool(rng.random() < 0.2)
            mask: Any = {"counts": [3, 4, 5], "size": [height, width]} if crowd else [[x, y, x + w, y, x + w, y + h]]
            annotations.append(
                {
                    "segmentation": mask,
                    "area": round(w * h * 0.6, 4),
                    "iscrowd": int(crowd),
                    "image_id": number,
                    "bbox": [round(float(v), 2) for v in (x, y, w, h)],
                    "category_id": int(rng.choice(list(CATEGORIES))),
                    "id": 1000 + len(annotations),
                }
            )
    rng.shuffle(annotations)
    categories = [{"supercategory": "x", "id": number, "name": name} for number, name in CATEGORIES.items()]
    head = {"info": {"year": 2017}, "licenses": [{"id": 1, "name": "by"}]}
    return {**head, "images": images, "annotations": annotations, "categories": categories}


def write(folder: Path, *, train: int = 30, val: int = 20) -> Path:
    """Write annotations and images below `folder` and return it."""
    (folder / "annotations").mkdir(parents=True)
    for seed, (split, images) in enumerate({"train": train, "val": val}.items()):
        content = instances(images, seed=seed)
        save(folder, split, content)
        (folder / f"{split}2017").mkdir()
        for image in content["images"]:
            size = image["width"], image["height"]
            Image.new("RGB", size, (seed, 90, 90)).save(folder / f"{split}2017" / image["file_name"])
    return folder


def path(folder: Path, split: str) -> Path:
    """Return where the instances file of a split lies."""
    return folder / "annotations" / f"instances_{split}2017.json"


def load(folder: Path, split: str) -> dict[str, Any]:
    """Return the contents of an instances file, read at once."""
    content: dict[str, Any] = json.loads(path(folder, split).read_text())
    return content


def save(folder: Path, split: str, content: dict[str, Any]) -> None:
    """Write an instances file."""
    path(folder, split).write_text(json.dumps(content))
