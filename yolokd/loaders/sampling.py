"""Paired runs: for one seed every run sees the same images, in the same order, with the same augmentation.

The order of an epoch is drawn from seed and epoch, the augmentation of an image from seed, epoch and image. So
neither the number of workers, nor what was loaded before, nor the random numbers of models and losses matter, nor those
of another augmentation such as IKD's, which has its own stream; and a resumed run goes on with the batches that it
would have had. Mosaic's partners come from the whole set, not from the images that were loaded last.

Across devices each rank takes its share of the one order, and an image looks the same on whichever rank: runs on
equally many devices are paired. Two events shift a run against its pair, and both are in its log: running out of memory
halves the batch, though not the order, and recovery from a loss that is not finite goes on with the next epoch's
batches. OpenCV's own generator is left alone; Ultralytics does not use it.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.utils.data import DistributedSampler, RandomSampler

from yolokd.backend.api import InfiniteDataLoader, Mosaic
from yolokd.loaders.epoch_sampler import CurrentEpoch, EpochSet, Key, send_epochs

ORDER, SAMPLE, UNLABELED = range(3)  # what numbers are drawn for


def sample_deterministically(loader: InfiniteDataLoader, *, seed: int, current_epoch: CurrentEpoch) -> None:
    """Draw order and augmentation of a training loader from the seed, in place and before its first use.

    Args:
        loader: Ultralytics' loader of a detection data set, with or without IKD's augmentation.
        seed: Seed of the run, at least 0.
        current_epoch: Gives the current epoch, from 0, and the number of epochs; see `send_epochs`.
    """
    dataset = send_epochs(loader, EpochSet, current_epoch)
    dataset.pairing = loader.batch_sampler.pairing = Pairing(seed)
    dataset.pairing.widen(dataset.transforms)


@contextmanager
def kept_generators() -> Iterator[None]:
    """Put the global generators, those of the GPUs excepted, back where they were."""
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.set_rng_state(states[2])


@dataclass(frozen=True)
class Pairing:
    """Random numbers that depend on the seed and on what they are for, and on nothing else."""

    seed: int
    stream: tuple[int, ...] = ()  # keeps the numbers of another loader apart
    wide: bool = True  # mosaic chooses from the whole set

    def numbers(self, *purpose: int) -> list[int]:
        """Return three seeds of 32 bits."""
        sequence = np.random.SeedSequence(self.seed, spawn_key=(*self.stream, *purpose))
        return [int(word) for word in sequence.generate_state(3)]

    def shuffle(self, sampler: Any, epoch: int) -> None:
        """Fix the order in which a sampler is about to list the images; one that does not shuffle stays as it is."""
        number = self.numbers(ORDER, epoch)[0]
        if isinstance(sampler, DistributedSampler):
            sampler.seed, sampler.epoch = number, 0  # the trainer's `set_epoch` comes too late for what is loaded ahead
        elif isinstance(sampler, RandomSampler):
            sampler.generator = torch.Generator().manual_seed(number)

    @contextmanager
    def sample(self, key: Key) -> Iterator[None]:
        """Seed the global generators for one sample, then put them back where they were.

        Albumentations' own generator follows torch's: Ultralytics sets it whenever torch's seed has changed.
        """
        turn = key.epoch if key.turn is None else key.turn
        first, second, third = self.numbers(SAMPLE, turn, key.image)
        with kept_generators():
            random.seed(first)
            np.random.seed(second)
            torch.default_generator.manual_seed(third)  # `torch.manual_seed` would seed the GPUs as well
            yield

    @staticmethod
    def widen(transform: Any) -> None:
        """Let every mosaic within a transform choose from the whole set."""
        if isinstance(transform, Mosaic):
            transform.buffer_enabled = False
        for inner in (*getattr(transform, "transforms", ()), getattr(transform, "pre_transform", None)):
            if inner is not None:
                Pairing.widen(inner)
