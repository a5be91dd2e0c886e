"""Samples that know their epoch: it travels inside the loader's keys, since workers outlive epochs and load ahead."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any, NamedTuple

from yolokd.backend.api import InfiniteDataLoader, YOLODataset
from yolokd.loaders.answers import AnswerTable, with_answers

if TYPE_CHECKING:
    from yolokd.loaders.sampling import Pairing

CurrentEpoch = Callable[[], tuple[int, int]]


class Key(NamedTuple):
    """What the loader asks the data set for."""

    image: int  # its place in the data set
    epoch: int  # that the sample is for, from 0
    epochs: int  # of the run, as known when that epoch's loading began
    turn: int | None = None  # over the images, where these are not gone through once per epoch


class EpochBatches:
    """Batches of keys without end; takes the place of Ultralytics' repeating sampler, in the main process only."""

    def __init__(self, sampler: Any, current_epoch: CurrentEpoch) -> None:
        self.sampler = sampler  # the loader asks it for its length
        self.current_epoch = current_epoch
        self.pairing: Pairing | None = None

    def __iter__(self) -> Iterator[list[Key]]:
        """Yield the batches of epoch after epoch, from the current one."""
        epoch, _ = self.current_epoch()
        while True:
            epochs = self.current_epoch()[1]
            if self.pairing is not None:
                self.pairing.shuffle(self.sampler.sampler, epoch)
            for batch in self.sampler:
                yield [Key(image, epoch, epochs) for image in batch]
            epoch += 1


class EpochSet(YOLODataset):
    """A training set that is asked by `Key`.

    Attributes:
        pairing: Where a sample's random numbers come from; None leaves them to Ultralytics.
        answers: What teachers saw in each image, augmented along with its labels; None for nothing. Such a box's class
            is the number of the data's classes plus its row in `AnswerTable.probabilities`.
    """

    pairing: Pairing | None = None
    answers: AnswerTable | None = None

    def update_labels_info(self, label: dict[str, Any]) -> dict[str, Any]:
        """Turn a label into instances as Ultralytics does, the teachers' boxes after its own."""
        if self.answers is not None:
            with_answers(label, self.answers, len(self.data["names"]))
        result: dict[str, Any] = super().update_labels_info(label)
        return result

    def __getitem__(self, key: Key) -> dict[str, Any]:
        """Return a sample, augmented in every way."""
        with nullcontext() if self.pairing is None else self.pairing.sample(key):
            sample: dict[str, Any] = super().__getitem__(key.image)
        return sample

    def build_transforms(self, hyp: Any) -> Any:
        """Build them as Ultralytics does, which is also done when mosaic is closed."""
        transforms = super().build_transforms(hyp)
        if self.pairing is not None and self.pairing.wide:
            self.pairing.widen(transforms)
        return transforms


def send_epochs(loader: InfiniteDataLoader, kind: type[EpochSet], current_epoch: CurrentEpoch) -> Any:
    """Make a training loader's keys carry the epoch, in place and before its first use; may be called repeatedly.

    Args:
        loader: Ultralytics' loader of a detection data set.
        kind: What its data set becomes, unless it is that already.
        current_epoch: Gives the current epoch, from 0, and the number of epochs. The first is asked for when the
            loader starts anew, the second whenever it begins another epoch, which is ahead of the training.

    Returns:
        The loader's data set.
    """
    if not isinstance(loader.batch_sampler, EpochBatches):
        batches = EpochBatches(loader.batch_sampler.sampler, current_epoch)
        object.__setattr__(loader, "batch_sampler", batches)  # the loader itself replaces its sampler in this way
    dataset = loader.dataset
    if not isinstance(dataset, kind):
        dataset.__class__ = kind  # Ultralytics fixes the class where it builds; its transforms hold this object
    return dataset
