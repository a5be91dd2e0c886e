"""BCKD where many images hold no object: by the positives of the run, and of each batch as published.

    python benchmarks/backgrounds.py --shared ../shared --out RUNS

Of 400 highway images 0, 50 or 90 % become backgrounds: every object is painted over and the label dropped. A YOLOv8n
with COCO weights trains 8 epochs under the same net fine-tuned on all 400, plainly and with the recipe `bckd`. Scored
on the reporting images of the study; values and gradient ratios are the means over results.csv's epochs. One seed.
Writes `benchmarks/results/backgrounds.md` and `.json`; finished runs are kept, and interrupted ones continued.
"""

from __future__ import annotations

import argparse
import csv
import json
import statistics
from pathlib import Path

import cv2
import yaml
from study import HERE, link, prepare_data, run, settings, yolokd
from study_plans import FINETUNE

IMAGES, SIZE, EPOCHS = 400, 128, 8
SHARES = (0, 50, 90)  # percent of the images without objects
ARMS = {
    "plain": ["--recipe", "baseline"],
    "run": ["--recipe", "bckd", "--set", "balance.log=true"],
    "batch": ["--recipe", "bckd", "--set", "balance.log=true", "--set", "losses.bckd.average=batch"],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=Path, default=Path("../shared"), help="folder with data/ and weights/")
    parser.add_argument("--out", type=Path, required=True, help="folder for the runs")
    options = parser.parse_args()
    out, shared = options.out.resolve(), options.shared.resolve()
    out.mkdir(parents=True, exist_ok=True)
    whole = prepare_data(shared / "data" / "highway", out / "data", 1.0)["report"]
    weights = shared / "weights" / "yolov8n-coco-s128.pt"
    sets = {share: with_backgrounds(whole, share, out / "data" / f"backgrounds-{share}") for share in SHARES}
    teacher = train("teacher", weights, sets[0], ["--recipe", "baseline"], out)
    found = {}
    for share, data in sets.items():
        for arm, recipe in ARMS.items():
            line = recipe if arm == "plain" else [*recipe, "--teacher", str(teacher)]
            last = train(f"{arm}-{share}", weights, data, line, out)
            found[f"{arm}-{share}"] = {"AP": score(last, data, out), **columns(last.parents[1] / "results.csv")}
    write(found)


def with_backgrounds(whole: Path, share: int, folder: Path) -> Path:
    """Write 400 training images, the first of which are backgrounds; return the data YAML."""
    source = yaml.safe_load(whole.read_text(encoding="utf-8"))
    images = sorted((Path(source["path"]) / "images" / "train").iterdir())[:IMAGES]
    (folder / "images").mkdir(parents=True, exist_ok=True)
    for number, path in enumerate(images):
        label = path.parents[2] / "labels" / "train" / f"{path.stem}.txt"
        if number % 100 >= share:
            link(path.resolve(), folder / "images" / path.name)
            link(label.resolve(), folder / "labels" / label.name)
            continue
        pixels = cv2.imread(str(path))
        height, width = pixels.shape[:2]
        for row in label.read_text().splitlines():
            _, x, y, w, h = map(float, row.split())
            corners = ((x - w / 2) * width, (y - h / 2) * height, (x + w / 2) * width, (y + h / 2) * height)
            left, top, right, bottom = map(round, corners)
            cv2.rectangle(pixels, (left - 1, top - 1), (right + 1, bottom + 1), pixels.mean((0, 1)), -1)
        cv2.imwrite(str(folder / "images" / f"{path.stem}.png"), pixels)
    data = folder / "data.yaml"
    content = {**source, "path": str(folder), "train": "images", "val": str(Path(source["path"]) / source["val"])}
    data.write_text(yaml.safe_dump(content), encoding="utf-8")
    return data


def train(name: str, student: Path, data: Path, recipe: list[str], out: Path) -> Path:
    line = ["train", *recipe, "--student", str(student), "--data", str(data), "--name", name, "--device", "cpu"]
    line += ["--imgsz", str(SIZE), "--batch", "16", "--epochs", str(EPOCHS), "--seed", "0"]
    return run(name, [*line, *settings(FINETUNE)], out)


def score(last: Path, data: Path, out: Path) -> float:
    path = out / f"{last.parents[1].name}.json"
    if not path.exists():
        yolokd(["eval", str(last), "--data", str(data), "--imgsz", str(SIZE), "--json", str(path)], out)
    return float(json.loads(path.read_text())[0]["AP"])


def columns(file: Path) -> dict[str, float]:
    """Return the mean over the epochs of each BCKD column."""
    with file.open(newline="") as stream:
        rows = [{key.strip(): value for key, value in row.items()} for row in csv.DictReader(stream)]
    wanted = [key for key in rows[0] if "bckd" in key and "val/" not in key]
    return {key: statistics.mean(float(row[key]) for row in rows) for key in wanted}


def write(found: dict[str, dict[str, float]]) -> None:
    (HERE / "results" / "backgrounds.json").write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    rows = [
        "Highway, 400 images of which a share is background, 128 px, 8 epochs from yolov8n-coco-s128; AP in percent on "
        "the reporting images, one seed; values and gradient ratios of the recipe `bckd` (gains 8 and 32), means over "
        "the epochs.",
        "",
        "    python benchmarks/backgrounds.py --out RUNS",
        "",
        "| backgrounds | divided by the positives of | AP | kd_bckd_cls | kd_bckd_box | gradient cls | gradient box |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, values in found.items():
        arm, share = name.split("-")
        terms = [
            next((f"{value:.2f}" for key, value in values.items() if key.startswith(kind) and key.endswith(term)), "")
            for kind in ("train/", "gradient/")
            for term in ("kd_bckd_cls", "kd_bckd_box")
        ]
        label = {"plain": "(plain training)", "run": "the run", "batch": "the batch"}[arm]
        rows.append(f"| {share} % | {label} | {100 * values['AP']:.1f} | {' | '.join(terms)} |")
    (HERE / "results" / "backgrounds.md").write_text("\n".join(rows) + "\n", encoding="utf-8")
    print("\n".join(rows))


if __name__ == "__main__":
    main()
