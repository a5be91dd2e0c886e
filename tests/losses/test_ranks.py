"""Two processes, each with half of a batch, against one process with the whole of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, distributed, multiprocessing

from tests.helpers.pairs import BOXES, build, leaves
from tests.helpers.steps import images, make_step
from yolokd.losses.base import Loss, Step
from yolokd.losses.table import LOSSES, losses_of
from yolokd.recipe import Recipe

RANKS, BATCH = 2, 4
ALONE = {"pkd", "ultralytics"}  # statistics of each process's own images
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    # what stored answers ask is averaged over processes where the step is made
    **{name: (name, {}) for name, kind in LOSSES.items() if not kind.requires.answers},
    "bckd by mass": ("bckd", {"normalizer": "target_scores"}),
    "samkd random": ("samkd", {"spatial": "random", "logits_weight": "soft"}),
}
MASSES = (3.0, 8.5)  # of soft labels in each half

Outcome = dict[str, Tensor]


def loss_of(variant: str) -> Loss:
    name, options = VARIANTS[variant]
    return losses_of(Recipe.from_dict({"losses": {name: options}}), ("p3", "p4", "p5"))[name]


def whole_step() -> Step:
    step = make_step(batch=BATCH, weights=(0.8, 0.2))
    return replace(images(step, slice(None)), boxes_xyxy_px=(*BOXES, BOXES[1], BOXES[0] / 2))


def with_mass(step: Step, mass: float) -> Step:
    return replace(step, branches=tuple(replace(b, target_scores_sum=torch.tensor(mass)) for b in step.branches))


def half_step(rank: int) -> Step:
    size = BATCH // RANKS
    return with_mass(images(whole_step(), slice(rank * size, (rank + 1) * size)), MASSES[rank])


def outcome(variant: str, step: Step, *, ranks: int) -> Outcome:
    """The value of each term; gradients as Ultralytics makes them of loss × images × ranks, before DDP averages."""
    loss = loss_of(variant)
    parts = build(loss)
    maps = loss.maps(step, parts, loss.terms)
    values = {term: (m.sum(1) if m.ndim == 2 else m).mean() for term, m in maps.items()}
    total = torch.stack(list(values.values())).sum() * len(step.student["p3"]) * ranks
    torch.autograd.backward([total])
    found = {f"leaf {i}": x.grad for i, x in enumerate(leaves(step)) if x.grad is not None}
    trained = {f"part {name}": p.grad for name, p in parts.named_parameters() if p.grad is not None}
    return {**{term: value.detach() for term, value in values.items()}, **found, **trained}


def process(rank: int, folder: str) -> None:
    """What one process does: every loss on its half."""
    torch.set_num_threads(1)
    store = f"file://{folder}/store"
    distributed.init_process_group("gloo", init_method=store, rank=rank, world_size=RANKS)
    found = {variant: outcome(variant, half_step(rank), ranks=RANKS) for variant in VARIANTS}
    torch.save(found, Path(folder) / f"{rank}.pt")
    distributed.barrier()
    distributed.destroy_process_group()


@pytest.fixture(scope="module")
def halves(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Outcome]]:
    folder = tmp_path_factory.mktemp("ranks")
    processes: Any = multiprocessing
    processes.spawn(process, (str(folder),), nprocs=RANKS)
    return [torch.load(folder / f"{rank}.pt") for rank in range(RANKS)]


def averaged(halves: list[dict[str, Outcome]], variant: str) -> Outcome:
    """The two halves as DDP puts them together: values and gradients of parts averaged, those of images joined."""
    pairs = {key: [half[variant][key] for half in halves] for key in halves[0][variant]}
    return {
        key: torch.cat(both) / RANKS if key.startswith("leaf") else torch.stack(both).mean(0)
        for key, both in pairs.items()
    }


@pytest.mark.slow
@pytest.mark.parametrize("variant", [v for v in VARIANTS if v not in ALONE])
def test_losses__two_processes_make_the_sum_and_gradient_of_one(halves: list[dict[str, Outcome]], variant: str) -> None:
    found = averaged(halves, variant)
    expected = outcome(variant, with_mass(whole_step(), sum(MASSES)), ranks=1)
    assert set(found) == set(expected)
    for key, value in expected.items():
        torch.testing.assert_close(found[key], value, rtol=1e-9, atol=1e-12, msg=f"{key} differs")


@pytest.mark.slow
@pytest.mark.parametrize("variant", sorted(ALONE))
def test_losses__those_with_statistics_of_a_batch_take_each_process_by_itself(
    halves: list[dict[str, Outcome]], variant: str
) -> None:
    for rank, half in enumerate(halves):
        alone = outcome(variant, half_step(rank), ranks=RANKS)
        for key, value in alone.items():
            torch.testing.assert_close(half[variant][key], value, rtol=1e-9, atol=1e-12)
