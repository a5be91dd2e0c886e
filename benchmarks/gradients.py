"""Gradient ratio of each distillation term to the detection loss, and the cosine between the two gradients.

    python benchmarks/gradients.py --teacher teacher.pt --student student.yaml --data data.yaml --imgsz 128

For every shipped recipe and a student as it starts, or a trained one (`--student last.pt`), over a few augmented
training batches: the norm of gain · ∂term relative to that of the detection loss's gradient, and the cosine between the
two, at the neck features and at the weights of the backbone. A term whose ratio is 0.01 cannot change the training
much; one whose cosine is below 0 works against the labels. Adapters and generators are untrained here.
What a trained student lacks is another question, which `yolokd diagnose` answers. Writes
`benchmarks/results/gradients-NAME.json` and `.md`.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from yolokd.errors import YolokdError

HERE = Path(__file__).resolve().parent
LEFT_OUT = {"everything", "ikd", "aid", "mask", "keypoint"}  # losses of other recipes, or of other tasks


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--teacher", type=Path, required=True)
    parser.add_argument("--student", type=Path, required=True, help="a model YAML (from scratch) or a checkpoint")
    parser.add_argument("--data", required=True)
    parser.add_argument("--imgsz", type=int, default=128)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--batches", type=int, default=4)
    parser.add_argument("--name", default="start", help="name of the files with the results")
    options = parser.parse_args()
    from yolokd.backend.dataset import resolve
    from yolokd.recipe import load_recipe
    from yolokd.recipe.load import list_recipes

    options.data = str(resolve(options.data).yaml_path)
    batches = training_batches(options)
    rows: dict[str, dict[str, float]] = {}
    for name in list_recipes():
        recipe = load_recipe(name, [f"train.imgsz={options.imgsz}"])
        if name not in LEFT_OUT and recipe.terms() and recipe.teacher.answers == "live":
            for term, values in measure(recipe, batches, options).items():
                rows.setdefault(term, values)
    write(rows, options)


def training_batches(options: Any) -> list[dict[str, Any]]:
    """A few batches as Ultralytics augments them, seeded."""
    from ultralytics.cfg import get_cfg
    from ultralytics.data.build import build_yolo_dataset
    from ultralytics.data.utils import check_det_dataset

    torch.manual_seed(0)
    data = check_det_dataset(options.data)
    args = get_cfg(overrides={"imgsz": options.imgsz, "task": "detect"})
    dataset = build_yolo_dataset(args, data["train"], options.batch, data, mode="train", rect=False)
    generator = torch.Generator().manual_seed(0)
    order = torch.randperm(len(dataset), generator=generator)[: options.batch * options.batches].tolist()
    found = []
    for start in range(0, len(order), options.batch):
        batch = dataset.collate_fn([dataset[index] for index in order[start : start + options.batch]])
        batch["img"] = batch["img"].float() / 255
        found.append(batch)
    return found


def measure(recipe: Any, batches: Sequence[dict[str, Any]], options: Any) -> dict[str, dict[str, float]]:
    """Mean gradient ratio and cosine of each term of a recipe over the batches."""
    from yolokd.inspection.setup import open_pair
    from yolokd.loaders.batch import TrainingBatch

    pair = open_pair(options.teacher, options.student, recipe, data=options.data).pair
    pair.train()
    for parameter in pair.student_model.parameters():
        parameter.requires_grad_(parameter.is_floating_point())
    depth = len(pair.student_model.yaml["backbone"])
    backbone = [p for layer in pair.student_model.model[:depth] for p in layer.parameters()]
    sums: dict[str, list[float]] = {}
    for batch in batches:
        seen = pair.look(TrainingBatch.of(batch), dict.fromkeys(recipe.terms(), 1.0))
        places: list[tuple[str, list[Tensor]]] = [("neck", list(seen.features.values())), ("backbone", backbone)]
        detection = seen.detection.sum() / len(batch["img"])
        base = {place: gradient(detection, leaves) for place, leaves in places}
        for term, value in seen.values.items():
            gain = recipe.terms()[term]
            found = sums.setdefault(term, [0.0] * 4)
            for place, (name, leaves) in enumerate(places):
                own = gradient(value, leaves)
                scale = 1.0 if gain == "auto" else float(gain)
                found[2 * place] += float(scale * own.norm() / base[name].norm()) / len(batches)
                found[2 * place + 1] += float(torch.cosine_similarity(own, base[name], dim=0)) / len(batches)
    keys = ("neck_ratio", "neck_cosine", "backbone_ratio", "backbone_cosine")
    gains = {term: -1.0 if gain == "auto" else float(gain) for term, gain in recipe.terms().items()}
    return {term: {"gain": gains[term], **dict(zip(keys, values, strict=True))} for term, values in sums.items()}


def gradient(value: Tensor, leaves: Sequence[Tensor]) -> Tensor:
    """The gradient with respect to all leaves as one vector."""
    found = torch.autograd.grad(value, list(leaves), retain_graph=True, allow_unused=True)
    return torch.cat([(torch.zeros_like(x) if g is None else g).flatten() for g, x in zip(found, leaves, strict=True)])


def write(rows: dict[str, dict[str, float]], options: Any) -> None:
    target = HERE / "results"
    target.mkdir(exist_ok=True)
    setting = {"imgsz": options.imgsz, "batch": options.batch, "batches": options.batches}
    content = json.dumps({"setting": setting, "terms": rows}, indent=2)
    (target / f"gradients-{options.name}.json").write_text(content + "\n", encoding="utf-8")
    lines = [
        f"Gradient ratio: norm of gain · gradient of the term over that of the detection loss; cosine between the "
        f"two. Student {options.student.name}, {options.imgsz} px, {options.batches} batches of {options.batch}. A "
        f"gain of auto is shown with the ratio that a gain of 1 has.",
        "",
        "| term | gain | ratio at the neck | cosine | ratio at the backbone | cosine |",
        "|---|---|---|---|---|---|",
    ]
    for term, row in rows.items():
        gain = "auto" if row["gain"] < 0 else f"{row['gain']:g}"
        cells = [f"{row[key]:.2g}" for key in ("neck_ratio", "neck_cosine", "backbone_ratio", "backbone_cosine")]
        lines.append(f"| `kd_{term}` | {gain} | {' | '.join(cells)} |")
    (target / f"gradients-{options.name}.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines))


if __name__ == "__main__":
    try:
        main()
    except YolokdError as error:
        sys.exit(f"Error: {error}")
