"""The stream of unlabeled images: what it shows when, and that the labeled ones never notice it."""

from __future__ import annotations

import os
import random
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.helpers.batches import MIXED, shown
from tests.helpers.fixtures import Pair
from tests.helpers.models import training_args
from tests.helpers.runs import rows, stop_after
from tests.helpers.unlabeled import make_images, state_of
from yolokd.data.layout import images_of
from yolokd.errors import DataError
from yolokd.loaders.epoch_sampler import Key
from yolokd.loaders.sampling import UNLABELED, Pairing
from yolokd.loaders.unlabeled_loader import Turns, UnlabeledSet, UnlabeledStream, build_set
from yolokd.training.run import resume, start
from yolokd.training.trainer import DistillTrainer

DATA = {"names": {0: "a", 1: "b", 2: "c"}, "nc": 3, "channels": 3}
STREAM = Pairing(0, stream=(UNLABELED,))
LIKE = torch.zeros(1, 3, 64, 64)
Shown = tuple[list[str], Tensor]


@pytest.fixture(scope="session")
def free(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_images(tmp_path_factory.mktemp("free"))


def turns(count: int, *, epoch: int = 0, pairing: Pairing = STREAM, **options: Any) -> Turns:
    return Turns(count, pairing, lambda: (epoch, 9), **{"batch": 3, "steps": 2, **options})


def keys(source: Turns, batches: int) -> list[list[Key]]:
    return list(islice(source, batches))


def test_turns__every_image_once_a_turn_in_a_new_order() -> None:
    flat = list(chain.from_iterable(keys(turns(6), 4)))
    first, second = [key.image for key in flat[:6]], [key.image for key in flat[6:]]
    assert sorted(first) == sorted(second) == list(range(6))
    assert first != second
    assert [key.turn for key in flat] == [0] * 6 + [1] * 6
    assert [key.epoch for key in flat] == [0] * 6 + [1] * 6  # two batches of three are an epoch


def test_turns__an_epoch_begins_where_the_one_before_ended() -> None:
    whole = keys(turns(7), 8)
    for epoch in range(4):
        assert keys(turns(7, epoch=epoch), 2) == whole[2 * epoch : 2 * epoch + 2]


def test_turns__processes_share_a_step() -> None:
    whole = keys(turns(7, batch=6), 6)
    shares = [keys(turns(7, rank=rank, ranks=2), 6) for rank in (0, 1)]
    assert [[*first, *second] for first, second in zip(*shares, strict=True)] == whole


def test_turns__fewer_images_than_a_step_takes() -> None:
    (batch,) = keys(turns(2, batch=5), 1)
    assert [key.turn for key in batch] == [0, 0, 1, 1, 2]


def test_turns__depend_on_the_seed() -> None:
    assert keys(turns(9), 3) != keys(turns(9, pairing=Pairing(1, stream=(UNLABELED,))), 3)


def make_set(free: Path, *, wide: bool = True, **changes: Any) -> UnlabeledSet:
    args = training_args(**{"deterministic": False, **MIXED, **changes})
    return build_set(images_of(free), args, DATA, Pairing(0, stream=(UNLABELED,), wide=wide), batch=3, stride=32)


def stream(free: Path, *, workers: int = 0, epoch: int = 0, **changes: Any) -> UnlabeledStream:
    dataset = make_set(free, **changes)
    return UnlabeledStream(dataset, turns(len(dataset), epoch=epoch), workers=workers)


def take(source: UnlabeledStream, steps: int) -> list[Shown]:
    images = [source.images(LIKE) for _ in range(steps)]
    return [(files, image) for image, files, _ in images]


def same(one: list[Shown], other: list[Shown]) -> bool:
    return all(a[0] == b[0] and torch.equal(a[1], b[1]) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("cache", [False, "ram"])
def test_images__do_not_depend_on_workers_nor_on_what_was_loaded(free: Path, cache: Any) -> None:
    alone = take(stream(free, cache=cache), 6)
    assert same(alone, take(stream(free, workers=2, cache=cache), 6))
    assert same(alone[2:], take(stream(free, epoch=1, cache=cache), 4))
    assert not same(alone[:2], alone[4:])
    assert all(images.shape == (3, 3, 64, 64) and images.dtype == torch.float32 for _, images in alone)


def test_images__take_the_labeled_images_size(free: Path) -> None:
    images, _, boxes = stream(free).images(torch.zeros(2, 3, 96, 96))
    assert images.shape == (3, 3, 96, 96)
    assert boxes["bboxes"].shape == (0, 4)


@pytest.mark.parametrize("wide", [True, False])
@pytest.mark.parametrize("cache", [False, "ram", "disk"])
def test_images__leave_the_runs_random_numbers_and_the_folder_alone(free: Path, cache: Any, wide: bool) -> None:
    before = state_of(free)
    states = random.getstate(), np.random.get_state()[1].copy(), torch.get_rng_state()  # type: ignore[index]
    source = stream(free, cache=cache, wide=wide)
    take(source, 4)
    assert random.getstate() == states[0]
    assert np.array_equal(np.random.get_state()[1], states[1])  # type: ignore[index]
    assert torch.equal(torch.get_rng_state(), states[2])
    assert state_of(free) == before


def test_images__decoded_images_that_lie_beside_are_neither_read_nor_deleted(tmp_path: Path) -> None:
    free = make_images(tmp_path / "free", 2)
    before = take(stream(free), 2)
    (free / "free0.npy").write_bytes(b"not an array")
    assert same(before, take(stream(free), 2))
    assert (free / "free0.npy").read_bytes() == b"not an array"


def test_close_mosaic__shows_single_images_from_then_on(free: Path) -> None:
    off = ("mixup", "cutmix", "degrees", "translate", "scale", "bgr", "hsv_h", "hsv_s", "hsv_v")
    plain: dict[str, Any] = {"mosaic": 1.0, **dict.fromkeys(off, 0.0)}
    source = stream(free, workers=2, **plain)
    first = take(source, 2)
    source.close_mosaic(training_args(**plain))
    after = take(source, 2)
    assert [files for files, _ in after] == [files for files, _ in first]  # the same epoch again
    gray = [(images * 255).round().eq(114).all(1).float().mean((1, 2)) for _, images in after]
    assert all(bool((share > 0.2).all()) for share in gray)  # 48 of 64 rows are the image's


def test_ikd__changes_them_as_long_as_it_lasts(free: Path) -> None:
    dataset = make_set(free, mosaic=0.0, mixup=0.0, cutmix=0.0)
    plain = dataset[Key(0, 0, 4, 0)]["img"]
    dataset.noise, dataset.until = 1.0, 0.5
    assert not torch.equal(dataset[Key(0, 0, 4, 0)]["img"], plain)
    assert torch.equal(dataset[Key(0, 2, 4, 0)]["img"], plain)


# Whole runs

Step = tuple[int, list[tuple[str, str]], list[str], Tensor]


def watch(patch: pytest.MonkeyPatch) -> list[Step]:
    """Record epoch, labeled images, and names and pixels of the unlabeled ones of each step to come."""
    seen: list[Step] = []
    original = DistillTrainer.preprocess_batch

    def preprocess(self: DistillTrainer, data: dict[str, Any]) -> dict[str, Any]:
        data = original(self, data)
        files = [Path(file).name for file in data.get("unlabeled_file", ())]
        seen.append((self.epoch, shown(data), files, data.get("unlabeled", torch.empty(0)).clone()))
        return data

    patch.setattr(DistillTrainer, "preprocess_batch", preprocess)
    return seen


@pytest.mark.slow
@pytest.mark.parametrize(("workers", "paired"), [(0, True), (2, True), (0, False)])
def test_start__labeled_batches_are_the_same_with_and_without(
    tiny_pair: Pair, free: Path, monkeypatch: pytest.MonkeyPatch, workers: int, paired: bool
) -> None:
    before = state_of(free)
    seen = watch(monkeypatch)
    overrides = [f"train.workers={workers}", "train.close_mosaic=1"]
    start(tiny_pair.plan("bckd", overrides, epochs=2, name="without"), paired=paired)
    run = start(tiny_pair.plan("bckd", overrides, epochs=2, name="with", unlabeled=str(free)), paired=paired)
    assert len(seen) == 8
    assert [step[:2] for step in seen[:4]] == [step[:2] for step in seen[4:]]
    assert all(len(step[2]) == 8 and step[3].shape == (8, 3, 64, 64) for step in seen[4:])
    assert all(0 <= float(step[3].min()) < float(step[3].max()) <= 1 for step in seen[4:])
    assert float(rows(run)[0]["train/kd_bckd_cls"]) > 0
    assert state_of(free) == before


@pytest.mark.slow
def test_resume__goes_on_with_the_images_that_were_next(
    tiny_pair: Pair, free: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    overrides = ["train.close_mosaic=1"]
    plans = [
        tiny_pair.plan("bckd", overrides, unlabeled=os.path.relpath(free), name=name) for name in ("whole", "broken")
    ]
    with monkeypatch.context() as patch:
        whole = watch(patch)
        start(plans[0], paired=True)
    with monkeypatch.context() as patch:
        stop_after(patch, 2)
        with pytest.raises(KeyboardInterrupt):
            start(plans[1], paired=True)
    monkeypatch.chdir(free)  # the run knows where its images lie
    with monkeypatch.context() as patch:
        rest = watch(patch)
        resume(str(plans[1].folder))
    assert len(rest) == 2
    for step, expected in zip(rest, whole[4:], strict=True):
        assert step[:3] == expected[:3]
        assert torch.equal(step[3], expected[3])


@pytest.mark.slow
def test_resume__images_that_are_gone(tiny_pair: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    free = make_images(tmp_path / "free", 4)
    plan = tiny_pair.plan("bckd", unlabeled=str(free))
    with monkeypatch.context() as patch:
        stop_after(patch, 1)
        with pytest.raises(KeyboardInterrupt):
            start(plan)
    free.rename(tmp_path / "elsewhere")
    with pytest.raises(DataError, match="no unlabeled images at"):
        resume(str(plan.folder))


@pytest.mark.slow
def test_start__everything_takes_them_and_says_so(tiny_pair: Pair, free: Path) -> None:
    plan = tiny_pair.plan("everything", ["train.multi_scale=0.5"], epochs=1, unlabeled=str(free))
    run = start(plan)
    assert all(float(rows(run)[0][f"train/kd_{term}"]) > 0 for term in plan.recipe.terms())
    assert '"pictures": 10' in (run / "provenance.json").read_text()
    assert str(free) in (run / "recipe.yaml").read_text()
    assert "unlabeled" not in (run / "args.yaml").read_text().split("yolokd:")[0]
