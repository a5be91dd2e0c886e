from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import distributed, multiprocessing, nn

from tests.helpers.models import batch
from tests.helpers.teacher_student import pair
from yolokd.distillation.assignment import Assigned
from yolokd.distillation.positives import DECAY, PositiveCounts


def assigned(positives: list[int], mass: float = 3.0, anchors: int = 50) -> Assigned:
    """So many positives in each image."""
    found = torch.zeros(len(positives), anchors, dtype=torch.bool)
    for row, count in zip(found, positives, strict=True):
        row[:count] = True
    return Assigned(found, torch.tensor(mass))


def test_update__first_step_is_the_mean_of_its_batch() -> None:
    means = PositiveCounts({}).update("one2many", assigned([4, 0, 8], mass=6.0))
    assert {name: float(mean) for name, mean in means.items()} == {"positives": 4.0, "target_scores": 2.0}


def test_update__later_steps_decay() -> None:
    counts = PositiveCounts({})
    counts.update("one2many", assigned([10, 10]))
    means = counts.update("one2many", assigned([0]))
    assert float(means["positives"]) == pytest.approx(20 * DECAY / (2 * DECAY + 1))


def test_update__before_the_first_object_one_positive_per_image_is_assumed() -> None:
    counts = PositiveCounts({})
    means = counts.update("one2many", assigned([0, 0], mass=1.0))  # an empty assignment's mass is 1, not 0
    assert {name: float(mean) for name, mean in means.items()} == {"positives": 1.0, "target_scores": 1.0}
    assert float(counts.update("one2many", assigned([0, 30], mass=9.0))["positives"]) == pytest.approx(
        30 / (2 + 2 * DECAY)
    )


def test_update__a_step_that_is_not_finite_is_left_out() -> None:
    state: dict[str, Any] = {}
    counts, other = PositiveCounts(state), PositiveCounts({})
    for mass in (3.0, float("nan"), float("inf"), 5.0):
        found = counts.update("one2many", assigned([2, 4], mass))
    other.update("one2many", assigned([2, 4], 3.0))
    assert found == other.update("one2many", assigned([2, 4], 5.0))
    counts.save()
    assert all(math.isfinite(value) for value in state["positives"]["one2many"])
    first = PositiveCounts({}).update("one2many", assigned([2], float("nan")))
    assert first == {"positives": 1, "target_scores": 1}


def test_update__branches_are_apart() -> None:
    counts = PositiveCounts({})
    counts.update("one2many", assigned([10]))
    assert float(counts.update("one2one", assigned([1]))["positives"]) == 1


def test_save__a_resumed_run_goes_on_with_the_same_averages() -> None:
    state: dict[str, Any] = {}
    counts = PositiveCounts(state)
    counts.update("one2many", assigned([10, 2]))
    counts.save()
    assert state == {"positives": {"one2many": [2.0, 12.0, 3.0]}}
    assert PositiveCounts(state).update("one2many", assigned([7])) == counts.update("one2many", assigned([7]))


def process(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    counts = PositiveCounts({})
    steps = [counts.update("one2many", assigned([9 * rank, rank], mass=1.0 + rank)) for _ in range(2)]
    torch.save(steps[-1], Path(folder) / f"{rank}.pt")
    distributed.destroy_process_group()


@pytest.mark.slow
def test_update__processes_agree_on_the_mean_over_all_images(tmp_path: Path) -> None:
    processes: Any = multiprocessing
    processes.spawn(process, (str(tmp_path),), nprocs=2)
    found = [torch.load(tmp_path / f"{rank}.pt") for rank in range(2)]
    assert found[0] == found[1]
    assert float(found[0]["positives"]) == pytest.approx(10 / 4)
    assert float(found[0]["target_scores"]) == pytest.approx(2 / 4)  # rank 0 has no object, so no mass


def fix_statistics(model: nn.Module) -> None:
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()


def without_objects(images: int) -> dict[str, Any]:
    data = batch(images)
    return {**data, "batch_idx": data["batch_idx"][:0], "cls": data["cls"][:0], "bboxes": data["bboxes"][:0]}


@pytest.mark.parametrize("average", ["run", "batch"])
def test_loss__a_batch_of_backgrounds_after_one_with_objects(average: str) -> None:
    model = pair({"bckd": {"average": average}})
    fix_statistics(model)
    _, full = model(batch(4))
    _, empty = model(without_objects(4))
    ratio = float(empty["kd_bckd_cls"]) / float(full["kd_bckd_cls"])
    assert (0.3 < ratio < 3) if average == "run" else ratio > 5
