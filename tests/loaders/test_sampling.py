"""Paired runs: the same batches for one seed, whatever else differs. Compared by digests of images and labels."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import partial
from itertools import chain
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import ultralytics.data.build as build
from torch.utils.data import DistributedSampler

from tests.helpers.batches import MIXED, Shown, shown
from tests.helpers.fixtures import Pair, make_data
from tests.helpers.models import training_args
from yolokd.errors import UserError
from yolokd.loaders.augmentation import SampleSpecific, augment_loader
from yolokd.loaders.epoch_sampler import EpochSet, Key
from yolokd.loaders.sampling import sample_deterministically
from yolokd.training.run import resume, start
from yolokd.training.trainer import DistillTrainer

EPOCHS = 3
KEYS = [Key(image, epoch, EPOCHS) for epoch in range(2) for image in range(16)]
Epoch = list[list[Shown]]  # by batch


# The loader


def unpaired(data: Path, *, workers: int = 0, rank: int = -1, shuffle: bool = True, **changes: Any) -> Any:
    """The training loader as the trainer makes it, under random states that differ from call to call."""
    torch.manual_seed(random.randrange(2**31))
    args = training_args(**{"deterministic": False, **MIXED, **changes})
    description = {"names": {0: "a", 1: "b", 2: "c"}, "nc": 3, "channels": 3}
    dataset = build.build_yolo_dataset(args, str(data.parent / "images" / "train"), 4, description, mode="train")
    return build.build_dataloader(dataset, 4, workers, shuffle, rank, device="cpu")


def paired(data: Path, *, seed: int = 0, **options: Any) -> Any:
    loader = unpaired(data, **options)
    loader.epoch = 0
    sample_deterministically(loader, seed=seed, current_epoch=lambda: (loader.epoch, EPOCHS))
    return loader


def run_through(loader: Any, epochs: Sequence[int] = range(EPOCHS)) -> list[Epoch]:
    """What a loader shows in these epochs, the epoch set as the trainer does."""
    seen = []
    for epoch in epochs:
        loader.epoch = epoch
        seen.append([shown(batch) for batch in loader])
    return seen


def images(epoch: Epoch) -> list[Shown]:
    return list(chain.from_iterable(epoch))


def names(epoch: Epoch) -> list[str]:
    return [name for name, _ in images(epoch)]


@pytest.fixture(scope="module")
def reference(tiny_data: Path) -> list[Epoch]:
    return run_through(paired(tiny_data))


@pytest.mark.parametrize(("workers", "cache"), [(1, None), (2, None), (0, "ram"), (2, "ram")])
def test_pair_loader__the_same_with_any_number_of_workers(
    tiny_data: Path, reference: list[Epoch], workers: int, cache: str | None
) -> None:
    loader = paired(tiny_data, workers=workers, cache=cache)
    assert loader.num_workers == workers
    seen = run_through(loader)
    loader.close()
    assert seen == reference


def test_pair_loader__another_order_and_augmentation_for_every_epoch_and_seed(
    tiny_data: Path, reference: list[Epoch]
) -> None:
    epochs = [*reference, *run_through(paired(tiny_data, seed=1))]
    assert all(sorted(names(epoch)) == sorted(names(epochs[0])) for epoch in epochs)
    assert len(set(names(epochs[0]))) == 16
    assert len({tuple(names(epoch)) for epoch in epochs}) == 6
    assert len({digest for epoch in epochs for _, digest in images(epoch)}) == 6 * 16


@pytest.mark.parametrize("workers", [0, 2])
def test_pair_loader__goes_on_as_if_it_had_not_stopped(tiny_data: Path, reference: list[Epoch], workers: int) -> None:
    loader = paired(tiny_data, workers=workers)  # a resumed run begins in a later epoch
    assert run_through(loader, [1]) == reference[1:2]
    loader.reset()
    assert run_through(loader, [1, 2]) == reference[1:]
    loader.close()


@pytest.mark.parametrize("workers", [0, 2])
def test_pair_loader__the_same_after_mosaic_is_closed(tiny_data: Path, reference: list[Epoch], workers: int) -> None:
    def close(loader: Any) -> None:
        loader.dataset.close_mosaic(training_args(**MIXED))
        loader.reset()

    whole, late = paired(tiny_data, workers=workers), paired(tiny_data)
    run_through(whole, [0, 1])
    close(whole)
    close(late)
    closed = run_through(whole, [2])
    whole.close()
    assert closed == run_through(late, [2])
    assert names(closed[0]) == names(reference[2])
    assert closed != reference[2:]


def test_sample__leaves_all_random_states_as_they_were(tiny_data: Path) -> None:
    loader = paired(tiny_data)
    before = random.getstate(), np.random.get_state(), torch.get_rng_state()
    run_through(loader)
    with pytest.raises(IndexError):
        loader.dataset[Key(99, epoch=0, epochs=EPOCHS)]
    after = random.getstate(), np.random.get_state(), torch.get_rng_state()
    assert before[0] == after[0]
    assert all(np.array_equal(x, y) for x, y in zip(before[1], after[1], strict=True))
    assert torch.equal(before[2], after[2])


@pytest.mark.parametrize("changes", [{}, {"copy_paste": 1.0, "copy_paste_mode": "mixup"}])
def test_sample__does_not_depend_on_what_was_loaded_before(tmp_path: Path, changes: dict[str, Any]) -> None:
    data = make_data(tmp_path / "data")
    for file in (tmp_path / "data" / "labels" / "train").iterdir():  # copies are pasted by their outlines
        file.write_text("0 0.1 0.1 0.4 0.1 0.4 0.4 0.1 0.4")
    first = paired(data, mosaic=1.0, **changes).dataset
    assert type(first) is EpochSet
    forwards = [first[key]["img"] for key in KEYS]
    second = paired(data, mosaic=1.0, **changes).dataset
    second.transforms = second.build_transforms(training_args(**{**MIXED, "mosaic": 1.0, **changes}))
    backwards = [second[key]["img"] for key in reversed(KEYS)]
    assert all(torch.equal(x, y) for x, y in zip(forwards, reversed(backwards), strict=True))


def test_sample__albumentations_own_generator_follows(tiny_data: Path) -> None:
    class Noise:
        """Behaves as a pipeline of albumentations does: seeded once, then a stream of its own."""

        seed: int | None = None

        def set_random_seed(self, seed: int) -> None:
            self.seed, self.rng = seed, np.random.default_rng(seed)

        def __call__(self, image: Any) -> dict[str, Any]:
            return {"image": self.rng.integers(0, 256, image.shape, dtype=np.uint8)}

    def noisy() -> Any:
        dataset = paired(tiny_data).dataset
        step = next(t for t in dataset.transforms.transforms if type(t).__name__ == "Albumentations")
        step.transform, step.contains_spatial = Noise(), False
        return dataset

    forwards, backwards = noisy(), noisy()
    before = [forwards[key]["img"] for key in KEYS]
    after = [backwards[key]["img"] for key in reversed(KEYS)]
    assert all(torch.equal(x, y) for x, y in zip(before, reversed(after), strict=True))


@pytest.mark.parametrize("first", ["ikd", "pairing"])
def test_pair_loader__ikd_draws_from_a_stream_of_its_own(tmp_path: Path, first: str) -> None:
    data = make_data(tmp_path / "data")
    for file in (tmp_path / "data" / "labels" / "train").iterdir():
        file.write_text("0 0.5 0.5 0.6 0.7\n1 0.3 0.4 0.21 0.53")  # large enough to be cropped

    def load(crop: float) -> Any:
        loader, config = unpaired(data, cutmix=0.0), SimpleNamespace(noise=0.0, crop=crop, until=1.0)
        steps: list[Any] = [partial(augment_loader, config=config), sample_deterministically]
        for step in steps if first == "ikd" else reversed(steps):
            step(loader, seed=0, current_epoch=lambda: (0, EPOCHS))
        return loader.dataset

    plain, whole, cut = paired(data, cutmix=0.0).dataset, load(1.0), load(0.5)
    assert type(whole) is SampleSpecific
    for key in KEYS:
        assert torch.equal(whole[key]["img"], plain[key]["img"])
        assert torch.allclose(whole[key]["bboxes"], plain[key]["bboxes"], atol=1e-6)
        assert not torch.equal(cut[key]["img"], plain[key]["img"])


@pytest.mark.parametrize("workers", [0, 2])
def test_pair_loader__across_devices_each_rank_takes_its_share_of_one_order(
    tiny_data: Path, reference: list[Epoch], monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    ranks = []
    for rank in range(2):
        sampler = partial(DistributedSampler, num_replicas=2, rank=rank)
        monkeypatch.setattr(build.distributed, "DistributedSampler", sampler)
        loader = paired(tiny_data, rank=rank, workers=workers)
        epochs = []
        for epoch in range(EPOCHS):
            loader.sampler.set_epoch(epoch)  # as the trainer does
            epochs += run_through(loader, [epoch])
        loader.close()
        ranks.append(epochs)
    for one, other, alone in zip(*ranks, reference, strict=True):
        assert len(one) == len(other) == 2
        assert sorted(images(one) + images(other)) == sorted(images(alone))
    assert len({tuple(names(epoch)) for epoch in ranks[0]}) == EPOCHS


def test_pair_loader__an_order_that_is_not_shuffled_stays(tiny_data: Path) -> None:
    epochs = run_through(paired(tiny_data, shuffle=False, rect=True))
    assert all(names(epoch) == sorted(names(epoch)) for epoch in epochs)
    assert epochs == run_through(paired(tiny_data, shuffle=False, rect=True, workers=2))


# Whole runs


BUDGET = ("train.val=false", "train.close_mosaic=1", "train.deterministic=false", "train.mixup=0.3", "train.workers=0")


@pytest.fixture(scope="module")
def pair(teacher_pt: Path, student_yaml: Path, tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    return Pair(teacher_pt, student_yaml, tiny_data, tmp_path_factory.mktemp("runs"))


def watched(
    run: Callable[[], Any], *, fail_at: int = -1, error: BaseException | None = None, save: bool = False
) -> dict[int, Epoch]:
    """What each epoch of a run shows to the model; the n-th batch of all may fail instead. The run is not finished."""
    epochs: dict[int, Epoch] = {}
    original = DistillTrainer.preprocess_batch
    count = 0

    def preprocess_batch(self: DistillTrainer, batch: dict[str, Any]) -> Any:
        nonlocal count
        count += 1
        if count - 1 == fail_at and error is not None:
            raise error
        epochs.setdefault(self.epoch, []).append(shown(batch))
        return original(self, batch)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(DistillTrainer, "preprocess_batch", preprocess_batch)
        patch.setattr(DistillTrainer, "final_eval", lambda self: None)
        if not save:
            patch.setattr(DistillTrainer, "save_model", lambda self: True)
        with pytest.raises(KeyboardInterrupt) if isinstance(error, KeyboardInterrupt) else nullcontext():
            run()
    return epochs


def trained(pair: Pair, recipe: str, *overrides: str) -> dict[int, Epoch]:
    return watched(lambda: start(pair.plan(recipe, [*BUDGET, *overrides]), paired=True))


@pytest.fixture(scope="module")
def baseline(pair: Pair) -> dict[int, Epoch]:
    return trained(pair, "baseline")


@pytest.mark.slow
def test_start__paired_arms_see_the_same(pair: Pair, baseline: dict[int, Epoch]) -> None:
    assert list(baseline) == [0, 1, 2]
    assert all(len(names(epoch)) == 16 for epoch in baseline.values())
    assert trained(pair, "baseline", "train.workers=2") == baseline
    assert trained(pair, "bckd_ssim") == baseline
    assert trained(pair, "ultralytics") == baseline
    assert trained(pair, "baseline", "train.seed=1") != baseline


@pytest.mark.slow
def test_start__ikd_changes_images_and_nothing_else(pair: Pair, baseline: dict[int, Epoch]) -> None:
    ikd = ("augment.ikd.adversarial=null", "augment.ikd.until=0.67")
    off = trained(pair, "ikd", *ikd, "augment.ikd.noise=0", "augment.ikd.crop=1")
    assert off == baseline
    on = trained(pair, "ikd", *ikd, "augment.ikd.noise=1", "train.workers=2")
    assert [names(epoch) for epoch in on.values()] == [names(epoch) for epoch in baseline.values()]
    assert not set(images(on[0] + on[1])) & set(images(baseline[0] + baseline[1]))
    assert on[2] == baseline[2]  # past its share of the epochs


def test_resume__a_paired_run_goes_on_as_if_it_had_not_stopped(pair: Pair, baseline: dict[int, Epoch]) -> None:
    plan = pair.plan("baseline", [*BUDGET, "train.workers=2"])
    before = watched(lambda: start(plan, paired=True), fail_at=3, error=KeyboardInterrupt(), save=True)
    assert before == {0: baseline[0], 1: baseline[1][:1]}
    after = watched(lambda: resume(str(plan.folder)))
    assert after == {1: baseline[1], 2: baseline[2]}


def test_start__a_batch_that_is_halved_for_memory_keeps_the_order(pair: Pair, baseline: dict[int, Epoch]) -> None:
    plan = pair.plan("baseline", BUDGET)
    halved = watched(lambda: start(plan, paired=True), fail_at=0, error=RuntimeError("out of memory"))
    for epoch, batches in baseline.items():
        assert [len(batch) for batch in halved[epoch]] == [4] * 4
        assert images(halved[epoch]) == images(batches)


def test_start__paired_runs_have_one_size(pair: Pair) -> None:
    with pytest.raises(UserError, match=r"leave train\.multi_scale out"):
        start(pair.plan("baseline", ["train.multi_scale=0.5"]), paired=True)
