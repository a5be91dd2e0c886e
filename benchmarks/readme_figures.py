"""Figures of the README and of docs/architecture.md, from the demo's folder, a results file and the package's layout.

    yolokd demo demo
    python benchmarks/readme_figures.py --demo demo

Writes to `docs/images`:

- `loss-maps.png`: what `yolokd inspect` draws for one validation image of the demo, with the demo's teacher and its
  student trained without it, in 256 colors and 1,400 pixels wide.
- `comparison.svg`: AP of every seed and its mean by recipe, from `benchmarks/results/study-control.json`.
- `architecture.svg`: the layers of the package; an error where they do not name every folder of `yolokd`.

Without `--demo`, the first is left as it is. `--png` writes the other two as PNG as well, to be looked at.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch
from PIL import Image

HERE = Path(__file__).resolve().parent
IMAGES = HERE.parent / "docs" / "images"
PACKAGE = HERE.parent / "yolokd"
LARGEST = 300_000  # bytes of an image
ACROSS = 1400  # pixels of the loss maps
IMAGE = "000044"  # of the demo's validation set
INSPECT = ("--recipe", "bckd", "--set", "weighting.aid.alpha=0.1")
RECIPES = ("baseline", "ssim", "ultralytics", "samkd", "bckd", "init", "best")  # in the chart, from bottom to top

INK, MUTED, GRID, PAPER = "#1b2129", "#68717d", "#dfe3e8", "#ffffff"
BLUE, ORANGE = "#0072b2", "#d55e00"

# Layers from top to bottom, each with its folders or modules and what they hold. Imports point downwards, and within a
# layer to the right.
Layer = tuple[str, str, tuple[tuple[str, str], ...]]
LAYERS: tuple[Layer, ...] = (
    ("commands", "#e3ecf7", (("cli", "one file per command; the only code that prints and exits"),)),
    (
        "many runs",
        "#e3ecf7",
        (("report", "HTML and Markdown page"), ("comparison", "recipes × seeds, executor, statistics")),
    ),
    (
        "one task",
        "#e4f2ea",
        (
            ("bench", "cost of a step"),
            ("deploy", "export and its check"),
            ("inspection", "loss maps of one image"),
            ("training", "plan, trainer, resume"),
        ),
    ),
    (
        "one step",
        "#e4f2ea",
        (
            ("distillation", "teacher + student\n+ losses → loss"),
            ("labeling", "data sets made\nby teachers"),
            ("initialization", "first weights\nof the student"),
            ("loaders", "sampling, unlabeled\nimages, IKD samples"),
            ("teachers", "one file per kind\nof teacher"),
            ("evaluation", "COCO and KITTI\nscores"),
        ),
    ),
    (
        "Ultralytics",
        "#fbeee0",
        (("backend", "models, heads, checkpoints, data sets, exporters: what yolokd knows of Ultralytics"),),
    ),
    (
        "pure parts",
        "#f3f0fa",
        (
            ("augment", "maths of IKD"),
            ("data", "labels, layouts,\nconverters, Streets"),
            ("losses", "one file per method:\ntensors → loss map"),
            ("recipe", "typed YAML;\nno torch"),
        ),
    ),
    ("images", "#f3f0fa", (("images", "image files read as Ultralytics reads them, and what was found in them"),)),
    (
        "base",
        "#f1f2f4",
        (
            ("outputs", "results,\nnever over inputs"),
            ("inputs", "text, JSON, YAML\nof others"),
            ("files", "locks,\natomic writes"),
            ("errors", "what yolokd\nraises"),
        ),
    ),
)
FILES = {"files": ("locks", "files")}  # a box of the diagram → modules, of which at least one is there
ABOVE = {"api", "version"}  # modules that the diagram leaves out: the Python API beside `cli`, and a constant


def main() -> None:
    """Draw what the options ask for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--demo", type=Path, help="folder that `yolokd demo` has made")
    parser.add_argument("--png", type=Path, help="folder for PNGs of the SVGs")
    options = parser.parse_args()
    IMAGES.mkdir(parents=True, exist_ok=True)
    if options.demo is not None:
        loss_maps(options.demo, IMAGES / "loss-maps.png")
    for name, figure in (
        ("comparison", comparison(HERE / "results" / "study-control.json")),
        ("architecture", layers()),
    ):
        save(figure, IMAGES / f"{name}.svg")
        if options.png is not None:
            options.png.mkdir(parents=True, exist_ok=True)
            figure.savefig(options.png / f"{name}.png", dpi=110)


def loss_maps(demo: Path, path: Path) -> None:
    """Write the inspect figure of one image of the demo, with fewer pixels and colors.

    Args:
        demo: Folder of the demo, with its data and runs.
        path: The PNG to write.

    Raises:
        SystemExit: The demo is not complete, inspect failed, or the result is above the limit of size.
    """
    image = demo / "streets" / "images" / "val" / f"{IMAGE}.jpg"
    teacher, student = (demo / "runs" / run / "weights" / "last.pt" for run in ("teacher", "baseline"))
    if missing := [file for file in (image, teacher, student) if not file.is_file()]:
        raise SystemExit(f"There is no '{missing[0]}'; run: yolokd demo {demo}")
    with tempfile.TemporaryDirectory() as folder:
        models = ["--teacher", str(teacher), "--student", str(student), "--device", "cpu"]
        command = [sys.executable, "-m", "yolokd", "inspect", str(image), *models, *INSPECT, "--out", folder]
        if code := subprocess.run(command, check=False).returncode:
            raise SystemExit(code)
        with Image.open(Path(folder) / f"{IMAGE}.png") as figure:
            height = round(figure.height * ACROSS / figure.width)
            small = figure.convert("RGB").resize((ACROSS, height), Image.Resampling.LANCZOS)
    small.quantize(256, kmeans=5, dither=Image.Dither.NONE).save(path, optimize=True)
    check_size(path)


def comparison(results: Path) -> Figure:
    """Return a chart of a comparison: AP of every seed, the mean by recipe, and the teacher's.

    Args:
        results: What `yolokd compare --json` or `study.py` has written.
    """
    found: dict[str, Any] = json.loads(results.read_text(encoding="utf-8"))
    arms = {arm["recipe"]: arm for arm in found["arms"]}
    figure, axes = sheet(7.6, 3.3, left=0.13, right=0.985, bottom=0.15, top=0.88)
    baseline = 100 * arms["baseline"]["spread"]["AP"]["mean"]
    for row, recipe in enumerate(RECIPES):
        color = MUTED if recipe == "baseline" else BLUE
        points = [100 * value for value in arms[recipe]["scores"]["AP"].values()]
        mean = 100 * arms[recipe]["spread"]["AP"]["mean"]
        axes.plot([baseline, mean], [row, row], color=color, linewidth=5, alpha=0.25, solid_capstyle="butt")
        axes.plot(points, [row] * len(points), "o", color=color, markersize=4.5, alpha=0.55, markeredgewidth=0)
        axes.plot([mean], [row], "|", color=color, markersize=17, markeredgewidth=2.4)
        axes.text(31.6, row, sentence(arms[recipe]), va="center", color=INK, fontsize=9.2)
    teacher = 100 * found["teacher"]["AP"]
    axes.axvline(baseline, color=MUTED, linewidth=0.9, linestyle="--")
    axes.axvline(teacher, color=ORANGE, linewidth=1.6)
    style: dict[str, Any] = {"color": ORANGE, "fontsize": 9.2, "rotation": 90}
    axes.text(teacher - 0.12, (len(RECIPES) - 1) / 2, f"teacher {teacher:.1f}", ha="right", va="center", **style)
    head = "mean   against baseline (95 % interval)"
    axes.text(31.6, len(RECIPES) - 0.3, head, va="center", color=MUTED, fontsize=9.2)
    axes.set_yticks(range(len(RECIPES)), RECIPES, color=INK, fontsize=10)
    axes.set_ylim(-0.6, len(RECIPES) + 0.1)
    axes.set_xlim(18.3, teacher + 0.4)
    axes.set_xlabel("AP of the student; dots are seeds, vertical marks their means", color=INK, fontsize=9.2)
    axes.tick_params(colors=INK, length=0)
    axes.grid(axis="x", color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    for side in axes.spines.values():
        side.set_visible(False)
    count, epochs, size = len(found["seeds"]), found["budget"]["epochs"], found["budget"]["imgsz"]
    title = f"912 road images, {size} px, {epochs} epochs from scratch, {count} paired seeds"
    figure.text(0.015, 0.945, title, fontsize=10.5, weight="bold", color=INK)
    return figure


def sentence(arm: dict[str, Any]) -> str:
    """Return mean and paired difference to plain training of an arm, as the chart states them."""
    mean = f"{100 * arm['spread']['AP']['mean']:.1f}"
    if "AP" not in arm["difference"]:
        return mean
    difference = arm["difference"]["AP"]
    low, value, high = (f"{100 * difference[key]:+.1f}".replace("-", "−") for key in ("low", "mean", "high"))
    return f"{mean}   {value} ({low} to {high})"


def layers() -> Figure:
    """Return the diagram of the package.

    Raises:
        SystemExit: `LAYERS` and the folders and modules of the package are not the same.
    """
    check_layers()
    width, row, gap, label = 9.4, 0.66, 0.19, 1.05
    height = len(LAYERS) * (row + gap) + 0.42
    figure, axes = sheet(width, height)
    axes.set_xlim(0, width)
    axes.set_ylim(0, height)
    axes.axis("off")
    for number, (title, color, boxes) in enumerate(LAYERS):
        bottom = height - 0.12 - (number + 1) * row - number * gap
        axes.text(0.12, bottom + row / 2, title, va="center", color=MUTED, fontsize=9.5, style="italic")
        across = (width - label - 0.12 - 0.12 * (len(boxes) - 1)) / len(boxes)
        for place, (name, text) in enumerate(boxes):
            left = label + place * (across + 0.12)
            style: Any = {"boxstyle": "round,pad=0,rounding_size=0.08", "facecolor": color, "edgecolor": MUTED}
            axes.add_patch(FancyBboxPatch((left, bottom), across, row, linewidth=0.8, **style))
            lines = text.count("\n") + 1
            axes.text(
                left + across / 2, bottom + row - 0.17, name, ha="center", va="center", weight="bold", fontsize=10.5
            )
            middle = bottom + (row - 0.3) / 2 + 0.02
            size = 8.6 if lines == 1 else 8.0
            axes.text(
                left + across / 2, middle, text, ha="center", va="center", color=INK, fontsize=size, linespacing=1.2
            )
        if number:
            axes.annotate(
                "",
                xy=(label + (width - label) / 2, bottom + row + 0.01),
                xytext=(label + (width - label) / 2, bottom + row + gap - 0.01),
                arrowprops={"arrowstyle": "-|>", "color": MUTED, "linewidth": 1.1, "shrinkA": 0, "shrinkB": 0},
            )
    axes.text(
        label,
        0.1,
        "Imports point downwards, and within a row to the right. 'make contract' checks it.",
        color=MUTED,
        fontsize=9,
    )
    return figure


def check_layers() -> None:
    """Exit with a message where the diagram and the package differ."""
    there = {path.stem for path in PACKAGE.iterdir() if path.is_dir() or path.suffix == ".py"}
    there = {name for name in there if not name.startswith("_") and name != "py"} - ABOVE
    drawn = [name for _, _, boxes in LAYERS for name, _ in boxes]
    known = {module for name in drawn for module in FILES.get(name, (name,))}
    unknown = there - known
    missing = {name for name in drawn if not there & set(FILES.get(name, (name,)))}
    if unknown or missing:
        raise SystemExit(f"LAYERS and '{PACKAGE}' differ: not drawn {sorted(unknown)}, not there {sorted(missing)}")


def sheet(width: float, height: float, **margins: float) -> tuple[Figure, Any]:
    """Return a figure of a size in inches and its axes."""
    figure = Figure(figsize=(width, height), facecolor=PAPER)
    FigureCanvasAgg(figure)
    axes: Any = figure.add_axes((0, 0, 1, 1)) if not margins else figure.add_subplot()
    if margins:
        figure.subplots_adjust(**margins)
    return figure, axes


def save(figure: Figure, path: Path) -> None:
    """Write an SVG whose text is text and that is the same for the same figure."""
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": path.stem}):
        figure.savefig(path, metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    check_size(path)


def check_size(path: Path) -> None:
    """Exit with a message if an image is too large for the repository."""
    if (size := path.stat().st_size) > LARGEST:
        raise SystemExit(f"'{path}' has {size:,} bytes, more than {LARGEST:,}")
    print(f"{path}: {path.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
