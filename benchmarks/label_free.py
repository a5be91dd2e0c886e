"""A student without a single label: highway's training images labeled by COCO detectors as they come.

    python benchmarks/label_free.py --out RUNS                  the table: two students, three seeds, reporting images
    python benchmarks/label_free.py --trials --out RUNS         what each part buys: one seed, tuning images

Teachers, sizes, flips and thresholds are tried at 300 steps (7 epochs); the table has 20 epochs, as the rows with all
labels of `study.py --plan footage_100`; from scratch 100 epochs, as `study.py --plan long`. Finished runs and
answers are kept. Writes `benchmarks/results/label-free*`.
`--shared` names a folder with `data/highway`, `data/unlabeled` and `weights/*.pt`; see benchmarks/README.md.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml
from study import HALVES, HERE, SIZE, interval, link, prepare_data, settings, write_recipe, yolokd
from study_plans import ANSWERS, BATCH, DOUBLE, FINETUNE, INIT, MAPPED, STUDENT, Arm, bckd

CLASSES = "motorcycle=motorbike"  # what COCO calls motorcycle
V8, V11, V26 = "yolov8n-coco", "yolo11n-coco", "yolo26n-coco"
TUNED = [*FINETUNE, "lr0=3e-4"]


@dataclass(frozen=True)
class Labels:
    """How the images are labeled."""

    teachers: Sequence[str] = (V11,)  # none: people
    imgsz: int = 384
    flip: bool = True
    conf: str = "0.3"
    streets: bool = False  # with 627 images of other cameras


@dataclass(frozen=True)
class Row:
    """One way to train on them."""

    labels: Labels = Labels()
    arms: Mapping[str, Arm] = field(default_factory=dict)  # beside plain training
    student: str = "yolov8n-coco-s128"  # "" is width 0.125 from scratch
    epochs: int = 20
    values: Sequence[str] = tuple(TUNED)
    imgsz: int = SIZE


TABLE = {
    "one teacher": Row(),
    "two teachers": Row(Labels((V8, V11))),
    "one teacher for 60 epochs": Row(epochs=60),
    "two teachers from scratch": Row(
        Labels((V8, V11)), {"init": bckd(0, 0, INIT, MAPPED)}, student="", epochs=100, values=tuple(STUDENT)
    ),
    "people at 256 px": Row(Labels(()), values=tuple(FINETUNE), imgsz=256),
    "one teacher at 256 px": Row(Labels(imgsz=640), imgsz=256),
}
SHORT = Row(epochs=7)
TRIALS = {
    "YOLO11n at 384 px with flips from 0.3": SHORT,
    "YOLOv8n": replace(SHORT, labels=Labels((V8,))),
    "YOLO26n": replace(SHORT, labels=Labels((V26,))),
    "YOLOv8n and YOLO11n": replace(SHORT, labels=Labels((V8, V11))),
    "all three": replace(SHORT, labels=Labels((V8, V11, V26))),
    "at 256 px": replace(SHORT, labels=Labels(imgsz=256)),
    "at 640 px": replace(SHORT, labels=Labels(imgsz=640)),
    "no flips": replace(SHORT, labels=Labels(flip=False)),
    "from 0.2": replace(SHORT, labels=Labels(conf="0.2")),
    "from 0.5": replace(SHORT, labels=Labels(conf="0.5")),
    "auto by 68 labeled images": replace(SHORT, labels=Labels(conf="auto")),
    "with images of other cameras": replace(SHORT, labels=Labels(streets=True), epochs=4),
    "20 epochs": Row(arms={"soft": Arm("soft", ANSWERS), "bckd_2x": DOUBLE}),
    "20 epochs at 1e-3": Row(values=tuple(FINETUNE)),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", action="store_true", help="what each part buys, instead of the table")
    parser.add_argument("--shared", type=Path, default=Path("../shared"), help="folder with data/ and weights/")
    parser.add_argument("--out", type=Path, required=True, help="folder for the runs")
    parser.add_argument("--device", default="cpu", help="cpu,cpu trains two at once, 0 on a GPU")
    parser.add_argument("--rows", help="these rows only, with commas between")
    parser.add_argument("--seeds", default="0,1,2", help="of the table")
    options = parser.parse_args()
    rows = TRIALS if options.trials else TABLE
    names = options.rows.split(",") if options.rows else list(rows)
    if unknown := set(names) - rows.keys():
        parser.error(f"there is no row {', '.join(sorted(unknown))}; the rows: {', '.join(rows)}")
    chosen = {name: rows[name] for name in names}
    shared, out = options.shared.resolve(), options.out.resolve()
    half, seeds = ("tune", "9") if options.trials else ("report", options.seeds)
    stem = "label-free-trials" if options.trials else "label-free"
    target = HERE / "results" / f"{stem}.json"
    found = json.loads(target.read_text(encoding="utf-8")) if target.exists() else {}
    for name, row in chosen.items():
        data = labeled(row.labels, half, shared, out)
        found[name] = compare(name, row, data, seeds, options.device, shared, out)
        target.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
        table = lines(found, f"python benchmarks/label_free.py {'--trials ' * options.trials}--out RUNS", half)
        target.with_suffix(".md").write_text(table, encoding="utf-8")


def labeled(labels: Labels, half: str, shared: Path, out: Path) -> Path:
    """Label highway's training images; return a data YAML that trains on them and scores on real labels."""
    everything = prepare_data(shared / "data" / "highway", out / "data", 1.0)
    few = prepare_data(shared / "data" / "highway", out / "data", 0.1)
    if not labels.teachers:
        return everything[half]
    like = few["tune"] if labels.conf == "auto" else everything["tune"]
    source = everything["tune"].parent / "images" / "train"
    if labels.streets:
        source = with_streets(source, shared, out)
    words = [*labels.teachers, str(labels.imgsz), "flip" if labels.flip else "no-flip", labels.conf]
    folder = out / "labeled" / "-".join([*words, *(["streets"] if labels.streets else [])])
    line = ["data", "label", str(source), str(folder), "--like", str(like), "--conf", labels.conf]
    line += ["--classes", CLASSES, "--imgsz", str(labels.imgsz), "--flip" if labels.flip else "--no-flip"]
    for teacher in labels.teachers:
        line += ["--teacher", str(shared / "weights" / f"{teacher}.pt")]
    yolokd(line, out)
    names = yaml.safe_load((folder / "data.yaml").read_text(encoding="utf-8"))["names"]
    content = {
        "train": [str(folder / "images" / "train"), str(folder / "images" / "val")],
        "val": str(everything["tune"].parent / "images" / half),
        "names": names,
    }
    path = folder.with_name(f"{folder.name}-{half}.yaml")
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    return path


def with_streets(source: Path, shared: Path, out: Path) -> Path:
    """Return a folder of links to the training images and to those of other cameras."""
    folder, others = out / "data" / "highway-and-streets", shared / "data" / "unlabeled"
    if not others.is_dir():
        raise SystemExit(f"--shared: there is no {others}; see benchmarks/README.md")
    for image in [*source.iterdir(), *others.rglob("*.jpg")]:
        link(image.resolve(), folder / image.name)
    return folder


def compare(name: str, row: Row, data: Path, seeds: str, device: str, shared: Path, out: Path) -> dict[str, Any]:
    from yolokd.backend.descriptions import write_yolov8

    weights = shared / "weights"
    model = weights / f"{row.student}.pt" if row.student else write_yolov8(out / "w0125.yaml", width=0.125)
    recipes = ["baseline", *(str(write_recipe(arm, row.arms[arm], {}, weights, out)) for arm in row.arms)]
    stem = "".join(letter if letter.isalnum() else "-" for letter in name)
    found = out / f"label-free-{stem}.json"
    line = ["compare", "--student", str(model), "--data", str(data), "--recipes", ",".join(recipes)]
    line += ["--seeds", seeds, "--device", device, "--imgsz", str(row.imgsz), "--batch", str(BATCH)]
    line += ["--epochs", str(row.epochs), "--name", f"label-free-{stem}"]
    if row.labels.teachers:
        line += ["--teacher", str(weights / f"{row.labels.teachers[0]}.pt"), "--set", MAPPED]
    yolokd([*line, *settings(row.values), "--json", str(found)], out)
    arms = json.loads(found.read_text(encoding="utf-8"))["arms"]
    scores = {arm["recipe"]: arm["scores"]["AP"] for arm in arms}
    labels = {**vars(row.labels), "teachers": list(row.labels.teachers)}
    student = row.student or "width 0.125 from scratch"
    made = {"labels": labels, "student": student, "epochs": row.epochs, "imgsz": row.imgsz, "AP": scores}
    if row.student:
        runs = out / "runs" / f"label-free-{stem}" / row.student
        folders = {int(seed): runs / f"baseline-{seed}" for seed in scores["baseline"]}
        made["as it comes"] = against_weights(model, data, folders, device.split(",")[0], row.imgsz)
    return made


def against_weights(model: Path, data: Path, folders: Mapping[int, Path], device: str, imgsz: int) -> dict[str, Any]:
    """Score the weights that the students started from; return their AP and how far the students are above it.

    Args:
        model: The weights, with COCO's classes.
        data: What they are scored on.
        folders: Seed → the run of a student that was scored on the same images.
        device: Where they are scored.
        imgsz: At which size, in pixels.
    """
    from yolokd.comparison.resampling import differences, draw_scores
    from yolokd.evaluation.matches import match, read_matches
    from yolokd.evaluation.models import examine

    (found,) = examine([model], data, imgsz=imgsz, device=device, classes=dict([CLASSES.split("=")]), timed=False)
    own, kept, scores = match(found.truth, found.detections), {}, {}
    for seed, folder in folders.items():
        score = json.loads((folder / "score.json").read_text(encoding="utf-8"))
        matches = read_matches(folder / "matches.npz", score["sha256"])
        if matches is None:
            raise SystemExit(f"{folder}: there are no matches of its score; remove its score.json to score it anew")
        kept[seed], scores[seed] = matches, score["AP"]
    metrics = {"AP": scores}, {"AP": dict.fromkeys(scores, found.score.AP)}
    drawn = draw_scores(kept), draw_scores(dict.fromkeys(kept, own))
    difference = differences(*metrics, *drawn, metrics=["AP"])["AP"]
    return {"AP": found.score.AP, "difference": asdict(difference)}


def lines(found: Mapping[str, Any], command: str, half: str) -> str:
    """Return the table as Markdown."""
    rows = [
        f"Highway's 680 training images without their labels, {SIZE} px unless named, batch {BATCH}; last.pt on the "
        f"{HALVES[half]} images with their real labels; COCO AP in percent.",
        "",
        f"    {command}",
        "",
        "| labels by | student | epochs | recipe | AP by seed | mean | against the weights as they come "
        "(95 %, seeds) | (95 %, images and seeds) |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, row in found.items():
        for recipe, scores in row["AP"].items():
            values = [100 * value for value in scores.values()]
            shown = " ".join(f"{value:.1f}" for value in values)
            cells = [name, row["student"], str(row["epochs"]), recipe, shown, f"{sum(values) / len(values):.1f}"]
            cells += gain(row["as it comes"]) if recipe == "baseline" and "as it comes" in row else ["", ""]
            rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows) + "\n"


def gain(found: Mapping[str, Any]) -> list[str]:
    """Return how far students are above the weights that they started from, and where they would be on new images."""
    own, both = found["difference"], found["difference"]["images_and_seeds"]
    spread = f"{100 * both['low']:+.1f} to {100 * both['high']:+.1f}" if both else ""
    return [f"{interval(own['mean'], own['low'], own['high'])} on {100 * found['AP']:.1f}", spread]


if __name__ == "__main__":
    main()
