"""The file aid.jsonl: what stands in it, and that recording waits for nothing."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from yolokd.distillation.instance_weights import Instances, Weights
from yolokd.distillation.weight_files import WORST, WeightLog


def weights(rows: Sequence[Sequence[float | None]], place: float = 0.5) -> Weights:
    """A batch with these weights per image; None is an empty slot. D is 10 times what the weight lacks."""
    counted = torch.tensor([[w is not None for w in row] for row in rows])
    values = torch.tensor([[0.123 if w is None else w for w in row] for row in rows])
    places = torch.full((len(rows), 4), place)
    return Weights(places, places, places[:, 0], Instances(values, 10 * (1 - values), counted))


def read(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "aid.jsonl").read_text().splitlines()]


def test_write__sums_up_the_epoch(tmp_path: Path) -> None:
    records = WeightLog()
    records.record(weights([[1.0, 0.95], [0.35, None]]), ["a.jpg", "b.jpg"])
    records.record(weights([[None, None, None], [0.0, 0.55, 0.35]], place=0.7), ["c.jpg", "d.jpg"])
    records.write(tmp_path, 1)
    (line,) = read(tmp_path)
    assert line["epoch"] == 1
    assert line["instances"] == 6
    assert line["mean_weight"] == pytest.approx(3.2 / 6, abs=1e-6)
    assert line["mean_loss"] == pytest.approx(10 * (1 - 3.2 / 6), abs=1e-5)
    assert line["mean_place_weight"] == pytest.approx(0.6)
    assert line["histogram"] == [1, 0, 0, 2, 0, 1, 0, 0, 0, 2]
    assert line["worst"] == [
        {"picture": "d.jpg", "weight": 0.0},
        {"picture": "b.jpg", "weight": 0.35},
        {"picture": "a.jpg", "weight": 0.95},
    ]


def test_write__starts_anew_and_writes_nothing_for_an_epoch_without_steps(tmp_path: Path) -> None:
    records = WeightLog()
    records.write(tmp_path, 1)
    assert not list(tmp_path.iterdir())
    records.record(weights([[0.5]]), ["a.jpg"])
    records.write(tmp_path, 2)
    records.record(weights([[0.25]]), ["b.jpg"])
    records.write(tmp_path, 3)
    records.write(tmp_path, 4)
    assert [(line["epoch"], line["instances"], line["mean_weight"]) for line in read(tmp_path)] == [
        (2, 1, 0.5),
        (3, 1, 0.25),
    ]


def test_write__a_resumed_run_replaces_the_epochs_that_it_repeats(tmp_path: Path) -> None:
    records = WeightLog()
    for epoch in (1, 2, 3):
        records.record(weights([[0.5]]), ["a.jpg"])
        records.write(tmp_path, epoch)
    records.record(weights([[0.25]]), ["a.jpg"])
    records.write(tmp_path, 2)
    assert [(line["epoch"], line["mean_weight"]) for line in read(tmp_path)] == [(1, 0.5), (2, 0.25)]
    assert [path.name for path in tmp_path.iterdir()] == ["aid.jsonl"]


def test_write__names_the_worst_images_only(tmp_path: Path) -> None:
    records = WeightLog()
    records.record(weights([[1 - i / 100] for i in range(50)]), [f"{i}.jpg" for i in range(50)])
    records.write(tmp_path, 1)
    assert [row["picture"] for row in read(tmp_path)[0]["worst"]] == [f"{49 - i}.jpg" for i in range(WORST)]


def test_write__an_epoch_without_any_object(tmp_path: Path) -> None:
    records = WeightLog()
    records.record(weights([[None]]), ["a.jpg"])
    records.write(tmp_path, 1)
    (line,) = read(tmp_path)
    assert line["instances"] == 0
    assert line["mean_weight"] is None
    assert line["worst"] == []


def test_record__reads_nothing_from_the_device() -> None:
    class Waits(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            assert func not in (
                torch.ops.aten._local_scalar_dense.default,
                torch.ops.aten.nonzero.default,
                torch.ops.aten.index.Tensor,
            ), func
            return func(*args, **(kwargs or {}))

    batch = weights([[1.0, 0.5], [0.25, None]])
    with Waits():
        WeightLog().record(batch, ["a.jpg", "b.jpg"])
