"""Loading unlabeled images: a stream of their own beside the labeled loader, in step with it.

They are augmented as Ultralytics augments the labeled ones, mosaic among themselves. Whatever is random is drawn from
a stream of numbers of its own, paired run or not, so that the labeled images stay what they are without. Nothing is
written beside the images, and nothing but the images is read there.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from copy import copy
from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader

from yolokd.backend.api import RANK, unwrap_model
from yolokd.backend.image_set import WithoutLabels
from yolokd.loaders.augmentation import SampleSpecific
from yolokd.loaders.epoch_sampler import CurrentEpoch, Key
from yolokd.loaders.sampling import ORDER, UNLABELED, Pairing, kept_generators
from yolokd.loaders.unlabeled import find_unlabeled


class UnlabeledSet(WithoutLabels, SampleSpecific):
    """Images without labels, augmented as Ultralytics does; asked by `Key`."""

    noise, crop, until, seed = 0.0, 1.0, 0.0, 0  # without IKD's augmentation


def build_set(
    files: Sequence[str], args: Any, data: Mapping[str, Any], pairing: Pairing, *, batch: int, stride: int
) -> UnlabeledSet:
    """Return the data set, built as `build_yolo_dataset` of Ultralytics builds the labeled one.

    Args:
        files: The images.
        args: The trainer's arguments; `fraction` and `rect` do not apply, and nothing is cached on disk.
        data: The labeled data's description, for the number of channels.
        pairing: Where a sample's random numbers come from.
        batch: Images per step.
        stride: The model's largest.
    """
    with kept_generators():  # looking for memory to cache in draws from them
        dataset = UnlabeledSet(
            list(files),
            imgsz=args.imgsz,
            batch_size=batch,
            augment=True,
            hyp=args,
            cache=None if args.cache == "disk" else args.cache or None,
            stride=stride,
            pad=0.0,
            prefix="unlabeled: ",
            task=args.task,
            data=dict(data),
        )
    dataset.pairing = pairing
    if pairing.wide:
        pairing.widen(dataset.transforms)
    return dataset


class Turns:
    """Batches of keys without end: turn after turn over all images, each turn in an order of its own.

    Where an epoch begins depends on its number only, so a resumed run goes on with the images that were next.
    """

    def __init__(
        self,
        images: int,
        pairing: Pairing,
        current_epoch: CurrentEpoch,
        *,
        batch: int,
        steps: int,
        rank: int = 0,
        ranks: int = 1,
    ) -> None:
        """Prepare for one process.

        Args:
            images: How many there are.
            pairing: Where the orders come from.
            current_epoch: Gives the current epoch, from 0, and the number of epochs; see `send_epochs`.
            batch: Images per step of this process.
            steps: Steps per epoch.
            rank: Number of this process among those that train.
            ranks: How many train; each takes its share of a step's images.
        """
        self.images, self.pairing, self.current_epoch = images, pairing, current_epoch
        self.batch, self.steps, self.rank, self.ranks = batch, steps, rank, ranks
        self._order = lru_cache(maxsize=2)(self._shuffled)

    def __iter__(self) -> Iterator[list[Key]]:
        """Yield the batches of epoch after epoch, from the current one."""
        epoch, _ = self.current_epoch()
        while True:
            epochs = self.current_epoch()[1]
            for step in range(epoch * self.steps, (epoch + 1) * self.steps):
                first = (step * self.ranks + self.rank) * self.batch
                places = (divmod(place, self.images) for place in range(first, first + self.batch))
                yield [Key(self._order(turn)[place], epoch, epochs, turn) for turn, place in places]
            epoch += 1

    def _shuffled(self, turn: int) -> list[int]:
        generator = torch.Generator().manual_seed(self.pairing.numbers(ORDER, turn)[0])
        order: list[int] = torch.randperm(self.images, generator=generator).tolist()
        return order


class UnlabeledStream:
    """An endless stream of unlabeled images; loading begins with the first call of `images`."""

    def __init__(self, dataset: UnlabeledSet, turns: Turns, *, workers: int = 0, pin_memory: bool = False) -> None:
        self.dataset = dataset
        self._loader: DataLoader[dict[str, Any]] = DataLoader(
            dataset,
            batch_sampler=turns,
            num_workers=workers,
            prefetch_factor=4 if workers else None,
            pin_memory=pin_memory,
            collate_fn=dataset.collate_fn,
            generator=torch.Generator(),  # else the workers' seeds, which nothing here uses, come from the run's own
        )
        self._batches: Iterator[dict[str, Any]] | None = None

    def images(self, like: Tensor) -> tuple[Tensor, list[str], dict[str, Tensor]]:
        """Return the next images in [0, 1], (U, 3, H, W), their files, and the teachers' boxes as loaded, on the CPU.

        Args:
            like: The step's labeled images, (B, 3, H, W): device and size are theirs.
        """
        if self._batches is None:
            self._batches = iter(self._loader)
        batch = next(self._batches)
        images = batch["img"].to(like.device, non_blocking=like.device.type not in {"cpu", "mps"}).float() / 255
        if images.shape[-2:] != like.shape[-2:]:  # multi_scale
            images = F.interpolate(images, size=like.shape[-2:], mode="bilinear", align_corners=False)
        boxes = {key: batch[key] for key in ("batch_idx", "cls", "bboxes")}
        return images, list(batch["im_file"]), boxes

    def close_mosaic(self, hyp: Any) -> None:
        """Go on without mosaic, from the beginning of the current epoch."""
        self.dataset.close_mosaic(hyp)
        self._batches = None  # workers hold copies of the data set


def stream_beside(loader: Any, trainer: Any, current_epoch: CurrentEpoch) -> UnlabeledStream | None:
    """Return the unlabeled images that go with a training loader; None if the recipe names none.

    Args:
        loader: Ultralytics' loader of the labeled images of this process.
        trainer: The trainer that asks for it.
        current_epoch: Gives the current epoch, from 0, and the number of epochs.

    Raises:
        UserError: See `find_unlabeled`.
    """
    found = find_unlabeled(trainer.recipe)
    if found is None:
        return None
    args, ikd = copy(trainer.args), trainer.recipe.augment.ikd
    args.imgsz = loader.dataset.imgsz  # which may be larger than the student's
    batch = found.per_step(loader.batch_size)
    pairing = Pairing(args.seed, stream=(UNLABELED,), wide=trainer.settings.paired)
    stride = max(int(unwrap_model(trainer.model).stride.max()), 32)
    dataset = build_set(found.files, args, trainer.data, pairing, batch=batch, stride=stride)
    if ikd is not None:
        dataset.noise, dataset.crop, dataset.until, dataset.seed = ikd.noise, ikd.crop, ikd.until, args.seed
    turns = Turns(
        len(dataset),
        pairing,
        current_epoch,
        batch=batch,
        steps=len(loader),
        rank=max(RANK, 0),
        ranks=max(trainer.world_size, 1),
    )
    return UnlabeledStream(dataset, turns, workers=loader.num_workers, pin_memory=loader.pin_memory)
